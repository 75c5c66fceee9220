"""Intervals over photographs, against NumPy by hand, SciPy, and a known truth."""

import numpy as np
import pytest
import scipy.stats

from sr3_jax.metrics import bootstrap, fid_kid_is


def half_width(values, count):
  """Half a 95 % interval: Student's, of the spread of resamples of `count`."""
  tail = scipy.stats.t.ppf(0.975, count - 1)
  return tail * (count / (count - 1)) ** 0.5 * np.std(values, ddof=1)


def crops(seed=0, count=9):
  """A value for each crop, alike in one photograph, and the photographs' numbers."""
  rng = np.random.default_rng(seed)
  photographs = np.repeat(rng.permutation(100)[:count], rng.integers(1, 12, count))
  shared = dict(zip(np.unique(photographs), rng.normal(25, 3, count), strict=True))
  values = [shared[p] + rng.normal(0, 1) for p in photographs]
  order = rng.permutation(len(values))
  return np.array(values)[order], photographs[order]


def test_photographs_are_drawn_with_all_their_crops():
  values, photographs = crops()
  (low, high), _ = bootstrap.means(
    np.stack([values, -values], 1), photographs, resamples=400, seed=3
  )
  rng, different = np.random.default_rng(3), np.unique(photographs)
  means = []
  for _ in range(400):
    drawn = different[rng.integers(0, 9, 9)]
    means.append(np.concatenate([values[photographs == p] for p in drawn]).mean())
  tail = scipy.stats.t.ppf(0.975, 8) / scipy.stats.norm.ppf(0.975) * (9 / 8) ** 0.5
  mean, edges = values.mean(), np.quantile(means, (0.025, 0.975))
  np.testing.assert_allclose((low, high), mean + tail * (edges - mean), rtol=1e-12)


def test_images_of_their_own_are_scipys():
  values = np.random.default_rng(0).gamma(2.0, size=(60, 2))
  found = bootstrap.means(values, resamples=4000)
  assert found == bootstrap.means(values, np.arange(60) * 7, resamples=4000)
  for column, (low, high) in zip(values.T, found, strict=True):
    theirs = scipy.stats.bootstrap(
      (column,), np.mean, n_resamples=4000, method='percentile', rng=1
    ).confidence_interval
    np.testing.assert_allclose((low, high), theirs, rtol=0.02)
    assert high - low > theirs.high - theirs.low


def test_intervals_of_crops_hold_the_truth():
  """40 crops of 8 photographs. As if each counted, an interval would hold half."""
  trials, inside, naive = 150, 0, 0
  for trial in range(trials):
    rng = np.random.default_rng(trial)
    photographs = np.repeat(np.arange(8), 5)
    values = (rng.normal(size=8)[photographs] + rng.normal(0, 0.5, 40))[:, None]
    for of in (photographs, None):
      ((low, high),) = bootstrap.means(values, of, resamples=200, seed=trial)
      if of is None:
        naive += low <= 0 <= high
      else:
        inside += low <= 0 <= high
  assert 0.9 < inside / trials < 0.99
  assert naive / trials < 0.75


@pytest.mark.parametrize('count', [1, 2])
def test_few_photographs_have_no_interval(count):
  values, photographs = np.arange(64.0)[:, None], np.arange(64) % count
  assert bootstrap.means(values, photographs) == [None]
  x = np.random.default_rng(0).normal(size=(64, 5))
  p = np.full((64, 4), 0.25)
  moments = fid_kid_is.Moments.of(x)
  assert fid_kid_is.frechet_interval(x, moments, photographs) is None
  assert fid_kid_is.kid_interval(x, x, 0.0, photographs) is None
  assert fid_kid_is.score_interval(p, 1.0, photographs) is None


def test_equal_crops_count_once():
  """Each image four times, as crops of a photograph: the intervals are the singles'."""
  values = np.random.default_rng(0).gamma(2.0, size=(20, 2))
  four = np.repeat(np.arange(20), 4)
  assert np.allclose(bootstrap.means(values[four], four), bootstrap.means(values))
  p = np.random.default_rng(0).dirichlet(np.full(7, 0.3), size=20)
  found = fid_kid_is.score_interval(p[four], 2.5, four)
  np.testing.assert_allclose(found, fid_kid_is.score_interval(p, 2.5))


@pytest.mark.parametrize('d', (12, 90))  # fewer and more numbers than images
def test_distances_of_crops_are_the_spread_of_resampled_photographs(d):
  rng = np.random.default_rng(0)
  photographs = np.repeat(np.arange(10), 4)
  x = (rng.normal(size=(10, d))[photographs] + rng.normal(size=(40, d))) / 2
  y = rng.normal(size=(50, d))
  moments = fid_kid_is.Moments.of(y)
  drawn = np.random.default_rng(5)
  frechet, kernel = [], []
  for _ in range(25):
    rows = (4 * drawn.integers(0, 10, 10)[:, None] + np.arange(4)).ravel()
    frechet.append(fid_kid_is.frechet_distance(fid_kid_is.Moments.of(x[rows]), moments))
    within = (x[rows] @ x[rows].T / d + 1) ** 3
    others = rows[:, None] != rows[None]
    kernel.append(within[others].mean() - 2 * ((x[rows] @ y.T / d + 1) ** 3).mean())
  low, high = fid_kid_is.frechet_interval(x, moments, photographs, resamples=25, seed=5)
  half = half_width(frechet, 10)
  np.testing.assert_allclose(high - low, 2 * half, rtol=1e-6)
  low, high = fid_kid_is.kid_interval(x, y, 0.5, photographs, resamples=25, seed=5)
  np.testing.assert_allclose((high - low) / 2, half_width(kernel, 10), rtol=1e-9)


def test_draws_are_shared():
  values = np.random.default_rng(0).standard_normal((50, 1))
  (one,) = bootstrap.means(values, resamples=50, seed=7)
  both = bootstrap.means(
    np.concatenate([values, -values], axis=1), resamples=50, seed=7
  )
  np.testing.assert_allclose(both[0], one)
  np.testing.assert_allclose(both[1], [-one[1], -one[0]])  # the mirror image


def test_values_that_are_not_finite_have_no_interval():
  values = np.ones((5, 3))
  values[2, 1], values[4, 2] = np.inf, np.nan
  assert bootstrap.means(values, resamples=20) == [(1, 1), None, None]


def test_what_is_not_negative_has_no_negative_limit():
  ((low, _),) = bootstrap.means(np.array([[0.0], [0.0], [9.0]]), resamples=50)
  assert low == 0


def test_counts_are_said():
  assert bootstrap.counted(64, 2) == '64 crops of 2 photographs'
  assert bootstrap.counted(16, 1) == '16 crops of 1 photograph'
  assert (
    bootstrap.counted(64, 64) == '64 images' and bootstrap.counted(1, 1) == '1 image'
  )
  assert bootstrap.about(64, 3) == '64 crops of 3 photographs'
  why = 'without intervals, which need 3'
  assert (
    bootstrap.about(64, 2) == f'64 crops of 2 photographs, {why} photographs or more'
  )
  assert bootstrap.about(2, 2) == f'2 images, {why} images or more'


def test_mistakes_are_said():
  with pytest.raises(ValueError, match=r'\[images, metrics\]'):
    bootstrap.means(np.ones(3))
  with pytest.raises(ValueError, match='photographs of'):
    bootstrap.means(np.ones((3, 1)), np.zeros(2))
