"""Tables from recorded values, against plain NumPy and the formulas of whole sets."""

import math

import jax
import numpy as np
import pytest
import scipy.stats

from sr3_jax.evaluation import summary
from sr3_jax.evaluation.records import Records
from sr3_jax.evaluation.scoring import FEATURES
from sr3_jax.metrics import fid_kid_is, image_metrics, reference_statistics
from tests.support import feature_networks

DRAW = np.random.default_rng(0)
COUNT = 37


def record(values, batches, *, part='a', kept=None) -> Records:
  """Records of arrays [n, ...] by name; `batches` are the images of each batch."""
  kept = kept or Records()
  for number, index in enumerate(batches):
    index = np.array(index, int)
    chosen = {key: value[index] for key, value in values.items()}
    kept.add(part, number, {'index': index, **chosen})
  return kept


def row(kept, part='a', **options) -> summary.Row:
  return summary.table(kept, {'a': [part]}, **({'scale': 4} | options))['a']


ONE = [range(COUNT)]
RAGGED = [range(30, COUNT), [], range(9), range(9, 10), range(10, 30)]


@pytest.fixture(scope='module')
def values():
  """Float32 values of 37 images, with spectra of real noise."""
  noise = DRAW.normal(size=(2, COUNT, 16, 16, 3)).astype(np.float32)
  power = jax.jit(image_metrics.radial_power)
  return {
    'psnr': DRAW.normal(25, 3, COUNT).astype(np.float32),
    'ssim': DRAW.uniform(0, 1, COUNT).astype(np.float32),
    'power': np.asarray(power(0.2 * noise[0] * DRAW.uniform(0, 1, (COUNT, 1, 1, 1)))),
    'power_truth': np.asarray(power(0.2 * noise[1])),
    FEATURES: DRAW.normal(size=(COUNT, 4)).astype(np.float32),
  }


def test_means_and_spectra_are_those_of_the_whole_set(values):
  for batches in (ONE, RAGGED):
    found = row(record(values, batches))
    for key in ('psnr', 'ssim'):
      want = values[key].astype(np.float64).mean()
      np.testing.assert_allclose(found[key]['value'], want, rtol=1e-12)
    # Of summed powers: not a mean over images.
    power = [values[key].astype(np.float64).sum(0) for key in ('power', 'power_truth')]
    for key, want in (
      ('detail', image_metrics.detail(*power, 4)),
      ('spectrum_db', image_metrics.spectrum_distance(*power)),
    ):
      np.testing.assert_allclose(found[key]['value'], want, rtol=1e-5)
      assert found[key]['low'] < found[key]['value'] < found[key]['high']


def test_batches_change_no_interval(values):
  one, ragged = (row(record(values, batches)) for batches in (ONE, RAGGED))
  assert list(one) == list(ragged) == ['psnr', 'ssim', 'detail', 'spectrum_db']
  for key, entry in one.items():
    assert set(entry) == set(ragged[key]) == {'value', 'low', 'high'}
    for name, value in entry.items():
      np.testing.assert_allclose(ragged[key][name], value, rtol=1e-5)


def test_the_scale_is_that_of_detail(values):
  kept = record(values, ONE)
  found = [row(kept, scale=s, intervals=False) for s in (2, 4, 1, None)]
  assert found[0]['detail']['value'] != found[1]['detail']['value']
  assert 'detail' not in found[2] | found[3]
  assert 'spectrum_db' in found[3] and set(found[3]['psnr']) == {'value'}


def test_weights_belong_to_images():
  weights = summary.image_weights(np.array([5, 3, 9]), 4000)
  assert weights.shape == (3, 4000)
  np.testing.assert_array_equal(
    summary.image_weights(np.array([3, 5]), 4000), weights[[1, 0]]
  )
  assert not np.array_equal(summary.image_weights(np.array([3]), 4000, seed=1), weights)
  # Poisson(1), independent.
  np.testing.assert_allclose(weights.mean(1), 1, atol=0.07)
  np.testing.assert_allclose(np.cov(weights), np.eye(3), atol=0.12)


def test_methods_of_the_same_images_go_together(values):
  kept = record(values, ONE, part='a')
  record({'psnr': values['psnr'] + 2}, RAGGED, part='b', kept=kept)
  rows = summary.table(kept, {'a': ['a'], 'b': ['b']}, scale=4)
  for key in ('value', 'low', 'high'):
    difference = rows['b']['psnr'][key] - rows['a']['psnr'][key]
    np.testing.assert_allclose(difference, 2, atol=1e-5)
  assert summary.values(rows)['b'] == {'psnr': rows['b']['psnr']['value']}


