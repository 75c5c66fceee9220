"""Puts two images of different sizes that show the same on one grid.

The sides of a target over those of its input are a ratio p / q of small whole numbers:
4 / 1 for targets of four times the sides, 3 / 2, 1 / 2 for inputs of twice the sides.
p pixels of a target lie on q pixels of its input, and the two begin at one corner.
"""

from fractions import Fraction

from sr3_jax.images.pixels import ImageError

# The most that sides can differ by, and the largest of the smaller part of a ratio.
_MOST, _SMALLER = 64, 16


def side_ratio(scale: float) -> Fraction:
  """Return a scale, such as 4, 1.5 or 0.333, as p / q.

  Raises:
    ValueError: it is no such ratio.
  """
  if 1 / _MOST <= scale <= _MOST:
    larger = Fraction(max(scale, 1 / scale))
    found = larger.limit_denominator(_SMALLER)
    if abs(found - larger) < larger / 1000:
      return found if scale >= 1 else 1 / found
  raise ValueError(
    f'task.pair_scale={scale:g} must be a ratio of small whole numbers, as 4, 1, 1.5, '
    f'0.5 or 0.333, of at most {_MOST}'
  )


def input_side(side: int, ratio: Fraction) -> int:
  """Return the side of the input of a target's crop, both in pixels.

  Raises:
    ValueError: it is no whole number.
  """
  if side * ratio.denominator % ratio.numerator:
    raise ValueError(
      f'{side} pixels are {float(side / ratio):.6g} of the inputs at '
      f'task.pair_scale={float(ratio):g}: must be a multiple of {ratio.numerator}'
    )
  return side * ratio.denominator // ratio.numerator


def shared_units(
  target: tuple[int, ...], given: tuple[int, ...], ratio: Fraction
) -> tuple[int, int]:
  """Return how many whole units of p x p and q x q pixels two images share.

  Sizes may differ from the ratio by less than a pixel of the coarser image, because
  whoever made the smaller one had to round.

  Args:
    target: its height and width, and whatever follows.
    given: those of its input.
    ratio: p / q.

  Raises:
    ImageError: the sizes don't fit the ratio.
  """
  p, q = ratio.numerator, ratio.denominator
  sides = list(zip(target[:2], given[:2], strict=True))
  if any(abs(side * q - other * p) >= max(p, q) for side, other in sides):
    wanted = ' x '.join(f'{float(side / ratio):.6g}' for side in target[1::-1])
    other = suggestion(target, given)
    raise ImageError(
      f'the target has {target[1]} x {target[0]} pixels and its input {given[1]} x '
      f'{given[0]}: task.pair_scale={float(ratio):g} needs {wanted}'
      + (f'; task.pair_scale={float(other):g} would fit' if other else '')
    )
  height, width = (min(side // p, other // q) for side, other in sides)
  return height, width


def suggestion(target: tuple[int, ...], given: tuple[int, ...]) -> Fraction | None:
  """Return the ratio that two sizes have exactly, None if no small one fits."""
  found = Fraction(target[0], given[0])
  exact = found == Fraction(target[1], given[1])
  parts = found.as_integer_ratio()
  return found if exact and max(parts) <= _MOST and min(parts) <= _SMALLER else None
