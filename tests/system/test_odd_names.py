"""Names of any bytes in every command, from its input to its pages."""

import json
import logging
import os
import pathlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from sr3_jax.check_data import run as check_data_run
from sr3_jax.data import image_headers, sources
from sr3_jax.evaluation import command as evaluation_command
from sr3_jax.reports import command as report_command
from tests.support import runs, upscaling

standin, command = upscaling.standin, upscaling.command

NAMES = [
  *(b'not_utf8_\xe9\xff', b'two\nlines', b'per%cent %s %(x)d', b'{brace} {0}'),
  *(b'-dash', b' spaces ', b'dots...', b'\x1b]0;title\x07', '\u202eright'.encode()),
  *(
    '日本 ü'.encode(),
    b'<b>&"quote\'',
    b'x' * 251,
    'ü'.encode() * 125,
    b'~',
    b'#?*[a]',
  ),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Make a folder of pictures with odd names, in the current one.

  What is logged meanwhile isn't captured: pytest-xdist can send UTF-8 only.
  """
  monkeypatch.chdir(tmp_path)
  make(b'in', 16)
  logging.disable(logging.CRITICAL)
  yield pathlib.Path('in')
  logging.disable(logging.NOTSET)


def make(folder, side):
  os.mkdir(folder)
  for number, name in enumerate(NAMES):
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    with open(folder + b'/' + name + b'.png', 'wb') as file:
      Image.fromarray(pixels).save(file, 'PNG')


def test_upscaling(command, folder, capsys):
  assert command('in') == 0
  written = os.listdir(b'out')
  assert len(written) == len(NAMES)
  assert b'not_utf8_\xe9\xff_out.png' in written
  assert max(map(len, written)) <= 255
  assert all(name.endswith(b'_out.png') for name in written)
  assert command('in', '--num_samples=2', '--spread', '--compare') == 0
  assert command('in') == 0  # of each its own outputs are recognised
  last = capsys.readouterr().out.strip().splitlines()[-1]
  assert last == f'0 done, {len(NAMES)} skipped, 0 failed'


def test_each_name_alone(command, folder):
  """Given as an argument, also behind '--', and written to standard output."""
  os.chdir('in')
  for name in NAMES:
    given = os.fsdecode(name + b'.png')
    assert command('--', given) == 0
    assert given.startswith('-') or command(given) == 0
  assert len(os.listdir(b'out')) == len(NAMES)


def test_evaluation_and_its_page(folder, capfd):
  make(b'other', 16)
  options = ['--truth=in', '--outputs', 'm=other', '--report=report', '--cache=']
  assert evaluation_command.main([*options, '--networks']) == 0
  assert report_command.main(['report']) == 0
  for data in pathlib.Path('report').glob('*.json'):
    assert json.loads(data.read_text())
  for page in pathlib.Path('report').glob('*.html'):
    page.read_text(encoding='utf-8')
  out, err = capfd.readouterr()
  assert '\x1b]0;' not in out + err


def test_check_data_and_its_page(folder, tmp_path, capsys):
  config = runs.get_config()
  config.data.update({'source': 'folder', 'path': 'in', 'eval_path': 'in'})
  config.data.reduce = (1,)
  (folder / os.fsdecode(b'broken_\xe9.png')).write_text('no picture')
  check_data_run.check_data_run(config, tmp_path / 'run')
  check = json.loads((tmp_path / 'run/check/check.json').read_text())
  assert os.fsdecode(b'broken_\xe9.png') in check['sets']['training']['broken']
  (tmp_path / 'run/check/report.html').read_text(encoding='utf-8')


def test_training_reads_and_caches_the_names(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(image_headers, 'WORTH_CACHING', 1)
  for _ in range(2):
    source = sources.Folder('in', cache_folder=epath.Path(tmp_path / 'cache'))
    assert len(source) == len(NAMES)
    for number in range(len(source)):
      assert source[number]['image'].shape == (16, 16, 3)
    assert sources.fingerprint(source)
