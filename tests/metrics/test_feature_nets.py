"""Networks by their names: weights from files to functions."""

import hashlib

import numpy as np
import pytest

from sr3_jax.metrics import dists, feature_nets, inception, lpips, net_weights
from sr3_jax.metrics.net_weights import WeightsMissing
from tests.support import oracles_features as originals


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv('SR3_JAX_WEIGHTS', str(tmp_path))
  # Never from the network, whoever runs this.
  monkeypatch.setattr(net_weights, '_fetch', lambda *args: 1 / 0)
  return tmp_path


def _images(shape=(1, 31, 33, 3), seed=0):
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _standard(name):
  return {s.file: s.sha256 for s in net_weights.WEIGHTS[name].sources}


@pytest.mark.parametrize('kind', ['alex', 'vgg'])
def test_lpips_by_name(folder, kind):
  name = f'lpips_{kind}'
  state = originals.random_state(originals.lpips_shapes(kind))
  net_weights.save(folder / f'{name}.safetensors', state, _standard(name))
  net = feature_nets.load(name)
  assert (net.name, net.apply, net.probabilities) == (name, lpips.distance, None)
  weights = net.params['weights']
  for i, channels in enumerate(weights):
    np.testing.assert_array_equal(channels, state[f'lin{i}.model.1.weight'].ravel())
  first = net_weights.WEIGHTS[name].sources[0]
  assert f'{first.file} ({first.sha256[:8]})' in net.about
  assert 'own size' in net.about and 'not the published' not in net.about


def test_dists_by_name(folder):
  state = originals.random_state(originals.dists_shapes())
  net_weights.save(folder / 'dists.safetensors', state, _standard('dists'))
  net = feature_nets.load('dists')
  assert (net.apply, net.probabilities) == (dists.distance, None)
  assert net.smallest == dists.SMALLEST
  total = state['alpha'].sum() + state['beta'].sum()
  expected = state['alpha'].ravel() / total
  np.testing.assert_allclose(np.concatenate(net.params['texture']), expected, 1e-6)
  assert 'DISTS_weights-f5e65c96.pth (f5e65c96)' in net.about
  assert 'own size' in net.about and 'not the published' not in net.about
  # Too small images leave it out, and say so.
  nets, left_out = feature_nets.load_nets(['dists'], str(folder), dists.SMALLEST - 1)
  assert not nets and '17 x 17' in left_out[0]['why']


def test_inception_by_name(folder, monkeypatch):
  shape = {'fc.weight': (1008, 2048)}
  state = originals.random_state(shape)
  monkeypatch.setattr(inception, 'from_torch', dict)
  path = folder / 'mine.safetensors'
  net_weights.save(path, state, {'elsewhere.pt': '12' * 32})
  net = feature_nets.load('inception', str(path))
  assert net.apply is inception.features and list(net.params) == list(shape)
  features = np.abs(_images((2, 2048)))
  expected = inception.probabilities(state['fc.weight'].T, features)
  np.testing.assert_array_equal(net.probabilities(features), expected)
  digest = hashlib.sha256(('12' * 32).encode()).hexdigest()
  assert net.fingerprint == digest[:16]
  assert 'elsewhere.pt (12121212), not the published files' in net.about
  assert '299 x 299, bilinear' in net.about and '\n' not in net.about


def test_without_the_last_layer_there_are_no_probabilities(folder, monkeypatch):
  loaded = net_weights.Loaded({}, {'a': 'b'}, False)
  monkeypatch.setattr(net_weights, 'load', lambda *args: loaded)
  monkeypatch.setattr(inception, 'from_torch', lambda tensors: {})
  assert feature_nets.load('inception').probabilities is None


def test_missing_and_wrong_weights_end_in_one_line(folder, monkeypatch):
  monkeypatch.setattr(net_weights.importlib.util, 'find_spec', lambda name: None)
  for name in feature_nets.NAMES:
    with pytest.raises(WeightsMissing) as error:
      feature_nets.load(name)
    assert str(error.value).startswith(f'{name}: download https://')
    assert '\n' not in str(error.value) and str(folder) in str(error.value)
  net_weights.save(folder / 'x.safetensors', {'a': np.ones(3, np.float32)}, {})
  for name in feature_nets.NAMES:
    with pytest.raises(WeightsMissing, match=rf'^{name}: .*: not the .*: no \S+$'):
      feature_nets.load(name, str(folder / 'x.safetensors'))


@pytest.mark.slow
def test_from_the_files_of_pytorch(folder, monkeypatch):
  torch = pytest.importorskip('torch')
  state = originals.random_state(originals.lpips_shapes('alex'))
  state['classifier.1.weight'] = np.ones((4, 9), np.float32)
  tensors = {name: torch.tensor(x) for name, x in state.items()}
  sources = []
  for source in net_weights.WEIGHTS['lpips_alex'].sources:
    lins = source.file == 'alex.pth'
    part = {k: x for k, x in tensors.items() if k.startswith('lin') == lins}
    torch.save(part, folder / source.file)
    digest = hashlib.sha256((folder / source.file).read_bytes()).hexdigest()
    sources.append(net_weights.dataclasses.replace(source, sha256=digest))
  table = net_weights.Weights('LPIPS', '', tuple(sources))
  monkeypatch.setitem(net_weights.WEIGHTS, 'lpips_alex', table)
  first = feature_nets.load('lpips_alex')
  cached = folder / 'lpips_alex.safetensors'
  assert cached.stat().st_size < 11e6  # without the classifier
  for source in sources:
    (folder / source.file).unlink()
  second = feature_nets.load('lpips_alex')
  assert (first.fingerprint, first.about) == (second.fingerprint, second.about)
  image, truth = _images(seed=1), _images(seed=2)
  found = second.apply(second.params, image, truth)
  pair = [torch.tensor(np.moveaxis(x, -1, 1).copy()) for x in (image, truth)]
  expected = originals.lpips(originals.Torch(state), 'alex', state, *pair)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
