"""Compares sets of images by formulas of their features, with errors.

Everything is NumPy in float64 on the host: covariances of 2048 features and their roots
lose their last digits in float32. Features are [n, d] arrays of one image a row, of
any floating type, from any network; ValueError is raised if there are no rows, if a
value is not finite, or if two sets have features of different sizes.

FID and KID compare two sets, the inception score measures one. The bootstrap says how
far a value can be trusted: what if other images of the same kind had been sampled?
A mean is resampled as it is. FID and the inception score are biased: a resample holds
only 63 % of the different images and looks further away (or less varied) than the whole
set does, so percentiles of its values would lie beside the estimate. Only the spread of
the resamples is used: an interval is the estimate plus and minus 1.96 standard errors,
widened for few photographs.

Functions of intervals draw `resamples` resamples of `photographs` [n] with `seed`, as
`metrics.bootstrap` says; they return low and high, or None for too few photographs.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import scipy.linalg
import scipy.special

from sr3_jax.metrics import bootstrap
from sr3_jax.metrics.bootstrap import Interval

# Kernels between this many images of each set fit into memory: 200 MB each.
_MOST_IN_MEMORY = 5000
# Seed of the order in which images are split; torch-fidelity has the same.
_SHUFFLE = 2020


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Mean and scatter of a set of features: all that FID needs to know of it.

  Sets of any size are summed up in constant memory: `Moments.of` each batch, `merge`.
  """

  count: int  # number of rows n
  mean: np.ndarray  # float64 [d]
  scatter: np.ndarray  # float64 [d, d], the sum over rows of (x - mean)(x - mean)^T

  @classmethod
  def of(cls, features: np.ndarray) -> 'Moments':
    """Return the moments of features [n, d] with n >= 1."""
    x = np.float64(_rows(features))
    mean = x.mean(axis=0)
    x = x - mean
    return cls(len(x), mean, x.T @ x)

  @property
  def covariance(self) -> np.ndarray:
    """The unbiased covariance (n - 1), as FID takes it: [d, d]; ValueError if n < 2."""
    if self.count < 2:
      raise ValueError(f'a covariance needs at least 2 images, got {self.count}')
    return self.scatter / (self.count - 1)

  @functools.cached_property
  def factor(self) -> np.ndarray:
    """A factor [d, rank]: factor @ factor.T is the covariance, to rounding."""
    # Pivoted Cholesky: stops at the rank, and takes a tenth of the time of eigenvalues.
    pstrf = scipy.linalg.get_lapack_funcs('pstrf', dtype=np.float64)
    lower, order, rank, _ = pstrf(self.covariance, lower=1)
    factor = np.empty((len(order), rank))
    factor[order - 1] = np.tril(lower)[:, :rank]
    return factor


def merge(a: Moments, b: Moments) -> Moments:
  """Return the moments of both sets together, exact (Chan, Golub, LeVeque 1979)."""
  _check_same_size(a.mean.size, b.mean.size)
  count = a.count + b.count
  step = b.mean - a.mean
  return Moments(
    count,
    a.mean + step * (b.count / count),
    a.scatter + b.scatter + np.outer(step, step) * (a.count * b.count / count),
  )


def frechet_distance(a: Moments, b: Moments) -> float:
  """Return the Frechet distance of two Gaussians (with Inception, FID; 0 is best).

  |mean_a - mean_b|^2 + trace(A + B - 2 (A B)^(1/2)) of covariances A and B (Heusel et
  al., arXiv:1706.08500). With A = F F^T and B = G G^T the trace of the root is the sum
  of the singular values of F^T G: real, and exact for singular covariances too.
  """
  _check_same_size(a.mean.size, b.mean.size)
  root = np.linalg.svd(a.factor.T @ b.factor, compute_uv=False).sum()
  step = a.mean - b.mean
  trace = np.trace(a.covariance) + np.trace(b.covariance)
  return max(0.0, float(step @ step + trace - 2 * root))


