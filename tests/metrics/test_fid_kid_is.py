"""Formulas of FID, KID and IS against SciPy, closed forms and plain loops.

One slow test compares with torch-fidelity (`pip install torch-fidelity`).
"""

import numpy as np
import pytest
import scipy.linalg
import scipy.special

from sr3_jax.metrics import fid_kid_is
from sr3_jax.metrics.fid_kid_is import Moments
from tests.metrics.test_bootstrap import half_width


def _features(n, d=12, seed=0, shift=0.0, rank=None):
  """Return features like real ones: correlated, skewed, not around zero."""
  rng = np.random.default_rng(seed)
  mix = np.random.default_rng(99).standard_normal((rank or d, d))
  x = rng.gamma(1.0, size=(n, rank or d)) @ mix
  return np.float32(x + shift + 3)


def _frechet(x, y):
  """Return the Frechet distance by SciPy's matrix root."""
  a, b = np.cov(np.float64(x), rowvar=False), np.cov(np.float64(y), rowvar=False)
  step = np.float64(x).mean(0) - np.float64(y).mean(0)
  root = np.real(scipy.linalg.sqrtm(a @ b))
  return step @ step + np.trace(a + b - 2 * root)


def test_moments_are_numpys():
  x = _features(40)
  moments = Moments.of(x)
  assert moments.count == 40
  np.testing.assert_allclose(moments.mean, np.float64(x).mean(0), rtol=1e-14)
  np.testing.assert_allclose(
    moments.covariance, np.cov(np.float64(x), rowvar=False), rtol=1e-12, atol=1e-12
  )


def test_merging_batches_is_the_whole():
  x = _features(101, shift=1000.0)  # far off zero, where naive sums lose digits
  merged = Moments.of(x[:1])
  for start, stop in ((1, 8), (8, 60), (60, 101)):
    merged = fid_kid_is.merge(merged, Moments.of(x[start:stop]))
  whole = Moments.of(x)
  assert merged.count == 101
  np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
  np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_frechet_distance_is_scipys():
  x, y = _features(60, seed=1), _features(80, seed=2, shift=0.5)
  found = fid_kid_is.frechet_distance(Moments.of(x), Moments.of(y))
  np.testing.assert_allclose(found, _frechet(x, y), rtol=1e-10)


def test_frechet_distance_of_known_gaussians():
  rng = np.random.default_rng(0)
  a, b = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 6)  # variances, independent
  turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
  step = rng.standard_normal(6)
  moments = [
    Moments(11, mean, 10 * turn @ np.diag(variance) @ turn.T)
    for mean, variance in ((np.zeros(6), a), (step, b))
  ]
  expected = step @ step + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
  np.testing.assert_allclose(
    fid_kid_is.frechet_distance(*moments), expected, rtol=1e-12
  )


def test_frechet_distance_of_singular_covariances():
  # In closed form: two lines at an angle. The root of the product is the product of
  # the deviations times the cosine.
  def line(direction, length):
    direction = np.array(direction) / np.linalg.norm(direction)
    return Moments(2, np.zeros(3), length**2 * np.outer(direction, direction))

  found = fid_kid_is.frechet_distance(line([1, 0, 0], 2), line([1, 1, 0], 3))
  np.testing.assert_allclose(found, 4 + 9 - 2 * 6 * np.sqrt(0.5), rtol=1e-12)
  x = _features(5, d=40)  # fewer images than features
  assert fid_kid_is.frechet_distance(Moments.of(x), Moments.of(x)) < 1e-9
  y = Moments.of(_features(200, d=40, rank=7, seed=1))
  assert y.factor.shape == (40, 7)


@pytest.mark.parametrize('n', (15, 60))  # fewer and more images than features
def test_frechet_interval_is_the_spread_of_resamples(n):
  x, b = _features(n, d=20, seed=3), Moments.of(_features(300, d=20, shift=0.3))
  low, high = fid_kid_is.frechet_interval(x, b, resamples=30, seed=4)
  rng = np.random.default_rng(4)
  draws = [x[rng.integers(0, n, n)] for _ in range(30)]
  values = [fid_kid_is.frechet_distance(Moments.of(draw), b) for draw in draws]
  estimate = fid_kid_is.frechet_distance(Moments.of(x), b)
  half = half_width(values, n)
  np.testing.assert_allclose((low, high), (max(0, estimate - half), estimate + half))
  assert low < estimate < high
  # The reason for not taking percentiles.
  assert np.mean(values) > estimate


