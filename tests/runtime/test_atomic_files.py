"""Files are whole or not there; what a killed process left is removed by the next."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from sr3_jax.runtime import atomic_files

ROOT = pathlib.Path(__file__).parents[2]
# Stops inside of a write: the data has arrived, the name has not.
STUCK = """
import os, sys, time
from sr3_jax.runtime import atomic_files

def replace(source, target):
  print(source, flush=True)
  time.sleep(60)

os.replace = replace
"""
WRITE = "atomic_files.write_bytes(sys.argv[1], b'half')"
FOLDER = """
with atomic_files.temporary_folder(os.path.dirname(sys.argv[1])) as folder:
  (folder / 'sub').mkdir()
  (folder / 'sub' / 'file').write_bytes(b'half')
  print(folder, flush=True)
  time.sleep(60)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  """Every test is a process that has not looked into any folder yet."""
  monkeypatch.setattr(atomic_files, '_swept', set())


def stuck(path: pathlib.Path, code: str = WRITE) -> tuple[subprocess.Popen, str]:
  """Start a process that stays inside of a write; return it and its temporary name."""
  process = subprocess.Popen(
    [sys.executable, '-c', STUCK + code, str(path)],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout
  return process, process.stdout.readline().strip()


def kill(process: subprocess.Popen) -> None:
  process.send_signal(signal.SIGKILL)
  process.communicate()


@pytest.mark.parametrize('code', [WRITE, FOLDER], ids=['file', 'folder'])
def test_the_next_write_removes_what_a_kill_left_and_nothing_of_the_living(
  tmp_path, code
):
  process, temporary = stuck(tmp_path / 'a', code)
  try:
    assert os.path.basename(temporary).startswith('.sr3-')
    atomic_files.write_bytes(tmp_path / 'b', b'b')
    assert os.path.exists(temporary)
  finally:
    kill(process)
  assert os.path.exists(temporary)
  atomic_files.write_bytes(tmp_path / 'b', b'b')  # this process has looked already
  assert os.path.exists(temporary)
  atomic_files._swept.clear()
  atomic_files.write_bytes(tmp_path / 'b', b'b')
  assert os.listdir(tmp_path) == ['b']


def test_foreign_names_stay(tmp_path):
  names = ['.sr3-tmp', '.a.tmp', f'.{"0" * 32}.tmp', f'.sr3-{"0" * 8}-{"0" * 31}.tmp']
  for name in names:
    (tmp_path / name).touch()
  atomic_files.sweep_below(tmp_path)
  assert sorted(os.listdir(tmp_path)) == sorted(names)


@pytest.mark.parametrize('hours', [0, 2])
def test_what_another_machine_left_stays_for_an_hour(tmp_path, hours):
  """Its locks may be invisible here."""
  (tmp_path / 'sub').mkdir()
  path = tmp_path / 'sub' / f'.sr3-{"0" * 8}-{"1" * 32}.tmp'
  path.touch()
  os.utime(path, (time.time() - 3600 * hours,) * 2)
  atomic_files.sweep_below(tmp_path)
  assert path.exists() == (not hours)


def test_a_temporary_name_that_is_a_link_or_a_pipe_is_left(tmp_path):
  target = tmp_path / 'mine'
  target.write_text('precious')
  name = atomic_files._temporary_name()
  (tmp_path / name).symlink_to(target)
  atomic_files.sweep_below(tmp_path)
  assert target.read_text() == 'precious'


def test_writers_and_sweepers_do_not_hinder_each_other(tmp_path):
  """A file that was just made is not locked yet, and its writer starts again."""
  stop = threading.Event()

  def sweep():
    while not stop.is_set():
      atomic_files._swept.clear()
      atomic_files.sweep_once(tmp_path)

  sweepers = [threading.Thread(target=sweep) for _ in range(2)]
  for one in sweepers:
    one.start()
  try:
    for i in range(500):
      atomic_files.write_json(tmp_path / f'{i % 7}', i)
  finally:
    stop.set()
    for one in sweepers:
      one.join()
  assert sorted(os.listdir(tmp_path)) == [str(i) for i in range(7)]
  assert json.loads((tmp_path / '2').read_text()) == 499


def test_an_error_leaves_nothing(tmp_path):
  (tmp_path / 'a').mkdir()
  with pytest.raises(OSError, match='irectory') as caught:
    atomic_files.write_bytes(tmp_path / 'a', b'')
  assert caught.value.filename == str(tmp_path / 'a')
  assert os.listdir(tmp_path) == ['a']


def test_a_renamed_temporary_folder_stays(tmp_path):
  with atomic_files.temporary_folder(tmp_path / 'new') as folder:
    (folder / 'file').touch()
    folder.rename(tmp_path / 'new' / 'made')
  assert os.listdir(tmp_path / 'new') == ['made']
  with (
    pytest.raises(ValueError, match='x'),
    atomic_files.temporary_folder(tmp_path / 'new') as folder,
  ):
    (folder / 'file').touch()
    raise ValueError('x')
  assert os.listdir(tmp_path / 'new') == ['made']
