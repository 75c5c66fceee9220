"""Tests of the training step."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import devices
from sr3_jax.training import train_step
from tests.support import training_data
from tests.support.training_data import assert_same_bits, flat_norm

config = training_data.config

pytestmark = pytest.mark.usefixtures('compile_cache')


class SmallNetwork(nn.Module):
  """Two layers instead of the U-Net, which compile in a second."""

  dropout: float = 0.0
  predicts = False

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    h = jnp.tanh(
      nn.Conv(8, (3, 3))(inputs) + nn.Dense(8)(gamma[:, None])[:, None, None]
    )
    return nn.Conv(3, (3, 3))(h)


@pytest.fixture(scope='module')
def small(config) -> train_step.TrainState:
  """Return the first state of a model with a small network."""
  model = dataclasses.replace(SR3.from_config(config), network=SmallNetwork())
  return train_step.create_state(config, model)


def make_batch(seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
  shape = (size, 16, 16, 3)
  return {'image': np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}


def test_the_step_is_a_pure_function(small):
  before = jax.tree.map(np.array, small.saved())
  first = jax.jit(train_step.train_step)(small, make_batch())
  jax.jit(train_step.train_step)(small, make_batch(1))
  np.random.default_rng().random()
  again = jax.jit(train_step.train_step)(small, make_batch())
  assert_same_bits(first[0].saved(), again[0].saved())
  assert_same_bits(first[1], again[1])
  assert_same_bits(small.saved(), before)
  assert (first[0].step, small.step) == (1, 0)


def test_noise_depends_only_on_seed_and_step(small):
  step = jax.jit(train_step.train_step)
  batch = make_batch()
  loss = float(step(small, batch)[1]['loss'])
  assert float(step(small, batch)[1]['loss']) == loss
  later = float(step(small.replace(step=jnp.int32(1)), batch)[1]['loss'])
  other = float(step(small.replace(seed=1), batch)[1]['loss'])
  assert len({loss, later, other}) == 3


GOLDEN = """
Training steps no longer give the numbers that they gave before. Update the numbers only
after a change that is meant to change training: the network, its initialisation, the
noise levels, the loss, the random keys, the optimizer. Refactoring, speed-ups, other
devices or another data pipeline must not change them; then look for the bug.
New numbers: {}
"""


def test_training_steps_give_the_numbers_that_they_gave_before(config):
  """Three steps on eight devices; the first two don't change all parameters."""
  state = devices.replicate(train_step.create_state(config, SR3.from_config(config)))
  step = devices.pmap(
    functools.partial(train_step.train_step, axis_name=devices.AXIS),
    donate_argnums=(0,),
  )
  numbers = []
  for seed in range(3):
    state, metrics = step(state, devices.shard(make_batch(seed)))
    numbers += [float(metrics['loss'][0]), float(metrics['grad_norm'][0])]
  params, ema = jax.device_get(devices.unreplicate((state.params, state.ema)))
  for tree in (params, ema):
    for name in ('conv_in', 'middle_block0', 'conv_out'):
      numbers.append(float(sum(np.abs(a).sum() for a in jax.tree.leaves(tree[name]))))
  expected = [0.779418, 0.0607549, 0.799812, 0.0601317, 0.806153, 0.0613788]
  expected += [281.056, 128.782, 36.4697, 280.364, 128.326, 33.4314]
  message = GOLDEN.format([float(f'{n:.6g}') for n in numbers])
  np.testing.assert_allclose(numbers, expected, rtol=1e-4, err_msg=message)


@pytest.mark.parametrize(('step', 'decay'), [(1, 0.1), (9, 0.5), (81, 0.9), (999, 0.9)])
def test_the_decay_of_the_average_grows_with_the_step(small, step, decay):
  """It reaches the configured 0.9 at step 81."""
  update = jax.jit(train_step.train_step)
  one, _ = update(small, make_batch(0))
  moved = jax.tree.map(lambda a, b: np.any(a != b), one.params, small.params)
  assert all(jax.tree.leaves(moved))  # otherwise the next check would prove nothing
  assert_same_bits(one.ema, one.params)
  late = one.replace(step=jnp.int32(step))
  two, _ = update(late, make_batch(1))
  expected = jax.tree.map(
    lambda old, new: decay * np.float64(old) + (1 - decay) * np.float64(new),
    one.ema,
    two.params,
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, two.ema, expected)


def rates(config, steps: int) -> np.ndarray:
  """Learning rates as seen from outside, without asking the schedule.

  The gradient is constant, so Adam's two averages, corrected for their start, are g and
  g^2 at every step, and an update is -rate * g / (|g| + 1e-8).
  """
  tx = train_step.make_optimizer(config)
  params = {'w': jnp.zeros(())}
  state = tx.init(params)
  found = []
  update = jax.jit(tx.update)
  for _ in range(steps):
    updates, state = update({'w': jnp.float32(0.01)}, state, params)
    found.append(-float(updates['w']))
  return np.array(found)


