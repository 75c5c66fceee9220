"""Checkpoints of a small made-up state with a real data iterator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from sr3_jax.data.crops import Cut
from sr3_jax.weights import checkpoint, model_files


def make_state(scale: float, width: int = 4) -> dict:
  """Parameters, their average and an optimizer, all different."""
  values = np.arange(3 * width, dtype=np.float32).reshape(3, width) * scale
  params = {'conv': {'kernel': jnp.asarray(values), 'bias': jnp.ones(width) * scale}}
  ema = jax.tree.map(lambda p: p + 100, params)
  return {'params': params, 'ema': ema, 'optimizer': optax.adam(1e-3).init(params)}


def make_batches() -> data_batches.Batches:
  return data_batches.train_batches(
    sources.Photos('train'), Cut(8, 'random', flip=True), batch_size=2
  )


def save(workdir, *steps: int, keep: int = 3) -> None:
  """Checkpoints whose values tell their step, after as many batches."""
  batches = make_batches()
  with checkpoint.open_manager(workdir, keep=keep) as manager:
    for done in range(1, steps[-1] + 1):
      next(batches)
      if done in steps:
        checkpoint.save(manager, done, make_state(done), batches)
  batches.close()


def assert_equal_trees(one, other) -> None:
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert jax.tree.structure(one) == jax.tree.structure(other)


def steps_in(workdir) -> list[int]:
  # As a reader: a writer's manager clears torn checkpoints away in the background.
  with ocp.CheckpointManager(model_files.checkpoint_folder(workdir)) as manager:
    return sorted(manager.all_steps())


def one_line(error: pytest.ExceptionInfo) -> str:
  text = str(error.value)
  assert '\n' not in text
  assert len(text) < 500
  return text