def test_the_interval_is_the_textbook_one():
  psnr = np.random.default_rng(1).normal(30, 4, 900).astype(np.float32)
  entry = row(record({'psnr': psnr}, [range(900)]))['psnr']
  error = np.std(psnr, ddof=1) / 30
  np.testing.assert_allclose(entry['low'], psnr.mean() - 1.96 * error, atol=0.2 * error)
  np.testing.assert_allclose(
    entry['high'], psnr.mean() + 1.96 * error, atol=0.2 * error
  )


def test_the_interval_covers():
  """It should hold the true mean 95 times of 100; of 50 images a little less often."""
  trials, count = 100, 40
  inside = 0
  for trial in range(trials):
    index = np.arange(trial * count, (trial + 1) * count)
    psnr = np.random.default_rng(trial).normal(30, 4, count).astype(np.float32)
    kept = Records()
    kept.add('a', 0, {'index': index, 'psnr': psnr})
    entry = row(kept)['psnr']
    inside += entry['low'] <= 30 <= entry['high']
  assert 0.88 < inside / trials < 0.995


def test_crops_of_a_photograph_are_resampled_together(values):
  photographs = np.arange(COUNT) % 5 + 40
  kept = record(values | {'photograph': photographs}, RAGGED)
  found = row(kept, probabilities=feature_networks.probabilities)
  counts = [np.random.default_rng((0, p)).poisson(1.0, 1000) for p in photographs]
  psnr = values['psnr'].astype(np.float64)
  with np.errstate(invalid='ignore'):
    means = psnr @ np.array(counts) / np.sum(counts, axis=0)
  edges = np.nanquantile(means, (0.025, 0.975))
  wide = scipy.stats.t.ppf(0.975, 4) / scipy.stats.norm.ppf(0.975) * (5 / 4) ** 0.5
  want = psnr.mean() + wide * (edges - psnr.mean())
  np.testing.assert_allclose([found['psnr'][k] for k in ('low', 'high')], want)
  classes = feature_networks.probabilities(values[FEATURES])
  score = found['is']['value']
  want = fid_kid_is.score_interval(classes, score, photographs)
  np.testing.assert_allclose([found['is'][k] for k in ('low', 'high')], want)


def test_two_photographs_have_no_interval(values):
  """64 crops of two photographs counted as 64 images."""
  kept = record(values | {'photograph': np.arange(COUNT) % 2}, ONE)
  against = reference_statistics.of_features(DRAW.normal(size=(9, 4)), {})
  options = {'reference': against, 'probabilities': feature_networks.probabilities}
  found = row(kept, **options)
  assert {'psnr', 'detail', 'fid', 'kid', 'is'} <= set(found)
  assert all(set(entry) == {'value'} for entry in found.values())


def test_photographs_are_those_of_the_images_that_have_the_value(values):
  """SSIM is known for crops of two photographs only."""
  kept = Records()
  for number, keys in enumerate((('psnr', 'ssim'), ('psnr',))):
    index = np.arange(10) + 10 * number
    chosen = {key: values[key][index] for key in keys}
    of = index % 2 + 2 * number
    kept.add('a', number, {'index': index, 'photograph': of, **chosen})
  found = row(kept)
  assert set(found['ssim']) == {'value'} and 'low' in found['psnr']


