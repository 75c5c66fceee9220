"""Takes conditions from files: pairs of inputs and targets that somebody recorded."""

from fractions import Fraction

import jax

from sr3_jax.core.degradations.resizing import resize


def real_pairs(key: jax.Array, given: jax.Array, *, ratio: Fraction) -> jax.Array:
  """Return inputs [B, h, w, K] as conditions, on the grid that the network can use.

  `ratio` is the target's side over the input's. If it is a whole number, inputs stay as
  they are and are upsampled as those of super-resolution are. If not, such as 3 / 2 or
  1 / 2, they are resampled to the size of the target (bicubic, anti-aliased).
  """
  del key  # nothing is random
  if ratio.denominator == 1:
    return given
  height, width = (int(side * ratio) for side in given.shape[1:3])
  return resize(given, height, width)
