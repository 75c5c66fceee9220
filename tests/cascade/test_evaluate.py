"""Evaluation of cascades: each stage alone and in the cascade, one report."""

import json
import pathlib
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from sr3_jax.cascade import evaluate as cascade_evaluate
from sr3_jax.cascade import measurement
from sr3_jax.cascade import run as cascade_run
from sr3_jax.cascade.cascade import CascadeError
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.images import image_files
from sr3_jax.reports import paper
from sr3_jax.restoration import restorer
from sr3_jax.runtime.errors import NotFiniteError, UserError
from tests.support import cascades as stage_models
from tests.support import feature_networks

COUNT = 13  # a batch of 8 and one that is not full
ALONE, SAMPLED, BASE = '16 from true 8', '16 from sampled 8', '8 sampled'
# Records and pictures keep the names from before the rows were renamed.
PART = {ALONE: ALONE, SAMPLED: '16 from drawn 8', BASE: '8 drawn'}


class FirstClass:
  """A classifier for which everything is a cat."""

  fingerprint, about = 'first', 'cats'

  def logits(self, shown):
    return np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (len(shown), 1))


@pytest.fixture(scope='module')
def base(compile_cache, tmp_path_factory) -> Iterator[pathlib.Path]:
  del compile_cache
  evaluators = Evaluators(
    {'inception': feature_networks.inception()}, [], None, FirstClass()
  )
  with (
    stage_models.stages(tmp_path_factory.mktemp('cascade_eval')) as folder,
    pytest.MonkeyPatch.context() as patch,
  ):
    patch.setattr(measurement, 'load_evaluators', lambda config: evaluators)
    yield folder


@pytest.fixture(scope='module')
def config(base):
  c = stage_models.with_data(
    stage_models.cascade_config('base', 'up'), base / 'data.npz'
  )
  c.cascade.noise = (0.0, 0.1)
  c.eval.final_images = COUNT
  c.sample.num_images = COUNT
  return c


@pytest.fixture(scope='module')
def table(base, config):
  return cascade_evaluate.evaluate_run(config, base / 'run')


def test_outputs_that_are_not_finite_are_an_error(base, config, monkeypatch):
  call = restorer.Restorer.__call__

  def spoiled(self, *given):
    return call(self, *given) * jnp.nan

  monkeypatch.setattr(restorer.Restorer, '__call__', spoiled)
  with pytest.raises(NotFiniteError, match='the output of base is not finite'):
    cascade_evaluate.evaluate_run(config, base / 'spoiled')


@pytest.fixture(scope='module')
def shown(base, table) -> dict[str, np.ndarray]:
  """Pictures of the report by name, [COUNT, H, W, 3] on the scale of 0 to 1."""
  del table
  folder = base / 'run/report/pictures'

  def stack(name):
    return np.stack(
      [image_files.read(folder / f'{i:05d}_{name}.png') for i in range(COUNT)]
    )

  names = PART | {'true 8': 'true 8', 'true 16': 'true 16'}
  return {row: stack(name) / 255 for row, name in names.items()}


def test_every_stage_has_a_row_alone_and_in_the_cascade(table):
  assert [*table] == [BASE, '8 true', ALONE, SAMPLED, '16 true']
  assert {row['images'] for row in table.values()} == {COUNT}
  assert 'psnr' in table[ALONE]
  assert 'psnr' not in table[SAMPLED]
  for name in (BASE, ALONE, SAMPLED):
    assert {'fid', 'is', 'spectrum_db', 'top1_error'} <= table[name].keys()


def test_pixels_of_a_stage_alone(table, shown):
  error = (shown[ALONE] - shown['true 16']).reshape(COUNT, -1)
  psnr = -10 * np.log10(np.mean(error**2, 1))
  assert table[ALONE]['psnr'] == pytest.approx(psnr.mean(), abs=1e-3)
  low = shown[ALONE].reshape(COUNT, 8, 2, 8, 2, 3).mean((2, 4))
  consistency = 1e5 * np.mean((low - shown['true 8']) ** 2)
  assert table[ALONE]['consistency'] == pytest.approx(consistency, rel=1e-4)


def test_true_images_of_a_stage_are_means_of_blocks(shown):
  low = shown['true 16'].reshape(COUNT, 8, 2, 8, 2, 3).mean((2, 4))
  np.testing.assert_allclose(shown['true 8'], low, atol=0.501 / 255)


