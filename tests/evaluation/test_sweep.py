"""The sweep: its settings, its one program, its choice, its files."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from sr3_jax.core.samplers import make_trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import sweep, sweep_choice
from sr3_jax.metrics import feature_nets
from sr3_jax.restoration import restorer
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.errors import UserError
from sr3_jax.weights import hub, model_writer
from tests.support import feature_networks, runs


@pytest.fixture(scope='module')
def config():
  c = runs.get_config()
  c.sweep.num_steps = (2, 3, 27)  # the longest is cut into two stretches
  c.sweep.num_images = 13
  c.sweep.search_steps = 2
  return c


@pytest.fixture(scope='module')
def params(config):
  """Random weights; those of a new network, zero in its last layer, show nothing."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes
  )


def test_one_program_takes_every_trajectory_and_does_what_restore_does(
  compile_cache, config, params
):
  del compile_cache
  model = SR3.from_config(config)
  restore = restorer.Restorer(model, params, 5, capacity=27)
  condition = jax.random.uniform(jax.random.key(3), (8, 4, 4, 3), minval=-1)
  index = np.arange(8, dtype=np.int32)
  batch = devices.shard({'condition': condition, 'index': index})
  keys = restorer.keys(5, jnp.asarray(index), 0)
  outputs, told = [], []
  settings = sweep_choice.all_settings(model.gammas, config.sweep.num_steps, 2, False)
  kinds = {(s['name'] == 'ddpm', s['spacing'] == 'linear'): s for s in settings}
  some = [settings[0], *kinds.values(), {**settings[1], 'name': 'ddim', 'eta': 1.0}]
  with runs.compilations() as compiled:
    for setting in some:
      restore.choose(*make_trajectory(model.gammas, **setting))
      image = restore(batch['condition'], batch, 0, told.append)
      outputs.append(devices.gather(image))
  assert compiled.count('jit(_fun)') <= 3  # begin, advance, finish
  assert told[:2] == [25, 2]
  assert [s['name'] for s in some] == [
    'ddpm',
    'ddpm',
    'ddpm',
    *['dpmpp_2m'] * 2,
    'ddim',
  ]
  for setting, output in zip(some, outputs, strict=True):
    gammas, coefficients = make_trajectory(model.gammas, **setting)
    expected = model.restore(params, keys, condition, coefficients, gammas)
    np.testing.assert_allclose(output, expected, atol=1e-4, err_msg=str(setting))
    assert np.std(output) > 0.1
  different = {output.tobytes() for output in outputs}
  assert len(different) == len(outputs)


@pytest.fixture(scope='module')
def swept(compile_cache, config, params, tmp_path_factory):
  """A model folder after a sweep that was interrupted and begun again; its rows."""
  del compile_cache
  folder = tmp_path_factory.mktemp('swept')
  model_writer.save(folder, params, config, step=20)
  write, count = atomic_files.write_json, [0]

  def interrupting(path, value):
    write(path, value)
    count[0] += 1
    if count[0] == 4:
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(atomic_files, 'write_json', interrupting)
    with pytest.raises(KeyboardInterrupt):
      sweep.sweep_run(config, folder)
    half = json.loads((folder / 'sweep.json').read_text())
    measured = []
    choose = restorer.Restorer.choose
    patch.setattr(atomic_files, 'write_json', write)
    patch.setattr(
      restorer.Restorer,
      'choose',
      lambda self, *trajectory: (
        measured.append(trajectory) or choose(self, *trajectory)
      ),
    )
    rows = sweep.sweep_run(config, folder)
  return folder, half, measured, rows


def test_an_interrupted_sweep_goes_on(swept, config):
  _, half, measured, rows = swept
  gammas = SR3.from_config(config).gammas
  settings = sweep_choice.all_settings(gammas, config.sweep.num_steps, 2, False)
  assert len(half['rows']) == 4
  assert [row['setting'] for row in half['rows']] == settings[:4]
  for trajectory, setting in zip(measured, settings[4:], strict=True):
    for mine, its in zip(trajectory, make_trajectory(gammas, **setting), strict=True):
      np.testing.assert_array_equal(mine, its)
  assert [row['setting'] for row in rows] == settings
  assert rows[:4] == half['rows']


def test_rows_are_what_evaluation_measures(params, swept, config):
  """The same sampler, configured and evaluated by --mode=eval's own means."""
  setting = {'name': 'dpmpp_2m', 'num_steps': 3, 'spacing': 'log_snr', 'eta': 0.0}
  (row,) = (row for row in swept[3] if row['setting'] == setting)
  c = config.copy_and_resolve_references()
  c.sampler.update(setting)
  model = SR3.from_config(c)
  it = restorer.Restorer(model, params, c.seed)
  batches = input_pipeline.evaluation_data(c, 13)
  table = evaluation_measure.evaluate(model, {'it': it}, batches, seed=c.seed).table()[
    'it'
  ]
  batches.close()
  assert row['images'] == table['images'] == 13
  for key, value in table.items():
    np.testing.assert_allclose(row[key], value, rtol=1e-3, err_msg=key)


