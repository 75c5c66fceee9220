"""Tests of the benchmark of shipped models, with Pillow and SciPy as references."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg
import shipped
from PIL import Image

from sr3_jax.images import image_files, pixels
from tests.support import model_folders

ROOT = pathlib.Path(__file__).parents[2]

exported = model_folders.exported


@pytest.fixture
def smooth():
  """Return smooth pictures by name: uint8 [16, 16, 3], the first one [18, 17, 3]."""
  rng = np.random.default_rng(0)
  made = {}
  for number in range(12):
    height, width = (18, 17) if number == 0 else (16, 16)
    coarse = rng.integers(40, 216, (4, 4, 3), np.uint8)
    made[f'p{number:02d}'] = np.asarray(
      Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    )
  return made


def write(folder, pictures):
  for name, picture in pictures.items():
    image_files.write(folder / f'{name}.png', picture)
  return folder


def test_inputs_equal_those_of_pillow(smooth, tmp_path):
  """For values in the middle of the range, where clipping and rounding agree."""
  shipped.prepare(write(tmp_path / 'from', smooth), tmp_path / 'set', 4)
  for name, picture in smooth.items():
    truth = np.asarray(Image.open(tmp_path / 'set' / 'truth' / f'{name}.png'))
    np.testing.assert_array_equal(truth, picture[:16, :16])
    small = np.asarray(Image.open(tmp_path / 'set' / 'inputs' / f'{name}.png'))
    pillow = Image.fromarray(truth).resize((4, 4), Image.Resampling.BICUBIC)
    assert np.abs(small.astype(int) - np.asarray(pillow)).max() <= 1


def test_ridge_regression_equals_least_squares_of_scipy(smooth, tmp_path, monkeypatch):
  """SciPy gets additional rows that stand for the penalty."""
  monkeypatch.setattr(shipped, 'RIDGES', (0.01,))
  del smooth['p00']
  weights = shipped.fit_ridge(write(tmp_path / 'from', smooth), (4, 4), 4)
  both = [p for picture in smooth.values() for p in (picture, picture[:, ::-1])]
  x = np.stack([pixels.to_float(shipped.downsample(p, 4)).ravel() for p in both])
  y = np.stack([pixels.to_float(p).ravel() for p in both])
  penalty = np.sqrt(0.01 * len(x) * x.astype(np.float64).var()) * np.eye(48, 49)
  rows = np.concatenate([np.pad(x, ((0, 0), (0, 1)), constant_values=1), penalty])
  targets = np.concatenate([y, np.zeros((48, y.shape[1]))])
  wanted, *_ = scipy.linalg.lstsq(rows, targets)
  np.testing.assert_allclose(weights, wanted, atol=1e-5)


def test_cut_tiles_a_picture_with_squares(tmp_path):
  picture = np.arange(9 * 8 * 3, dtype=np.uint8).reshape(9, 8, 3)
  shipped.cut(write(tmp_path / 'from', {'a': picture}), tmp_path / 'cut', 4)
  parts = {path.stem: image_files.read(path) for path in (tmp_path / 'cut').iterdir()}
  assert sorted(parts) == ['a_0_0', 'a_0_4', 'a_4_0', 'a_4_4']
  np.testing.assert_array_equal(parts['a_4_0'], picture[4:8, :4])


def test_the_table_has_intervals_below_the_values():
  row = {
    'psnr': {'value': 25.128, 'low': 24.0, 'high': 26.0},
    'kid': {'value': 3.14, 'low': None, 'high': None},
  }
  lines = shipped.markdown('set5', {'bicubic': row, 'ridge': {}}, 5)
  assert lines[2:6] == [
    '| | PSNR dB | KID 1e-3 |',
    '|---|---|---|',
    '| bicubic | 25.13 | 3.14 |',
    '| | 24.00 to 26.00 |  |',
  ]
  assert lines[6] == '| ridge |  |  |'


@pytest.mark.slow
def test_the_command_measures_all_methods_and_resumes(smooth, tmp_path, exported):
  """It runs twice on eleven small pictures, without feature networks."""
  del smooth['p00']
  source = write(tmp_path / 'from', smooth)
  command = [sys.executable, ROOT / 'benchmarks' / 'shipped.py', '--steps', 'fast', '2']
  command += [f'--workdir={tmp_path / "w"}', f'--model={exported}']
  command += [f'--ridge={source}', f'--sets=few={source}', f'--weights={tmp_path}']
  for _ in range(2):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
  table = (tmp_path / 'w' / 'results.md').read_text()
  for name in ('bicubic', 'lanczos', 'ridge', 'sr3_fast', 'sr3_2'):
    assert f'\n| {name} | ' in table
  report = json.loads((tmp_path / 'w' / 'few' / 'report' / 'report.json').read_text())
  values = {name: row['psnr']['value'] for name, row in report['table'].items()}
  assert values['ridge'] > values['bicubic']  # it was fitted to these pictures
  assert image_files.read(tmp_path / 'w' / 'few' / 'sheet.png').ndim == 3
  # The second run neither makes nor measures anything again.
  assert (done.stdout + done.stderr).count('0 done, 11 skipped') == 2
  assert 'anew' not in done.stderr


def test_a_wrong_argument_is_an_error_of_one_line(tmp_path):
  for arguments, words in (
    (['--model=none', '--sets=a=b'], 'none: no model'),
    (['--model=none', '--sets=a'], '--sets a: give NAME=DIR'),
  ):
    command = [sys.executable, ROOT / 'benchmarks' / 'shipped.py', *arguments]
    command.append(f'--workdir={tmp_path}')
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode and words in done.stderr
    assert 'Traceback' not in done.stderr
