"""DISTS against its authors' program, and the paper's formula in plain NumPy."""

import jax
import numpy as np
import pytest

from sr3_jax.metrics import dists
from tests.support import oracles_features as originals

DISTANCE = jax.jit(dists.distance)
SHAPE = (2, 18, 21, 3)
# What DISTS_pytorch 0.1 gives for `noisy_pair` and the weights `state`, in float64
# (PyTorch 2.14.1, its VGG16 with these weights, images shifted to [0, 1]).
AUTHORS = {
  SHAPE: (0.051374887653, 0.014969680133),
  (2, 41, 47, 3): (0.054722736076, 0.016944656167),
}


@pytest.fixture(scope='module')
def state():
  """PyTorch weights by their names."""
  return originals.random_state(originals.dists_shapes())


@pytest.fixture(scope='module')
def params(state):
  return dists.from_torch(state)


@pytest.mark.parametrize('shape', AUTHORS)
def test_distance_is_that_of_the_authors_program(params, shape):
  found = DISTANCE(params, *originals.noisy_pair(shape))
  np.testing.assert_allclose(found, AUTHORS[shape], rtol=1e-5)


def test_distance_is_that_of_plain_numpy(state, params):
  image, truth = originals.noisy_pair((2, 17, 20, 3), seed=2)
  expected = originals.dists(
    originals.Plain(state), state, originals.nchw(image), originals.nchw(truth)
  )
  np.testing.assert_allclose(DISTANCE(params, image, truth), expected, rtol=1e-5)


def test_only_means_and_variances_of_one_colour(state):
  """Compare with the formula for the first channel alone, which is short."""
  weights = {name: np.zeros_like(state[name]) for name in ('alpha', 'beta')}
  weights['alpha'][0, 0], weights['beta'][0, 0] = 1, 3
  image, truth = originals.noisy_pair(SHAPE)
  found = DISTANCE(dists.from_torch(state | weights), image, truth)
  for i, pair in enumerate(zip(image, truth, strict=True)):
    x, y = (np.float64(z[..., 0]).ravel() / 2 + 0.5 for z in pair)
    (var_x, both), (_, var_y) = np.cov(x, y, bias=True)
    texture = 2 * x.mean() * y.mean() / (x.mean() ** 2 + y.mean() ** 2)
    expected = 1 - (texture + 3 * 2 * both / (var_x + var_y)) / 4
    np.testing.assert_allclose(found[i], expected, rtol=1e-4)


def test_equal_images_and_order(params):
  image, truth = originals.noisy_pair(SHAPE)
  np.testing.assert_array_equal(DISTANCE(params, image, image), 0)
  flat = np.full(SHAPE, -1, np.float32)  # black, without any variance
  np.testing.assert_array_equal(DISTANCE(params, flat, flat), 0)
  there, back = DISTANCE(params, image, truth), DISTANCE(params, truth, image)
  np.testing.assert_allclose(there, back, rtol=1e-6)


def test_numbers_of_weights(params):
  found = sum(x.size for x in jax.tree.leaves(params['backbone']))
  assert found == 14_714_688  # torchvision's `features`
  weights = [*params['texture'], *params['structure']]
  assert [x.size for x in weights] == 2 * [3, *originals.CHANNELS['vgg']]
  assert sum(x.size for x in weights) == 2 * 1475
  np.testing.assert_allclose(sum(x.sum(dtype=np.float64) for x in weights), 1, 1e-6)


def test_smallest_side_leaves_two_pixels():
  x = jax.ShapeDtypeStruct((1, dists.SMALLEST, 32, 1), np.float32)
  shapes = []
  for _ in range(4):
    x = jax.eval_shape(lambda x: dists.l2_pool(x, 2), x)
    shapes.append(x.shape[1:3])
  assert shapes == [(9, 16), (5, 8), (3, 4), (2, 2)]


def test_mistakes_are_said(state, params):
  with pytest.raises(ValueError, match='of one shape'):
    dists.distance(params, np.zeros((1, 64, 64, 3)), np.zeros((1, 64, 65, 3)))
  small = np.zeros((1, 16, 64, 3), np.float32)
  with pytest.raises(ValueError, match='at least 17 x 17 pixels, got 16 x 64'):
    dists.distance(params, small, small)
  with pytest.raises(ValueError, match=r'weights of DISTS: no features\.0\.weight$'):
    dists.from_torch({})
  wrong = state | {'alpha': np.zeros((1, 7, 1, 1), np.float32)}
  with pytest.raises(ValueError, match=r'DISTS: alpha is \(1, 7, 1, 1\)'):
    dists.from_torch(wrong)
  nothing = {name: np.zeros_like(state[name]) for name in ('alpha', 'beta')}
  with pytest.raises(ValueError, match='add up to nothing'):
    dists.from_torch(state | nothing)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(2, 64, 64, 3), (1, 131, 98, 3)])
def test_distance_is_pytorchs(state, params, shape):
  torch = pytest.importorskip('torch')
  image, truth = originals.noisy_pair(shape)
  pair = [torch.tensor(np.float32(originals.nchw(x))) for x in (image, truth)]
  with torch.no_grad():
    expected = originals.dists(originals.Torch(state), state, *pair).numpy()
  np.testing.assert_allclose(DISTANCE(params, image, truth), expected, rtol=1e-4)
