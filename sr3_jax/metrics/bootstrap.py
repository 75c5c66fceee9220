"""Says how far figures of images can be trusted: the bootstrap over photographs.

What would the figure have been, if other photographs of the same kind had been taken?
Crops of one photograph resemble each other: 64 crops of two photographs say little more
than two. So photographs are resampled, each with all of its crops (the cluster
bootstrap). `photographs` [n] are the numbers of the photograph that each image is of;
None means that each image is one of its own.

Resamples of few photographs spread too little: by sqrt((K - 1) / K) for K photographs,
and the normal distribution has shorter tails than Student's. Intervals are widened by
both (Hesterberg 2015, "What teachers should know about the bootstrap"); for 1,000
photographs that is 0.2 %. For fewer than `FEWEST` photographs there is no interval.

Functions draw `resamples` resamples with `seed`.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

FEWEST = 3  # photographs that an interval needs
_LEVEL = 0.95  # probability of the intervals
_NORMAL = 1.959963984540054  # of the normal distribution, at (1 + _LEVEL) / 2
Interval = tuple[float, float]


def widening(count: int) -> float:
  """Return by what factor intervals of resamples of `count` photographs are widened."""
  import scipy.special  # it takes half a second, and pages of reports don't need it

  tail = float(scipy.special.stdtrit(count - 1, (1 + _LEVEL) / 2))
  return tail / _NORMAL * (count / (count - 1)) ** 0.5


def counted(images: int, photographs: int) -> str:
  """Return '64 images', or '64 crops of 2 photographs' where these are fewer."""
  if photographs >= images:
    return f'{images} image{"" if images == 1 else "s"}'
  return f'{images} crops of {photographs} photograph{"" if photographs == 1 else "s"}'


def about(images: int, photographs: int) -> str:
  """Return how many images there are, and whether they are too few for intervals."""
  text = counted(images, photographs)
  if photographs >= FEWEST:
    return text
  noun = 'photographs' if photographs < images else 'images'
  return f'{text}, without intervals, which need {FEWEST} {noun} or more'


def interval(
  estimate: float, samples: Sequence[float] | np.ndarray, count: int
) -> Interval | None:
  """Return the middle 95 % of values of resamples, widened around the estimate.

  It is None for fewer than `FEWEST` photographs (`count`). Values without a negative
  one have no negative limit.
  """
  if count < FEWEST:
    return None
  tails = (1 - _LEVEL) / 2, (1 + _LEVEL) / 2
  low, high = estimate + widening(count) * (np.nanquantile(samples, tails) - estimate)
  least = 0.0 if np.nanmin(samples) >= 0 else -np.inf
  return max(least, float(low)), float(high)


def around(
  estimate: float, samples: Sequence[float] | np.ndarray, count: int
) -> Interval | None:
  """Return the interval around an estimate by the spread of values of resamples.

  For figures that are biased, so that resamples lie beside the estimate. It is None for
  fewer than `FEWEST` photographs (`count`).
  """
  if count < FEWEST:
    return None
  half = _NORMAL * widening(count) * float(np.nanstd(samples, ddof=1))
  return estimate - half, estimate + half


def places(n: int, photographs: np.ndarray | None) -> tuple[np.ndarray, int]:
  """Return the place of the photograph of each of n images, and the number of those.

  Raises:
    ValueError: not one photograph for each image.
  """
  if photographs is None:
    return np.arange(n), n
  if np.shape(photographs) != (n,):
    raise ValueError(f'photographs of {np.shape(photographs)}, images of {n}')
  different, place = np.unique(photographs, return_inverse=True)
  return place, len(different)


def weights(
  n: int, photographs: np.ndarray | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
  """Yield how often each of n images is in each resample: float64 [32 at most, n]."""
  place, count = places(n, photographs)
  draws = _draws(count, resamples, seed)
  while drawn := list(itertools.islice(draws, 32)):
    counts = [np.bincount(d, minlength=count).astype(np.float64) for d in drawn]
    yield np.stack(counts)[:, place]


def rows(
  n: int, photographs: np.ndarray | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
  """Yield the images of each resample, as numbers of rows; some come several times."""
  place, count = places(n, photographs)
  order = np.argsort(place, kind='stable')
  members = np.split(order, np.cumsum(np.bincount(place, minlength=count))[:-1])
  for drawn in _draws(count, resamples, seed):
    yield order[drawn] if count == n else np.concatenate([members[i] for i in drawn])


def _draws(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
  """Yield `count` of `count` photographs, drawn with repetition."""
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    yield rng.integers(0, count, count)


def means(
  values: np.ndarray,
  photographs: np.ndarray | None = None,
  *,
  resamples: int = 1000,
  seed: int = 0,
) -> list[Interval | None]:
  """Return the interval of the mean of each column of values [n, m].

  A row has the values of an image. All columns share the resamples, and so do calls
  with the same seed and photographs: intervals of methods that were measured on the
  same images can be compared. A column with a value that isn't finite has none.

  Raises:
    ValueError: no images, or not one photograph for each.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 2 or not len(values):
    raise ValueError(f'values should be [images, metrics], got {values.shape}')
  count = places(len(values), photographs)[1]
  good: np.ndarray = np.asarray(np.isfinite(values).all(axis=0))
  values = np.where(good, values, 0)
  draws = weights(len(values), photographs, resamples, seed)
  samples = np.concatenate([w @ values / w.sum(1, keepdims=True) for w in draws])
  return [
    interval(values[:, i].mean(), samples[:, i], count) if good[i] else None
    for i in range(values.shape[1])
  ]
