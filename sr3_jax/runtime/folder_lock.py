"""Lets one command at a time write into a folder, and tells the second who does.

The owner holds a lock (flock) on FOLDER/.sr3-lock-WHAT, which says who it is. The
kernel gives the lock back when the process is gone, however it ended. On many shared
disks such locks reach other machines. Where they may not, a sign of life that the
owner writes every few seconds tells whether it still runs. Object stores (gs://) have
neither.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from absl import logging
from etils import epath

from sr3_jax.runtime import atomic_files, foreign_files, interruption
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.printing import printable

PREFIX = '.sr3-lock-'
BEAT = 5.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one after which an owner elsewhere is dead
_SINCE = time.strftime('%Y-%m-%d %H:%M:%S')
_LONG = 600.0  # after so many seconds that isn't waited for any more


@contextlib.contextmanager
def owned(
  folder: epath.PathLike, what: str, option: str = '--workdir'
) -> Iterator[None]:
  """Own a folder, which is made if need be, as far as others write the same into it.

  What killed processes left in it is removed. At the end, so is a folder that was made
  here and got nothing else.

  Args:
    folder: where to write; local, or on an object store, where nothing is locked.
    what: name of what is written; those who write something else don't mind.
    option: how the user names another folder.

  Raises:
    UserError: another process owns it; the line says which.
    OSError: nothing can be written there.
  """
  folder = os.fspath(folder)
  if '://' in folder:
    logging.info('%s has no locks: see that one command at a time writes there', folder)
    yield
    return
  made = _missing(folder)
  os.makedirs(folder, exist_ok=True)
  path = os.path.join(folder, f'{PREFIX}{what}')
  opened = _take(path, folder, option)
  ended, writing = threading.Event(), threading.Lock()

  def release(number: int = 0) -> None:
    del number
    with writing:
      ended.set()
    with contextlib.suppress(OSError):
      if _is_file(opened, path):
        os.unlink(path)
      for one in made:
        os.rmdir(one)

  def live() -> None:
    beat = 0
    while not ended.wait(BEAT):
      beat += 1
      with writing, contextlib.suppress(OSError):  # a full disk is told elsewhere
        if not ended.is_set():
          _write(opened, beat)

  try:
    with interruption.at_end(release):
      threading.Thread(target=live, daemon=True).start()
      atomic_files.sweep_below(folder)
      yield
  finally:
    release()
    os.close(opened)


def _take(path: str, folder: str, option: str) -> int:
  """Open and lock the file, and write into it who does; refuse if there is an owner."""
  while True:
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
      if what := foreign_files.kind(os.fstat(opened).st_mode):
        raise UserError(f'{path}: {what}, should be a file: remove it')
      locks = True
      try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise _refusal(_owner(path, patience=1.0), folder, option) from None
      except OSError:  # a disk without locks
        locks = False
      if not _is_file(opened, path):  # its owner has ended just now, and removed it
        os.close(opened)
        continue
      _wait_for_silence(path, folder, option, locks)
      _write(opened, 0)
      if not locks:  # another may have come at the same moment; the last one stays
        time.sleep(1)
        other = _owner(path)
        if (other.get('host'), other.get('pid')) != (socket.gethostname(), os.getpid()):
          raise _refusal(other, folder, option)
      return opened
    except BaseException:
      os.close(opened)
      raise


def _wait_for_silence(path: str, folder: str, option: str, locks: bool) -> None:
  """Refuse if the owner that the file names still runs, though its lock isn't seen."""
  owner = _owner(path)
  if not owner:
    return
  if owner.get('host') == socket.gethostname():
    if not locks and _runs(owner.get('pid')):
      raise _refusal(owner, folder, option)
    return
  if time.time() - os.stat(path).st_mtime > _LONG:
    return
  logging.info(
    '%s: waiting %.0f s for a sign of life of its owner, process %s on %s',
    *(folder, SILENCE, owner.get('pid'), owner.get('host')),
  )
  deadline = time.monotonic() + SILENCE
  while time.monotonic() < deadline:
    time.sleep(BEAT / 5)
    now = _owner(path)
    if now and now != owner:
      raise _refusal(now, folder, option)


def _owner(path: str, patience: float = 0.0) -> dict[str, Any]:
  """Return what the file says; {} if nothing, after some seconds."""
  deadline = time.monotonic() + patience
  while True:
    # Opened anew each time, so that a network disk asks its server.
    with contextlib.suppress(OSError, ValueError), open(path) as file:
      found = json.loads(file.read(10_000))
      if isinstance(found, dict):
        return found
    if time.monotonic() >= deadline:
      return {}
    time.sleep(0.05)


def _refusal(owner: dict[str, Any], folder: str, option: str) -> UserError:
  """Return the error that says who has a folder."""
  host, pid = owner.get('host', 'an unknown machine'), owner.get('pid', '?')
  here = f' (kill {pid})' if host == socket.gethostname() else ''
  command = str(owner.get('command', 'an unknown command'))[:200]
  return UserError(
    printable(
      f'{folder}: in use by process {pid} on {host} since {owner.get("since", "?")}: '
      f'{command}; wait until it ends, stop it{here}, or give another {option}'
    )
  )


def _write(opened: int, beat: int) -> None:
  """Write who owns the folder, with a number that grows while it lives."""
  value = {
    'host': socket.gethostname(),
    'pid': os.getpid(),
    'since': _SINCE,
    'command': ' '.join(sys.argv),
    'beat': beat,
  }
  data = json.dumps(value).encode()
  os.pwrite(opened, data, 0)
  os.ftruncate(opened, len(data))


def _missing(folder: str) -> list[str]:
  """Return the folder and those above it that are not there, the lowest first."""
  missing, folder = [], os.path.abspath(folder)
  while not os.path.lexists(folder):
    missing.append(folder)
    folder = os.path.dirname(folder)
  return missing


def _is_file(opened: int, path: str) -> bool:
  """Return whether an open file still is the one of this name."""
  try:
    return os.path.samestat(os.fstat(opened), os.stat(path))
  except FileNotFoundError:
    return False


def _runs(pid: object) -> bool:
  """Return whether a process of this machine runs."""
  return isinstance(pid, int) and os.path.exists(f'/proc/{pid}')