def _mmd_by_loops(x, y):
  def kernel(a, b):
    return (np.dot(np.float64(a), np.float64(b)) / len(a) + 1) ** 3

  def mean(values):
    return sum(values) / len(values)

  def pairs(z):
    return [kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]

  return (
    mean(pairs(x)) + mean(pairs(y)) - 2 * mean([kernel(a, b) for a in x for b in y])
  )


def test_kid_is_the_double_loop():
  x, y = _features(9, seed=5) / 4, _features(9, seed=6) / 4
  value, subsets = fid_kid_is.kid(x, y, subsets=3)
  np.testing.assert_allclose(value, _mmd_by_loops(x, y), rtol=1e-10)
  np.testing.assert_array_equal(subsets, np.full(3, value))


def test_kid_is_the_mean_over_subsets():
  x, y = _features(30, seed=5) / 4, _features(20, seed=6) / 4
  value, subsets = fid_kid_is.kid(x, y, subsets=4, size=7, seed=8)
  rng = np.random.default_rng(8)
  expected = [
    _mmd_by_loops(x[rng.choice(30, 7, replace=False)], y[rng.choice(20, 7, False)])
    for _ in range(4)
  ]
  np.testing.assert_allclose(subsets, expected, rtol=1e-10)
  assert value == pytest.approx(np.mean(expected))


def test_kid_is_unbiased():
  """Sets of one kind: around zero, some below."""
  values = [
    fid_kid_is.kid(_features(25, seed=i), _features(25, seed=i + 500))[0]
    for i in range(200)
  ]
  assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)
  assert min(values) < 0 < max(values)


def test_kid_interval_leaves_out_pairs_of_an_image_with_itself():
  x, y = np.float64(_features(8, seed=1)), np.float64(_features(5, seed=2))
  low, high = fid_kid_is.kid_interval(x, y, 0.5, resamples=6, seed=3)
  rng = np.random.default_rng(3)

  def kernel(a, b):
    return (np.dot(a, b) / 12 + 1) ** 3

  values = []
  for _ in range(6):
    rows = rng.integers(0, 8, 8)
    within = [kernel(x[i], x[j]) for i in rows for j in rows if i != j]
    across = [kernel(x[i], b) for i in rows for b in y]
    values.append(np.mean(within) - 2 * np.mean(across))
  half = half_width(values, 8)
  np.testing.assert_allclose((low, high), (0.5 - half, 0.5 + half))


@pytest.mark.parametrize('most', (2000, 30))
def test_kid_interval_is_as_wide_as_repeating_says(most):
  y = _features(60, seed=1)
  draws = [_features(60, seed=i, shift=0.3) for i in range(100, 180)]
  values = [fid_kid_is.kid(x, y)[0] for x in draws]
  widths = []
  for x, value in list(zip(draws, values, strict=True))[:20]:
    low, high = fid_kid_is.kid_interval(x, y, value, resamples=60, most=most)
    assert low < value < high
    widths.append(high - low)
  # The bootstrap of a skewed kernel is right to some ten percent.
  assert np.median(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.4)


def test_inception_score_is_scipys_divergence():
  p = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=24)
  p[0] = np.eye(7)[3]  # certain: 0 log 0
  mean, std = fid_kid_is.inception_score(p, splits=3)
  order = np.random.RandomState(2020).permutation(24)
  scores = [
    np.exp(np.mean(np.sum(scipy.special.rel_entr(part, part.mean(0)), axis=1)))
    for part in np.split(p[order], 3)
  ]
  np.testing.assert_allclose((mean, std), (np.mean(scores), np.std(scores)), rtol=1e-12)


