"""Inception-v3 against the same network in plain NumPy and, slowly, in PyTorch."""

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image

from sr3_jax.metrics import inception
from tests.support import oracles_features as originals


@pytest.fixture(scope='module')
def state():
  return originals.random_state(originals.inception_shapes())


@pytest.fixture(scope='module')
def params(state):
  return inception.from_torch(state)


def _images(shape, seed=1):
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def test_names_and_sizes_are_those_of_the_file(state, params):
  assert len(state) == 566
  # The file has 95,628,359 bytes: 4 a number, and the rest is names.
  assert 95_400_000 < 4 * sum(x.size for x in state.values()) < 95_628_359
  # torchvision's number for this trunk, where a normalisation has two parameters.
  sizes = [x.size * (1 + (x.ndim == 1)) for x in jax.tree.leaves(params)]
  assert sum(sizes) == 21_785_568


def test_features_are_those_of_plain_numpy(state, params):
  # One row of the last 8 x 8, but two columns, so that the last pools do something.
  images = _images((1, 75, 107, 3))
  apply = jax.jit(inception.InceptionV3().apply)
  found = apply({'params': params}, images)
  net = originals.Plain(state)
  expected = originals.inception(net, np.moveaxis(np.float64(images), -1, 1))
  expected = expected.mean((2, 3))
  assert found.shape == (1, 2048)
  assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_upsampling_is_pillows():
  image = _images((9, 14, 1))
  found = np.asarray(inception.resize(image[None]))
  expected = Image.fromarray(image[..., 0]).resize(
    (299, 299), Image.Resampling.BILINEAR
  )
  np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-6)


def test_downsampling_reads_two_pixels_only():
  """In closed form: a ramp stays a ramp, and no pixel between samples counts."""
  wide = 3 * 299
  ramp = np.broadcast_to(
    np.arange(wide, dtype=np.float32)[None, :, None], (299, wide, 1)
  )
  found = np.asarray(inception.resize(ramp[None]))[0, 0, :, 0]
  np.testing.assert_allclose(found, 3 * np.arange(299) + 1, rtol=1e-6)
  unseen = np.where(np.arange(wide) % 3 == 1, 0, 1).astype(np.float32)
  unseen = np.broadcast_to(unseen[None, :, None], (299, wide, 1))
  assert np.abs(inception.resize(unseen[None])).max() < 1e-3


def test_probabilities_leave_the_bias_out(state):
  features = np.abs(_images((4, 2048)))
  weights = inception.class_weights(state)
  found = inception.probabilities(weights, features)
  expected = scipy.special.softmax(features @ np.float64(state['fc.weight']).T, axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
  trunk = {name: x for name, x in state.items() if not name.startswith('fc.')}
  assert inception.class_weights(trunk) is None


def test_other_networks_are_refused(state):
  broken = dict(state)
  del broken['Mixed_6c.branch7x7_2.bn.running_var']
  with pytest.raises(ValueError, match=r'no Mixed_6c\.branch7x7_2\.bn\.running_var$'):
    inception.from_torch(broken)
  broken = state | {'Conv2d_1a_3x3.conv.weight': np.zeros((32, 3, 5, 5), np.float32)}
  with pytest.raises(ValueError, match='Conv2d_1a_3x3 gives a kernel of'):
    inception.from_torch(broken)
  with pytest.raises(ValueError, match=r'fc\.weight is \(1000, 2048\)'):
    inception.class_weights({'fc.weight': np.zeros((1000, 2048))})


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 64, 64, 3), (1, 400, 331, 3), (1, 299, 299, 3)])
def test_features_are_pytorchs(state, params, shape):
  torch = pytest.importorskip('torch')
  images = _images(shape)
  x = torch.tensor(np.moveaxis(images, -1, 1))
  x = torch.nn.functional.interpolate(
    x, size=(299, 299), mode='bilinear', align_corners=False
  )
  resized = np.moveaxis(x.numpy(), 1, -1)
  np.testing.assert_allclose(inception.resize(images), resized, atol=1e-5)
  with torch.no_grad():
    expected = originals.inception(originals.Torch(state), x).mean((2, 3)).numpy()
  found = np.asarray(jax.jit(inception.features)(params, images))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.max())
  assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
