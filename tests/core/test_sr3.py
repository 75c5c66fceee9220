"""The method with an oracle in place of the network, and with a tiny network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import degradations, samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import resizing
from tests.support.sr3_models import (
  Constant,
  Oracle,
  Watch,
  condition_of,
  keys,
  photos,
  tiny,
  to_float,
)

SAMPLERS = ('ddpm', 'ddpm_posterior', 'ddim', 'dpmpp_2m')


# ------------------------------------------------------------------ the oracle

SPACES = [
  ('eps', False, 1.0),
  ('eps', True, 4.0),
  ('v', False, 1.0),
  ('v', True, 4.0),
  ('y0', False, 0.5),
  ('y0', True, 1.0),
]


@pytest.mark.parametrize(('prediction', 'residual', 'y0_scale'), SPACES)
def test_the_oracle_restores_the_truth(prediction, residual, y0_scale):
  """Exact predictions lead every sampler back to the image, from any noise."""
  truth = to_float(photos(2))
  condition = condition_of(photos(2))
  changes = {
    'diffusion__prediction': prediction,
    'diffusion__residual': residual,
    'diffusion__y0_scale': y0_scale,
  }
  models = [
    Oracle.from_config(
      tiny(sampler__name=name, sampler__clip=name != 'ddim', **changes)
    )
    for name in SAMPLERS
  ]

  @jax.jit
  def restore(truth, condition):
    return [model.restore(truth, jax.random.key(0), condition) for model in models]

  for name, image in zip(SAMPLERS, restore(truth, condition), strict=True):
    np.testing.assert_allclose(image, truth, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(('prediction', 'residual', 'y0_scale'), SPACES)
def test_the_oracle_has_no_loss(prediction, residual, y0_scale):
  changes = {
    'diffusion__prediction': prediction,
    'diffusion__residual': residual,
    'diffusion__y0_scale': y0_scale,
  }
  model = Oracle.from_config(tiny(**changes))
  loss = jax.jit(lambda truth, image: model.loss(truth, keys(4), {'image': image}))
  truth = to_float(photos())
  # eps is a quotient of two small differences at the cleanest levels.
  assert float(loss(truth, photos())) < 1e-3
  assert float(loss(truth + 0.1, photos())) > 0.01


@pytest.mark.parametrize(
  ('prediction', 'power', 'truth'),
  [
    ('eps', 'l1', np.sqrt(2 / np.pi)),  # E|eps|
    ('eps', 'l2', 1.0),
    ('y0', 'l1', None),
    ('y0', 'l2', None),
  ],
)
def test_loss_is_algorithm_1(prediction, power, truth):
  """The loss of a network that always outputs 0 is known in closed form."""
  config = tiny(diffusion__prediction=prediction, diffusion__loss=power)
  model = Constant.from_config(config)
  image = np.tile(photos(), (16, 1, 1, 1))
  loss = jax.jit(lambda image: model.loss(0.0, jax.random.key(1), {'image': image}))
  if truth is None:
    truth = np.mean(np.abs(to_float(image)) ** int(power[1]))
  np.testing.assert_allclose(loss(image), truth, rtol=0.01)


@pytest.mark.parametrize(('weight', 'mean'), [(0.0, 1), (1.0, 1 / 2), (2.0, 3 / 8)])
def test_errors_count_by_their_noise(weight, mean):
  """Cosine levels, uniform: 1 - gamma is sin^2 of a uniform angle, known moments."""
  config = tiny(
    diffusion__schedule='cosine',
    diffusion__prediction='y0',
    diffusion__loss='l2',
    diffusion__noise_weight=weight,
  )
  model = Constant.from_config(config)
  image = np.tile(photos(), (1024, 1, 1, 1))
  loss = jax.jit(lambda image: model.loss(0.0, jax.random.key(1), {'image': image}))
  truth = mean * np.mean(to_float(image) ** 2)
  np.testing.assert_allclose(loss(image), truth, rtol=0.02)


# ------------------------------------------------------------------- randomness


def test_what_the_network_sees_in_training():
  """x, then y with noise of N(0, 1), its own level and its own noise per example."""
  config = tiny(diffusion__schedule='cosine', diffusion__num_levels=1000)
  model, seen = Watch.from_config(config), []
  image = np.tile(photos(1), (64, 1, 1, 1))
  model.loss(seen, keys(64), {'image': image, 'label': np.arange(64)})
  (shown,) = seen
  np.testing.assert_array_equal(shown['label'], np.arange(64))
  assert shown['key'] is None  # no dropout in this configuration
  x = degradations.resize(condition_of(image), 16, 16)
  np.testing.assert_allclose(shown['x'], x, atol=1e-6)
  gamma = np.asarray(shown['gamma'], np.float64)
  assert len(np.unique(gamma)) == 64 and gamma.min() < 0.1 and gamma.max() > 0.9
  signal = np.sqrt(gamma)[:, None, None, None] * to_float(image)
  eps = (shown['y'] - signal) / np.sqrt(1 - gamma)[:, None, None, None]
  eps = eps.reshape(64, -1)[gamma < 0.999]
  np.testing.assert_allclose(eps.std(), 1, rtol=0.02)
  np.testing.assert_allclose(eps.mean(), 0, atol=0.02)
  correlation = np.corrcoef(eps) - np.eye(len(eps))
  assert np.abs(correlation).max() < 0.2


def test_noise_is_independent_of_its_level():
  """One key makes both: they must not be made from the same bits."""
  # One level from 1 to 0.25, so gamma shows the uniform draw inside it.
  config = tiny(
    diffusion__num_levels=1,
    diffusion__start=0.75,
    diffusion__end=0.75,
    diffusion__residual=True,
    sampler__num_steps=1,
  )
  model, seen = Watch.from_config(config), []
  flat = np.full((256, 4, 4, 3), 128, np.uint8)  # the residual is 0, so y is noise
  model.loss(seen, keys(256), {'image': flat})
  gamma = np.asarray(seen[0]['gamma'])
  assert gamma.min() > 0.24 and gamma.max() < 1
  eps = seen[0]['y'] / np.sqrt(1 - gamma)[:, None, None, None]
  together = np.corrcoef(np.c_[gamma, eps.reshape(256, -1)].T)[0, 1:]
  # 48 pixels: the largest chance correlation of 256 pairs is about 0.17.
  assert np.abs(together).max() < 0.25


def test_the_start_is_noise_of_its_own():
  """It is neither that of the first step nor of another example, for any batch."""
  model = SR3.from_config(tiny())
  condition = condition_of(photos())
  x = model.upsample(condition)
  start, previous = model.begin(model.noise(keys(4), x), x)
  np.testing.assert_allclose(start.std(), 1, rtol=0.05)
  np.testing.assert_array_equal(previous, 0)
  first_step = samplers.steps(*model.trajectory).number[0]
  first = samplers.normal(keys(4), first_step, start.shape[1:])
  both = np.concatenate([start.reshape(4, -1), first.reshape(4, -1)])
  assert np.abs(np.corrcoef(both) - np.eye(8)).max() < 0.2
  alone, _ = model.begin(model.noise(keys(4)[2:3], x[2:3]), x[2:3])
  np.testing.assert_array_equal(alone[0], start[2])


# --------------------------------------------------------- with a small network


@pytest.fixture(scope='module')
def small():
  """A model with random weights, as if trained, and its compiled functions."""
  model = SR3.from_config(tiny())
  # From shapes, because compiling the initialisation takes longer than the tests.
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: 0.2 * rng.standard_normal(p.shape, np.float32), shapes
  )
  return model, params, jax.jit(model.restore)


def test_loss_does_not_depend_on_how_a_batch_is_split(small):
  model, params, _ = small
  loss = jax.jit(lambda key, image: model.loss(params, key, {'image': image}))
  whole = loss(keys(4), photos())
  halves = [loss(keys(4)[half], photos()[half]) for half in (slice(2), slice(2, 4))]
  np.testing.assert_allclose(whole, np.mean(halves), rtol=1e-5)
  assert abs(whole - loss(keys(4, seed=1), photos())) > 1e-3


def test_restore(small):
  """A function of each example's key and condition alone, in [-1, 1]."""
  _, params, restore = small
  condition = condition_of(photos())
  image = restore(params, keys(4), condition)
  assert image.shape == (4, 16, 16, 3) and image.dtype == jnp.float32
  assert image.min() == -1 and image.max() == 1  # random weights overshoot
  np.testing.assert_array_equal(image, restore(params, keys(4), condition))
  alone = restore(params, keys(4)[1:2], condition[1:2])
  np.testing.assert_allclose(alone[0], image[1], atol=1e-4)
  other = restore(params, keys(4).at[1].set(jax.random.key(9)), condition)
  np.testing.assert_array_equal(other[::2], image[::2])
  assert np.abs(other[1] - image[1]).max() > 0.1


