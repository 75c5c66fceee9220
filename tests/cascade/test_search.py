"""The search over augmentation levels: a planted optimum, stage by stage."""

import json
import math
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from sr3_jax.cascade import measurement, search
from sr3_jax.cascade.cascade import CascadeError
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.images import image_files, pixels
from sr3_jax.reports import line_plots
from sr3_jax.restoration import restorer
from sr3_jax.runtime import devices
from tests.support import cascades as stage_models
from tests.support import feature_networks

# Of the second stage and of the third: blur and noise.
PLANTED = {1: (0.5, 0.4), 2: (0.0, 0.2)}


@pytest.fixture(scope='module')
def base(compile_cache, tmp_path_factory) -> Iterator[pathlib.Path]:
  del compile_cache
  with stage_models.stages(tmp_path_factory.mktemp('cascade_search')) as folder:
    stage_models.save(
      folder / 'up32', stage_models.stage_config(32, **stage_models.UP), 3
    )
    stage_models.save_data(folder / 'data.npz', side=32, same=True)
    yield folder


@pytest.fixture
def config(base):
  c = stage_models.with_data(
    stage_models.cascade_config('base', 'up', 'up32'), base / 'data.npz'
  )
  c.cascade.search_blur = (0.0, 0.5, 0.6)
  c.cascade.search_noise = (0.2, 0.4, 0.7)  # trained up to 0.5
  c.sweep.num_images = 13
  return c


@pytest.fixture
def calls(base, monkeypatch):
  """Replace the stages: they return the truth, fainter the further from PLANTED.

  Returns what they were asked for: (place, blur, noise, deviation of the given image).
  """
  with np.load(base / 'data.npz') as file:
    whole = pixels.to_float(file['x_test'][:8])
  asked = []

  def call(self, condition, batch, sample, on_steps):
    on_steps(self.num_steps)
    side = self.model.image_size
    given = devices.gather(condition)
    factor = 1.0
    if sample:
      blur, noise = (float(given[0, 0, 0, channel]) for channel in (3, 4))
      best = PLANTED[sample]
      factor = 1 / (1 + abs(blur - best[0]) + abs(noise - best[1]))
      asked.append((sample, blur, noise, given[..., :3].std()))
    block = 32 // side
    low = whole.reshape(8, side, block, side, block, 3).mean((2, 4))
    return devices.shard((factor * low).astype(np.float32))

  monkeypatch.setattr(restorer.Restorer, '__call__', call)
  return asked


@pytest.mark.parametrize('score', ['spectrum_db', 'fid'])
def test_finds_a_planted_optimum(base, config, calls, score, monkeypatch, capsys):
  nets = {'inception': feature_networks.inception()} if score == 'fid' else {}
  evaluators = Evaluators(nets, [], None, None)
  monkeypatch.setattr(measurement, 'load_evaluators', lambda config: evaluators)
  workdir = base / score
  rows = search.search_run(config, workdir)
  # Blur 0, 0.5 and 0.6 times noise 0, 0.2 and 0.4 of two stages.
  assert [row['side'] for row in rows] == 9 * [16] + 9 * [32]
  assert all(search.score_of(row)[0] == score for row in rows)
  record = json.loads((workdir / 'search.json').read_text())
  assert record['chosen'] == {'blur': [0.0, 0.5, 0.0], 'noise': [0.0, 0.4, 0.2]}
  line = '--config.cascade.blur="(0, 0.5, 0)" --config.cascade.noise="(0, 0.4, 0.2)"'
  assert f'best: {line}' in capsys.readouterr().out
  assert image_files.read(workdir / 'search.png').shape[2] == 3
  # The third stage was given what the second makes at its best.
  seen = {(blur, noise): std for place, blur, noise, std in calls if place == 2}
  with np.load(base / 'data.npz') as file:
    whole = pixels.to_float(file['x_test'][:8])
  assert seen[0.0, 0.0] == pytest.approx(
    whole.reshape(8, 16, 2, 16, 2, 3).mean((2, 4)).std(), rel=1e-2
  )
  # A second time nothing is sampled, and after a loss only what it needs.
  calls.clear()
  again = search.search_run(config, workdir)
  assert again == rows
  assert calls == []
  (lost,) = workdir.glob('search/16_0.5_0.4 32_0.5_0.2/00000001-*.npz')
  lost.unlink()
  assert search.search_run(config, workdir) == rows
  assert [call[0] for call in calls] == [1, 1, 2]


def test_stages_without_levels_leave_nothing_to_search(base):
  plain = {'task.name': 'super_resolution'}
  stage_models.save(base / 'plain', stage_models.stage_config(16, **plain), 4)
  c = stage_models.with_data(
    stage_models.cascade_config('base', 'plain'), base / 'data.npz'
  )
  with pytest.raises(CascadeError, match='no stage was trained on several') as error:
    search.search_run(c, base / 'none')
  assert '\n' not in str(error.value)


def test_the_best_of_equal_levels_is_the_mildest():
  def row(blur, score):
    return {'blur': blur, 'noise': 0.0, 'spectrum_db': score}

  assert search.best([row(0.0, 2.0), row(0.3, 1.0), row(0.6, 1.0)]) == (0.3, 0.0)
  assert search.best([row(0.0, math.nan), row(0.3, 5.0)]) == (0.3, 0.0)
  assert search.score_of({'fid': 3.0, 'spectrum_db': 1.0}) == ('fid', 3.0)


def test_linear_axes_may_begin_at_zero():
  lines = {'a': ((0.0, 1.0, 4.0), (0, 1, 2))}
  panel = line_plots.Panel('', lines, (0, 2), linear=True)
  figure = line_plots.figure([panel], {'a': (0, 0)}, x_title='', size=(100, 100))
  line_plots.render(figure)
  (axes,) = figure.axes
  box = axes.get_window_extent()
  places = [axes.transData.transform((x, 0))[0] - box.x0 for x in (0.0, 1.0, 4.0)]
  # A margin of 4 % of the values' range on both sides.
  share = 100 / 1.08
  assert places == pytest.approx([0.04 * share, 0.29 * share, 1.04 * share])
