"""The rooms of the package: imports go down, never up, and never in a circle."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'sr3_jax'
# The one list of floors, lowest first; docs/architecture.md has it as a table. A module
# imports from lower floors and from its own room, not from its neighbours.
FLOORS = (
  ('runtime',),
  ('options', 'images'),
  ('config',),
  ('core', 'data', 'human_study'),
  ('weights',),
  ('metrics', 'restoration'),
  ('upscale', 'reports', 'export'),
  ('evaluation', 'check_data', 'demo'),
  ('training', 'cascade'),
  ('plan',),
  ('main',),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> list[pathlib.Path]:
  """Return every module of the package but sr3_jax/__init__.py."""
  return [p for p in sorted(PACKAGE.rglob('*.py')) if p != PACKAGE / '__init__.py']


def room_of(path: pathlib.Path) -> str:
  """Return the room (or the module on top) that a file belongs to."""
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imported(path: pathlib.Path) -> list[tuple[int, str]]:
  """Return (line, dotted name) of all that a file imports of this package."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}:{node.lineno}: imports name the whole path'
      if (node.module or '').split('.')[0] == 'sr3_jax':
        found += [(node.lineno, f'{node.module}.{a.name}') for a in node.names]
    elif isinstance(node, ast.Import):
      found += [(node.lineno, a.name) for a in node.names if a.name[:7] == 'sr3_jax']
  return found


def test_every_file_is_in_a_room():
  assert {room_of(path) for path in modules()} == set(FLOOR)


@pytest.mark.parametrize('room', FLOOR)
def test_imports_go_down(room):
  for path in modules():
    if room_of(path) != room:
      continue
    for number, name in imported(path):
      parts = name.split('.')
      assert len(parts) > 1 and parts[1] in FLOOR, f'{path}:{number}: {name}'
      down = FLOOR[parts[1]] < FLOOR[room]
      assert down or parts[1] == room, f'{path}:{number}: {name} is above {room}'


@pytest.mark.parametrize('room', sorted({r for r in FLOOR if (PACKAGE / r).is_dir()}))
def test_no_circle_within_a_room(room):
  """Imports inside of functions count too: a circle is a circle."""
  files = {
    '.'.join(['sr3_jax', *p.relative_to(PACKAGE).with_suffix('').parts]): p
    for p in (PACKAGE / room).rglob('*.py')
    if p.name != '__init__.py'
  }
  needs = {}
  for name, path in files.items():
    wanted = {n for _, n in imported(path)}
    wanted |= {n.rpartition('.')[0] for n in wanted}
    needs[name] = (wanted & set(files)) - {name}
  while free := [name for name, others in needs.items() if not others]:
    for name in free:
      del needs[name]
    needs = {name: others - set(free) for name, others in needs.items()}
  assert not needs, f'in a circle, or behind one: {needs}'


def test_a_face_says_what_is_there_and_holds_no_code():
  # These two are sub-rooms whose face makes a network, or a task, by its name.
  makers = {PACKAGE / 'core' / 'networks', PACKAGE / 'core' / 'degradations'}
  for face in PACKAGE.rglob('*/__init__.py'):
    tree = ast.parse(face.read_text())
    assert ast.get_docstring(tree), face
    assert face.parent in makers or len(tree.body) == 1, face


def test_the_documentation_has_the_same_floors():
  text = (ROOT / 'docs' / 'architecture.md').read_text()
  rows = re.findall(r'^\| *(\d+) *\|([^|]*)\|', text, re.MULTILINE)
  said = {int(number): set(re.findall(r'`(\w+)`', rooms)) for number, rooms in rows}
  assert said == {number: set(rooms) for number, rooms in enumerate(FLOORS, 1)}


def test_files_of_others_are_opened_by_foreign_files():
  """Whatever opens a file itself waits for a pipe, and reads a device for ever.

  The list has those that read files of the package, or check before they open.
  """
  opens = re.compile(
    r'(?<!_files)(?<!inline_images)\.read_(?:text|bytes)\('
    r"|\.open\('r|(?:=|with|return|,) open\("
  )
  found = {
    path.relative_to(PACKAGE).as_posix()
    for path in modules()
    if room_of(path) != 'runtime' and opens.search(path.read_text())
  }
  assert found == {
    'config.py',
    'human_study/site_builder.py',
    'metrics/net_weights.py',
    'plan/programs.py',
    'reports/views.py',
  }