def frechet_interval(
  x: np.ndarray,
  b: Moments,
  photographs: np.ndarray | None = None,
  *,
  resamples: int = 20,
  seed: int = 0,
) -> Interval | None:
  """Return the 95 % interval of the Frechet distance, at least 0, by bootstrap.

  It is the error of sampling these images, of features `x`, and not others; it does not
  contain the bias of FID, which falls as 1 / n and is the same for all methods on the
  same images. The truth `b` is taken as it is. The standard error of 20 resamples is
  itself right to a sixth.
  """
  x = _rows(x)
  if len(x) <= x.shape[1]:
    distance = _frechet_of_rows(x, b)
  else:

    def distance(rows):
      return frechet_distance(_moments_of_rows(x, rows), b)

  count = bootstrap.places(len(x), photographs)[1]
  if count < bootstrap.FEWEST:
    return None
  drawn = bootstrap.rows(len(x), photographs, resamples, seed)
  values = [distance(rows) for rows in drawn]
  return _at_least_0(bootstrap.around(distance(np.arange(len(x))), values, count))


def _moments_of_rows(x: np.ndarray, rows: np.ndarray) -> Moments:
  """Return the moments of some rows, a few thousand at a time."""
  parts = np.array_split(rows, -(-len(rows) // 4096))
  return functools.reduce(merge, (Moments.of(x[part]) for part in parts))


def _frechet_of_rows(x: np.ndarray, b: Moments) -> Callable[[np.ndarray], float]:
  """Return `frechet_distance` of rows of x, at the cost of n^3 instead of d^3.

  If F^T is the centred rows over (n - 1)^(1/2), the singular values of F^T G are the
  roots of the eigenvalues of F^T B F, [n, n], which is a part of x B x^T, centred.
  """
  x = np.float64(x) - b.mean
  plain = x @ x.T
  weighted = x @ b.factor
  weighted = weighted @ weighted.T
  trace = np.trace(b.covariance)

  def distance(rows: np.ndarray) -> float:
    n = len(rows)
    chosen = np.ix_(rows, rows)
    gram = plain[chosen]
    step = gram.mean()  # squared distance of the means
    spread = (np.trace(gram) - n * step) / (n - 1)
    kernel = weighted[chosen]
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()
    values = np.linalg.eigvalsh(kernel / (n - 1))
    root = np.sqrt(np.maximum(values, 0)).sum()
    return max(0.0, float(step + spread + trace - 2 * root))

  return distance


def kid(
  x: np.ndarray, y: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, np.ndarray]:
  """Return the kernel inception distance (Binkowski et al., arXiv:1801.01401).

  It is the unbiased squared maximum mean discrepancy with the kernel (x . y / d + 1)^3,
  averaged over random subsets without repetition, of at most `size` images of each set.
  0 is best; as an unbiased estimate it may be negative. `x` are features of the
  evaluated images, `y` those of the truth.

  Returns:
    The mean, and the value of each subset, [subsets].

  Raises:
    ValueError: fewer than two images.
  """
  x, y = _pair(x, y)
  size = min(size, len(x), len(y))
  rng = np.random.default_rng(seed)
  if size == len(x) == len(y):
    value = _mmd(_kernel(x, x), _kernel(x, y), _kernel(y, y))
    return value, np.full(subsets, value)
  # Kernels of all images are computed once where they fit into memory.
  whole = max(len(x), len(y)) <= _MOST_IN_MEMORY
  kernels = (_kernel(x, x), _kernel(x, y), _kernel(y, y)) if whole else ()
  values = np.empty(subsets)
  for i in range(subsets):
    a = rng.choice(len(x), size, replace=False)
    b = rng.choice(len(y), size, replace=False)
    if kernels:
      xx, xy, yy = kernels
      parts = xx[np.ix_(a, a)], xy[np.ix_(a, b)], yy[np.ix_(b, b)]
    else:
      parts = _kernel(x[a], x[a]), _kernel(x[a], y[b]), _kernel(y[b], y[b])
    values[i] = _mmd(*parts)
  return float(values.mean()), values


def kid_interval(
  x: np.ndarray,
  y: np.ndarray,
  estimate: float,
  photographs: np.ndarray | None = None,
  *,
  resamples: int = 200,
  most: int = 2000,
  seed: int = 0,
) -> Interval | None:
  """Return the 95 % interval of KID around the `estimate` of `kid`, by bootstrap.

  In a resample an image may come twice; pairs of one image with itself are left out, as
  in `kid`. The truth `y` is taken as it is. For time and memory, at most `most` random
  images of each set are used; the error is then scaled by (k / K)^(1/2), if they are of
  k photographs of K.
  """
  x, y = _pair(x, y)
  rng = np.random.default_rng(seed)
  place, total = bootstrap.places(len(x), photographs)
  if len(x) > most:
    chosen = rng.choice(len(x), most, replace=False)
    x, place = x[chosen], place[chosen]
  if len(y) > most:
    y = y[rng.choice(len(y), most, replace=False)]
  within = _kernel(x, x)
  np.fill_diagonal(within, 0)
  towards = _kernel(x, y).mean(axis=1)
  values = []
  for weights in bootstrap.weights(len(x), place, resamples, seed):
    number = weights.sum(axis=1)
    pairs = number**2 - np.sum(weights**2, axis=1)
    with np.errstate(invalid='ignore'):  # a resample of one image has no pairs
      inner = np.sum((weights @ within) * weights, axis=1) / pairs
    values.extend(inner - 2 * (weights @ towards) / number)
  part = bootstrap.places(len(x), place)[1] / total
  return bootstrap.around(estimate, np.multiply(values, part**0.5), total)


def inception_score(
  probabilities: np.ndarray, *, splits: int = 10
) -> tuple[float, float]:
  """Return the inception score (Salimans et al., arXiv:1606.03498; more is better).

  It is exp of the mean KL divergence of p(class | image), `probabilities` [n, classes],
  from its mean over the images, in `splits` parts of the images. They are shuffled
  first, because images in the order of their classes would make parts of few classes.
  Order and parts are those of torch-fidelity. The score rises with the number of images
  in a part: compare only scores of equally many images.

  Returns:
    Mean and standard deviation over the parts.

  Raises:
    ValueError: fewer images than parts.
  """
  p = np.asarray(_rows(probabilities), np.float64)
  if len(p) < splits:
    need = f'an inception score of {splits} parts needs at least {splits} images'
    raise ValueError(f'{need}, got {len(p)}')
  p = p[np.random.RandomState(_SHUFFLE).permutation(len(p))]
  edges = np.arange(splits + 1) * len(p) // splits
  scores = [
    np.exp(_entropy(part.mean(axis=0)) - _entropy(part).mean())
    for part in np.split(p, edges[1:-1])
  ]
  return float(np.mean(scores)), float(np.std(scores))


def score_interval(
  probabilities: np.ndarray,
  estimate: float,
  photographs: np.ndarray | None = None,
  *,
  resamples: int = 200,
  seed: int = 0,
) -> Interval | None:
  """Return the 95 % interval of the inception score around `estimate`, by bootstrap.

  The standard error is that of the score of all images as one part.
  """
  p = np.asarray(_rows(probabilities), np.float64)
  entropy = _entropy(p)
  values = []
  for weights in bootstrap.weights(len(p), photographs, resamples, seed):
    weights = weights / weights.sum(axis=1, keepdims=True)
    values.extend(np.exp(_entropy(weights @ p) - weights @ entropy))
  count = bootstrap.places(len(p), photographs)[1]
  return _at_least_0(bootstrap.around(estimate, values, count))


def _at_least_0(interval: Interval | None) -> Interval | None:
  """Return the interval of a figure that can't be negative."""
  return interval and (max(0.0, interval[0]), interval[1])


def _mmd(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> float:
  """Return the squared discrepancy; pairs of an image with itself don't count."""
  within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
  return float(sum(within) - 2 * xy.mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the cubic kernel between all rows: [n, m]."""
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  return (x @ y.T / x.shape[1] + 1) ** 3


def _entropy(p: np.ndarray) -> np.ndarray:
  """Return the entropy of each row in nats."""
  return scipy.special.entr(p).sum(axis=-1)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return features that KID can compare, or raise ValueError."""
  x, y = _rows(x), _rows(y)
  _check_same_size(x.shape[1], y.shape[1])
  if min(len(x), len(y)) < 2:
    raise ValueError(f'KID needs at least 2 images, got {min(len(x), len(y))}')
  return x, y


def _check_same_size(one: int, other: int) -> None:
  """Refuse to compare features of different sizes with a ValueError."""
  if one != other:
    raise ValueError(f'features of {one} and of {other} numbers do not compare')


def _rows(features: np.ndarray) -> np.ndarray:
  """Return features [images, numbers] that are finite, or raise ValueError."""
  x = np.asarray(features)
  if x.ndim != 2 or not x.size:
    raise ValueError(f'features should be [images, numbers], got {x.shape}')
  if not np.isfinite(x).all():
    raise ValueError('features are not finite: an image or the network is broken')
  return x
