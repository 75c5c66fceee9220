"""Weighs how different images look in the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# From two stacks of images [B, H, W, C] in [-1, 1] to [B].
Distance = Callable[[jax.Array, jax.Array], jax.Array]

PATTERN = 500.0  # how much a pattern counts beside the distance
_CELLS = 8  # on a side of the windows in which patterns are looked for
_STRIDE = 4  # of the first layer of LPIPS over AlexNet, in pixels
# Of images: AlexNet's pools leave nothing of 30.
LEAST_SIDE = 31 + _STRIDE - 1


def looks_different(
  distance: Distance, key: jax.Array, image: jax.Array, truth: jax.Array, period: int
) -> jax.Array:
  """Return the perceptual term of the loss, a scalar: `mean_distance` and `pattern`."""
  different = mean_distance(distance, key, image, truth)
  return different + PATTERN * pattern(image, truth, period)


def mean_distance(
  distance: Distance, key: jax.Array, image: jax.Array, truth: jax.Array
) -> jax.Array:
  """Return the mean distance of images [B, H, W, C] from the truth, a scalar.

  The first layer of AlexNet looks at every fourth pixel of a row. If these were always
  the same ones, a network would learn to paint a pattern of four pixels. So up to three
  rows and columns are cut off at places that `key` [B] draws, the same from both.
  """

  def cut(key, pair):
    row, column = jax.random.randint(jax.random.fold_in(key, 5), (2,), 0, _STRIDE)
    count, height, width, channels = pair.shape
    size = (count, height - _STRIDE + 1, width - _STRIDE + 1, channels)
    return jax.lax.dynamic_slice(pair, (0, row, column, 0), size)

  pairs = jax.vmap(cut)(key, jnp.stack([image, truth], axis=1))
  return jnp.mean(distance(pairs[:, 0], pairs[:, 1]))


def pattern(image: jax.Array, truth: jax.Array, period: int) -> jax.Array:
  """Return how much of the error repeats every `period` pixels, as a mean square.

  A network that works on cells of p x p pixels can't tell one cell of a smooth part
  from the next. What it paints there, to look less smooth, is the same in each, and the
  eye sees a mesh. For each of the p x p places in a cell, the error is averaged over
  the cells of windows of `_CELLS` x `_CELLS`. What is left of its differences is a
  pattern; other errors average out.

  Args:
    image: [B, H, W, C] in [-1, 1]; rows and columns beyond the last window don't count.
    truth: of the same shape.
    period: p; 1 has no patterns.

  Returns:
    float32 scalar, in units of the squared error.
  """
  error = image - truth
  sides = [min(_CELLS, side // period) for side in error.shape[1:3]]
  high, wide = (side * period for side in sides)
  rows, columns = error.shape[1] // high, error.shape[2] // wide
  error = error[:, : rows * high, : columns * wide]
  shape = (len(error), rows, sides[0], period, columns, sides[1], period, -1)
  mean = jnp.mean(error.reshape(shape), axis=(2, 5))  # [B, rows, p, columns, p, C]
  return jnp.mean(jnp.square(mean - jnp.mean(mean, axis=(2, 4), keepdims=True)))
