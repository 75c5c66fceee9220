"""The sweep: its settings, its one program, its choice, its files."""

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import tiny
import tiny_nets

from sr3_jax import (
  diffusion,
  evaluation,
  feature_nets,
  hub,
  logs,
  model_writer,
  parallel,
  restorer,
  sweep,
)
from sr3_jax.sr3 import SR3, make_walk

GAMMAS = diffusion.linear_gammas(2000)
YARDSTICK = {'name': 'ddpm', 'num_steps': 1000, 'spacing': 'time', 'eta': 0.0}


# ----------------------------------------------------------------------- settings


@pytest.mark.parametrize('steps', [2, 4, 20, 100])
@pytest.mark.parametrize('start', [1e-6, 1e-2])
@pytest.mark.parametrize('level', [1e-6, 4.4e-5, 1e-2])
def test_a_line_of_betas_ends_at_a_level(steps, start, level):
  end = sweep.linear_end(steps, start, level)
  betas = np.linspace(start, end, steps)
  np.testing.assert_allclose(np.prod(1 - betas), level, rtol=1e-6)
  assert start < end < 1


def test_a_line_that_would_fall_is_none():
  """50 betas of 0.01 leave 0.605 of the signal."""
  assert sweep.linear_end(50, 0.01, 0.61) is None
  assert sweep.linear_end(50, 0.01, 0.60) == pytest.approx(0.01, abs=1e-3)
  assert sweep.linear_end(1, 0.5, 1e-3) is None


def test_the_known_line_for_a_hundred_steps_is_among_the_searched():
  """1e-4 to 0.2 in 100 steps ends at 2.1e-5, by common advice for few steps."""
  end = sweep.linear_end(100, 1e-4, 2.1e-5)
  assert end == pytest.approx(0.2, rel=0.01)


def test_settings_are_walks_of_their_own_over_trained_levels():
  settings = sweep.all_settings(GAMMAS, (1000, 4, 100), 4, learned=False)
  assert settings[0] == YARDSTICK
  steps = [s['num_steps'] for s in settings[1:]]
  assert steps == sorted(steps)
  assert set(steps) == {4, 100}  # the most steps are the yardstick's alone
  walks = [make_walk(GAMMAS, **s) for s in settings]
  for setting, (levels, table) in zip(settings, walks, strict=True):
    assert len(table) == setting['num_steps']
    assert levels[0] == 1
    assert levels[-1] >= GAMMAS[-1] * (1 - 1e-6)
  keys = [(s['name'], w[0].tobytes()) for s, w in zip(settings, walks, strict=True)]
  assert len(set(keys)) == len(keys)
  names = {'ddpm', 'ddpm_posterior', 'ddim', 'dpmpp_2m'}
  for count, kinds in ((4, {*sweep.SPACINGS, 'linear'}), (100, sweep.SPACINGS)):
    of_count = [s for s in settings[1:] if s['num_steps'] == count]
    assert {(s['name'], s['spacing']) for s in of_count} == {
      (name, kind) for name in names for kind in kinds
    }
  searched = {s['end'] for s in settings if s['spacing'] == 'linear'}
  assert len(searched) == len(sweep.STARTS) * len(sweep.ENDS)


def test_temperatures():
  """The yardstick has none; each other setting is there with all of them."""
  settings = sweep.all_settings(GAMMAS, (4, 100), 0, False, (1.0, 0.8))
  assert settings[0] == YARDSTICK | {'num_steps': 100}
  plain = [s for s in settings[1:] if 'temperature' not in s]
  assert settings[1:] == [one for s in plain for one in (s, {**s, 'temperature': 0.8})]
  assert sweep.describe(settings[2]).endswith(', temperature 0.8')
  (cold,) = sweep.all_settings(GAMMAS, (1, 4), 0, False, (0.5,))[1:2]
  assert cold['temperature'] == 0.5


