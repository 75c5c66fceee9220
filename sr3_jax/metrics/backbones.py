"""Runs AlexNet and VGG16, whose activations LPIPS and DISTS compare.

They are the networks that torchvision trained on ImageNet, up to the last activation
that is compared.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import numpy as np

from sr3_jax.runtime.types import Params

Array = jax.Array
# Halves the sides of activations [B, H, W, C]; it is given a side in pixels, too.
Pool = Callable[[Array, int], Array]

# ImageNet's mean and standard deviation, for images in [-1, 1].
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)[None, None, None]
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)[None, None, None]
# A layer is a convolution: its place in torchvision's `features`, channels, side,
# stride, padding, and whether its activations are compared. Or it is a pool of stride
# 2, given by its side.
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


def max_pool(x: Array, side: int) -> Array:
  """Return the largest activations of squares with a stride of 2, without padding."""
  return nn.max_pool(x, (side, side), strides=(2, 2), padding='VALID')


class Backbone(nn.Module):
  """The convolutions of a network."""

  kind: str  # 'alex' or 'vgg'
  pool: Pool = max_pool  # between the convolutions

  @nn.compact
  def __call__(self, image: Array) -> list[Array]:
    """Return the five activations for images [B, H, W, 3] in [-1, 1]."""
    x = (image - _SHIFT) / _SCALE
    seen = []
    for layer in _LAYERS[self.kind]:
      if isinstance(layer, int):
        x = self.pool(x, layer)
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


def from_torch(
  kind: str, tensors: Mapping[str, np.ndarray], metric: str
) -> tuple[Params, list[int]]:
  """Return the parameters of `Backbone`, and the channels of what is compared.

  `tensors` is torchvision's state dict of the `kind` 'alex' or 'vgg', `metric` what it
  is needed for.

  Raises:
    ValueError: a tensor is missing or of another shape; one line.
  """
  convs, channels, before = {}, [], 3
  for layer in _LAYERS[kind]:
    if isinstance(layer, int):
      continue
    place, after, side, _, _, compared = layer
    name = f'features.{place}'
    kernel = take(tensors, f'{name}.weight', (after, before, side, side), metric)
    convs[f'features_{place}'] = {
      'kernel': np.ascontiguousarray(np.transpose(kernel, (2, 3, 1, 0))),
      'bias': take(tensors, f'{name}.bias', (after,), metric),
    }
    before = after
    if compared:
      channels.append(after)
  return convs, channels


def take(
  tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], metric: str
) -> np.ndarray:
  """Return a tensor as float32.

  Raises:
    ValueError: it is missing or of another shape; one line that names the metric.
  """
  if name not in tensors:
    raise ValueError(f'not the weights of {metric}: no {name}')
  if tensors[name].shape != shape:
    given = tensors[name].shape
    raise ValueError(f'not the weights of {metric}: {name} is {given}, not {shape}')
  return np.asarray(tensors[name], np.float32)
