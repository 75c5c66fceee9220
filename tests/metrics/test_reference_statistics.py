"""Reference statistics: saved, read, computed in any order, refused in one line."""

import dataclasses
import pickle

import numpy as np
import pytest
from etils import epath

from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import run as evaluation_run
from sr3_jax.images import pixels as images_pixels
from sr3_jax.metrics import reference_statistics
from sr3_jax.metrics.reference_statistics import StatisticsError
from tests.support import feature_networks, runs

COUNT = 21


@pytest.fixture(scope='module')
def pixels():
  """uint8 [21, 16, 16, 3]."""
  return np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16, 3), np.uint8)


@pytest.fixture(scope='module')
def features(pixels):
  return feature_networks.features(images_pixels.to_float(pixels)).astype(np.float32)


def batches(pixels, order):
  """Batches of eight in that order; the last one is filled up with garbage."""
  for start in range(0, len(order), 8):
    index = np.array([*order[start : start + 8], *[-1] * 8])[:8]
    yield {'image': pixels[index], 'mask': index >= 0, 'index': index.astype(np.int32)}


def of(pixels, order, on_images=lambda count: None):
  net = feature_networks.inception()
  return reference_statistics.of_batches(
    net, batches(pixels, order), {'folder': 'x'}, on_images
  )


def test_of_batches_equals_direct_features(pixels, features):
  done = []
  found = of(pixels, range(COUNT), done.append)
  assert found.moments.count == COUNT and done == [8, 8, 5]
  assert found.about == {'folder': 'x', 'images': COUNT}
  np.testing.assert_allclose(found.moments.mean, features.mean(0), atol=1e-5)
  want = np.cov(features.T)
  np.testing.assert_allclose(found.moments.covariance, want, rtol=1e-4, atol=1e-5)
  # All of them are chosen, in some order.
  distances = np.abs(found.features[:, None] - features[None]).max(-1)
  assert sorted(distances.argmin(1)) == list(range(COUNT))
  assert distances.min(1).max() < 1e-5


def test_chosen_features_do_not_depend_on_the_order(pixels, features, monkeypatch):
  monkeypatch.setattr(reference_statistics, '_STORED', 6)
  few = of(pixels, range(COUNT)).features
  other = of(pixels, np.random.default_rng(1).permutation(COUNT)).features
  assert few.shape == (6, 4)
  np.testing.assert_allclose(few, other, atol=1e-6)
  chosen = np.abs(few[:, None] - features[None]).max(-1).argmin(1)
  # A random choice: not the first, nor the last.
  assert len(set(chosen)) == 6 and max(chosen) >= 6 and min(chosen) < COUNT - 6


def test_too_few_images(pixels):
  for order in ([], [3]):
    with pytest.raises(StatisticsError, match='at least two images'):
      of(pixels, order)


def test_a_process_without_images_ends_them_all(pixels, monkeypatch):
  """Else it would fail alone, and the others would wait for its part."""
  monkeypatch.setattr(reference_statistics.devices, 'everywhere', lambda _: [False])
  with pytest.raises(StatisticsError, match='one in each process'):
    of(pixels, range(COUNT))


def test_choices():
  assert reference_statistics.choose(5, 10).tolist() == [0, 1, 2, 3, 4]
  some = reference_statistics.choose(1000, 100)
  assert len(set(some.tolist())) == 100 and np.all(np.diff(some) > 0)
  assert 350 < some.mean() < 650
  assert not np.array_equal(some, reference_statistics.choose(1000, 100, seed=1))


def test_of_features_in_blocks():
  features = np.random.default_rng(2).normal(3, 2, (2345, 3)).astype(np.float32)
  found = reference_statistics.of_features(features, {})
  np.testing.assert_allclose(found.moments.mean, features.mean(0, np.float64))
  np.testing.assert_allclose(found.moments.covariance, np.cov(features.T), rtol=1e-6)
  np.testing.assert_array_equal(found.features, features)


def test_a_file_gives_back_what_it_was_given(tmp_path, features):
  made = reference_statistics.of_features(
    features, {'folder': 'faces', 'images': COUNT}
  )
  path = epath.Path(tmp_path) / 'new' / 'faces.npz'
  reference_statistics.save(path, made)
  found = reference_statistics.load(path)
  assert found.moments.count == COUNT
  np.testing.assert_array_equal(found.moments.mean, made.moments.mean)
  np.testing.assert_allclose(
    found.moments.covariance, made.moments.covariance, rtol=1e-6
  )
  np.testing.assert_array_equal(found.features, features)
  assert found.about == {
    'file': 'faces.npz',
    'folder': 'faces',
    'images': COUNT,
    'format': reference_statistics.FORMAT,
  }
  assert [p.name for p in path.parent.iterdir()] == ['faces.npz']


