"""Computes LPIPS, the learned perceptual distance (Zhang et al., arXiv:1801.03924).

Version 0.1 with the AlexNet or the VGG16 that torchvision trained: activations after
five layers, scaled to unit length at every pixel, squared differences weighted per
channel (weights fitted to people's answers), averaged over pixels, summed over layers.
Papers mean AlexNet unless they say otherwise; its authors recommend VGG for training
only.

Images are taken at their own size: LPIPS knows no resizing, so values at different
sizes don't compare.
"""

from collections.abc import Mapping
from typing import TypedDict, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.runtime.types import Params

Array = jax.Array

# ImageNet's mean and standard deviation, for images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)[None, None, None]
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)[None, None, None]
# Keeps a pixel without any activation from dividing by zero.
_EPSILON = 1e-10

# A layer is a convolution: its place in torchvision's `features`, channels, side,
# stride, padding, and whether LPIPS compares its activations. Or it is a max pool of
# stride 2, given by its side.
_Layer = int | tuple[int, int, int, int, int, bool]
_LAYERS: dict[str, tuple[_Layer, ...]] = {
  'alex': (
    (0, 64, 11, 4, 2, True),
    3,
    (3, 192, 5, 1, 2, True),
    3,
    (6, 384, 3, 1, 1, True),
    (8, 256, 3, 1, 1, True),
    (10, 256, 3, 1, 1, True),
  ),
  'vgg': (
    (0, 64, 3, 1, 1, False),
    (2, 64, 3, 1, 1, True),
    2,
    (5, 128, 3, 1, 1, False),
    (7, 128, 3, 1, 1, True),
    2,
    (10, 256, 3, 1, 1, False),
    (12, 256, 3, 1, 1, False),
    (14, 256, 3, 1, 1, True),
    2,
    (17, 512, 3, 1, 1, False),
    (19, 512, 3, 1, 1, False),
    (21, 512, 3, 1, 1, True),
    2,
    (24, 512, 3, 1, 1, False),
    (26, 512, 3, 1, 1, False),
    (28, 512, 3, 1, 1, True),
  ),
}
# The smallest side that leaves a pixel for the last layer.
SMALLEST = {'alex': 31, 'vgg': 16}


class Parameters(TypedDict):
  """Parameters of LPIPS: of its backbone, and five weights [C] of its channels."""

  backbone: Params
  weights: list[np.ndarray]


class Backbone(nn.Module):
  """The network whose activations LPIPS compares."""

  kind: str  # 'alex' or 'vgg'

  @nn.compact
  def __call__(self, image: Array) -> list[Array]:
    """Return the five activations for images [B, H, W, 3] in [-1, 1]."""
    x = (image - _SHIFT) / _SCALE
    seen = []
    for layer in _LAYERS[self.kind]:
      if isinstance(layer, int):
        x = nn.max_pool(x, (layer, layer), strides=(2, 2), padding='VALID')
        continue
      place, channels, side, stride, padding, compared = layer
      conv = nn.Conv(
        channels,
        (side, side),
        strides=stride,
        padding=padding,
        precision=jax.lax.Precision.HIGHEST,
        name=f'features_{place}',
      )
      x = nn.relu(conv(x))
      if compared:
        seen.append(x)
    return seen


def distance(params: Parameters, image: Array, truth: Array) -> Array:
  """Return the LPIPS of pairs of images [B, H, W, 3] in [-1, 1].

  It is float32 [B]; 0 for identical images, about 0.7 for unrelated ones.

  Raises:
    ValueError: different shapes, or smaller than `SMALLEST`.
  """
  if image.shape != truth.shape:
    shapes = f'{image.shape}, {truth.shape}'
    raise ValueError(f'lpips compares images of one shape, got {shapes}')
  kind = 'alex' if len(params['backbone']) == 5 else 'vgg'
  if min(image.shape[1:3]) < SMALLEST[kind]:
    least = f'{SMALLEST[kind]} x {SMALLEST[kind]}'
    raise ValueError(
      f'lpips with {kind} needs images of at least {least} pixels, got '
      f'{image.shape[1]} x {image.shape[2]}: leave it out for such small images'
    )
  both = jnp.concatenate([image, truth])
  # Flax returns more than the activations only where it is asked for it.
  seen = cast(
    'list[jax.Array]', Backbone(kind).apply({'params': params['backbone']}, both)
  )
  total = jnp.zeros(len(image))
  for activations, weights in zip(seen, params['weights'], strict=True):
    length = jnp.sqrt(jnp.sum(activations**2, axis=-1, keepdims=True))
    a, b = jnp.split(activations / (length + _EPSILON), 2)
    # A sum, not a matrix product, which TPUs would round to bfloat16.
    total += jnp.sum((a - b) ** 2 * weights[None, None, None], -1).mean(axis=(1, 2))
  return total


def from_torch(
  kind: str, backbone: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]
) -> Parameters:
  """Return the parameters for `distance`, from PyTorch's by their names.

  `backbone` is torchvision's state dict of the `kind` 'alex' or 'vgg', `weights` that
  of the `lpips` package.

  Raises:
    ValueError: a tensor is missing or of another shape; one line.
  """
  convs, channels, before = {}, [], 3
  for layer in _LAYERS[kind]:
    if isinstance(layer, int):
      continue
    place, after, side, _, _, compared = layer
    name = f'features.{place}'
    kernel = _take(backbone, f'{name}.weight', (after, before, side, side))
    convs[f'features_{place}'] = {
      'kernel': np.ascontiguousarray(np.transpose(kernel, (2, 3, 1, 0))),
      'bias': _take(backbone, f'{name}.bias', (after,)),
    }
    before = after
    if compared:
      channels.append(after)
  scales = [
    _take(weights, f'lin{i}.model.1.weight', (1, n, 1, 1)).reshape(n)
    for i, n in enumerate(channels)
  ]
  return {'backbone': convs, 'weights': scales}


def _take(
  tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
  """Return a tensor as float32, or raise ValueError if it isn't there like this."""
  if name not in tensors:
    raise ValueError(f'not the weights of LPIPS: no {name}')
  if tensors[name].shape != shape:
    given = tensors[name].shape
    raise ValueError(f'not the weights of LPIPS: {name} is {given}, not {shape}')
  return np.asarray(tensors[name], np.float32)
