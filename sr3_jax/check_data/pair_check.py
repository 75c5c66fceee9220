"""Checks pairs of inputs and targets: do they fit, do they lie on each other?

The two images of a pair are brought to the coarser of their grids, in grey. Where they
lie is estimated by phase correlation (scikit-image), how bright they are by a line
through their values.
"""

import dataclasses
import functools
import math
import os
from concurrent import futures
from fractions import Fraction

import numpy as np
from ml_collections import ConfigDict

from sr3_jax.data.sources import AnyPairs
from sr3_jax.images import pair_grid, pixels, rasters, resizing
from sr3_jax.runtime.progress import Progress

_COMPARED = 128  # pairs whose shift and brightness are estimated
_CENTRE = 512  # side of the part in which they are, in pixels of the coarser grid
# Images whose values correlate less, once they lie on each other, show different
# things: their shift can't be told.
_ALIKE = 0.3
_UPSAMPLING = 10  # shifts are found to a tenth of a pixel


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Says how the input of a pair relates to its target."""

  # The input's content lies so many pixels of the target below and right of where the
  # target has it; nan if that can't be told.
  down: float
  right: float
  correlation: float  # of grey values, once the two lie on each other
  gain: float  # the input is gain * target + offset; nan if they don't correlate
  offset: float  # in levels of 255

  @property
  def distance(self) -> float:
    """Length of the shift in pixels of the target."""
    return math.hypot(self.down, self.right)


@dataclasses.dataclass(frozen=True)
class PairCheck:
  """Holds what was found in a set of pairs."""

  name: str  # of the set
  count: int  # of pairs
  unpaired: dict[str, str]  # name of a file without partner -> reason
  left_out: dict[str, str]  # name of a file of either folder that can't be used -> why
  broken: dict[str, str]  # name of a pair that can't be read -> reason
  misfit: dict[str, str]  # name of a pair whose sizes don't fit -> reason
  fits: dict[str, int]  # task.pair_scale -> how many of the misfits it would suit
  compared: dict[int, Comparison]  # number of a pair in the source -> comparison

  def median(self, of: str) -> float:
    """Return the median of a value of the comparisons; nan if there is none."""
    values = np.array([getattr(one, of) for one in self.compared.values()])
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan

  @property
  def unknown(self) -> int:
    """Return how many of the compared pairs have a shift that can't be told."""
    return sum(math.isnan(one.down) for one in self.compared.values())


def check_pairs(config: ConfigDict, name: str, source: AnyPairs) -> PairCheck:
  """Read all pairs of a set once, compare some of them, and show the progress."""
  ratio = pair_grid.side_ratio(config.task.pair_scale)
  count = len(source)
  spread = np.linspace(0, count - 1, min(count, _COMPARED)).round().astype(int)
  found = PairCheck(name, count, source.unpaired, source.left_out, {}, {}, {}, {})
  check = functools.partial(_check, config, source, ratio, set(spread.tolist()))
  progress = Progress(count, unit=f'{name} pair')
  with progress, futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for i, (problem, fitting, comparison) in enumerate(pool.map(check, range(count))):
      if problem:
        (found.misfit if fitting is not None else found.broken)[source.name(i)] = (
          problem
        )
      if fitting:
        found.fits[fitting] = found.fits.get(fitting, 0) + 1
      if comparison is not None:
        found.compared[i] = comparison
      progress.update(i + 1)
  return found


def _check(
  config: ConfigDict,
  source: AnyPairs,
  ratio: Fraction,
  compared: set[int],
  number: int,
) -> tuple[str, str | None, Comparison | None]:
  """Check a pair.

  Returns:
    What is wrong with it; the scale that its sizes have, '' if none, where they don't
    fit; and the comparison of its images if it is one of the `compared`.
  """
  try:
    record = source[number]
  except pixels.ImageError as error:
    return str(error), None, None
  target, given = record['image'], record['condition']
  try:
    pair_grid.shared_units(target.shape, given.shape, ratio)
  except pixels.ImageError as error:
    other = pair_grid.suggestion(target.shape, given.shape)
    return str(error), f'{float(other):g}' if other else '', None
  if number not in compared:
    return '', None, None
  planes = _planes(config, target, given)
  return '', None, compare(*planes, ratio)


