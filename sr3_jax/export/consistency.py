"""Makes images agree with their conditions, inside of a program that is exported.

It does what `images.resizing.make_consistent` and `degradations.nearest_consistent` do,
also where the sides of images are not known before the program runs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sr3_jax.core import degradations
from sr3_jax.images import resizing
from sr3_jax.runtime.types import Array

# Of Newton's iteration for the inverse of a downsampling matrix times its transpose.
# The largest eigenvalue is 2.1 times the smallest at ratios from 2 to 8: 8 are enough.
_NEWTON = 10
# As in `make_consistent`: rounds, and what is near enough, a tenth of an 8-bit level.
_ROUNDS, _NEAR = 40, 0.1 / 127.5


class Pair(NamedTuple):
  """Bicubic downsampling along both axes as matrices, and its right inverse."""

  down_rows: Array  # [h, H]
  up_rows: Array  # [H, h]
  down_columns: Array  # [w, W]
  up_columns: Array  # [W, w]


def pair(large: tuple, small: tuple) -> Pair:
  """Return the matrices for images [B, *large, C] and conditions [B, *small, C].

  Sides may be symbolic dimensions of `jax.export`.
  """
  axes = [_axis(*sides) for sides in zip(large, small, strict=True)]
  return Pair(*axes[0], *axes[1])


def _axis(length, small) -> tuple[Array, Array]:
  """Return downsampling of one axis, [small, length], and its pseudoinverse."""
  if isinstance(length, int):
    return resizing.downsampling_matrices(length, small)
  identity = jnp.eye(length)[None, :, :, None]
  down = degradations.resize(identity, small, length)[0, :, :, 0]
  gram = jnp.matmul(down, down.T, precision='highest')
  return down, jnp.matmul(down.T, _inverse(gram), precision='highest')


def _inverse(matrix: jax.Array) -> jax.Array:
  """Return the inverse of a symmetric, well-conditioned matrix [n, n].

  Newton's iteration needs nothing but products; solvers of linear equations are not in
  the portable part of StableHLO.
  """
  bound = jnp.abs(matrix).sum(1).max()
  two = 2 * jnp.eye(matrix.shape[0])

  def refine(_, inverse):
    error = two - jnp.matmul(matrix, inverse, precision='highest')
    return jnp.matmul(inverse, error, precision='highest')

  return jax.lax.fori_loop(0, _NEWTON, refine, matrix / bound**2)


def _missing(image: jax.Array, small: jax.Array, pair: Pair) -> jax.Array:
  """Return what the downsampled image lacks, [B, h, w, C]."""
  given = pair.down_rows, image, pair.down_columns
  return small - jnp.einsum('hH,bHWc,wW->bhwc', *given, precision='highest')


def nearest(image: jax.Array, small: jax.Array, pair: Pair) -> jax.Array:
  """Return the image nearest to `image` that downsamples to `small`; clip nothing."""
  given = pair.up_rows, _missing(image, small, pair), pair.up_columns
  return image + jnp.einsum('Hh,bhwc,Ww->bHWc', *given, precision='highest')


def within_range(image: jax.Array, small: jax.Array, pair: Pair) -> jax.Array:
  """Return images in [-1, 1] that downsample to `small`, as near as clipping allows.

  An image is changed until it is near enough, whatever the others of its batch need.
  """

  def unfinished(state):
    count, _, _, _, done = state
    return (count < _ROUNDS) & ~jnp.all(done)

  def again(state):
    count, now, ahead, momentum, done = state
    after = jnp.clip(nearest(ahead, small, pair), -1, 1)
    faster = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
    further = after + (momentum - 1) / faster * (after - now)
    stay = done[:, None, None, None]
    off = jnp.abs(_missing(after, small, pair)).max((1, 2, 3))
    now, ahead = jnp.where(stay, now, after), jnp.where(stay, ahead, further)
    return count + 1, now, ahead, faster, done | (off < _NEAR)

  now = jnp.clip(image, -1, 1)
  done = jnp.zeros(image.shape[:1], bool)
  state = jnp.int32(0), now, now, jnp.float32(1), done
  return jax.lax.while_loop(unfinished, again, state)[1]
