"""Fills holes of images smoothly, so that a network starts from more than grey."""

import math
from types import ModuleType
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.runtime.types import Array

A = TypeVar('A', np.ndarray, jax.Array)

_SWEEPS = 8  # at each resolution


def smooth(image: A, mask: Array) -> A:
  """Return images whose missing pixels are about the mean of their neighbours.

  That is the membrane over the hole: the solution of Laplace's equation with the known
  pixels as boundary and no slope across the border of the image. It is found from
  coarse to fine: pixels are averaged 2 x 2 as long as some are missing, and what a
  resolution finds is where the next finer one starts, which then averages neighbours
  a few times. An image of which no pixel is known is left as it is.

  Args:
    image: float32 [B, H, W, C]; values of missing pixels don't count.
    mask: float32 [B, H, W, 1]: 1 is missing, 0 known.

  Returns:
    float32 [B, H, W, C], NumPy's or JAX's as the image is. Known pixels are unchanged.
  """
  xp = np if isinstance(image, np.ndarray) else jnp
  known: Array = 1 - mask
  pixels: Array = image * known
  some = xp.max(known, (1, 2, 3), keepdims=True)
  levels = [(pixels, known)]
  for _ in range(math.ceil(math.log2(max(image.shape[1:3])))):
    total, count = _halved(xp, pixels * known), _halved(xp, known)
    pixels, known = total / xp.maximum(count, 1), xp.minimum(count, 1)
    levels.append((pixels, known))
  filled = pixels
  for pixels, known in reversed(levels[:-1]):
    height, width = pixels.shape[1:3]
    filled = _doubled(xp, filled)[:, :height, :width]
    for _ in range(_SWEEPS):
      filled = _neighbours(xp, xp.where(known > 0, pixels, filled))
    filled = xp.where(known > 0, pixels, filled)
  return cast('A', xp.where(some > 0, filled, image))


def _halved(xp: ModuleType, x: Array) -> Array:
  """Return the sums of 2 x 2 pixels, with zeros below and right of odd sides."""
  count, height, width, channels = x.shape
  x = xp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
  shape = (count, (height + 1) // 2, 2, (width + 1) // 2, 2, channels)
  return x.reshape(shape).sum((2, 4))


def _doubled(xp: ModuleType, x: Array) -> Array:
  """Return images [B, h, w, C] at twice the size, bilinear: [B, 2 h, 2 w, C]."""
  for axis in (1, 2):
    before, after = _shifted(xp, x, axis)
    pair = xp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    x = pair.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
  return x


def _neighbours(xp: ModuleType, x: Array) -> Array:
  """Return the mean of the four neighbours of each pixel."""
  up, down = _shifted(xp, x, 1)
  left, right = _shifted(xp, x, 2)
  return (up + down + left + right) / 4


def _shifted(xp: ModuleType, x: Array, axis: int) -> tuple[Array, Array]:
  """Return the pixels before and after each along an axis; borders are repeated."""
  first, last = (xp.take(x, xp.asarray([at]), axis) for at in (0, x.shape[axis] - 1))
  body = [slice(None)] * 4
  body[axis] = slice(0, -1)
  before = xp.concatenate([first, x[tuple(body)]], axis)
  body[axis] = slice(1, None)
  return before, xp.concatenate([x[tuple(body)], last], axis)
