"""LPIPS against the same formula in plain NumPy and, slowly, in PyTorch."""

import jax
import numpy as np
import pytest

from sr3_jax.metrics import backbones, lpips
from tests.support import oracles_features as originals

DISTANCE = jax.jit(lpips.distance)
SHAPES = {'alex': (2, 41, 47, 3), 'vgg': (2, 18, 21, 3)}  # pools leave a row out


@pytest.fixture(scope='module', params=['alex', 'vgg'])
def net(request):
  """The kind of backbone, its PyTorch weights, and parameters made of them."""
  kind = request.param
  state = originals.random_state(originals.lpips_shapes(kind))
  return kind, state, lpips.from_torch(kind, state, state)


def test_distance_is_that_of_plain_numpy(net):
  kind, state, params = net
  image, truth = originals.noisy_pair(SHAPES[kind])
  found = DISTANCE(params, image, truth)
  pair = originals.nchw(image), originals.nchw(truth)
  expected = originals.lpips(originals.Plain(state), kind, state, *pair)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert expected[0] > 1.1 * expected[1]


def test_numbers_of_weights(net):
  kind, _, params = net
  counts = {'alex': 2_469_696, 'vgg': 14_714_688}  # torchvision's `features`
  found = sum(x.size for x in jax.tree.leaves(params['backbone']))
  assert found == counts[kind]
  assert [x.size for x in params['weights']] == list(originals.CHANNELS[kind])


def test_smallest_sizes(net):
  kind, _, params = net
  side = lpips.SMALLEST[kind]
  shapes = jax.eval_shape(
    backbones.Backbone(kind).apply,
    {'params': params['backbone']},
    np.zeros((1, side, side, 3), np.float32),
  )
  assert min(shapes[-1].shape[1:3]) == 1
  small = np.zeros((1, side - 1, side, 3), np.float32)
  with pytest.raises(ValueError, match=f'at least {side} x {side} pixels, got'):
    lpips.distance(params, small, small)


def test_pixels_without_activation_are_equal(net):
  """Without the epsilon the distance would be nan."""
  kind, _, params = net
  dead = params | {'backbone': jax.tree.map(np.zeros_like, params['backbone'])}
  image, truth = originals.noisy_pair(SHAPES[kind])
  np.testing.assert_array_equal(DISTANCE(dead, image, truth), 0)


def test_mistakes_are_said(net):
  kind, state, params = net
  with pytest.raises(ValueError, match='of one shape'):
    lpips.distance(params, np.zeros((1, 64, 64, 3)), np.zeros((1, 64, 65, 3)))
  with pytest.raises(ValueError, match=r'no features\.0\.weight$'):
    lpips.from_torch(kind, {}, state)
  wrong = state | {'lin2.model.1.weight': np.zeros((1, 7, 1, 1), np.float32)}
  with pytest.raises(ValueError, match=r'lin2\.model\.1\.weight is \(1, 7, 1, 1\)'):
    lpips.from_torch(kind, state, wrong)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 64, 64, 3), (1, 131, 98, 3)])
def test_distance_is_pytorchs(net, shape):
  torch = pytest.importorskip('torch')
  kind, state, params = net
  image, truth = originals.noisy_pair(shape)
  pair = [torch.tensor(np.float32(originals.nchw(x))) for x in (image, truth)]
  with torch.no_grad():
    expected = originals.lpips(originals.Torch(state), kind, state, *pair).numpy()
  found = DISTANCE(params, image, truth)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
