"""Tests of training runs that are stopped and continued, and of what they write."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.data.batches import Batches
from sr3_jax.runtime import progress
from sr3_jax.training import train
from sr3_jax.weights import checkpoint, hub, model_writer
from tests.support import runs, training_data
from tests.support.training_data import assert_same_bits, flat_norm

config = training_data.config

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('compile_cache')


# ------------------------------------------------------------------ whole runs

TIMES = ('time', 'images_per_second', 'input_wait_seconds')


def read_metrics(workdir: pathlib.Path) -> list[dict]:
  """Return the lines of metrics.jsonl without times and speeds."""
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').open()]
  return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def positions(workdir: pathlib.Path) -> dict[str, dict]:
  """Return the state of the input pipeline in each checkpoint."""
  return {
    path.parent.parent.name: json.loads(path.read_text())
    for path in (workdir / 'checkpoints').glob('*/data/metadata')
  }


class Stopped(BaseException):
  """Something that ends a run from outside, such as a signal."""


def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(
  trained, tmp_path, monkeypatch
):
  """It is stopped between checkpoints, and then in the middle of an evaluation."""
  update, evaluate = progress.Progress.update, train.during_training

  def stop_at_13(self, step, **values):
    update(self, step, **values)
    if step == 13:
      raise Stopped

  monkeypatch.setattr(progress.Progress, 'update', stop_at_13)
  with pytest.raises(Stopped):
    train.train(trained.config, tmp_path)
  monkeypatch.setattr(progress.Progress, 'update', update)
  assert set(positions(tmp_path)) == {'5', '10'}

  def stop_at_15(*args):
    if args[3] == 15:
      raise Stopped
    evaluate(*args)

  monkeypatch.setattr(train, 'during_training', stop_at_15)
  with pytest.raises(Stopped):
    train.train(trained.config, tmp_path)
  monkeypatch.setattr(train, 'during_training', evaluate)

  state = train.train(trained.config, tmp_path)
  assert int(state.step) == 20
  assert_same_bits(state.saved(), trained.state.saved())
  assert positions(tmp_path) == positions(trained.workdir)
  assert read_metrics(tmp_path) == read_metrics(trained.workdir)
  pictures = [sorted((w / 'progress').iterdir()) for w in (tmp_path, trained.workdir)]
  assert [p.name for p in pictures[0]] == [p.name for p in pictures[1]]
  for mine, other in zip(*pictures, strict=True):
    assert mine.read_bytes() == other.read_bytes()


def test_a_run_writes_metrics_pictures_configuration_and_checkpoints(trained):
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
  assert positions(trained.workdir)['20']['examples'] == 20 * 8


def test_a_finished_run_is_reported_and_not_changed(trained, monkeypatch):
  logged = []
  monkeypatch.setattr(train.logging, 'info', lambda *text: logged.append(text))
  before = (trained.workdir / 'metrics.jsonl').read_bytes()
  state = train.train(trained.config, trained.workdir)
  assert_same_bits(state.saved(), trained.state.saved())
  assert ('%s: already trained for %d steps', trained.workdir, 20) in logged
  assert (trained.workdir / 'metrics.jsonl').read_bytes() == before


def test_load_ema_returns_the_averaged_weights(trained):
  shapes = jax.eval_shape(lambda: trained.state.params)
  step, ema = checkpoint.load_ema(trained.workdir, shapes)
  assert step == 20
  assert_same_bits(ema, trained.state.ema)
  assert flat_norm(jax.tree.map(np.subtract, ema, trained.state.params)) > 1e-3


def test_nothing_is_compiled_twice(trained):
  """Programs are only compiled for the first step, save and evaluation, and at the end.

  The first save and evaluation are those of step 5.
  """
  late = {n: s for n, s in trained.compiled.items() if set(range(6, 20)) & set(s)}
  assert not late, f'compiled after step 5: {late}'
  early = {n: s for n, s in trained.compiled.items() if {1, 2, 3, 4} & set(s)}
  assert not early, f'compiled after the first step: {early}'
  # pmap gives all programs this name. Before step 1 only that of the step is compiled.
  assert trained.compiled['jit(_fun)'].count(0) == 1


ON_ONE_DEVICE = """
import json, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from sr3_jax.training import train
from tests.support import runs
jax.config.update('jax_compilation_cache_dir', sys.argv[3])
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
assert jax.device_count() == 1
config = runs.get_config()
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


def test_a_run_on_one_device_resumes_and_agrees_with_eight(
  trained, compile_cache, tmp_path
):
  """It needs a process of its own: the number of devices is fixed when JAX starts."""
  done = subprocess.run(
    [sys.executable, '-c', ON_ONE_DEVICE, ROOT, tmp_path, compile_cache],
    env=runs.with_devices(1),
    cwd=ROOT,
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
  # Step 10, at which the first run ends, is one that writes a line in any case.
  assert one == [m for m in read_metrics(restarted) if 'loss' in m]
  eight = [m for m in read_metrics(trained.workdir) if 'loss' in m]
  assert [m['step'] for m in one] == [m['step'] for m in eight]
  for a, b in zip(one, eight, strict=True):
    # After step 10, Adam has turned rounding errors into steps of full size.
    if a['step'] <= 10:
      np.testing.assert_allclose(a['loss'], b['loss'], rtol=1e-5)


def test_a_run_can_start_from_the_weights_of_another(trained, tmp_path):
  c = trained.config.copy_and_resolve_references()
  c.train.init_from = os.fspath(trained.workdir)
  c.train.num_steps, c.eval.every_steps = 1, 0
  rate, c.train.learning_rate = c.train.learning_rate, 1e-30  # goes nowhere
  start = train.train(c, tmp_path / 'start')
  for mine in (start.params, start.ema):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-25),
      mine,
      trained.state.ema,
    )
  c.train.learning_rate = rate
  state = train.train(c, tmp_path / 'tuned')
  # Adam's first step changes no weight by more than the learning rate, 1e-2 / 3.
  change = jax.tree.map(
    lambda a, b: np.abs(np.subtract(a, b)), state.params, trained.state.ema
  )
  assert 1e-3 < max(np.max(c) for c in jax.tree.leaves(change)) < 0.0034
  assert_same_bits(state.ema, state.params)
  # A resumed run doesn't read init_from again.
  c.train.init_from = '/no/such'
  assert_same_bits(train.train(c, tmp_path / 'tuned').saved(), state.saved())
  with pytest.raises(hub.HubError, match='/no/such: no model: no such file'):
    train.train(c, tmp_path / 'other')


