"""The step against hand-computed numbers, and runs that are stopped and go on."""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from sr3_jax import checkpoint, data, hub, logs, parallel, train
from sr3_jax.sr3 import SR3

HERE = pathlib.Path(__file__).parent
pytestmark = pytest.mark.usefixtures('compile_cache')


class SmallNetwork(nn.Module):
  """Two layers in place of the U-Net: compiles in a second."""

  dropout: float = 0.0

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    h = jnp.tanh(
      nn.Conv(8, (3, 3))(inputs) + nn.Dense(8)(gamma[:, None])[:, None, None]
    )
    return nn.Conv(3, (3, 3))(h)


@pytest.fixture(scope='module')
def config():
  return tiny.get_config()


@pytest.fixture(scope='module')
def small(config) -> train.TrainState:
  """The first state of a model with a small network."""
  model = dataclasses.replace(SR3.from_config(config), network=SmallNetwork())
  return train.create_state(config, model)


def make_batch(seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
  shape = (size, 16, 16, 3)
  return {'image': np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}


def assert_same_bits(one, other) -> None:
  """Equal trees of equal arrays."""
  jax.tree.map(np.testing.assert_array_equal, one, other)


def flat_norm(tree) -> float:
  return float(np.sqrt(sum(np.sum(np.float64(a) ** 2) for a in jax.tree.leaves(tree))))


# --------------------------------------------------------------------- the step


def test_step_is_a_pure_function(small):
  before = jax.tree.map(np.array, small.saved())
  first = jax.jit(train.train_step)(small, make_batch())
  jax.jit(train.train_step)(small, make_batch(1))
  np.random.default_rng().random()
  again = jax.jit(train.train_step)(small, make_batch())
  assert_same_bits(first[0].saved(), again[0].saved())
  assert_same_bits(first[1], again[1])
  assert_same_bits(small.saved(), before)
  assert (first[0].step, small.step) == (1, 0)


def test_noise_depends_on_seed_and_step_only(small):
  step = jax.jit(train.train_step)
  batch = make_batch()
  loss = float(step(small, batch)[1]['loss'])
  assert float(step(small, batch)[1]['loss']) == loss
  later = float(step(small.replace(step=jnp.int32(1)), batch)[1]['loss'])
  other = float(step(small.replace(seed=1), batch)[1]['loss'])
  assert len({loss, later, other}) == 3


GOLDEN = """
One training step no longer gives the numbers that it gave. They are right to update
only after a change that is meant to change training: the network, its initialisation,
the noise levels, the loss, the random keys, the optimizer. They must not move with
refactoring, speed-ups, other devices or another data pipeline; then look for the bug.
New numbers: {}
"""


def test_golden_step(config):
  """Three steps on eight devices: the first ones don't reach all parameters."""
  state = parallel.replicate(train.create_state(config, SR3.from_config(config)))
  step = parallel.pmap(
    functools.partial(train.train_step, axis_name=parallel.AXIS), donate_argnums=(0,)
  )
  numbers = []
  for seed in range(3):
    state, metrics = step(state, parallel.shard(make_batch(seed)))
    numbers += [float(metrics['loss'][0]), float(metrics['grad_norm'][0])]
  params, ema = jax.device_get(parallel.unreplicate((state.params, state.ema)))
  for tree in (params, ema):
    for name in ('conv_in', 'middle_block0', 'conv_out'):
      numbers.append(float(sum(np.abs(a).sum() for a in jax.tree.leaves(tree[name]))))
  expected = [0.78264, 0.0608579, 0.79513, 0.0582288, 0.791172, 0.0585163]
  expected += [283.087, 129.536, 37.2235, 278.499, 125.069, 14.5837]
  message = GOLDEN.format([float(f'{n:.6g}') for n in numbers])
  np.testing.assert_allclose(numbers, expected, rtol=1e-4, err_msg=message)


def test_first_step_of_the_average_is_a_copy_and_the_next_ones_are_not(small):
  step = jax.jit(train.train_step)
  one, _ = step(small, make_batch(0))
  moved = jax.tree.map(lambda a, b: np.any(a != b), one.params, small.params)
  assert all(jax.tree.leaves(moved))  # else a copy would prove nothing
  assert_same_bits(one.ema, one.params)
  two, _ = step(one, make_batch(1))
  expected = jax.tree.map(
    lambda old, new: 0.9 * np.float64(old) + 0.1 * np.float64(new), one.ema, two.params
  )
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
  jax.tree.map(close, two.ema, expected)


def rates(config, steps: int) -> np.ndarray:
  """Learning rates as seen from outside, without asking the schedule.

  The gradient is constant, so Adam's two averages, corrected for their start, are g and
  g^2 at every step, and an update is -rate * g / (|g| + 1e-8).
  """
  tx = train.make_optimizer(config)
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
  state, metrics = jax.jit(train.train_step)(small, make_batch())
  assert metrics['grad_norm'] > 2 * config.train.clip_norm
  clipped = flat_norm(state.opt_state[1][0].mu) / 0.1
  np.testing.assert_allclose(clipped, config.train.clip_norm, rtol=1e-4)


def test_clipping_can_be_switched_off(config):
  c = config.train.copy_and_resolve_references()
  c.clip_norm = 0.0
  tx = train.make_optimizer(c)
  grads = {'w': jnp.full(4, 7.0)}
  _, state = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_allclose(state[1][0].mu['w'], 0.7, rtol=1e-6)


def test_accumulation_changes_nothing(small):
  """Compared before Adam, which makes full steps of rounding errors near zero."""
  results = [
    jax.jit(train.train_step)(small.replace(accumulate=parts), make_batch())
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
  """The same global batch, with dropout off, at the first five steps."""
  one = small
  eight = parallel.replicate(small)
  step_one = jax.jit(train.train_step)
  step_eight = parallel.pmap(
    functools.partial(train.train_step, axis_name=parallel.AXIS), donate_argnums=(0,)
  )
  for seed in range(5):
    batch = make_batch(seed, size=16)
    one, metrics_one = step_one(one, batch)
    eight, metrics_eight = step_eight(eight, parallel.shard(batch))
    for name in ('loss', 'grad_norm'):
      values = np.asarray(metrics_eight[name])
      assert len(set(values)) == 1  # all devices say the same
      np.testing.assert_allclose(values[0], metrics_one[name], rtol=1e-5)
  copies = jax.tree.map(np.asarray, eight.params)
  jax.tree.map(lambda a: np.testing.assert_array_equal(a, a[:1].repeat(8, 0)), copies)


# ------------------------------------------------------------------ whole runs

TIMES = ('time', 'images_per_second', 'input_wait_seconds')


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """The lines of metrics.jsonl without clocks."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]
  return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def positions(workdir: pathlib.Path) -> dict[str, dict]:
  """State of the input pipeline in each checkpoint."""
  return {
    path.parent.parent.name: json.loads(path.read_text())
    for path in (workdir / 'checkpoints').glob('*/data/*.json')
  }


class Stopped(BaseException):
  """Stands for whatever ends a run from outside."""


def test_a_run_stopped_at_any_moment_goes_on_as_if_it_was_not(
  trained, tmp_path, monkeypatch
):
  """Eight devices: stopped between checkpoints, then in the middle of an evaluation."""
  update, look = logs.Progress.update, train.during_training

  def stop_at_13(self, step, **values):
    update(self, step, **values)
    if step == 13:
      raise Stopped

  monkeypatch.setattr(logs.Progress, 'update', stop_at_13)
  with pytest.raises(Stopped):
    train.train(trained.config, tmp_path)
  monkeypatch.setattr(logs.Progress, 'update', update)
  assert set(positions(tmp_path)) == {'5', '10'}

  def stop_at_15(*args):
    if args[3] == 15:
      raise Stopped
    look(*args)

  monkeypatch.setattr(train, 'during_training', stop_at_15)
  with pytest.raises(Stopped):
    train.train(trained.config, tmp_path)
  monkeypatch.setattr(train, 'during_training', look)

  state = train.train(trained.config, tmp_path)
  assert int(state.step) == 20
  assert_same_bits(state.saved(), trained.state.saved())
  assert positions(tmp_path) == positions(trained.workdir)
  assert read_metrics(tmp_path) == read_metrics(trained.workdir)
  pictures = [sorted((w / 'progress').iterdir()) for w in (tmp_path, trained.workdir)]
  assert [p.name for p in pictures[0]] == [p.name for p in pictures[1]]
  for mine, other in zip(*pictures, strict=True):
    assert mine.read_bytes() == other.read_bytes()


def test_a_run_writes_what_it_promises(trained):
  lines = [json.loads(line) for line in (trained.workdir / 'metrics.jsonl').open()]
  steps = [line['step'] for line in lines]
  assert steps == sorted(steps)
  losses = [line for line in lines if 'loss' in line]
  assert losses[-1]['step'] == 20
  for line in losses:
    assert {'grad_norm', 'input_wait_seconds', 'images_per_second'} <= set(line)
  scores = [line for line in lines if 'eval_psnr' in line]
  assert [line['step'] for line in scores] == [5, 10, 15]
  assert all(line['eval_images'] == 8 for line in scores)
  names = sorted(p.name for p in (trained.workdir / 'progress').iterdir())
  assert names == ['00000005.png', '00000010.png', '00000015.png']
  written = json.loads((trained.workdir / 'config.json').read_text())
  assert written['train']['clip_norm'] == trained.config.train.clip_norm
  assert set(positions(trained.workdir)) == {'10', '15', '20'}  # keep = 3
  assert positions(trained.workdir)['20']['position'] == 20


def test_a_finished_run_says_so_and_stays_as_it_is(trained, monkeypatch):
  said = []
  monkeypatch.setattr(train.logging, 'info', lambda *text: said.append(text))
  before = (trained.workdir / 'metrics.jsonl').read_bytes()
  state = train.train(trained.config, trained.workdir)
  assert_same_bits(state.saved(), trained.state.saved())
  assert ('%s: already trained for %d steps', trained.workdir, 20) in said
  assert (trained.workdir / 'metrics.jsonl').read_bytes() == before


def test_the_averaged_weights_are_what_evaluation_reads(trained):
  shapes = jax.eval_shape(lambda: trained.state.params)
  step, ema = checkpoint.load_ema(trained.workdir, shapes)
  assert step == 20
  assert_same_bits(ema, trained.state.ema)
  assert flat_norm(jax.tree.map(np.subtract, ema, trained.state.params)) > 1e-3


def test_nothing_is_compiled_twice(trained):
  """Compilation belongs to the first step, save and evaluation, all done by step 5."""
  late = {name: steps for name, steps in trained.compiled.items() if max(steps) > 5}
  assert not late, f'compiled after step 5: {late}'
  early = {n: s for n, s in trained.compiled.items() if {1, 2, 3, 4} & set(s)}
  assert not early, f'compiled after the first step: {early}'
  # pmap calls every program by this name; before step 1 there is just the step's.
  assert trained.compiled['jit(_fun)'].count(0) == 1


ON_ONE_DEVICE = """
import json, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
import tiny
from sr3_jax import train
jax.config.update('jax_compilation_cache_dir', sys.argv[3])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
assert jax.device_count() == 1
config = tiny.get_config()
config.eval.every_steps = 0
folder = sys.argv[2]
straight = train.train(config, folder + '/straight').saved()
config.train.num_steps = 10
train.train(config, folder + '/restarted')
config.train.num_steps = 20
restarted = train.train(config, folder + '/restarted').saved()
same = jax.tree.map(lambda a, b: np.array_equal(a, b), straight, restarted)
print(json.dumps({'same': all(jax.tree.leaves(same)), 'leaves': len(
  jax.tree.leaves(same))}))
"""


def test_one_device_resumes_too_and_agrees_with_eight(trained, compile_cache, tmp_path):
  """In a process of its own: the number of devices is fixed when JAX starts."""
  done = subprocess.run(
    [sys.executable, '-c', ON_ONE_DEVICE, HERE, tmp_path, compile_cache],
    env=os.environ | {'XLA_FLAGS': '--xla_backend_optimization_level=0'},
    cwd=HERE.parent,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert result['same']
  assert result['leaves'] == len(jax.tree.leaves(trained.state.saved()))
  straight, restarted = tmp_path / 'straight', tmp_path / 'restarted'
  assert positions(straight)['20'] == positions(restarted)['20']
  one = [m for m in read_metrics(straight) if 'loss' in m]
  # The end of the first run, step 10, is a step at which lines are written anyway.
  assert one == [m for m in read_metrics(restarted) if 'loss' in m]
  eight = [m for m in read_metrics(trained.workdir) if 'loss' in m]
  assert [m['step'] for m in one] == [m['step'] for m in eight]
  for a, b in zip(one, eight, strict=True):
    # Later on Adam turns rounding errors into steps of full size.
    if a['step'] <= 10:
      np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-5)


def test_a_run_may_start_from_the_weights_of_another(trained, tmp_path):
  c = trained.config.copy_and_resolve_references()
  c.train.init_from = os.fspath(trained.workdir)
  c.train.num_steps, c.eval.every_steps = 0, 0
  start = train.train(c, tmp_path / 'start')
  for mine in (start.params, start.ema):
    assert_same_bits(mine, trained.state.ema)
  c.train.num_steps = 1
  state = train.train(c, tmp_path / 'tuned')
  # Adam's first step moves nothing by more than the learning rate, 1e-2 / 3.
  change = jax.tree.map(
    lambda a, b: np.abs(np.subtract(a, b)), state.params, trained.state.ema
  )
  assert 1e-3 < max(np.max(c) for c in jax.tree.leaves(change)) < 0.0034
  assert_same_bits(state.ema, state.params)
  # The start is not looked at again.
  c.train.init_from = '/no/such'
  assert_same_bits(train.train(c, tmp_path / 'tuned').saved(), state.saved())
  with pytest.raises(hub.HubError, match='/no/such: no model: no such file'):
    train.train(c, tmp_path / 'other')


def test_weights_of_another_network_are_no_start(trained, tmp_path):
  hub.export(trained.workdir, tmp_path / 'model')
  c = trained.config.copy_and_resolve_references()
  c.train.init_from = os.fspath(tmp_path / 'model')
  c.model.channels = 12
  with pytest.raises(hub.HubError, match='not the weights of this network') as error:
    train.train(c, tmp_path / 'tuned')
  assert '\n' not in str(error.value)
  c.train.init_from = os.fspath(trained.workdir)
  with pytest.raises(checkpoint.CheckpointError, match='of another network'):
    train.train(c, tmp_path / 'tuned')


class Fragile:
  """A model that breaks where an image is white: its loss, or just the gradient."""

  method = 'sr3'

  def __init__(self, what: str):
    self._what = what

  def init(self, key):
    del key
    return {'w': jnp.zeros(3)}

  def loss(self, params, keys, batch):
    del keys
    x = batch['image'].astype(jnp.float32).mean((0, 1, 2)) / 255
    white = jnp.all(batch['image'] == 255)
    loss = jnp.mean(jnp.square(x - params['w']))
    if self._what == 'loss':
      return loss + jnp.where(white, jnp.nan, 0.0)
    # At white sqrt(0) is finite and its derivative is not.
    root = jnp.sqrt(jnp.where(white, 0.0, 1.0) * (1 + jnp.square(params['w']).sum()))
    return loss + root


@pytest.mark.parametrize('what', ['loss', 'gradient'])
@pytest.mark.parametrize('bad', [2, 13, 15])
def test_a_loss_that_is_not_finite_stops_the_run(
  config, tmp_path, monkeypatch, what, bad
):
  read = data.Batches.__next__

  def spoilt(self):
    batch = read(self)
    white = self.get_state()['position'] == bad
    return batch | ({'image': np.full_like(batch['image'], 255)} if white else {})

  monkeypatch.setattr(train.SR3, 'from_config', lambda config: Fragile(what))
  c = config.copy_and_resolve_references()
  c.eval.every_steps = 0
  with monkeypatch.context() as patch:
    patch.setattr(data.Batches, '__next__', spoilt)
    with pytest.raises(
      train.TrainingError, match=f'not finite at step {bad};'
    ) as error:
      train.train(c, tmp_path)
  text = str(error.value)
  assert '\n' not in text
  good = {2: set(), 13: {'5', '10'}, 15: {'5', '10'}}[bad]
  assert ('step 10 is good' if good else 'nothing saved') in text
  assert 'learning_rate' in text
  assert set(positions(tmp_path)) == good
  assert None not in [v for line in read_metrics(tmp_path) for v in line.values()]
  # What was kept is worth keeping: the run goes on from it to the end.
  state = train.train(c, tmp_path)
  assert np.isfinite(state.params['w']).all()
  assert positions(tmp_path)['20']['position'] == 20


def test_a_line_at_the_first_step_has_no_speed_yet(config, tmp_path, monkeypatch):
  monkeypatch.setattr(train.SR3, 'from_config', lambda config: Fragile('loss'))
  c = config.copy_and_resolve_references()
  c.train.num_steps, c.train.log_every, c.eval.every_steps = 2, 1, 0
  train.train(c, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
  assert [line['step'] for line in lines] == [1, 2]
  assert lines[0]['images_per_second'] is None
  assert lines[1]['images_per_second'] > 0


# ----------------------------------------------------------------- configurations


def test_regression_baseline_differs_in_method_and_length_only(config):
  c = config.copy_and_resolve_references()
  c.regression_steps, c.train.decay_steps = 6, 10
  c.train.init_from = 'somewhere'
  baseline = train.regression_config(c)
  assert baseline.method == 'regression'
  assert (baseline.train.num_steps, baseline.train.decay_steps) == (6, 3)
  assert c.method == 'sr3'
  assert baseline.train.init_from == ''
  same = baseline.to_dict()
  same['method'] = 'sr3'
  same['train'] = c.train.to_dict()
  same['eval'] = c.eval.to_dict()
  assert same == c.to_dict()


def test_config_is_written_and_changes_are_named(config, tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(train.logging, 'warning', lambda text, *a: said.append(text % a))
  workdir = train.epath.Path(tmp_path)
  train.write_config(config, workdir)
  train.write_config(config, workdir)
  assert not said
  c = config.copy_and_resolve_references()
  c.train.learning_rate = 0.5
  train.write_config(c, workdir)
  assert said == ['config.train.learning_rate was 0.01, is now 0.5']
  assert (
    json.loads((tmp_path / 'config.json').read_text())['train']['learning_rate'] == 0.5
  )
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']