def _planes(
  config: ConfigDict, target: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return the grey of two stored images, float32 [H, W], about 0 to 1."""
  d = config.data
  ends = (d.low, d.high), (d.input_low, d.input_high)
  return tuple(
    (rasters.to_float(image, *(np.array(end) for end in pair)).mean(-1) + 1) / 2
    for image, pair in zip((target, given), ends, strict=True)
  )


def compare(target: np.ndarray, given: np.ndarray, ratio: Fraction) -> Comparison:
  """Compare grey images [H, W] and [h, w], 0 to 1, whose sizes fit a ratio."""
  p, q = ratio.numerator, ratio.denominator
  units = pair_grid.shared_units(target.shape, given.shape, ratio)
  small = min(p, q)
  sides = small * units[0], small * units[1]
  target, given = (
    _central(resizing.resize_area(a[: units[0] * n, : units[1] * n, None], sides))
    for a, n in ((target, p), (given, q))
  )
  down, right, moved = _register(target, given)
  correlation = _correlation(*moved)
  gain, offset = _line(*moved)
  if not abs(correlation) >= _ALIKE:
    down = right = gain = offset = math.nan
  size = p / small  # pixels of the target in one of the coarser grid
  return Comparison(size * down, size * right, correlation, gain, 255 * offset)


def _central(plane: np.ndarray) -> np.ndarray:
  """Return the central part of [H, W, 1] as [H, W], a fast size for transforms."""
  height, width = (min(side, _CENTRE) for side in plane.shape[:2])
  top, left = (plane.shape[0] - height) // 2, (plane.shape[1] - width) // 2
  return plane[top : top + height, left : left + width, 0]


def _register(
  target: np.ndarray, given: np.ndarray
) -> tuple[float, float, tuple[np.ndarray, np.ndarray]]:
  """Find where an input lies: down, right, and the parts that then show the same.

  Phases alone are exact, and fail in noise; correlation with the amplitudes is the
  reverse. The one with which the images agree better is taken, and no shift where
  neither makes them agree better than they do.
  """
  import scipy.ndimage
  from skimage.registration import phase_cross_correlation

  window = np.outer(*(np.hanning(side + 2)[1:-1] for side in target.shape))
  one, other = ((plane - plane.mean()) * window for plane in (target, given))
  best = 0.0, 0.0, (target, given)
  if not np.ptp(target) or not np.ptp(given):
    return best
  score = abs(_correlation(target, given))
  for normalization in ('phase', None):
    shift, _, _ = phase_cross_correlation(
      one, other, upsample_factor=_UPSAMPLING, normalization=normalization
    )
    margins = [math.ceil(abs(step)) + 1 for step in shift]
    if any(4 * m > side for m, side in zip(margins, target.shape, strict=True)):
      continue  # what is left would say nothing
    aligned = scipy.ndimage.shift(given, shift, order=1, mode='nearest')
    inside = tuple(slice(m, -m) for m in margins)
    parts = target[inside], aligned[inside]
    if (found := abs(_correlation(*parts))) > score:
      score, best = found, (-float(shift[0]), -float(shift[1]), parts)
  return best


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
  """Return the correlation of the values of two images; 0 if one is constant."""
  one, other = one - one.mean(), other - other.mean()
  norm = math.sqrt(float(np.square(one).sum()) * float(np.square(other).sum()))
  return float((one * other).sum()) / norm if norm else 0.0


def _line(target: np.ndarray, given: np.ndarray) -> tuple[float, float]:
  """Return slope and intercept of an input's values over those of its target."""
  centred = target - target.mean()
  variance = float(np.square(centred).sum())
  if not variance:
    return math.nan, math.nan
  gain = float((centred * (given - given.mean())).sum()) / variance
  return gain, float(given.mean()) - gain * float(target.mean())


def overlay(record_target: np.ndarray, record_given: np.ndarray) -> np.ndarray:
  """Lay an input over its target: magenta and green, white where both are bright.

  Both are uint8 pictures [H, W, 3] of one size; each is stretched to its full range.
  """
  planes = []
  for picture in (record_given, record_target):
    grey = picture.mean(-1, dtype=np.float32)
    low, high = np.percentile(grey, (1, 99))
    stretched = np.clip((grey - low) / max(high - low, 1.0), 0, 1) * 255
    planes.append(stretched.round().astype(np.uint8))
  given, target = planes
  return np.stack([given, target, given], -1)


def described(one: Comparison) -> str:
  """Return a comparison in words."""
  if math.isnan(one.down):
    return 'too little in common to tell shift and brightness'
  sides = ('down', 'up', one.down), ('right', 'left', one.right)
  moves = [
    f'{abs(by):.1f} px {ahead if by > 0 else back}'
    for ahead, back, by in sides
    if abs(by) >= 0.05
  ]
  moved = f'input {", ".join(moves)}' if moves else 'no shift'
  return f'{moved}; input = {one.gain:.2f} x target {round(one.offset):+d} levels'


def summary(check: PairCheck, source: AnyPairs) -> dict[str, object]:
  """Return a check of a source for check.json."""
  return {
    'pairs': check.count,
    'unpaired': check.unpaired,
    'left_out': check.left_out,
    'broken': check.broken,
    'misfit': check.misfit,
    'compared': {
      source.name(i): {
        key: None if math.isnan(value) else round(value, 3)
        for key, value in dataclasses.asdict(one).items()
      }
      for i, one in check.compared.items()
    },
  }