def test_learning_rate_warms_up_and_stays(config):
  c = config.train.copy_and_resolve_references()
  c.learning_rate, c.warmup_steps, c.decay_steps = 1e-3, 4, 0
  expected = [0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3, 1e-3]
  np.testing.assert_allclose(rates(c, 7), expected, rtol=1e-4)


@pytest.mark.parametrize('warmup', [0, 1])
def test_learning_rate_without_warm_up(config, warmup):
  c = config.train.copy_and_resolve_references()
  c.learning_rate, c.warmup_steps, c.decay_steps = 1e-3, warmup, 0
  np.testing.assert_allclose(rates(c, 3), 1e-3, rtol=1e-4)


def test_learning_rate_decays_at_the_end(config):
  c = config.train.copy_and_resolve_references()
  c.learning_rate, c.warmup_steps, c.decay_steps, c.num_steps = 1e-3, 2, 4, 10
  half = 0.5 + 0.5 * np.sqrt(0.5)  # (1 + cos(pi / 4)) / 2
  expected = [0.5e-3, *[1e-3] * 6, half * 1e-3, 0.5e-3, (1 - half) * 1e-3]
  np.testing.assert_allclose(rates(c, 10), expected, rtol=1e-4)


def test_gradients_are_clipped_and_reported_unclipped(small, config):
  """Adam's first average after one step is (1 - 0.9) times the clipped gradient."""
  state, metrics = jax.jit(train_step.train_step)(small, make_batch())
  assert metrics['grad_norm'] > 2 * config.train.clip_norm
  clipped = flat_norm(state.opt_state[1][0].mu) / 0.1
  np.testing.assert_allclose(clipped, config.train.clip_norm, rtol=1e-4)


def test_clipping_can_be_switched_off(config):
  c = config.train.copy_and_resolve_references()
  c.clip_norm = 0.0
  tx = train_step.make_optimizer(c)
  grads = {'w': jnp.full(4, 7.0)}
  _, state = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_allclose(state[1][0].mu['w'], 0.7, rtol=1e-6)


def test_accumulation_does_not_change_loss_and_gradient(small):
  """Compared before Adam, which turns rounding errors near zero into full steps."""
  results = [
    jax.jit(train_step.train_step)(small.replace(accumulate=parts), make_batch())
    for parts in (1, 2)
  ]
  (state, metrics), (state_in_two, metrics_in_two) = results
  for name in ('loss', 'grad_norm'):
    np.testing.assert_allclose(metrics_in_two[name], metrics[name], rtol=1e-5)
  mu, mu_in_two = (s.opt_state[1][0].mu for s in (state, state_in_two))
  atol = 1e-5 * flat_norm(mu)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=atol)
  jax.tree.map(close, mu_in_two, mu)


def test_one_and_eight_devices_agree(small):
  """For the same global batch, without dropout, at the first five steps."""
  one = small
  eight = devices.replicate(small)
  step_one = jax.jit(train_step.train_step)
  step_eight = devices.pmap(
    functools.partial(train_step.train_step, axis_name=devices.AXIS),
    donate_argnums=(0,),
  )
  for seed in range(5):
    batch = make_batch(seed, size=16)
    one, metrics_one = step_one(one, batch)
    eight, metrics_eight = step_eight(eight, devices.shard(batch))
    for name in ('loss', 'grad_norm'):
      values = np.asarray(metrics_eight[name])
      assert len(set(values)) == 1  # all devices have the mean
      np.testing.assert_allclose(values[0], metrics_one[name], rtol=1e-5)
  copies = jax.tree.map(np.asarray, eight.params)
  jax.tree.map(lambda a: np.testing.assert_array_equal(a, a[:1].repeat(8, 0)), copies)


def test_muon_orthogonalises_kernels_and_leaves_the_rest_to_adam(config):
  """Updates of a kernel have equal singular values, of the size of Adam's updates."""
  c = config.copy_and_resolve_references().train
  c.update(optimizer='muon', learning_rate=1e-2, warmup_steps=0, clip_norm=0.0)
  tx = train_step.make_optimizer(c)
  generator = np.random.default_rng(0)
  params = {
    'kernel': generator.normal(size=(3, 3, 8, 32)).astype(np.float32),
    'bias': generator.normal(size=32).astype(np.float32),
  }
  grads = jax.tree.map(
    lambda a: generator.normal(size=a.shape).astype(np.float32), params
  )
  update, _ = tx.update(grads, tx.init(params), params)
  singular = np.linalg.svd(np.reshape(update['kernel'], (72, 32)), compute_uv=False)
  # Five Newton-Schulz steps bring each to 0.7 to 1.2 of the same value.
  assert singular.max() / singular.min() < 1.8
  assert np.linalg.cond(np.reshape(grads['kernel'], (72, 32))) > 2.5
  rms = np.sqrt(np.mean(np.square(update['kernel'])))
  assert 0.1 < rms / (0.2 * 1e-2) < 1.5
  # Adam's first update has the sign of the gradient and one size, which is the rate, or
  # more with Nesterov's momentum.
  size = update['bias'] / -np.sign(grads['bias'])
  np.testing.assert_allclose(size, size[0], rtol=1e-4)
  assert 1 <= size[0] / 1e-2 < 1.6