def test_what_the_model_has_bounds_the_settings():
  gammas = diffusion.linear_gammas(50, 1e-4, 0.3)
  settings = sweep.all_settings(gammas, (4, 50, 51, 1000), 0, learned=True)
  assert settings[0] == YARDSTICK | {'name': 'ddpm_learned', 'num_steps': 50}
  assert {s['num_steps'] for s in settings[1:]} == {4}
  assert 'ddpm_learned' in {s['name'] for s in settings[1:]}
  with pytest.raises(sweep.SweepError, match='from 1 to 50 in'):
    sweep.all_settings(gammas, (51, 0), 0, learned=False)
  # All levels are one walk, whatever their spacing.
  settings = sweep.all_settings(gammas, (50, 51), 0, learned=False)
  assert len(settings) == 1


# ---------------------------------------------------------------------- measuring


@pytest.fixture(scope='module')
def config():
  c = tiny.get_config()
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


def test_one_program_takes_every_walk_and_does_what_restore_does(
  compile_cache, config, params
):
  del compile_cache
  model = SR3.from_config(config)
  walker = restorer.Restorer(model, params, 5, room=27)
  condition = jax.random.uniform(jax.random.key(3), (8, 4, 4, 3), minval=-1)
  index = np.arange(8, dtype=np.int32)
  batch = parallel.shard({'condition': condition, 'index': index})
  keys = restorer.keys(5, jnp.asarray(index), 0)
  outputs, told = [], []
  settings = sweep.all_settings(model.gammas, config.sweep.num_steps, 2, False)
  kinds = {(s['name'] == 'ddpm', s['spacing'] == 'linear'): s for s in settings}
  some = [settings[0], *kinds.values(), {**settings[1], 'name': 'ddim', 'eta': 1.0}]
  with tiny.compilations() as compiled:
    for setting in some:
      walker.choose(*make_walk(model.gammas, **setting))
      image = walker(batch['condition'], batch, 0, told.append)
      outputs.append(parallel.gather(image))
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
    gammas, table = make_walk(model.gammas, **setting)
    expected = model.restore(params, keys, condition, table, gammas)
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
  write, count = logs.write_json, [0]

  def interrupting(path, value):
    write(path, value)
    count[0] += 1
    if count[0] == 4:
      raise KeyboardInterrupt

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(logs, 'write_json', interrupting)
    with pytest.raises(KeyboardInterrupt):
      sweep.sweep_run(config, folder)
    half = json.loads((folder / 'sweep.json').read_text())
    measured = []
    choose = restorer.Restorer.choose
    patch.setattr(logs, 'write_json', write)
    patch.setattr(
      restorer.Restorer,
      'choose',
      lambda self, *walk: measured.append(walk) or choose(self, *walk),
    )
    rows = sweep.sweep_run(config, folder)
  return folder, half, measured, rows


def test_an_interrupted_sweep_goes_on(swept, config):
  _, half, measured, rows = swept
  gammas = SR3.from_config(config).gammas
  settings = sweep.all_settings(gammas, config.sweep.num_steps, 2, False)
  assert len(half['rows']) == 4
  assert [row['setting'] for row in half['rows']] == settings[:4]
  for walk, setting in zip(measured, settings[4:], strict=True):
    for mine, its in zip(walk, make_walk(gammas, **setting), strict=True):
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
  batches = evaluation.evaluation_data(c, 13)
  table = evaluation.evaluate(model, {'it': it}, batches, seed=c.seed).table()['it']
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
  assert record['presets'] == presets == sweep.choose(rows)
  assert hub.load(folder).presets == presets
  picture = np.asarray(PIL.Image.open(folder / 'sweep.png'))
  assert picture.std() > 10
  assert not list(folder.glob('*.part'))


