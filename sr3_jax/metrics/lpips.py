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

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.metrics import backbones
from sr3_jax.runtime.types import Params

Array = jax.Array

# Keeps a pixel without any activation from dividing by zero.
_EPSILON = 1e-10

# The smallest side that leaves a pixel for the last layer.
SMALLEST = {'alex': 31, 'vgg': 16}


class Parameters(TypedDict):
  """Parameters of LPIPS: of its backbone, and five weights [C] of its channels."""

  backbone: Params
  weights: list[np.ndarray]


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
  network = backbones.Backbone(kind)
  seen = cast('list[jax.Array]', network.apply({'params': params['backbone']}, both))
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
  convs, channels = backbones.from_torch(kind, backbone, 'LPIPS')
  scales = [
    backbones.take(weights, f'lin{i}.model.1.weight', (1, n, 1, 1), 'LPIPS').reshape(n)
    for i, n in enumerate(channels)
  ]
  return {'backbone': convs, 'weights': scales}
