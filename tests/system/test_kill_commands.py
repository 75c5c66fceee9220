"""A short form of the kill loop of all commands, and proof that it finds faults."""

import json
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.system import kill_commands


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  folder = tmp_path_factory.mktemp('killed')
  kill_commands.prepare(folder)
  return folder


@pytest.mark.slow
def test_upscaling_that_is_killed_leaves_what_an_undisturbed_one_does(base):
  said = kill_commands.loop('upscale', base, kills=2, rng=random.Random(3))
  assert said.startswith('upscale: 2 kills')


@pytest.mark.slow
@pytest.mark.parametrize('name', kill_commands.COMMANDS)
def test_a_killed_command_leaves_what_an_undisturbed_one_does(base, name):
  kill_commands.loop(name, base, kills=4, rng=random.Random(name))


def write(folder) -> None:
  """Write one file of each kind."""
  folder.mkdir()
  Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(folder / 'a.png')
  np.savez(folder / 'b.npz', x=np.arange(3.0))
  (folder / 'c.json').write_text(json.dumps({'x': [1.0, None], 'time': 1}))
  (folder / 'd.txt').write_text('d')


FAULTS = {
  'a.png': lambda f: Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(f / 'a.png'),
  'b.npz': lambda f: np.savez(f / 'b.npz', x=np.arange(4.0)),
  'c.json': lambda f: (f / 'c.json').write_text('{"x": [2.0, null]}'),
  'd.txt': lambda f: (f / 'd.txt').unlink(),
  '.sr3-0.tmp': lambda f: (f / '.sr3-0.tmp').touch(),
}


@pytest.mark.parametrize('name', FAULTS)
def test_every_kind_of_difference_is_seen(tmp_path, name):
  one, other = tmp_path / 'one', tmp_path / 'other'
  write(one)
  shutil.copytree(one, other)
  (other / 'c.json').write_text(json.dumps({'x': [1.00001, None], 'time': 2}))
  assert kill_commands.differences(one, other) == []
  FAULTS[name](other)
  assert kill_commands.differences(one, other) == [name]