def test_restore_in_stretches(small):
  """begin, advance, finish, in pieces: progress can be shown between them."""
  model, params, restore = small
  condition = condition_of(photos())
  gammas, coefficients = model.trajectory
  steps = samplers.steps(gammas, coefficients)
  x = model.upsample(condition)
  noise = model.noise(keys(4), x)
  advance = jax.jit(model.advance, static_argnums=1)
  carry = model.begin(noise, x)
  for start, stop in ((0, 2), (2, 4)):
    stretch = jax.tree.map(lambda a: a[start:stop], steps)  # noqa: B023
    carry = advance(params, noise, x, carry, stretch)
  image = model.finish(x, carry)
  np.testing.assert_allclose(image, restore(params, keys(4), condition), atol=1e-4)


def test_clipping_acts_on_the_image():
  """The prediction is clipped where it is an image, not where it is a residual."""
  for residual in (False, True):
    config = tiny(
      diffusion__prediction='y0',
      diffusion__residual=residual,
      diffusion__y0_scale=4.0,
      sampler__num_steps=2,
      sampler__name='ddim',
    )
    condition = jnp.full((1, 4, 4, 3), 0.5)
    carries = {}
    for clip in (True, False):
      config.sampler.clip = clip
      model = Constant.from_config(config)
      x = model.upsample(condition)
      carry = model.begin(model.noise(keys(1), x), x)
      carry = model.advance(10.0, None, x, carry, samplers.steps(*model.trajectory))
      carries[clip] = carry[1].mean()
      assert np.all(model.finish(x, carry) == 1)
    # y0 = 10 is an image of 2.5, or 3 over x = 0.5. Clipped to 1, y0 is 4 or 2.
    np.testing.assert_allclose(carries[True], 2.0 if residual else 4.0, rtol=1e-5)
    np.testing.assert_allclose(carries[False], 10.0, rtol=1e-5)