def test_inception_score_of_images_sorted_by_class_is_torch_fidelitys():
  """103 images do not split evenly into ten parts, so the parts are tested, too.

  torch-fidelity 0.4.0 with torch 2.13.0: `isc_features_to_metric(logits, splits=10,
  shuffle=True, rng_seed=2020)`. In their order, it gives 1.914 +- 0.311.
  """
  rng = np.random.default_rng(0)
  labels = np.sort(rng.integers(0, 20, 103))
  logits = rng.normal(size=(103, 20))
  logits[np.arange(103), labels] += 4
  score = fid_kid_is.inception_score(scipy.special.softmax(logits, axis=1))
  wanted = 3.307875620319609, 0.3542167069021915
  np.testing.assert_allclose(score, wanted, rtol=1e-12)


def test_inception_score_at_its_ends():
  certain = np.eye(8)
  assert fid_kid_is.inception_score(certain, splits=1)[0] == pytest.approx(8)
  assert fid_kid_is.inception_score(certain, splits=8) == (1, 0)
  low, high = fid_kid_is.score_interval(np.full((8, 4), 0.25), 1.0)
  assert low == pytest.approx(1) and high == pytest.approx(1)


def test_score_interval_is_the_spread_of_resamples():
  p = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=24)
  low, high = fid_kid_is.score_interval(p, 2.5, resamples=50, seed=3)
  rng = np.random.default_rng(3)
  values = [
    fid_kid_is.inception_score(p[rng.integers(0, 24, 24)], splits=1)[0]
    for _ in range(50)
  ]
  assert high - 2.5 == pytest.approx(half_width(values, 24))
  assert 2.5 - low == pytest.approx(high - 2.5)


def test_mistakes_are_said():
  x = _features(4)
  with pytest.raises(ValueError, match='not finite'):
    Moments.of(np.where(x == x[0, 0], np.nan, x))
  with pytest.raises(ValueError, match=r'\[images, numbers\], got \(0, 12\)'):
    Moments.of(x[:0])
  with pytest.raises(ValueError, match='at least 2 images, got 1'):
    _ = Moments.of(x[:1]).covariance
  with pytest.raises(ValueError, match='12 and of 3'):
    fid_kid_is.frechet_distance(Moments.of(x), Moments.of(x[:, :3]))
  with pytest.raises(ValueError, match='12 and of 3'):
    fid_kid_is.merge(Moments.of(x), Moments.of(x[:, :3]))
  with pytest.raises(ValueError, match='12 and of 3'):
    fid_kid_is.kid(x, x[:, :3])
  with pytest.raises(ValueError, match='at least 2 images, got 1'):
    fid_kid_is.kid(x, x[:1])
  with pytest.raises(ValueError, match='at least 10 images, got 4'):
    fid_kid_is.inception_score(np.full((4, 2), 0.5))


@pytest.mark.slow
def test_torch_fidelity_says_the_same():
  torch = pytest.importorskip('torch')
  metrics = pytest.importorskip('torch_fidelity.metric_fid')
  scores = pytest.importorskip('torch_fidelity.metric_isc')
  kernels = pytest.importorskip('torch_fidelity.metric_kid')
  x, y = _features(400, d=64, seed=1), _features(300, d=64, seed=2, shift=0.2)
  peers = [metrics.fid_features_to_statistics(torch.tensor(z)) for z in (x, y)]
  found = fid_kid_is.frechet_distance(Moments.of(x), Moments.of(y))
  expected = metrics.fid_statistics_to_metric(*peers, verbose=False)
  np.testing.assert_allclose(found, *expected.values(), rtol=1e-6)
  options = {'kid_subsets': 1, 'kid_subset_size': 300, 'verbose': False}
  expected = kernels.kid_features_to_metric(
    torch.tensor(x[:300]).double(), torch.tensor(y).double(), **options
  )
  found = fid_kid_is.kid(x[:300], y)[0]
  np.testing.assert_allclose(found, next(iter(expected.values())), rtol=1e-9)
  logits = np.random.default_rng(0).standard_normal((200, 30)) * 3
  expected = scores.isc_features_to_metric(torch.tensor(logits), shuffle=False)
  found = fid_kid_is.inception_score(scipy.special.softmax(logits, axis=1))
  np.testing.assert_allclose(found, list(expected.values()), rtol=1e-9)
