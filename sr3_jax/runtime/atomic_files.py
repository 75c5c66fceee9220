"""Writes files that readers see whole or not at all, and removes what a kill left.

A file is written under a temporary name, `.sr3-HOST-RANDOM.tmp`, and renamed. While a
process writes it, the process holds a lock on it (flock), which the kernel gives back
when the process is gone, however it ended. So whoever gets the lock knows that nobody
writes the file any more. A process looks for such files in each folder that it writes
to, once.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator

from etils import epath

from sr3_jax.runtime import interruption

_OURS = re.compile(r'\.sr3-([0-9a-f]{8})-[0-9a-f]{32}\.tmp')
# Where another machine's lock may be invisible, its files must be as old as this.
_OLD = 3600.0  # seconds
_swept: set[str] = set()


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Write a file under a temporary name and rename it; make missing folders.

  Args:
    path: where the file will be; local or gs://.
    data: its content.

  Raises:
    OSError: the place can't be written; its `filename` is `path`.
  """
  path = epath.Path(path)
  with naming(path), interruption.writing():
    path.parent.mkdir(parents=True, exist_ok=True)
    if '://' in os.fspath(path):
      _write_remote(path, data)
    else:
      _write_local(path, data)


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
  """Raise OSError of `path` in place of whatever writing raises inside.

  It would name a temporary file. Object stores and safetensors raise errors of their
  own, which are no OSError.
  """
  try:
    yield
  except Exception as error:
    number = getattr(error, 'errno', None) or errno.EIO
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    raise OSError(number, reason, str(path)) from error


def write_text(path: epath.PathLike, text: str) -> None:
  """Write a text in UTF-8, as `write_bytes` does.

  Bytes of file names that are no UTF-8 are written out, because a text can't hold them.

  Raises:
    OSError: the place can't be written.
  """
  write_bytes(path, text.encode('utf-8', 'backslashreplace'))


def write_json(path: epath.PathLike, value: object) -> None:
  """Write `value` as indented JSON, as `write_bytes` does.

  Raises:
    OSError: the place can't be written.
  """
  write_bytes(path, (json.dumps(value, indent=2) + '\n').encode())


@contextlib.contextmanager
def temporary_folder(parent: epath.PathLike) -> Iterator[epath.Path]:
  """Make a folder inside of `parent`, to be filled and renamed; remove it at the end.

  Yields:
    Its path. If it is gone at the end, renamed, nothing is removed.

  Raises:
    OSError: the place can't be written.
  """
  parent = epath.Path(parent)
  parent.mkdir(parents=True, exist_ok=True)
  sweep_once(parent)
  while True:
    folder = parent / _temporary_name()
    folder.mkdir()
    held = _lock(folder, os.O_RDONLY)
    if held is not None:
      break

  def remove(number: int = 0) -> None:
    del number
    shutil.rmtree(folder, ignore_errors=True)

  try:
    with interruption.at_end(remove):
      yield folder
  finally:
    remove()
    os.close(held)


def sweep_once(folder: epath.PathLike) -> None:
  """Remove what killed processes left in a folder, at this process's first call."""
  name = os.path.abspath(folder)
  if name not in _swept:
    _swept.add(name)
    with contextlib.suppress(OSError), os.scandir(name) as entries:
      for path in [e.path for e in entries if _OURS.fullmatch(e.name)]:
        _remove_if_left(path)


def sweep_below(folder: epath.PathLike) -> None:
  """Remove what killed processes left in a folder and in all below it."""
  for parent, _, _ in os.walk(folder):
    sweep_once(parent)


def _write_remote(path: epath.Path, data: bytes) -> None:
  """Write a file of an object store, where no kill leaves a part of one."""
  temporary = path.parent / f'.{uuid.uuid4().hex}.tmp'
  try:
    temporary.write_bytes(data)
    temporary.replace(path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise


def _write_local(path: epath.Path, data: bytes) -> None:
  """Write a file of this machine, or of a disk that it shares."""
  sweep_once(path.parent)
  while True:
    temporary = os.path.join(path.parent, _temporary_name())
    held = _lock(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    if held is None:
      continue
    try:
      with open(held, 'wb', buffering=0, closefd=False) as file:
        left = memoryview(data)
        while left:
          left = left[file.write(left) :]
      os.replace(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError):
        os.unlink(temporary)
      raise
    finally:
      os.close(held)
    return


def _temporary_name() -> str:
  return f'.sr3-{_host()}-{uuid.uuid4().hex}.tmp'


def _host() -> str:
  """Return 8 letters for this machine's name."""
  return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _lock(path: epath.PathLike, flags: int) -> int | None:
  """Open and lock a new file or folder; None if another process removed it."""
  try:
    opened = os.open(path, flags | os.O_CLOEXEC, 0o666)
  except FileNotFoundError:
    if flags & os.O_CREAT:
      raise
    return None
  # Some disks know no locks: what is left there, nobody removes.
  with contextlib.suppress(OSError):
    fcntl.flock(opened, fcntl.LOCK_EX)
  # Between its making and its lock it looked as if its writer were dead.
  if os.path.exists(path):
    return opened
  os.close(opened)
  return None


def _remove_if_left(path: str) -> None:
  """Remove a temporary file or folder if no process holds its lock."""
  match = _OURS.fullmatch(os.path.basename(path))
  with contextlib.suppress(OSError):
    folder = os.path.isdir(path)
    way = os.O_RDONLY if folder else os.O_RDWR  # NFS locks what can be written
    opened = os.open(path, way | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
      age = time.time() - os.fstat(opened).st_mtime
      if match and match[1] != _host() and age < _OLD:
        return
      fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if folder:
        shutil.rmtree(path, ignore_errors=True)
      else:
        os.unlink(path)
    finally:
      os.close(opened)
