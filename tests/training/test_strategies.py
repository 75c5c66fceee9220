"""Tests of replicated and sharded states: equal results, and the sizes of parts."""

import functools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sr3_jax.core.sr3 import SR3
from sr3_jax.training import strategies, train, train_step
from sr3_jax.weights import checkpoint
from tests.support import runs

STEPS = 10


@pytest.fixture(scope='module', autouse=True)
def shard_small_arrays():
  """Let strategies split the arrays of the smallest network, too."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(strategies, 'SMALL', 64)
    yield


def make_config():
  c = runs.get_config()
  c.train.learning_rate = 1e-3
  c.train.accumulate = 2
  c.train.batch_size = 16
  return c


def run(strategy) -> tuple[train_step.TrainState, list[dict[str, float]], object]:
  """Return the gathered state after ten steps, the metrics, and the state as it is."""
  config = make_config()
  create = functools.partial(train_step.create_state, config, SR3.from_config(config))
  state, step = strategy.create(create), strategy.compile(train_step.train_step)
  rng, lines = np.random.default_rng(0), []
  for _ in range(STEPS):
    batch = {'image': rng.integers(0, 256, (16, 16, 16, 3), np.uint8)}
    state, metrics = step(state, strategy.shard(batch))
    lines.append({k: float(v) for k, v in strategy.metrics(metrics).items()})
  return strategy.fetch(state), lines, state


@pytest.fixture(scope='module')
def replicated():
  return run(strategies.Replicated())


def distance(one, other) -> float:
  """Return the distance of two trees of arrays, relative to the norm of the other.

  Single arrays may differ more, because Adam turns rounding errors of a gradient of 0
  into steps of full size.
  """
  leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  pairs = [(np.float64(a), np.float64(b)) for a, b in leaves]
  return norm([a - b for a, b in pairs]) / norm([b for _, b in pairs])


def norm(arrays: list[np.ndarray]) -> float:
  return math.sqrt(sum(float(np.sum(a**2)) for a in arrays))


@pytest.mark.parametrize('devices', [1, 2, 4, 8])
def test_a_sharded_state_trains_as_a_replicated_one(replicated, devices):
  """On one device, on some of the devices and on all of them."""
  expected, expected_metrics, _ = replicated
  gathered, metrics, state = run(strategies.Sharded(jax.devices()[:devices]))
  for a, b in zip(metrics, expected_metrics, strict=True):
    assert a == pytest.approx(b, rel=1e-5)
  assert int(gathered.step) == STEPS
  assert distance(gathered.params, expected.params) < 1e-5
  assert distance(gathered.ema, expected.ema) < 1e-5
  if devices > 1:
    assert_shards(state, devices)


def assert_shards(state: train_step.TrainState, devices: int) -> None:
  """Check that most large arrays are split evenly over the devices."""
  leaves = [leaf for leaf in jax.tree.leaves(state) if leaf.size >= strategies.SMALL]
  assert len(leaves) > 20
  split = 0
  for leaf in leaves:
    parts = {shard.data.size for shard in leaf.addressable_shards}
    assert len(parts) == 1
    split += parts == {leaf.size // devices}
  assert split > 0.9 * len(leaves)


def test_a_run_continues_with_another_strategy(trained, tmp_path):
  """It is sharded from step 10 and replicated from step 15, with the same results."""
  folder = tmp_path / 'checkpoints'
  shutil.copytree(trained.workdir / 'checkpoints' / '10', folder / '10')
  c = trained.config.copy_and_resolve_references()
  c.eval.every_steps = 0
  for steps, strategy in ((15, 'fsdp'), (20, 'pmap')):
    c.train.num_steps, c.parallel.strategy = steps, strategy
    state = train.train(c, tmp_path)
    assert int(state.step) == steps
    # Reading the checkpoint also checks its checksums.
    step, ema = checkpoint.load_ema(tmp_path, state.ema)
    assert step == steps
    jax.tree.map(np.testing.assert_array_equal, ema, state.ema)
  # They differ by rounding, which Adam turns into steps of up to 1e-2 where a gradient
  # is 0.
  assert distance(state.ema, trained.state.ema) < 1e-2
  lines = [
    {
      m['step']: m['loss']
      for m in map(json.loads, path.read_text().splitlines())
      if 'loss' in m
    }
    for path in (tmp_path / 'metrics.jsonl', trained.workdir / 'metrics.jsonl')
  ]
  assert list(lines[0]) == [12, 15, 16, 20]
  for step, loss in lines[0].items():
    assert loss == pytest.approx(lines[1][step], rel=1e-3)


SHAPES = [(3, 3, 128, 128), (3, 3, 3, 64), (1024, 512), (3, 3, 96, 40), (7, 11), (97,)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('factors', [(1,), (2, 2, 2), (2, 3), (2,) * 8, (2, 2, 5)])
def test_arrays_are_split_as_far_as_their_sides_divide(shape, factors):
  axes = {f'split{i}': n for i, n in enumerate(factors)}
  spec = strategies.split(shape, axes)
  # A single name has no tuple around it.
  spec = [(names,) if isinstance(names, str) else names or () for names in spec]
  used = [name for names in spec for name in names]
  assert len(used) == len(set(used))
  left = list(shape)
  for i, names in enumerate(spec):
    parts = math.prod(axes[name] for name in names)
    assert shape[i] % parts == 0
    left[i] //= parts
  # An axis that is not used divides none of the sides that are left.
  for name in set(axes) - set(used):
    assert all(side % axes[name] for side in left)


def test_the_longest_side_is_split_and_small_arrays_are_not():
  axes = {'split0': 2, 'split1': 2}
  every = ('split0', 'split1')
  assert strategies.split((3, 3, 64, 128), axes) == P(None, None, None, every)
  assert strategies.split((3, 3, 128, 64), axes) == P(None, None, every, None)
  assert strategies.split((3, 3, 130, 128), axes) == P(None, None, None, every)
  # Neither side divides by four: one half of each.
  assert strategies.split((130, 126), axes) == P('split0', 'split1')
  assert strategies.split((63,), axes) == P()
  assert strategies.split((64,), axes) == P(every)