def test_the_files_of_pytorch_fid(tmp_path, features):
  mean, covariance = features.mean(0), np.cov(features.T)
  np.savez(tmp_path / 'theirs.npz', mu=mean, sigma=covariance)
  found = reference_statistics.load(tmp_path / 'theirs.npz')
  np.testing.assert_allclose(found.moments.mean, mean)
  np.testing.assert_allclose(found.moments.covariance, covariance)
  assert found.features is None and found.about == {'file': 'theirs.npz'}


GOOD = {'mu': np.zeros(3), 'sigma': np.eye(3)}
WRONG = {
  'no mu': {'sigma': np.eye(3)},
  'a number': {'mu': np.float64(1), 'sigma': np.eye(1)},
  'shapes': {'mu': np.zeros(3), 'sigma': np.eye(4)},
  'features': GOOD | {'features': np.zeros((9, 4))},
  'one feature': GOOD | {'features': np.zeros((1, 3))},
  'not finite': {'mu': np.array([0, np.nan, 0]), 'sigma': np.eye(3)},
  'count': GOOD | {'count': np.int64(1)},
  'about': GOOD | {'about': np.array('no JSON')},
  'text': {'mu': np.array(['a', 'b', 'c']), 'sigma': np.eye(3)},
  'pickled': GOOD | {'about': np.array([{'a': 1}], object)},
}


@pytest.mark.parametrize('name', WRONG)
def test_other_arrays_are_refused_in_one_line(tmp_path, name):
  np.savez(tmp_path / 'a.npz', **WRONG[name])
  assert_refused(tmp_path / 'a.npz')


class Trap:
  def __reduce__(self):
    return pytest.fail, ('a pickle was run',)


def npz(**arrays) -> bytes:
  import io

  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  return buffer.getvalue()


DAMAGED = {
  'empty': b'',
  'text': b'mu = 3',
  'half': npz(**GOOD)[:300],
  'end': npz(**GOOD)[:-9],
  'flipped': b''.join([npz(**GOOD)[:60], b'\xff' * 20, npz(**GOOD)[80:]]),
  'pickle': pickle.dumps(Trap()),
}


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged_files_are_refused_in_one_line(tmp_path, name):
  (tmp_path / 'a.npz').write_bytes(DAMAGED[name])
  assert_refused(tmp_path / 'a.npz')


def test_no_file_is_one_line(tmp_path):
  assert assert_refused(tmp_path / 'a.npz').endswith('no such file')
  assert_refused(tmp_path)


def assert_refused(path) -> str:
  with pytest.raises(StatisticsError) as error:
    reference_statistics.load(path)
  text = str(error.value)
  assert text.startswith(f'{path}: ') and '\n' not in text
  return text


def test_statistics_of_another_network(tmp_path, features):
  net = feature_networks.inception()
  reference_statistics.check(reference_statistics.of_features(features, {}), net)
  np.savez(tmp_path / 'a.npz', **GOOD)
  with pytest.raises(StatisticsError, match=r'^a.npz: .* 3 features, inception has 4$'):
    reference_statistics.check(reference_statistics.load(tmp_path / 'a.npz'), net)


def test_the_mode_makes_statistics_of_the_training_images(tmp_path, monkeypatch):
  """It takes all training images, cut as in evaluation; other weights refuse it."""
  net = feature_networks.inception()
  monkeypatch.setattr(evaluation_run.feature_nets, 'load', lambda name, folder: net)
  config = runs.get_config()
  config.eval.reference_images = 19  # not a multiple of the batch
  evaluation_run.reference_run(config, tmp_path)
  made = reference_statistics.load(tmp_path / 'reference.npz')
  config.data.eval_split = config.data.split
  batches = input_pipeline.evaluation_data(config, 19)
  crops = [i for b in batches for i in b['image'][b['mask']]]
  batches.close()
  truth = feature_networks.features(images_pixels.to_float(np.stack(crops)))
  np.testing.assert_allclose(made.moments.mean, truth.mean(0), rtol=1e-4)
  np.testing.assert_allclose(made.moments.covariance, np.cov(truth.T), rtol=1e-3)
  assert made.moments.count == made.about['images'] == 19
  assert made.about['source'] == 'photos train'
  reference_statistics.check(made, net)
  with pytest.raises(StatisticsError, match='other weights'):
    reference_statistics.check(made, dataclasses.replace(net, fingerprint='33ff'))
