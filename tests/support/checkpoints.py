"""Checkpoints of a small artificial state with a real data iterator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from sr3_jax.data import sources
from sr3_jax.data.batches import Batches, train_batches
from sr3_jax.data.crops import Cut
from sr3_jax.weights import checkpoint, model_files


def make_state(scale: float, width: int = 4) -> dict:
  """Return parameters, their average and an optimizer, with different values."""
  values = np.arange(3 * width, dtype=np.float32).reshape(3, width) * scale
  params = {'conv': {'kernel': jnp.asarray(values), 'bias': jnp.ones(width) * scale}}
  ema = jax.tree.map(lambda p: p + 100, params)
  return {'params': params, 'ema': ema, 'optimizer': optax.adam(1e-3).init(params)}


def make_batches() -> Batches:
  return train_batches(
    sources.Photos('train'), Cut(8, 'random', flip=True), batch_size=2
  )


def save(workdir, *steps: int, keep: int = 3) -> None:
  """Save checkpoints whose values depend on their step, after as many batches."""
  batches = make_batches()
  with checkpoint.open_manager(workdir, keep=keep) as manager:
    for done in range(1, steps[-1] + 1):
      next(batches)
      if done in steps:
        checkpoint.save(manager, done, make_state(done), batches)
  batches.close()


def assert_equal_trees(one, other) -> None:
  """Check that two trees have the same structure and equal arrays."""
  jax.tree.map(np.testing.assert_array_equal, one, other)
  assert jax.tree.structure(one) == jax.tree.structure(other)


def steps_in(workdir) -> list[int]:
  """Return the steps of complete checkpoints."""
  # A manager that only reads, because others remove incomplete checkpoints.
  with ocp.CheckpointManager(model_files.checkpoint_folder(workdir)) as manager:
    return sorted(manager.all_steps())


def one_line(error: pytest.ExceptionInfo) -> str:
  """Return the text of an error, which has to be one line."""
  text = str(error.value)
  assert '\n' not in text
  assert len(text) < 500
  return text