def test_a_run_cannot_start_from_the_weights_of_another_network(trained, tmp_path):
  model_writer.export(trained.workdir, tmp_path / 'model')
  c = trained.config.copy_and_resolve_references()
  c.train.init_from = os.fspath(tmp_path / 'model')
  c.model.channels = 12
  with pytest.raises(hub.HubError, match='not the weights of this network') as error:
    train.train(c, tmp_path / 'tuned')
  assert '\n' not in str(error.value)
  c.train.init_from = os.fspath(trained.workdir)
  with pytest.raises(checkpoint.CheckpointError, match='of another network'):
    train.train(c, tmp_path / 'tuned')


class BreaksOnWhite:
  """A model whose loss, or only its gradient, is not finite for a white image."""

  method = 'sr3'
  perceptual = 0.0

  def __init__(self, what: str):
    self._what = what

  def init(self, key):
    del key
    return {'w': jnp.zeros(3)}

  def loss(self, params, keys, batch, perceptual=None):
    del keys, perceptual
    x = batch['image'].astype(jnp.float32).mean((0, 1, 2)) / 255
    white = jnp.all(batch['image'] == 255)
    loss = jnp.mean(jnp.square(x - params['w']))
    if self._what == 'loss':
      return loss + jnp.where(white, jnp.nan, 0.0)
    # For a white image sqrt(0) is finite and its derivative is not.
    root = jnp.sqrt(jnp.where(white, 0.0, 1.0) * (1 + jnp.square(params['w']).sum()))
    return loss + root


@pytest.mark.parametrize('what', ['loss', 'gradient'])
@pytest.mark.parametrize('bad', [2, 13, 15])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run(
  config, tmp_path, monkeypatch, what, bad
):
  read = Batches.__next__

  def read_with_a_white_batch(self):
    batch = read(self)
    white = self.get_state()['examples'] == bad * 8
    return batch | ({'image': np.full_like(batch['image'], 255)} if white else {})

  monkeypatch.setattr(train.SR3, 'from_config', lambda config: BreaksOnWhite(what))
  c = config.copy_and_resolve_references()
  c.eval.every_steps = 0
  with monkeypatch.context() as patch:
    patch.setattr(Batches, '__next__', read_with_a_white_batch)
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
  # The checkpoints are good: the run continues from the newest one to its end.
  state = train.train(c, tmp_path)
  assert np.isfinite(state.params['w']).all()
  assert positions(tmp_path)['20']['examples'] == 20 * 8


def test_the_line_of_the_first_step_has_no_speed(config, tmp_path, monkeypatch):
  monkeypatch.setattr(train.SR3, 'from_config', lambda config: BreaksOnWhite('loss'))
  c = config.copy_and_resolve_references()
  c.train.num_steps, c.train.log_every, c.eval.every_steps = 2, 1, 0
  train.train(c, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
  assert [line['step'] for line in lines] == [1, 2]
  assert lines[0]['images_per_second'] is None
  assert lines[1]['images_per_second'] > 0


@pytest.mark.parametrize('parts', [1, 2])
def test_accumulation_on_a_cpu_is_slow_and_logs_a_warning(
  config, tmp_path, monkeypatch, caplog, parts
):
  monkeypatch.setattr(train.SR3, 'from_config', lambda config: BreaksOnWhite('loss'))
  c = config.copy_and_resolve_references()
  c.train.num_steps, c.train.batch_size, c.eval.every_steps = 1, 16, 0
  c.train.accumulate = parts
  with caplog.at_level('WARNING', logger='absl'):
    train.train(c, tmp_path)
  told = 'train.accumulate=2: on a CPU, gradients of convolutions' in caplog.text
  assert told == (parts == 2)


# ----------------------------------------------------------------- configurations


def test_the_regression_baseline_differs_only_in_method_and_length(config):
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


def test_the_configuration_is_written_and_changes_are_logged(
  config, tmp_path, monkeypatch
):
  logged = []
  monkeypatch.setattr(
    train.logging, 'warning', lambda text, *a: logged.append(text % a)
  )
  workdir = train.epath.Path(tmp_path)
  train.write_config(config, workdir)
  train.write_config(config, workdir)
  assert not logged
  c = config.copy_and_resolve_references()
  c.train.learning_rate = 0.5
  train.write_config(c, workdir)
  assert logged == ['config.train.learning_rate was 0.01, is now 0.5']
  assert (
    json.loads((tmp_path / 'config.json').read_text())['train']['learning_rate'] == 0.5
  )
  assert [p.name for p in tmp_path.iterdir()] == ['config.json']