def test_seeds(values):
  kept = record(values, ONE, part='m/0')
  other = {'psnr': values['psnr'][::-1] + 1, 'ssim': values['ssim']}
  record(
    other | {k: values[k] for k in ('power', 'power_truth')},
    RAGGED,
    part='m/1',
    kept=kept,
  )
  entry = summary.table(kept, {'m': ['m/0', 'm/1']}, scale=4)['m']['psnr']
  mean = float(values['psnr'].astype(np.float64).mean())
  np.testing.assert_allclose(entry['seeds'], [mean, mean + 1], rtol=1e-6)
  np.testing.assert_allclose(entry['value'], mean + 0.5, rtol=1e-6)
  # Over images, of which each counts with the mean of its seeds.
  each = (values['psnr'] + other['psnr']) / 2
  alone = row(record({'psnr': each}, ONE))['psnr']
  for key in ('low', 'high'):
    np.testing.assert_allclose(entry[key], alone[key], rtol=1e-5)
  single = summary.table(kept, {'m': ['m/0']}, scale=4)['m']
  assert 'seeds' not in single['psnr']


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_images_of_several_sizes(values, order):
  """Other rings, no rings, no SSIM: a mean is of the images that have the value.

  Spectra are of the size that most images have, here the first 20 of 37.
  """
  pixels = {k: values[k] for k in ('psnr', 'ssim', 'power', 'power_truth')}
  more_rings = {
    k: np.pad(v, ((0, 0), (0, 4))) if v.ndim > 1 else v for k, v in pixels.items()
  }
  no_rings = {k: pixels[k] for k in ('psnr', 'ssim')}
  small = {'psnr': pixels['psnr']}
  first = row(record({k: v[:20] for k, v in pixels.items()}, [range(20)]))
  for others in (more_rings, no_rings, small):
    kept = Records()
    for number in order:
      index = np.arange(number * 20, (COUNT, 20)[number == 0])
      chosen = {k: v[index] for k, v in (pixels, others)[number].items()}
      kept.add('a', number, {'index': index, **chosen})
    found = row(kept)
    assert set(found) == {'psnr', 'ssim', 'detail', 'spectrum_db'}
    for key in ('psnr', 'ssim'):
      mean = pixels[key][: COUNT if key in others else 20].mean()
      np.testing.assert_allclose(found[key]['value'], mean, rtol=1e-6)
    for key in ('detail', 'spectrum_db'):
      for name in ('value', 'low', 'high'):
        np.testing.assert_allclose(found[key][name], first[key][name], rtol=1e-5)


def test_distances_of_sets_equal_direct_calls(values):
  x = values[FEATURES]
  truth = DRAW.normal(0.3, 1, (50, 4)).astype(np.float32)
  against = reference_statistics.of_features(truth, {})
  options = {'reference': against, 'probabilities': feature_networks.probabilities}
  for batches in (ONE, RAGGED):
    found = row(record(values, batches), **options)
    moments = fid_kid_is.Moments.of(truth)
    fid = fid_kid_is.frechet_distance(fid_kid_is.Moments.of(x), moments)
    kid, _ = fid_kid_is.kid(x, truth)
    classes = feature_networks.probabilities(x)
    score, _ = fid_kid_is.inception_score(classes, splits=10)
    wanted = {
      'fid': (fid, *fid_kid_is.frechet_interval(x, moments)),
      'kid': [1e3 * v for v in (kid, *fid_kid_is.kid_interval(x, truth, kid))],
      'is': (score, *fid_kid_is.score_interval(classes, score)),
    }
    for key, want in wanted.items():
      got = [found[key][name] for name in ('value', 'low', 'high')]
      np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=key)
  plain = row(record(values, ONE), intervals=False, **options)
  assert plain['fid'] == {'value': found['fid']['value']}
  assert set(plain['kid']) == set(plain['is']) == {'value'}


def test_what_is_missing_leaves_metrics_out(values):
  kept = record(values, ONE)
  sets = {'fid', 'kid', 'is'}
  assert not sets & set(row(kept))
  only_score = row(kept, probabilities=feature_networks.probabilities)
  assert sets & set(only_score) == {'is'}
  moments = reference_statistics.of_features(values[FEATURES], {}).moments
  bare = reference_statistics.Reference(moments, None, {})  # as from pytorch-fid
  assert sets & set(row(kept, reference=bare)) == {'fid'}
  without = {k: v for k, v in values.items() if k != FEATURES}
  found = row(
    record(without, ONE), reference=bare, probabilities=feature_networks.probabilities
  )
  assert not sets & set(found)
  assert summary.gather_features(record(without, ONE), 'a') is None
  assert row(Records()) == {}


def test_one_image(values, recwarn):
  against = reference_statistics.of_features(values[FEATURES], {})
  found = row(record(values, [[3]]), reference=against)
  assert 'fid' not in found and 'kid' not in found
  for key in ('psnr', 'ssim', 'detail', 'spectrum_db'):
    entry = found[key]
    assert math.isfinite(entry['value'])
    assert set(entry) == {'value'}  # nothing can be said of others
  assert not [str(w) for w in recwarn if w.category is RuntimeWarning]


def test_features_come_sorted_and_outlive_their_file(values):
  features = summary.gather_features(record(values, RAGGED), 'a')
  np.testing.assert_array_equal(features, values[FEATURES])
