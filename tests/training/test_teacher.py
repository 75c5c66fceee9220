"""Tests of distilled runs: what they learn, resume, need, and refuse."""

import functools
import json
import os

import jax
import numpy as np
import pytest

from sr3_jax.config import ConfigError
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import progress
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import run as training_run
from sr3_jax.training import strategies, teacher, train, train_step
from sr3_jax.weights import hub, model_writer
from tests.support import runs
from tests.support.sr3_models import keys, photos, to_float
from tests.support.training_data import assert_same_bits, flat_norm

pytestmark = pytest.mark.usefixtures('compile_cache')


def student(trained, steps=2):
  """Return the configuration of a student of the smallest run."""
  c = trained.config.copy_and_resolve_references()
  c.train.distill_from = os.fspath(trained.workdir)
  c.sampler.name, c.sampler.num_steps, c.sampler.spacing = 'ddim', steps, 'cosine'
  c.eval.every_steps, c.eval.final_images, c.train.num_steps = 0, 8, 12
  return c


class Stopped(BaseException):
  """Something that ends a run from outside, such as a signal."""


@pytest.fixture(scope='module')
def distilled(trained, tmp_path_factory):
  """Return a student's configuration, workdir and last state."""
  workdir = tmp_path_factory.mktemp('student')
  config = student(trained)
  return config, workdir, train.train(config, workdir)


def test_a_student_starts_from_its_teacher(trained, tmp_path):
  c = student(trained)
  c.train.num_steps, c.train.learning_rate = 1, 1e-30  # goes nowhere
  state = train.train(c, tmp_path)
  for mine in (state.params, state.ema):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-25),
      mine,
      trained.state.ema,
    )


def test_a_stopped_student_continues_as_if_it_had_not_been_stopped(
  distilled, tmp_path, monkeypatch
):
  config, workdir, state = distilled
  update = progress.Progress.update

  def stop_at_8(self, step, **values):
    update(self, step, **values)
    if step == 8:
      raise Stopped

  monkeypatch.setattr(progress.Progress, 'update', stop_at_8)
  with pytest.raises(Stopped):
    train.train(config, tmp_path)
  monkeypatch.setattr(progress.Progress, 'update', update)
  assert_same_bits(train.train(config, tmp_path).saved(), state.saved())
  # The teacher is no part of checkpoints, and a finished run needs none.
  parts = {p.name for p in (workdir / 'checkpoints' / '12').iterdir() if p.is_dir()}
  assert parts == {'params', 'ema', 'optimizer', 'data', 'sums'}
  (tmp_path / 'teacher.json').unlink()
  assert_same_bits(train.train(config, tmp_path).saved(), state.saved())


def test_a_student_can_be_a_teacher_and_is_a_model_of_its_steps(distilled, tmp_path):
  config, workdir, _ = distilled
  again = config.copy_and_resolve_references()
  again.train.distill_from, again.sampler.num_steps = os.fspath(workdir), 1
  again.train.num_steps = 2
  train.train(again, tmp_path / 'one')
  model_writer.export(tmp_path / 'one', tmp_path / 'model')
  loaded = hub.load(tmp_path / 'model')
  np.testing.assert_array_equal(loaded.model.trajectory.gammas[:1], [1])
  assert len(loaded.model.trajectory.coefficients) == 1
  card = (tmp_path / 'model' / 'README.md').read_text()
  assert f'distilled from: {workdir.name}, for 1 steps' in card
  assert os.fspath(workdir.parent) not in card


@pytest.mark.slow
def test_a_student_of_two_steps_is_nearer_to_four_steps_than_two_steps_are(
  trained, tmp_path
):
  """The four steps, and two steps for comparison, are the teacher's own."""
  c = student(trained)
  c.train.distill_from = ''
  c.train.update(batch_size=16, learning_rate=3e-3, num_steps=400, decay_steps=200)
  c.train.update(clip_norm=1.0, ema_decay=0.98, log_every=50)
  c.diffusion.update(prediction='v', schedule='cosine', loss='l2')
  c.diffusion.update(residual=True, y0_scale=8.0)
  # As many channels as a patch has values: what depends on the noise must get through.
  c.model.channels, c.checkpoint.every_steps = 48, 400
  taught = train.train(c, tmp_path / 'teacher')
  c.train.distill_from = os.fspath(tmp_path / 'teacher')
  learned = train.train(c, tmp_path / 'student')
  image = photos(8)

  def sample(params, steps):
    c.sampler.num_steps = steps
    model = SR3.from_config(c)
    condition = model.degrade(keys(8), to_float(image))
    return np.asarray(jax.jit(model.restore)(params, keys(8), condition))

  wanted = sample(taught.ema, 4)
  missed = np.square(sample(taught.ema, 2) - wanted).mean()
  got = np.square(sample(learned.ema, 2) - wanted).mean()
  print(f'mean square distances: {got:.3g} learned, {missed:.3g} not')
  assert missed > 1e-4
  assert got < 0.7 * missed


