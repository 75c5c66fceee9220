"""Tests of whole runs of other tasks: training, evaluation, sampling."""

import json

import numpy as np
import pytest

from sr3_jax.evaluation.run import evaluate_run
from sr3_jax.images import image_files
from sr3_jax.restoration.sample import sample_run
from sr3_jax.training import train
from tests.support import runs


def config_of(**changes):
  """Return the configuration of a short run, with changes given as group__key."""
  config = runs.get_config()
  config.update_from_flattened_dict(
    {
      'train.num_steps': 2,
      'checkpoint.every_steps': 2,
      'eval.every_steps': 0,
      'eval.final_images': 8,
      'sampler.num_steps': 2,
    }
    | {key.replace('__', '.'): value for key, value in changes.items()}
  )
  return config


def test_a_mixture_is_evaluated_for_each_task(tmp_path):
  parts = ('colorization', 'inpainting', 'super_resolution')
  config = config_of(task__name='mixture', task__mixture=parts, task__scale=2)
  config.train.num_steps = 2
  train.train(config, tmp_path)
  table = evaluate_run(config, tmp_path)
  assert list(table) == [f'{p} {m}' for p in parts for m in ('degraded', 'sr3')]
  assert all(row['images'] == 8 for row in table.values())
  results = json.loads((tmp_path / 'results.json').read_text())
  assert results['table'] == table
  for part in parts:
    report = json.loads((tmp_path / 'report' / part / 'report.json').read_text())
    assert report['protocol']['task'] == f'{part}, 16 to 16'
    assert report['sheets'][0]['columns'][0] == 'input'
    assert 'degraded' not in report['sheets'][0]['columns']
    assert (tmp_path / f'samples_{part}.png').exists()
  # The degraded input differs from task to task.
  psnr = {p: table[f'{p} degraded']['psnr'] for p in parts}
  assert len(set(psnr.values())) == 3
  # Inpainting keeps known pixels, but nothing keeps the grey values in colorization.
  assert table['inpainting sr3']['consistency'] < 1e-3
  assert table['colorization sr3']['consistency'] > 1


@pytest.fixture(scope='module')
def labelled_images(tmp_path_factory):
  """Write 80 images of noise with three classes, as an .npz file."""
  path = tmp_path_factory.mktemp('data') / 'a.npz'
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (80, 16, 16, 3), np.uint8)
  np.savez(path, x=x, y=np.arange(80) % 3, classes=np.array(['cat', 'dog', 'owl']))
  return path


@pytest.mark.slow
def test_generation_has_no_metrics_of_single_images(labelled_images, tmp_path):
  config = config_of(
    task__name='generation',
    data__source='arrays',
    data__path=str(labelled_images),
    data__eval_split='test',
    data__crop='none',
    data__reduce=(1,),
    model__num_classes=3,
    model__label_dropout=0.1,
    sampler__guidance=2.0,
  )
  train.train(config, tmp_path)
  table = evaluate_run(config, tmp_path)
  assert list(table) == ['sr3'] and table['sr3']['images'] == 8
  assert 'psnr' not in table['sr3']
  report = json.loads((tmp_path / 'report' / 'report.json').read_text())
  assert report['sheets'][0]['columns'][0] == 'sr3'
  assert 'truth' not in report['sheets'][0]['columns']
  sample_run(config, tmp_path)
  made = sorted(path.name for path in (tmp_path / 'samples').iterdir())
  pictures = [f'{i:05d}_{s}.png' for i in range(2) for s in range(2)]
  assert made == [*pictures, 'sheet.png']
  first = image_files.read(tmp_path / 'samples' / made[0])
  assert first.shape == (16, 16, 3) and first.std() > 1
