"""One owner of a folder at a time, known by name, whatever happens to it."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from sr3_jax.runtime import folder_lock
from sr3_jax.runtime.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
OWN = """
import sys, time
from sr3_jax.runtime import folder_lock, interruption
interruption.install()
with folder_lock.owned(sys.argv[1], 'run'):
  print('owned', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
  """A process that owns tmp_path/new/run."""
  process = subprocess.Popen(
    [sys.executable, '-c', OWN, str(tmp_path / 'new' / 'run')],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout and process.stdout.readline() == 'owned\n'
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def own(folder, what='run') -> None:
  with folder_lock.owned(folder, what):
    assert os.listdir(folder) == [f'.sr3-lock-{what}']


def test_a_second_process_is_told_who_has_it(owner, tmp_path):
  folder = tmp_path / 'new' / 'run'
  with pytest.raises(UserError) as caught:
    own(folder)
  host = re.escape(socket.gethostname())
  assert re.fullmatch(
    rf'{folder}: in use by process {owner.pid} on {host} since '
    rf'20\d\d-\d\d-\d\d \d\d:\d\d:\d\d: -c {folder}; wait until it ends, stop it '
    rf'\(kill {owner.pid}\), or give another --workdir',
    str(caught.value),
  )
  with folder_lock.owned(folder, 'samples'):  # it writes other files
    pass


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_after_its_end_the_next_has_it_at_once(owner, tmp_path, number):
  owner.send_signal(number)
  owner.wait()
  folder = tmp_path / 'new' / 'run'
  # Where it could, the process removed the empty folders that it had made.
  assert folder.exists() == (number == signal.SIGKILL)
  began = time.monotonic()
  own(folder)
  assert time.monotonic() - began < 1


def test_folders_that_were_made_vanish_if_they_stay_empty(tmp_path):
  (tmp_path / 'old').mkdir()
  own(tmp_path / 'old' / 'a' / 'b')
  own(tmp_path / 'old')
  assert os.listdir(tmp_path) == ['old'] and not os.listdir(tmp_path / 'old')
  with folder_lock.owned(tmp_path / 'old' / 'a', 'run'):
    (tmp_path / 'old' / 'a' / 'file').touch()
  assert os.listdir(tmp_path / 'old' / 'a') == ['file']


def test_of_many_at_once_one_has_it(tmp_path):
  """Also while owners come and go, and remove the file."""
  inside, most, refused = [], [], []

  def try_often():
    for _ in range(30):
      try:
        with folder_lock.owned(tmp_path / 'run', 'run'):
          inside.append(1)
          most.append(len(inside))
          time.sleep(0.001)
          inside.pop()
      except (UserError, FileNotFoundError) as error:
        refused.append(error)

  threads = [threading.Thread(target=try_often) for _ in range(4)]
  with contextlib.ExitStack() as stack:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(folder_lock, '_missing', lambda folder: [])
    for one in threads:
      one.start()
    for one in threads:
      one.join()
  assert most and max(most) == 1
  assert all(isinstance(error, UserError) for error in refused)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
  """A folder with the file of an owner on another machine, whose lock isn't seen."""
  monkeypatch.setattr(folder_lock, 'BEAT', 0.05)
  monkeypatch.setattr(folder_lock, 'SILENCE', 0.5)
  value = {
    'host': 'other',
    'pid': 7,
    'since': 'noon',
    'command': 'sr3-train',
    'beat': 1,
  }
  (tmp_path / '.sr3-lock-run').write_text(json.dumps(value))
  return tmp_path, value


def test_an_owner_elsewhere_that_lives_is_seen_by_its_beat(elsewhere):
  folder, value = elsewhere

  def beat():
    time.sleep(0.2)
    (folder / '.sr3-lock-run').write_text(json.dumps(value | {'beat': 2}))

  thread = threading.Thread(target=beat)
  thread.start()
  with pytest.raises(UserError, match='in use by process 7 on other since noon: sr3'):
    own(folder)
  thread.join()


def test_a_dead_owner_elsewhere_is_waited_for_and_an_old_one_is_not(elsewhere):
  folder, value = elsewhere
  began = time.monotonic()
  own(folder)
  assert time.monotonic() - began > 0.5
  (folder / '.sr3-lock-run').write_text(json.dumps(value))
  os.utime(folder / '.sr3-lock-run', (time.time() - 1000,) * 2)
  began = time.monotonic()
  own(folder)
  assert time.monotonic() - began < 0.5


def test_the_owner_gives_signs_of_life(tmp_path, monkeypatch):
  monkeypatch.setattr(folder_lock, 'BEAT', 0.05)
  with folder_lock.owned(tmp_path, 'run'):
    time.sleep(0.5)
    assert json.loads((tmp_path / '.sr3-lock-run').read_text())['beat'] > 2


def test_on_a_disk_without_locks_the_file_says_it(owner, tmp_path, monkeypatch):
  def unsupported(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(folder_lock.fcntl, 'flock', unsupported)
  folder = tmp_path / 'new' / 'run'
  with pytest.raises(UserError, match=f'in use by process {owner.pid} on '):
    own(folder)
  owner.kill()
  owner.wait()
  own(folder)


@pytest.mark.parametrize('content', ['', '{', '[]', '{"pid": 3}', '\0' * 99])
def test_a_damaged_file_of_a_dead_owner_is_no_hindrance(tmp_path, content, monkeypatch):
  monkeypatch.setattr(folder_lock, 'SILENCE', 0.2)
  (tmp_path / '.sr3-lock-run').write_text(content)
  own(tmp_path)


def test_a_pipe_in_the_place_of_the_lock_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / f'{folder_lock.PREFIX}run')
  with pytest.raises(UserError, match='pipe'):
    own(tmp_path)


def test_an_object_store_has_no_locks_and_says_so(caplog):
  with caplog.at_level('INFO'), folder_lock.owned('gs://bucket/run', 'run'):
    pass
  assert 'gs://bucket/run has no locks' in caplog.text
