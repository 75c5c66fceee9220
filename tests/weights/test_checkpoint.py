"""Checkpoints of a small made-up state with a real data iterator."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sr3_jax.weights import checkpoint
from tests.support.checkpoints import (
  assert_equal_trees,
  make_batches,
  make_state,
  one_line,
  save,
  steps_in,
)


def test_state_and_data_come_back_together(tmp_path):
  save(tmp_path, 2, 5)
  undisturbed = make_batches()
  for _ in range(5):
    next(undisturbed)
  batches = make_batches()
  next(batches)  # where it stands before does not matter
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    step, state = checkpoint.restore(manager, make_state(0), batches)
  assert step == 5
  assert_equal_trees(state, make_state(5))

  def dtype(leaf):
    return leaf.dtype

  assert jax.tree.map(dtype, state) == jax.tree.map(dtype, make_state(5))
  for _ in range(3):
    assert_equal_trees(next(batches), next(undisturbed))
  batches.close()
  undisturbed.close()


def test_the_newest_are_kept(tmp_path):
  save(tmp_path, 1, 2, 3, 4, keep=2)
  assert steps_in(tmp_path) == [3, 4]


def test_load_ema_gives_the_average_and_not_the_raw_weights(tmp_path):
  save(tmp_path, 1, 3)
  shapes = jax.eval_shape(lambda: make_state(0)['params'])
  step, ema = checkpoint.load_ema(tmp_path, shapes)
  assert step == 3
  assert_equal_trees(ema, make_state(3)['ema'])
  assert not np.array_equal(
    ema['conv']['bias'], make_state(3)['params']['conv']['bias']
  )


def test_without_checkpoints_the_message_says_what_to_do(tmp_path):
  params = make_state(0)['params']
  with pytest.raises(checkpoint.CheckpointError, match='no checkpoints') as error:
    checkpoint.load_ema(tmp_path, params)
  assert str(tmp_path) in one_line(error)
  assert 'train first' in one_line(error)
  assert not list(tmp_path.iterdir())  # looking left nothing behind
  with checkpoint.open_manager(tmp_path, keep=1):
    pass
  with pytest.raises(checkpoint.CheckpointError, match='no complete checkpoint'):
    checkpoint.load_ema(tmp_path, params)


def wider(state: dict) -> dict:
  del state
  return make_state(0, width=5)


def one_more(state: dict) -> dict:
  return jax.tree.map(lambda a: a, state) | {
    name: state[name] | {'another': jnp.zeros(2)} for name in ('params', 'ema')
  }


def one_less(state: dict) -> dict:
  return state | {
    name: {'conv': {'kernel': state[name]['conv']['kernel']}}
    for name in ('params', 'ema')
  }


@pytest.mark.parametrize('change', [wider, one_more, one_less])
def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path, change):
  save(tmp_path, 1)
  state = change(make_state(0))
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    with pytest.raises(checkpoint.CheckpointError, match='another network') as error:
      checkpoint.restore(manager, state, batches)
    assert str(tmp_path / 'checkpoints' / '1') in one_line(error)
  batches.close()
  with pytest.raises(checkpoint.CheckpointError, match='another network') as error:
    checkpoint.load_ema(tmp_path, state['params'])
  one_line(error)


def test_another_optimizer_is_refused_in_one_line(tmp_path):
  save(tmp_path, 1)
  state = make_state(0)
  state['optimizer'] = optax.sgd(1e-3, momentum=0.9).init(state['params'])
  batches = make_batches()
  with (
    checkpoint.open_manager(tmp_path, keep=3) as manager,
    pytest.raises(checkpoint.CheckpointError, match='optimizer') as error,
  ):
    checkpoint.restore(manager, state, batches)
  batches.close()
  one_line(error)


def test_a_half_written_checkpoint_is_ignored_and_cleared_away(tmp_path):
  """Orbax gives a checkpoint its name when it is complete; kills leave the rest."""
  save(tmp_path, 1, 2)
  folder = tmp_path / 'checkpoints'
  torn = folder / '3.orbax-checkpoint-tmp-1700000000000000'
  shutil.copytree(folder / '2', torn)
  shutil.rmtree(torn / 'ema')
  step, ema = checkpoint.load_ema(tmp_path, make_state(0)['params'])
  assert step == 2
  assert_equal_trees(ema, make_state(2)['ema'])
  assert torn.exists()  # a reader touches nothing: somebody may be writing it
  assert steps_in(tmp_path) == [1, 2]
  # Left alone they would fill a disk: each may be as large as a checkpoint.
  save(tmp_path, 3)
  assert not torn.exists()
  assert steps_in(tmp_path) == [1, 2, 3]
