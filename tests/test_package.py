"""The package as others get it: its files, commands and version, and what is told."""

import importlib
import pathlib
import re

import pytest
import setuptools

from sr3_jax.runtime.version import __version__

ROOT = pathlib.Path(__file__).parents[1]
SETUP = (ROOT / 'setup.py').read_text()
COMMANDS = re.findall(r"'(sr3-\w+) = ([\w.]+):(\w+)'", SETUP)


@pytest.fixture(scope='module')
def settings():
  """The arguments of `setuptools.setup`."""
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(ROOT)
    patch.setattr(setuptools, 'setup', found.update)
    exec(compile(SETUP, 'setup.py', 'exec'), {'__file__': str(ROOT / 'setup.py')})
  return found


def test_every_file_of_the_package_and_of_configs_is_in_a_wheel(
  settings, tmp_path, monkeypatch
):
  monkeypatch.chdir(ROOT)
  build = settings['cmdclass']['build_py'](
    setuptools.Distribution(settings | {'script_name': 'setup.py'})
  )
  build.build_lib = str(tmp_path)
  build.ensure_finalized()
  build.run()
  built = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*') if p.is_file()}
  sources = {p.relative_to(ROOT) for p in (ROOT / 'sr3_jax').rglob('*') if p.is_file()}
  wanted = {str(path) for path in sources if path.suffix != '.pyc'}
  wanted |= {
    f'sr3_jax/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').rglob('*.py')
  }
  assert wanted == built


def test_commands(settings):
  assert len(COMMANDS) == len(settings['entry_points']['console_scripts']) == 10
  for name, module, function in COMMANDS:
    assert callable(getattr(importlib.import_module(module), function)), name


def test_one_version(settings):
  assert settings['version'] == __version__
  assert f'\nversion: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()


def test_the_oldest_and_the_newest_python_are_tested(settings):
  """As the package says which it supports."""
  said = [
    entry.rpartition(' ')[2]
    for entry in settings['classifiers']
    if re.search(r'Python :: 3\.\d', entry)
  ]
  workflow = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
  for matrix in re.findall(r"python: \['([\d.]+)', '([\d.]+)'\]", workflow):
    assert matrix == (said[0], said[-1])
  assert settings['python_requires'] == f'>={said[0]}'


def test_what_contributors_are_told_to_touch_is_there():
  """Every path of CONTRIBUTING.md, and every name that it puts into a file."""
  text = (ROOT / 'CONTRIBUTING.md').read_text()
  paths = re.findall(r'[`(]((?:\w[\w.]*/)+[\w.]*|\w+\.(?:md|py|cff))[`)]', text)
  assert len(paths) > 30
  rooms = {path for path in paths if (ROOT / 'sr3_jax' / path).exists()}
  assert {path for path in set(paths) - rooms if not (ROOT / path).exists()} == set()
  named = re.findall(
    r'`(\w+)`\s+(?:of|in)\s+(?:\[`[^`]*`\]\(([^)]*)\)|`(\w[\w/]*\.py)`)', text
  )
  assert len(named) > 5
  for name, link, path in named:
    assert re.search(rf'\b{name}\b', (ROOT / (link or path)).read_text()), name
