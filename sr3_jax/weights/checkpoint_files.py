"""Finds out whether the files of a checkpoint are those that were written.

WORKDIR/checkpoints.json has the size of every file of every checkpoint, and the SHA-256
of the small ones; what is in the large ones, the arrays, has checksums of its own
(`checksums`). Files are looked at before Orbax opens them: it would wait for a pipe for
ever. On gs:// nothing is recorded, as its objects are whole and have checksums.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator

from etils import epath

from sr3_jax.runtime import atomic_files, foreign_files
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.foreign_files import FileError

RECORD = 'checkpoints.json'
_SMALL = 2**20  # bytes of the largest file that is hashed
# Two files that differ in every checkpoint.
_OWN = ('_CHECKPOINT_METADATA', 'sums/metadata')

Files = dict[str, list[int | str]]  # name -> size, and SHA-256 if it is small


def steps_in(folder: epath.Path) -> list[int]:
  """Return the steps of the checkpoints in WORKDIR/checkpoints, the newest first.

  On gs:// only complete ones count; elsewhere they have their name when complete.
  """
  remote = '://' in os.fspath(folder)
  return sorted(
    (
      int(path.name)
      for path in (folder.iterdir() if folder.is_dir() else ())
      if path.name.isdecimal()
      and (not remote or (path / 'commit_success.txt').exists())
    ),
    reverse=True,
  )


def remember(folder: epath.Path, step: int) -> None:
  """Record the files of a checkpoint that has just been written.

  A record that cannot be written is no error: it only makes damage easier to find.
  """
  if '://' in os.fspath(folder):
    return
  with contextlib.suppress(OSError, UserError):
    files = _found(folder / str(step))
    known = {str(step) for step in steps_in(folder)}
    old = {k: v for k, v in _record(folder).items() if k in known}
    atomic_files.write_json(folder.parent / RECORD, old | {str(step): files})


def damage(path: epath.Path) -> str:
  """Return what is wrong with the files of a checkpoint, in one line; '' for nothing.

  Raises:
    PermissionError: they may not be read.
  """
  if '://' in os.fspath(path):
    return ''
  try:
    found = _found(path)
  except PermissionError:
    raise
  except (OSError, UserError) as error:
    return f'{path}: damaged: {line(error).removeprefix(f"{path}: ")}'
  written = _record(path.parent).get(path.name, {})
  if all(found.get(name, written.get(name)) != written.get(name) for name in _OWN):
    return ''  # the copy of another run's checkpoint, of which nothing is recorded
  for name, facts in written.items():
    if name not in found:
      return f'{path}: damaged: {name} is missing'
    if found[name] != facts:
      return f'{path}: damaged: {name} is not what was written'
  return ''


def _found(path: epath.Path) -> Files:
  """Return the facts about all files of a checkpoint; refuse what is no file."""
  found: Files = {}
  for name in _names(os.fspath(path)):
    file = os.path.join(path, name)
    size = os.stat(file).st_size
    found[name] = [size]
    if size <= _SMALL:
      data = foreign_files.read_bytes(file, _SMALL)
      found[name].append(hashlib.sha256(data).hexdigest())
  return found


def _names(root: str, folder: str = '') -> Iterator[str]:
  """Yield the names of the files in a folder; links to files are followed."""
  with os.scandir(os.path.join(root, folder)) as entries:
    for entry in sorted(entries, key=lambda entry: entry.name):
      name = os.path.join(folder, entry.name)
      try:
        mode = os.stat(entry.path).st_mode
      except OSError as error:
        reason = 'a link that leads nowhere' if entry.is_symlink() else error.strerror
        raise FileError(f'{name} is {reason}') from None
      kind = foreign_files.kind(mode)
      if kind == foreign_files.FOLDER and not entry.is_symlink():
        yield from _names(root, name)
      elif kind:
        link = 'a link to ' if entry.is_symlink() else ''
        raise FileError(f'{name} is {link}{kind}')
      else:
        yield name


def _record(folder: epath.Path) -> dict[str, Files]:
  """Return what is recorded about the checkpoints in a folder; {} if it is damaged."""
  try:
    found = foreign_files.read_json(folder.parent / RECORD)
  except UserError:
    return {}
  whole = all(
    isinstance(files, dict) and all(isinstance(facts, list) for facts in files.values())
    for files in found.values()
  )
  return found if whole else {}