@pytest.mark.parametrize(
  ('name', 'truth'), [(BASE, 'true 8'), (ALONE, 'true 16'), (SAMPLED, 'true 16')]
)
def test_distances_are_those_of_sets_of_one_size(table, shown, name, truth):
  one, other = (feature_networks.features(2 * shown[key] - 1) for key in (name, truth))
  covariances = np.cov(one.T), np.cov(other.T)
  root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
  fid = np.sum((one.mean(0) - other.mean(0)) ** 2)
  fid += np.trace(covariances[0] + covariances[1] - 2 * root)
  assert table[name]['fid'] == pytest.approx(fid, rel=1e-3)


def test_sampled_images_are_of_their_classes_in_turn(table):
  """Numbers 0 to 12 are of classes 0, 1, 2, 0, ...: five of 13 are cats."""
  for name in (BASE, SAMPLED):
    assert table[name]['top1_error'] == pytest.approx(1 - 5 / 13)


def test_what_is_measured_is_what_sampling_makes(base, config, shown):
  c = config.copy_and_resolve_references()
  cascade_run.sample_run(c, base / 'sampled')
  for number in range(6):
    for side, name in ((8, BASE), (16, SAMPLED)):
      folder = cascade_run.class_folders(c, load_cascade(c, base))[number % 3]
      path = base / 'sampled/samples' / str(side) / folder / f'{number // 3:05d}.png'
      difference = np.abs(image_files.read(path) / 255 - shown[name][number])
      assert difference.max() < 3.5 / 255


def load_cascade(config, base):
  from sr3_jax.cascade import cascade

  return cascade.load(config, base / 'x')


def test_the_report(base, table):
  folder = base / 'run/report'
  report = json.loads((folder / 'report.json').read_text())
  assert [m['name'] for m in report['methods']] == [*table]
  assert [s['title'] for s in report['sheets']] == [
    'Sampled, stage by stage',
    'Stages alone, on true inputs',
  ]
  first = report['sheets'][0]
  assert first['columns'] == [BASE, SAMPLED]
  assert [folder / cell for cell in first['rows'][3]['cells']] == [
    folder / 'pictures' / f'00003_{PART[row]}.png' for row in (BASE, SAMPLED)
  ]
  assert report['paper'] is None
  assert report['protocol']['cascade']['stage 2']['noise'] == 0.1
  assert report['protocol']['configuration']['cascade']['stages'] == ['base', 'up']
  assert (folder / 'report.html').exists() and (folder / 'samples.png').exists()
  results = json.loads((base / 'run/results.json').read_text())
  assert results['table'] == table


def test_what_was_measured_is_not_sampled_again(base, config, table, monkeypatch):
  """One lost batch of a stage alone is one call of one restorer."""
  calls = []
  call = restorer.Restorer.__call__
  monkeypatch.setattr(
    restorer.Restorer,
    '__call__',
    lambda self, *args: calls.append(args[2]) or call(self, *args),
  )
  assert cascade_evaluate.evaluate_run(config, base / 'run') == table
  assert calls == []
  parts = [p.name for p in (base / 'run/report/records').iterdir() if p.is_dir()]
  assert sorted(parts) == sorted([*PART.values(), 'truth', 'truth 8'])
  (lost,) = (base / 'run/report/records' / ALONE).glob('00000001-*.npz')
  lost.unlink()
  again = cascade_evaluate.evaluate_run(config, base / 'run')
  assert calls == [1]  # of the stage of that place
  assert again[ALONE]['psnr'] == pytest.approx(table[ALONE]['psnr'], abs=1e-4)


def test_classes_need_labelled_images_like_those_of_training(base, config):
  c = config.copy_and_resolve_references()
  c.data.update({'source': 'photos', 'eval_split': 'eval', 'crop': 'random'})
  with pytest.raises(CascadeError, match='of no classes, the models have 3') as error:
    cascade_evaluate.evaluate_run(c, base / 'unlabelled')
  assert '\n' not in str(error.value)
  c = config.copy_and_resolve_references()
  c.eval.batch_size = 12
  with pytest.raises(UserError, match=r'eval\.batch_size.*multiple of 8'):
    cascade_evaluate.evaluate_run(c, base / 'unlabelled')


def test_the_papers_tables_of_cascades():
  found = paper.table_for(paper.GENERATED, 256, classified=False)
  assert found['rows']['SR3, two stages'] == {'fid': 11.3}
  assert found['rows']['SR3, no blur augmentation'] == {'fid': 13.1}
  assert paper.table_for(4, 256, classified=False) is paper.NATURAL
  assert paper.table_for(None, 256, classified=False) is None