def test_consistent_predictions_are_the_nearest_that_downsample_to_the_condition():
  """Against least squares with Pillow's downsampling, of a network that says 0.1."""
  model = Constant.from_config(
    tiny(diffusion__prediction='y0', sampler__consistency=True)
  )
  condition = 0.3 * condition_of(photos(1))
  got = model.restore(0.1, jax.random.key(0), condition)[0]
  identity = np.eye(256, dtype=np.float32).reshape(256, 16, 16, 1)
  downsampling = np.stack(
    [resizing.resize(image, 4, 4).ravel() for image in identity], 1
  )
  for channel in range(3):
    missing = np.ravel(condition[0, ..., channel]) - downsampling @ np.full(256, 0.1)
    smallest = np.linalg.lstsq(downsampling, missing, rcond=None)[0].reshape(16, 16)
    np.testing.assert_allclose(got[..., channel], 0.1 + smallest, atol=1e-5)


class Learned(SR3):
  """A model whose network gives the variance, too."""

  def predict(self, *args):
    prediction = super().predict(*args)
    return jnp.concatenate([prediction, jnp.zeros_like(prediction)], axis=-1)


@pytest.mark.parametrize('name', ['dpmpp_2m', 'ddpm_learned'])
def test_consistent_outputs_downsample_to_the_input(name):
  """For a random network, by Pillow; without the correction they don't."""
  learned = name == 'ddpm_learned'
  condition = 0.3 * condition_of(photos())
  errors = []
  for consistency in (True, False):
    config = tiny(
      diffusion__prediction='y0',
      diffusion__residual=True,
      diffusion__y0_scale=8.0,
      diffusion__learned_variance=learned,
      sampler__name=name,
      sampler__consistency=consistency,
    )
    model = (Learned if learned else SR3).from_config(config)
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(0)))
    image = jax.jit(model.restore)(params, keys(4), condition)
    low = np.stack([resizing.resize(np.asarray(i), 4, 4) for i in image])
    errors.append(np.abs(low - condition).max())
  assert errors[0] < 1e-5 and errors[1] > 1e-3


