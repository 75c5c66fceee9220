"""Tests of the task that takes its conditions from files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import check, degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import resizing
from sr3_jax.runtime.errors import UserError
from tests.support.sr3_models import keys, tiny


def config(scale=1.0, **changes):
  return tiny(
    task__name='pairs', data__source='pairs', task__pair_scale=scale, **changes
  )


def given(side, channels=3, dtype=np.uint8):
  rng = np.random.default_rng(0)
  return rng.integers(0, np.iinfo(dtype).max, (2, side, side, channels), dtype)


@pytest.mark.parametrize(
  ('scale', 'side', 'condition'), [(1, 16, 16), (4, 4, 4), (0.5, 32, 16), (1.6, 10, 16)]
)
def test_inputs_become_conditions_on_a_grid_that_the_network_can_use(
  scale, side, condition
):
  model = SR3.from_config(config(scale))
  inputs = given(side)
  found = model.degrade(keys(2), jnp.zeros((2, 16, 16, 3)), inputs)
  assert found.shape == (2, condition, condition, 3)
  floats = inputs.astype(np.float32) / 127.5 - 1
  want = [resizing.resize(image, condition, condition) for image in floats]
  np.testing.assert_allclose(found, want, atol=2e-5)
  assert model.upsample(found).shape == (2, 16, 16, 3)


def test_whole_scales_are_those_of_super_resolution():
  assert SR3.from_config(config(4)).scale == 4
  for scale in (1, 0.5, 1.5):
    assert SR3.from_config(config(scale, data__image_size=24)).scale == 1


def test_the_loss_is_of_the_inputs_that_the_batch_has():
  """It falls from a wrong condition to the truth, for a network that returns x."""
  model = SR3.from_config(config(4, method='regression', data__input_channels=0))

  class Reads(SR3):
    def predict(self, params, x, y, gamma, label=None, dropout_key=None):
      return self.observed(x)

  model = Reads(**vars(model))
  image = np.full((2, 16, 16, 3), 200, np.uint8)
  losses = [
    model.loss(
      {}, keys(2), {'image': image, 'condition': np.full((2, 4, 4, 3), n, np.uint8)}
    )
    for n in (200, 100)
  ]
  np.testing.assert_allclose(losses, [0, (100 / 127.5) ** 2], atol=1e-5)
  with pytest.raises(AssertionError, match="pairs need 'condition'"):
    model.loss({}, keys(2), {'image': image})


def test_the_two_sides_have_their_own_channels_and_ranges():
  changes = {
    'data__channels': 3,
    'data__input_channels': 2,
    'data__input_low': (100.0, 0.0),
    'data__input_high': (300.0, 1000.0),
  }
  model = SR3.from_config(config(**changes))
  stored = np.broadcast_to(np.array([200, 250], np.uint16), (2, 16, 16, 2))
  found = model.degrade(keys(2), jnp.zeros((2, 16, 16, 3)), stored)
  np.testing.assert_allclose(found[0, 0, 0], [0, -0.5], atol=1e-6)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  batch = {'image': np.zeros((2, 16, 16, 3), np.uint8), 'condition': stored}
  loss = jax.eval_shape(functools.partial(model.loss), shapes, keys(2), batch)
  assert loss.shape == ()
  noise = jnp.zeros((2, 16, 16, 3))
  output = jax.eval_shape(model.predict, shapes, found, noise, jnp.ones(2))
  assert output.shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
  ('scale', 'changes', 'message'),
  [
    (1, {'data__source': 'folder'}, "need data.source='pairs' and task.name='pairs'"),
    (1, {'task__name': 'jpeg'}, "need data.source='pairs' and task.name='pairs'"),
    (1, {'data__source': 'hf'}, "need data.input_column and task.name='pairs'"),
    (1, {'data__input_column': 'x'}, "is for data.source='tfds' or 'hf', not 'pairs'"),
    (
      1,
      {'data__source': 'tfds', 'data__input_column': 'x', 'task__name': 'jpeg'},
      "need data.input_column and task.name='pairs'",
    ),
    (1, {'data__input_channels': 1, 'diffusion__residual': True}, 'diffusion.residual'),
    (4, {'sampler__consistency': True}, 'sampler.consistency'),
    (1.5, {}, 'data.image_size: 16 pixels are 10.6667 of the inputs'),
    (1, {'data__reduced_decoding': True}, 'data.reduced_decoding is not for'),
    (1, {'checkpoint__keep_best': 'consistency'}, 'checkpoint.keep_best'),
    (1, {'model__network': 'guided', 'data__input_channels': 1}, 'not for'),
    (0, {}, 'task.pair_scale=0'),
    (1, {'data__input_low': (1.0,), 'data__input_high': (2.0,)}, 'data.input_low'),
  ],
)
def test_options_that_pairs_cannot_have_are_refused(scale, changes, message):
  changed = config(scale)
  changed.update_from_flattened_dict(
    {key.replace('__', '.'): value for key, value in changes.items()}
  )
  with pytest.raises(UserError, match=message.replace('.', r'\.')):
    check.check_config(changed)


def test_pairs_are_no_part_of_a_mixture():
  options = config().task
  options.mixture = ('jpeg', 'pairs')
  with pytest.raises(ValueError, match="'pairs' cannot be a part of a mixture"):
    degradations.make('mixture', options)
