"""Computes DISTS, a distance of structure and texture (Ding et al., arXiv:2004.07728).

VGG16 that torchvision trained, with L2 pooling instead of max pooling. Of the image and
of five of its activations, each channel's mean, variance and covariance over all pixels
are compared as SSIM does, with weights fitted to people's answers and to pairs of
patches of one texture. Means and variances don't say where something is, so DISTS
forgives texture that is drawn otherwise, which LPIPS does not.

Images are taken at their own size, as LPIPS takes them here and as the packages
DISTS_pytorch and pyiqa do. The authors' command line first downsamples larger images to
a shorter side of 256 pixels; values at different sizes don't compare.
"""

from collections.abc import Mapping
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.metrics import backbones
from sr3_jax.runtime.types import Params

Array = jax.Array

# The smallest side that leaves more than a pixel for the last layer: one has no
# variance.
SMALLEST = 17
# Keep channels that are zero everywhere from dividing by zero: c1 and c2 of the paper.
_C1 = _C2 = 1e-6
_EPSILON = 1e-12  # keeps the root of the pooling differentiable at zero


class Parameters(TypedDict):
  """Parameters of DISTS: of VGG16, and six weights [C] of the channels, for each term.

  The first weights are those of the image itself. All weights add up to 1.
  """

  backbone: Params
  texture: list[np.ndarray]  # alpha of the paper, of the means
  structure: list[np.ndarray]  # beta, of the covariances


def distance(params: Parameters, image: Array, truth: Array) -> Array:
  """Return the DISTS of pairs of images [B, H, W, 3] in [-1, 1].

  It is float32 [B]; 0 for identical images, about 0.5 for unrelated ones.

  Raises:
    ValueError: different shapes, or smaller than `SMALLEST`.
  """
  if image.shape != truth.shape:
    shapes = f'{image.shape}, {truth.shape}'
    raise ValueError(f'dists compares images of one shape, got {shapes}')
  if min(image.shape[1:3]) < SMALLEST:
    raise ValueError(
      f'dists needs images of at least {SMALLEST} x {SMALLEST} pixels, got '
      f'{image.shape[1]} x {image.shape[2]}: leave it out for such small images'
    )
  both = jnp.concatenate([image, truth])
  network = backbones.Backbone('vgg', l2_pool)
  # Flax returns more than the activations only where it is asked for it.
  seen = cast('list[jax.Array]', network.apply({'params': params['backbone']}, both))
  total = jnp.zeros(len(image))
  weights = zip(params['texture'], params['structure'], strict=True)
  for x, (texture, structure) in zip([both / 2 + 0.5, *seen], weights, strict=True):
    # One minus each similarity, rewritten as squares of differences: equal images have
    # exactly 0, and nothing is lost where a variance is small beside its mean.
    mean = x.mean(axis=(1, 2), keepdims=True)
    a, b = jnp.split(x - mean, 2)
    mean_a, mean_b = jnp.split(mean[:, 0, 0], 2)
    of_means = (mean_a - mean_b) ** 2 / (mean_a**2 + mean_b**2 + _C1)
    variances = (a**2 + b**2).mean(axis=(1, 2))
    of_structure = ((a - b) ** 2).mean(axis=(1, 2)) / (variances + _C2)
    # A sum, not a matrix product, which TPUs would round to bfloat16.
    total += jnp.sum(of_means * texture[None] + of_structure * structure[None], axis=1)
  return total


def l2_pool(x: Array, side: int) -> Array:
  """Return the root of weighted means of squares [B, ceil(H / 2), ceil(W / 2), C].

  The weights are Hann's window over 3 pixels, 1/4, 1/2 and 1/4, with zeros beyond the
  border. They are the paper's, whatever the `side` of the pool that they replace.
  """
  del side
  x = x**2
  for axis in (1, 2):
    length = x.shape[axis]
    pads = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, pads)
    first, middle, last = (
      jax.lax.slice_in_dim(padded, i, i + length, 2, axis) for i in range(3)
    )
    x = first / 4 + middle / 2 + last / 4
  return jnp.sqrt(x + _EPSILON)


def from_torch(tensors: Mapping[str, np.ndarray]) -> Parameters:
  """Return the parameters for `distance`, from PyTorch's by their names.

  `tensors` has torchvision's VGG16, and 'alpha' and 'beta' of the package
  DISTS_pytorch, [1, 1475, 1, 1] each.

  Raises:
    ValueError: a tensor is missing or of another shape, or the weights of channels add
      up to nothing; one line.
  """
  convs, channels = backbones.from_torch('vgg', tensors, 'DISTS')
  channels = [3, *channels]
  both = [
    backbones.take(tensors, name, (1, sum(channels), 1, 1), 'DISTS').reshape(-1)
    for name in ('alpha', 'beta')
  ]
  total = np.sum(both, dtype=np.float64)
  if not total > 0:
    raise ValueError('not the weights of DISTS: alpha and beta add up to nothing')
  places = np.cumsum(channels)[:-1]
  texture, structure = (np.split(np.float32(x / total), places) for x in both)
  return {'backbone': convs, 'texture': texture, 'structure': structure}
