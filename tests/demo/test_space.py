"""The folder that becomes a Hugging Face Space fits the package."""

import pathlib
import re
import runpy

import pytest

from sr3_jax.demo import command, server
from sr3_jax.weights import terms

ROOT = pathlib.Path(__file__).parents[2]
SPACE = ROOT / 'launch' / 'space'
SETUP = (ROOT / 'setup.py').read_text()


@pytest.fixture
def head():
  found, _ = terms.split_card((SPACE / 'README.md').read_text())
  return found


def test_the_front_matter_fits_the_package(head):
  assert head['sdk'] == 'gradio' and (SPACE / head['app_file']).is_file()
  (least,) = re.findall(r"'gradio>=([\d.]+)'", SETUP)
  assert numbers(head['sdk_version']) >= numbers(least)
  (python,) = re.findall(r"python_requires='>=([\d.]+)'", SETUP)
  assert isinstance(head['python_version'], str)  # 3.10 would be 3.1
  assert numbers(head['python_version']) >= numbers(python)
  assert head['license'] in terms.KNOWN
  assert len(head['short_description']) <= 60  # the hub's bound


def numbers(version):
  return tuple(map(int, version.split('.')))


def test_the_requirements_are_extras_of_this_package():
  lines = (SPACE / 'requirements.txt').read_text().splitlines()
  (extras, place) = re.fullmatch(r'sr3_jax\[([\w,]+)\] @ git\+(\S+)', lines[0]).groups()
  assert all(f"'{extra}': [" in SETUP for extra in extras.split(','))
  (repository,) = re.findall(r"REPOSITORY = '(.*)'", SETUP)
  assert place == f'https://github.com/{repository}' and len(lines) == 1


def test_the_app_starts_the_demo(monkeypatch):
  given = []
  monkeypatch.setattr(command, 'main', given.append)
  app = runpy.run_path(str(SPACE / 'app.py'))
  assert not given
  runpy.run_path(str(SPACE / 'app.py'), run_name='__main__')
  assert given == [app['OPTIONS']]
  args = command.make_parser().parse_args(app['OPTIONS'])
  assert (args.host, args.port) == ('0.0.0.0', 7860)  # as Spaces have it


def test_the_app_builds_its_page(monkeypatch):
  pytest.importorskip('gradio')
  built = []

  class Server(server.Server):
    def wait(self):
      built.append(self.urls)

  monkeypatch.setattr(server, 'Server', Server)
  options = runpy.run_path(str(SPACE / 'app.py'))['OPTIONS']
  command.main([*options, '--port=0', '--host=127.0.0.1'])
  assert len(built) == 1
