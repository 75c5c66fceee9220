"""Configurations: found by name and path, from anywhere; their names; their keys."""

import itertools
import os
import pathlib
import subprocess
import sys

import pytest

from sr3_jax import config as configs
from sr3_jax.config import (
  as_json,
  config_names,
  find_config,
  get_config,
  load_config,
)

FOLDER = pathlib.Path(find_config('quickstart')).parent


def _keys(section, prefix=''):
  """Yields every key, with those above it."""
  for key, value in section.items():
    if isinstance(value, dict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


def test_every_file_has_a_name():
  files = {path.relative_to(FOLDER) for path in FOLDER.rglob('*.py')}
  assert {pathlib.Path(f'{name}.py') for name in config_names()} == files
  assert {'quickstart', 'imagenet_64_256', 'small/photo_x4'} <= set(config_names())


@pytest.mark.parametrize('name', config_names())
def test_a_name_stands_for_a_configuration_with_the_keys_of_the_program(name):
  config = load_config(name)
  assert set(_keys(as_json(config))) == set(_keys(as_json(get_config())))
  assert as_json(load_config(find_config(name))) == as_json(config)


def _distance(a: str, b: str) -> int:
  """Returns how many letters have to be changed, put in or taken out (Levenshtein)."""
  row = list(range(len(b) + 1))
  for i, left in enumerate(a, 1):
    above, row[0] = row[0], i
    for j, right in enumerate(b, 1):
      least = min(above + (left != right), row[j] + 1, row[j - 1] + 1)
      above, row[j] = row[j], least
  return row[-1]


def test_no_two_names_differ_by_a_letter():
  """The names of runs, too, which are those of files without their folder."""
  names = [name.rpartition('/')[2] for name in config_names()]
  near = [(a, b) for a, b in itertools.combinations(names, 2) if _distance(a, b) <= 1]
  assert near == []
  assert _distance('face_16_128', 'faces_16_128') == 1
  assert _distance('kitten', 'sitting') == 3


@pytest.mark.parametrize(
  'given',
  [
    'quickstart',
    'quickstart.py',
    'configs/quickstart.py',
    'small/photo_x4',
    'configs/small/photo_x4.py',
    'palette_256:inpainting',
    'configs/palette_256.py:inpainting',
  ],
)
def test_names_and_paths_are_found_from_any_folder(given, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path, _, argument = find_config(given).partition(':')
  assert path == str(FOLDER / given.partition(':')[0].removeprefix('configs/')) + (
    '' if '.py' in given else '.py'
  )
  assert argument == given.partition(':')[2]
  assert load_config(given).task.name


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
  """A copy of a file of configs/ finds its base from wherever it lies."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'small').mkdir()
  mine = tmp_path / 'small' / 'photo_x4.py'
  text = (FOLDER / 'small' / 'photo_x4.py').read_text()
  mine.write_text(text.replace('num_steps = 9000', 'num_steps = 90'))
  assert find_config('small/photo_x4.py') == 'small/photo_x4.py'
  assert load_config('small/photo_x4.py').train.num_steps == 90
  assert load_config('small/photo_x4').train.num_steps == 9000


@pytest.mark.parametrize(
  'wrong', ['quickstrat', 'nothing.py', 'photo_x4', '', 'small', '../setup.py', '/etc']
)
def test_a_wrong_name_is_one_line_with_the_known_ones(wrong, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match='no file and no configuration') as error:
    find_config(wrong)
  assert repr(wrong) in str(error.value) and '\n' not in str(error.value)
  # quickstart; in cascades/: ...; in small/: base, photo_x4: the names of each folder.
  known = str(error.value).partition('; known: ')[2]
  top, *folders = known.split('; in ')
  named = top.split(', ')
  for folder in folders:
    prefix, _, names = folder.partition(': ')
    named += [prefix + name for name in names.split(', ')]
  assert sorted(named) == config_names()


def test_an_argument_picks_a_variant():
  assert load_config('palette_256:jpeg').task.name == 'jpeg'
  with pytest.raises(ValueError, match="no task 'music'"):
    load_config('palette_256:music')


def test_a_wheel_has_them_inside_of_the_package(tmp_path, monkeypatch):
  package = tmp_path / 'sr3_jax'
  package.mkdir()
  monkeypatch.setattr(configs, '__file__', str(package / 'config.py'))
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'beside.py').touch()
  assert config_names() == ['beside']
  (package / 'configs').mkdir()
  (package / 'configs' / 'inside.py').touch()
  assert config_names() == ['inside']


def test_finding_one_imports_no_jax(tmp_path):
  code = (
    'import sys; from sr3_jax.config import load_config; load_config("small/base"); '
    'sys.exit("jax" in sys.modules)'
  )
  root = str(FOLDER.parent)
  subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': root},
    cwd=tmp_path,
    check=True,
  )
