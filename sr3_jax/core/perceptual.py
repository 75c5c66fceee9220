"""Weighs how different images look in the loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

# From two stacks of images [B, H, W, C] in [-1, 1] to [B].
Distance = Callable[[jax.Array, jax.Array], jax.Array]

_STRIDE = 4  # of the first layer of LPIPS over AlexNet, in pixels
LEAST_SIDE = (
  31 + _STRIDE - 1
)  # of images: AlexNet's pools leave nothing of less than 31


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