def test_a_sweep_writes_what_it_promises(swept):
  folder, _, _, rows = swept
  record = json.loads((folder / 'sweep.json').read_text())
  assert record['rows'] == rows
  assert record['yardstick'] == rows[0]['setting']
  assert record['step'] == 20
  presets = json.loads((folder / 'presets.json').read_text())
  assert record['presets'] == presets == sweep_choice.choose(rows)
  assert hub.load(folder).presets == presets
  picture = np.asarray(PIL.Image.open(folder / 'sweep.png'))
  assert picture.std() > 10
  assert not list(folder.glob('*.part'))


def test_a_sweep_is_not_repeated_and_not_mixed(swept, config, monkeypatch, capsys):
  """Other images are another sweep; fewer settings are less of the same."""
  folder, _, _, rows = swept
  before = (folder / 'sweep.json').read_bytes()
  monkeypatch.setattr(
    restorer.Restorer, 'choose', lambda self, *trajectory: pytest.fail('measured again')
  )
  assert sweep.sweep_run(config, folder) == rows
  assert (folder / 'sweep.json').read_bytes() == before
  text = capsys.readouterr().out
  assert 'ddpm, 27 steps, time' in text
  assert 'fast: ' in text
  measured = []

  class Enough(BaseException):
    pass

  def choose(self, *trajectory):
    measured.append(trajectory)
    raise Enough

  monkeypatch.setattr(restorer.Restorer, 'choose', choose)
  for key, value in (
    ('sweep.num_images', 12),
    ('seed', 1),
    ('eval.image_size', 32),
    ('sampler.clip', False),
  ):
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict({key: value})
    with pytest.raises(Enough):
      sweep.sweep_run(c, folder)
    assert len(measured.pop()[1]) == rows[0]['setting']['num_steps'], key
  c = config.copy_and_resolve_references()
  c.train.num_steps, c.sampler.name, c.sweep.num_steps = 21, 'ddim', (2, 4, 27)
  with pytest.raises(Enough):
    sweep.sweep_run(c, folder)
  assert len(measured.pop()[1]) == 4


def test_a_sweep_file_of_something_else_is_measured_anew(tmp_path):
  path = sweep.epath.Path(tmp_path) / 'sweep.json'
  for text in ('', '[]', '{"measured": 1}', '{"measured": {"a": 1}}'):
    path.write_text(text)
    assert sweep._rows_of(path, {'a': 1}) == []
  path.write_text('{"measured": {"a": 1}, "rows": [{"setting": {}}]}')
  assert sweep._rows_of(path, {'a': 1}) == [{'setting': {}}]


def test_regression_has_nothing_to_sweep(config, tmp_path):
  c = config.copy_and_resolve_references()
  c.method = 'regression'
  with pytest.raises(sweep.SweepError, match='one step'):
    sweep.sweep_run(c, tmp_path)


def test_a_network_may_decide_a_sweep(
  compile_cache, config, params, tmp_path, monkeypatch
):
  """A network of one number stands for LPIPS; weights that are missing are said."""
  del compile_cache
  folder = tmp_path / 'm'
  model_writer.save(folder, params, config, step=20)
  c = config.copy_and_resolve_references()
  c.sweep.judge, c.eval.weights = 'lpips_alex', os.fspath(tmp_path)
  c.eval.image_size = 32  # LPIPS needs some pixels
  c.sweep.num_steps, c.sweep.search_steps, c.sweep.num_images = (1, 2), 0, 3
  with pytest.raises(sweep.SweepError, match=r'sweep.judge lpips_alex: .*download'):
    sweep.sweep_run(c, folder)
  monkeypatch.setattr(
    feature_nets, 'load', lambda name, folder: feature_networks.lpips(name)
  )
  rows = sweep.sweep_run(c, folder)
  values = [row['lpips_alex'] for row in rows]
  assert len(set(values)) > 1 and min(values) > 0
  record = json.loads((folder / 'sweep.json').read_text())
  assert record['measured']['lpips_alex'] == '22ff'
  assert record['presets'] == sweep_choice.choose(rows, 'lpips_alex')
  c.sweep.judge = 'taste'
  with pytest.raises(
    UserError, match=r"sweep\.judge='taste' must be one of 'spectrum_db', 'lpips"
  ):
    sweep.sweep_run(c, folder)