def step_of(strategy, c) -> tuple[dict, train_step.TrainState]:
  """Return metrics of three steps, and the whole state after them."""
  model = SR3.from_config(c)
  make = functools.partial(train_step.create_state, c, model)
  state = make()
  taught = jax.tree.map(lambda leaf: leaf * 1.5 + 0.01, state.params)
  state = strategy.place(state.replace(teacher=taught))
  step, rng, lines = strategy.compile(train_step.train_step), np.random, []
  rng = rng.default_rng(0)
  for _ in range(3):
    batch = {'image': rng.integers(0, 256, (16, 16, 16, 3), np.uint8)}
    state, metrics = step(state, strategy.shard(batch))
    lines.append({k: float(v) for k, v in strategy.metrics(metrics).items()})
  whole = strategy.fetch(state)
  assert_same_bits(whole.teacher, jax.tree.map(np.asarray, taught))
  return lines, whole, state


@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_sharded_teacher_teaches_as_a_replicated_one(monkeypatch, accumulate):
  monkeypatch.setattr(strategies, 'SMALL', 64)
  c = runs.get_config()
  c.train.learning_rate, c.train.batch_size = 1e-3, 16
  c.train.accumulate, c.train.distill_from = accumulate, 'somewhere'
  c.sampler.name, c.sampler.num_steps, c.sampler.spacing = 'ddim', 2, 'cosine'
  expected, whole, _ = step_of(strategies.Replicated(), c)
  got, gathered, state = step_of(strategies.Sharded(jax.devices()[:4]), c)
  for a, b in zip(got, expected, strict=True):
    assert a == pytest.approx(b, rel=1e-5)
  difference = jax.tree.map(np.subtract, gathered.params, whole.params)
  assert flat_norm(difference) < 1e-5 * flat_norm(whole.params)
  large = [leaf for leaf in jax.tree.leaves(state.teacher) if leaf.size >= 64]
  parts = [leaf.addressable_shards[0].data.size / leaf.size for leaf in large]
  assert np.mean(np.array(parts) == 0.25) > 0.8


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
  ('changes', 'wanted'),
  [
    ({'train.distill_from': '/no/such'}, '/no/such: no model: no such file'),
    ({'diffusion.prediction': 'v'}, "has diffusion.prediction='eps', this run 'v'"),
    ({'diffusion.y0_scale': 2.0}, 'has diffusion.y0_scale=1.0, this run 2.0'),
    ({'model.upsampling': 'bilinear'}, "model.upsampling='bicubic', this run 'bil"),
    ({'model.channels': 12}, 'of another network than this run.* there, .* here'),
    ({'task.name': 'inpainting'}, 'of another network.*conv_in/kernel'),
  ],
)
def test_other_models_cannot_be_the_teacher(trained, tmp_path, changes, wanted):
  c = student(trained)
  c.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=wanted) as error:
    train.train(c, tmp_path)
  assert '\n' not in str(error.value)
  assert not list(tmp_path.glob('teacher.json'))


def test_regression_cannot_be_the_teacher(trained, tmp_path):
  config = trained.config.copy_and_resolve_references()
  config.method = 'regression'
  model_writer.save(tmp_path / 'model', trained.state.ema, config, step=1)
  c = student(trained)
  c.train.distill_from = os.fspath(tmp_path / 'model')
  with pytest.raises(UserError, match=r'model: method=.regression. has one step'):
    train.train(c, tmp_path / 'run')


def test_steps_are_checked_before_anything_is_read(trained, tmp_path):
  c = student(trained)
  c.sampler.spacing, c.data.source, c.data.path = 'log_snr', 'folder', '/no/such'
  with pytest.raises(ConfigError, match=r"levels of 2 steps.*take 'cosine' or 'time'"):
    training_run.train_run(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_wrong_teacher_is_refused_before_the_baseline_is_trained(trained, tmp_path):
  c = student(trained)
  c.regression_steps, c.train.distill_from = 2, '/no/such'
  with pytest.raises(hub.HubError, match='/no/such: no model'):
    training_run.train_run(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_baseline_has_no_teacher(trained):
  c = student(trained)
  c.regression_steps = 2
  assert train.regression_config(c).train.distill_from == ''


def test_a_run_keeps_its_teacher_and_its_steps(trained, distilled, tmp_path):
  config, workdir, _ = distilled
  longer = config.copy_and_resolve_references()
  longer.train.num_steps = 14
  for key, value, wanted in (
    ('sampler.num_steps', 4, 'begun with sampler.num_steps=2 .* now it is 4'),
    ('sampler.clip', False, 'begun with sampler.clip=True .* now it is False'),
  ):
    c = longer.copy_and_resolve_references()
    c.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=wanted) as error:
      train.train(c, workdir)
    assert '\n' not in str(error.value)
  other = jax.tree.map(lambda leaf: leaf + 1, trained.state.ema)
  model_writer.save(tmp_path / 'other', other, trained.config, step=1)
  longer.train.distill_from = os.fspath(tmp_path / 'other')
  with pytest.raises(UserError, match=r'begun with fingerprint=.* and a teacher'):
    train.train(longer, workdir)
  record = json.loads((workdir / 'teacher.json').read_text())
  assert record['fingerprint'] == hub.load(trained.workdir).fingerprint
  # A run that was no student does not become one.
  with pytest.raises(UserError, match='was begun without a teacher'):
    teacher.weights(config, SR3.from_config(config), tmp_path, resumed=True)
