"""The command sr3-export, and the lines of docs/export.md, without the package."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sr3_jax.export import command, files, metadata
from tests.support import model_folders

exported = model_folders.exported
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'export.md'
# Runs the lines of the page where there is no sr3_jax.
STRANGER = """
import importlib.util, os, sys
sys.path = [p for p in sys.path if not os.path.isdir(os.path.join(p or '.', 'sr3_jax'))]
sys.meta_path = [f for f in sys.meta_path if '__editable__' not in repr(f)]
assert importlib.util.find_spec('sr3_jax') is None
exec(sys.stdin.read())
"""


def lines_of_the_page(heading: str) -> str:
  part = PAGE.read_text().split(f'## {heading}\n')[1]
  return re.search(r'```python\n(.*?)```', part, re.DOTALL)[1]


def as_a_stranger(code: str, folder: pathlib.Path) -> None:
  done = subprocess.run(
    [sys.executable, '-P', '-c', STRANGER],
    cwd=folder,
    input=code,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
  """Go to an empty folder with a small picture."""
  monkeypatch.chdir(tmp_path)
  pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
  Image.fromarray(pixels).save('small.png')
  return tmp_path


def refused(capsys, *arguments: str) -> str:
  """Return the one line that the command ends with."""
  with pytest.raises(SystemExit) as ended:
    command.main([*arguments, '-q'])
  text = ended.value.code if isinstance(ended.value.code, str) else ''
  text = text or capsys.readouterr().err.strip()
  assert '\n' not in text
  return text


def test_the_stablehlo_lines_of_the_page(exported, here, capsys):
  command.main([str(exported), '-o', 'photo-x4.stablehlo', '--steps=1', '-q'])
  assert 'condition [b, h, w, 3], seed [b]; licence' in capsys.readouterr().out
  as_a_stranger(lines_of_the_page('StableHLO'), here)
  assert Image.open('large.png').size == (48, 32)
  about = json.loads(pathlib.Path('photo-x4.stablehlo.json').read_text())
  assert about['model']['licence'] == 'apache-2.0'
  assert about['model']['card'] == (exported / 'README.md').read_text()
  assert about['upsampling'] == 'included: 4 times, bicubic'
  assert about['inputs']['condition']['shape'] == ['b', 'h', 'w', 3]
  assert len(about['levels']) == len(about['coefficients']) + 1 == 2
  assert sorted(p.name for p in here.iterdir()) == [
    *('large.png', 'photo-x4.stablehlo', 'photo-x4.stablehlo.json', 'small.png')
  ]


def test_the_onnx_lines_of_the_page(exported, here):
  pytest.importorskip('jax2onnx')
  given = [str(exported), '--format=onnx', '--steps=1', '-q']
  command.main([*given, '-o', 'face-x4.onnx', '--size=4x4'])
  as_a_stranger(lines_of_the_page('ONNX'), here)
  assert Image.open('large.png').size == (16, 16)
  command.main([*given, '-o', 'network.onnx', '--size=4x4', '--part=network'])
  check = '\nassert image.shape == (1, 16, 16, 3) and np.isfinite(image).all()\n'
  as_a_stranger(lines_of_the_page('The network alone') + check, here)


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--format=onnx', '--seed=1'], r'--seed: ONNX has no generator'),
    (['--format=onnx', '--noise=seed'], r'--noise=seed: ONNX has no generator'),
    (['--noise=input', '--seed=1'], r'leave out --noise=input'),
    (['--part=network', '--seed=1'], r'--seed: --part=network'),
    (['--part=network', '--no-consistency'], r'--consistency: --part=network'),
    (['--size=12'], r'no WIDTHxHEIGHT'),
    (['--output=.'], r'a folder'),
    (['--steps=9999999'], r'must be'),
  ],
)
def test_options_that_cannot_be_exported_are_named(arguments, words, here, capsys):
  assert re.search(words, refused(capsys, 'MODEL', *arguments))


def test_what_does_not_fit_the_model(exported, here, capsys):
  assert 'no guidance' in refused(capsys, str(exported), '--guidance=2')
  assert 'no such file' in refused(capsys, 'nothing-here')
  assert 'no preset' in refused(capsys, str(exported), '--steps=quick')


def test_onnx_without_jax2onnx(exported, here, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  text = refused(capsys, str(exported), '--format=onnx')
  assert "pip install 'sr3_jax[onnx-export]'" in text


def test_weights_too_large_for_one_file():
  class Large:
    nbytes = 3 * 2**30

  with pytest.raises(files.ExportError, match=r'3\.0 GiB: one file'):
    files.check_weights({'kernel': Large()})


@pytest.mark.parametrize(
  ('card', 'licence'),
  [
    ('', 'unknown'),
    ('---\nlicense: mit\n---\n# a', 'mit'),
    ('---\nlicense: other\nlicense_name: Ours\n---\n', 'Ours'),
    ('---\n{broken: [\n---\n', 'unknown'),
    ('---\n- a list\n---\n', 'unknown'),
  ],
)
def test_licence(card, licence):
  assert metadata.licence(card) == licence