def test_a_sweep_is_not_repeated_and_not_mixed(swept, config, monkeypatch, capsys):
  """Other images are another sweep; fewer settings are less of the same."""
  folder, _, _, rows = swept
  before = (folder / 'sweep.json').read_bytes()
  monkeypatch.setattr(
    restorer.Restorer, 'choose', lambda self, *walk: pytest.fail('measured again')
  )
  assert sweep.sweep_run(config, folder) == rows
  assert (folder / 'sweep.json').read_bytes() == before
  text = capsys.readouterr().out
  assert 'ddpm, 27 steps, time' in text
  assert 'fast: ' in text
  measured = []

  class Enough(BaseException):
    pass

  def choose(self, *walk):
    measured.append(walk)
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
  path.write_text('{"measured": {"a": 1}, "rows": [3]}')
  assert sweep._rows_of(path, {'a': 1}) == [3]


def test_regression_has_nothing_to_sweep(config, tmp_path):
  c = config.copy_and_resolve_references()
  c.method = 'regression'
  with pytest.raises(sweep.SweepError, match='one step'):
    sweep.sweep_run(c, tmp_path)


def test_a_sweep_judged_by_a_network(
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
  monkeypatch.setattr(feature_nets, 'load', lambda name, folder: tiny_nets.lpips(name))
  rows = sweep.sweep_run(c, folder)
  values = [row['lpips_alex'] for row in rows]
  assert len(set(values)) > 1 and min(values) > 0
  record = json.loads((folder / 'sweep.json').read_text())
  assert record['measured']['lpips_alex'] == '22ff'
  assert record['presets'] == sweep.choose(rows, 'lpips_alex')
  c.sweep.judge = 'taste'
  with pytest.raises(sweep.SweepError, match="'taste': give spectrum_db, lpips_alex"):
    sweep.sweep_run(c, folder)


# ----------------------------------------------------------------------- choosing


def row(steps: int, psnr: float, spectrum: float, name: str = 'ddim') -> sweep.Row:
  setting = {'name': name, 'num_steps': steps, 'spacing': 'time', 'eta': 0.0}
  return {'setting': setting, 'psnr': psnr, 'spectrum_db': spectrum}


REFERENCE = row(1000, 25.0, 2.0, 'ddpm')


def chosen(*rows) -> dict[str, int]:
  presets = sweep.choose([REFERENCE, *rows])
  return {name: setting['num_steps'] for name, setting in presets.items()}


def test_one_per_cent_of_power():
  assert pytest.approx(1.01) == 10 ** (sweep.SPECTRUM_TOLERANCE / 10)


def test_a_shortfall_is_the_worse_of_two():
  short = lambda psnr, spectrum: sweep.shortfall(row(4, psnr, spectrum), REFERENCE)
  assert short(25.0, 2.0) == 0
  assert short(24.9, 2.0) == pytest.approx(1)
  assert short(26.0, 2.0 + 0.04321) == pytest.approx(1, abs=1e-3)
  assert short(24.7, 1.0) == pytest.approx(3)
  assert short(26.0, 1.0) < 0
  assert short(None, 2.0) == short(25.0, None) == math.inf


def test_the_fewest_steps_that_are_as_good():
  rows = [row(4, 24.0, 1.0), row(8, 24.95, 2.02), row(12, 25.5, 1.9), row(50, 26, 1.0)]
  assert chosen(*rows) == {'fast': 8, 'balanced': 8, 'best': 50}
  # Of several with as many steps the best.
  presets = sweep.choose([REFERENCE, *rows, row(8, 25.0, 1.9, 'dpmpp_2m')])
  assert presets['fast']['name'] == 'dpmpp_2m'


def test_budgets():
  good = lambda steps: row(steps, 25.0, 2.0)
  assert chosen(row(20, 20.0, 9.0), good(21), good(100))['fast'] == 20
  assert chosen(row(20, 20.0, 9.0), good(21), good(100))['balanced'] == 21
  assert chosen(good(20), good(100))['fast'] == 20


def test_none_is_as_good_then_the_nearest():
  rows = [row(4, 25.0, 4.0), row(8, 24.7, 2.0), row(20, 23.0, 1.0), row(50, 24.8, 2.0)]
  assert chosen(*rows) == {'fast': 8, 'balanced': 50, 'best': 1000}
  assert chosen() == {'fast': 1000, 'balanced': 1000, 'best': 1000}
  # Blur has the highest PSNR of all; it is not near.
  assert chosen(row(4, 27.0, 9.0), row(8, 24.5, 2.0))['fast'] == 8


def test_best_does_not_give_up_faithfulness():
  rows = [row(50, 24.8, 0.1), row(20, 24.95, 1.0), row(100, 24.95, 1.0)]
  assert chosen(*rows)['best'] == 20


def test_lpips_may_judge():
  """Grain in the place of detail: the right power, the wrong look."""
  judged = lambda one, lpips: one | {'lpips_alex': lpips}
  yardstick = judged(REFERENCE, 0.3)
  grainy = judged(row(8, 25.0, 1.0), 0.31)
  clean = judged(row(12, 25.0, 3.0), 0.304)
  cleaner = judged(row(50, 24.95, 3.0), 0.25)
  rows = [yardstick, grainy, clean, cleaner]
  presets = sweep.choose(rows, 'lpips_alex')
  steps = {name: setting['num_steps'] for name, setting in presets.items()}
  assert steps == {'fast': 12, 'balanced': 12, 'best': 50}
  lines = sweep.verdicts(rows, presets, 'lpips_alex')
  assert lines.endswith('time: PSNR dB -0.05, LPIPS alex -0.050, as good')


def test_walks_that_broke_are_not_chosen():
  assert chosen(row(4, None, None), row(8, 25.0, 2.0))['fast'] == 8
  with pytest.raises(sweep.SweepError, match='ddpm, 1000 steps'):
    sweep.choose([row(1000, None, None, 'ddpm'), row(4, 25.0, 2.0)])


def test_the_summary_says_whether_it_is_as_good():
  rows = [REFERENCE, row(4, 24.0, 2.5), row(50, 24.95, 1.9)]
  head, fast, balanced, best = sweep.verdicts(rows, sweep.choose(rows)).splitlines()
  assert head == 'against ddpm, 1000 steps, time:'
  fast_is = 'PSNR dB -1.00, spectrum dB +0.50, not as good'
  assert fast == f'fast: ddim, 4 steps, time: {fast_is}'
  assert balanced.startswith('balanced: ddim, 50 steps')
  assert balanced.endswith('spectrum dB -0.10, as good')
  assert best.startswith('best: ddim, 50 steps')


def test_the_plot_has_a_line_for_every_sampler_and_kind(monkeypatch):
  """Of several lines of betas the best at each number of steps."""
  drawn = []
  monkeypatch.setattr(
    sweep.plots, 'chart', lambda panels, styles, **_: drawn.append((panels, styles))
  )
  linear = lambda steps, psnr: (
    row(steps, psnr, 2.0)
    | {
      'setting': row(steps, 0, 0)['setting']
      | {'spacing': 'linear', 'start': psnr / 1000, 'end': 0.5}
    }
  )
  rows = [REFERENCE, row(8, 24.0, 2.1), row(4, 23.0, 2.5), linear(4, 21.0)]
  sweep.plot([*rows, linear(4, 22.0), row(4, None, None, 'dpmpp_2m')])
  ((psnr, spectrum), styles) = drawn[0]
  assert list(styles) == ['ddpm, time', 'ddim, time', 'ddim, betas', 'dpmpp_2m, time']
  assert len(set(styles.values())) == 4
  assert psnr.lines == {
    'ddpm, time': ((1000,), (25.0,)),
    'ddim, time': ((4, 8), (23.0, 24.0)),
    'ddim, betas': ((4,), (22.0,)),
  }
  assert spectrum.lines['ddim, time'] == ((4, 8), (2.5, 2.1))
  for panel, value in ((psnr, 25.0), (spectrum, 2.0)):
    assert panel.y_range[0] < value < panel.y_range[1]
    assert panel.mark == (value, 'ddpm, 1000 steps, time')