def test_consistency_needs_downsampled_inputs():
  for task in ('jpeg', 'cascade', 'generation'):
    with pytest.raises(ValueError, match=f'consistency: task.name={task!r}'):
      SR3.from_config(tiny(task__name=task, sampler__consistency=True))
  with pytest.raises(ValueError, match=r'with task\.through=2'):
    SR3.from_config(tiny(task__through=2, sampler__consistency=True))
  baseline = SR3.from_config(tiny(method='regression', sampler__consistency=True))
  assert not baseline.consistency


def test_a_sampler_of_ones_own():
  """Any coefficients over any levels run on any model."""
  seen = []

  class Model(Constant):
    def predict(self, params, x, y, gamma, label=None, dropout_key=None):
      jax.debug.callback(
        lambda gamma: seen.append(float(gamma[0])), gamma, ordered=True
      )
      return jnp.full_like(x, params)

  model = Model.from_config(tiny(diffusion__prediction='y0'))
  gammas = np.array([1, 0.8, 0.3, 1e-3])
  coefficients = samplers.ddim(gammas)
  restore = jax.jit(lambda c: model.restore(0.5, keys(1), c, coefficients, gammas))
  image = restore(condition_of(photos(1)))
  jax.effects_barrier()
  np.testing.assert_allclose(seen, [1e-3, 0.3, 0.8], rtol=1e-6)
  np.testing.assert_allclose(image, 0.5, atol=1e-6)


def test_what_belongs_together_is_given_together():
  x, y, gamma = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 16, 16, 3)), jnp.ones(1)
  model = Constant.from_config(tiny(diffusion__prediction='y0'))
  with pytest.raises(ValueError, match='guidance needs the classes'):
    model.denoise(0.5, x, y, gamma, guidance=jnp.ones(1))
  coefficients = samplers.ddim(np.array([1, 0.5]))
  with pytest.raises(ValueError, match='need the gammas'):
    model.restore(0.5, keys(1), condition_of(photos(1)), coefficients)
  config = tiny(diffusion__prediction='y0', sampler__consistency=True)
  consistent, steps = Constant.from_config(config), samplers.steps(*model.trajectory)
  with pytest.raises(ValueError, match='needs the condition'):
    consistent.advance(0.5, None, x, (y, y), steps)


# ------------------------------------------------------------------- regression


def test_regression_is_one_call_without_noise():
  """The paper's baseline: squared error, and nothing random."""
  for residual in (False, True):
    config = tiny(method='regression', diffusion__residual=residual)
    oracle = Oracle.from_config(config)
    truth = to_float(photos())
    np.testing.assert_allclose(
      oracle.loss(truth, keys(4), {'image': photos()}), 0, atol=1e-10
    )
    image = oracle.restore(truth, keys(4), condition_of(photos()))
    np.testing.assert_allclose(image, truth, atol=1e-6)

  constant = Constant.from_config(tiny(method='regression'))
  loss = [constant.loss(0.3, keys(4, seed), {'image': photos()}) for seed in (0, 1)]
  assert loss[0] == loss[1]
  np.testing.assert_allclose(loss[0], np.mean((0.3 - truth) ** 2), rtol=1e-5)

  watch, seen = Watch.from_config(tiny(method='regression')), []
  for seed in (0, 1):
    watch.restore(seen, keys(4, seed), condition_of(photos()))
  assert len(seen) == 2  # one for each call
  np.testing.assert_array_equal(seen[0]['y'], 0)
  np.testing.assert_array_equal(seen[0]['x'], seen[1]['x'])
