"""Lists the files below a folder, in the same order on every file system."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import NoReturn, overload

import numpy as np
from etils import epath

# How many folders are listed at the same time: over a network each takes 10 ms.
_AHEAD = 32

ListFolder = Callable[[str], list[str]]


class FileNames(Sequence[str]):
  """File names in one block of memory.

  A million file names take 40 MB here. As a list of Python's strings they take 90 MB,
  and the garbage collector and every worker process would visit each string.

  Args:
    block: uint8, the names in UTF-8, one after the other without anything in between.
    ends: int64 [N], where in `block` each name ends.
  """

  def __init__(self, block: np.ndarray, ends: np.ndarray):
    self.block, self.ends = block, ends

  @classmethod
  def pack(cls, names: Iterable[str]) -> 'FileNames':
    """Pack single names, which may be no proper Unicode, as names of files can be."""
    block, ends, end = bytearray(), [], 0
    for name in names:
      encoded = name.encode('utf-8', 'surrogateescape')
      block += encoded
      end += len(encoded)
      ends.append(end)
    return cls(np.frombuffer(bytes(block), np.uint8), np.array(ends, np.int64))

  def __len__(self) -> int:
    return len(self.ends)

  @overload
  def __getitem__(self, index: int) -> str: ...

  @overload
  def __getitem__(self, index: slice) -> list[str]: ...

  def __getitem__(self, index: int | slice) -> str | list[str]:
    if isinstance(index, slice):
      return [self[i] for i in range(len(self.ends))[index]]
    index = range(len(self.ends))[index]  # takes negative numbers; raises IndexError
    start = self.ends[index - 1] if index else 0
    name = self.block[start : self.ends[index]].tobytes()
    return name.decode('utf-8', 'surrogateescape')

  def __iter__(self) -> Iterator[str]:
    whole, start = self.block.tobytes(), 0
    for end in map(int, self.ends):
      yield whole[start:end].decode('utf-8', 'surrogateescape')
      start = end

  def equals(self, other: 'FileNames') -> bool:
    """Return whether these are the same names in the same order."""
    equal = np.array_equal
    return equal(self.ends, other.ends) and equal(self.block, other.block)

  def select(self, wanted: np.ndarray) -> 'FileNames':
    """Return the names where bool [N] `wanted` is true."""
    if wanted.all():
      return self
    lengths = np.diff(self.ends, prepend=0)
    block = self.block[np.repeat(wanted, lengths)]
    return FileNames(block, np.cumsum(lengths[wanted]))


def list_files(root: epath.Path, extensions: tuple[str, ...]) -> FileNames:
  """List the files below a folder, sorted by their names relative to it.

  Parts of a name are separated by '/'. Hidden files and folders (a dot in front) are
  left out, and links to folders aren't followed. No file is opened: a million names on
  a local disk take some seconds.

  Args:
    root: the folder, local or gs://.
    extensions: in small letters; files with other extensions are left out.

  Raises:
    OSError: a folder can't be read.
  """
  if '://' in os.fspath(root):
    return FileNames.pack(sorted(_walk_remote(root, extensions)))
  with futures.ThreadPoolExecutor(_AHEAD) as pool:
    list_folder = functools.partial(_list_folder, os.fspath(root), extensions)
    return FileNames.pack(_walk(pool, list_folder, '', list_folder('')))


def _walk(
  pool: futures.Executor, list_folder: ListFolder, folder: str, entries: Sequence[str]
) -> Iterator[str]:
  """Yield the names below one folder in order, given its entries.

  A folder is sorted by its name with '/' behind it, so that all names come out sorted
  although they are never in one list.
  """
  folders = [entry for entry in entries if entry.endswith('/')]
  listed: dict[str, list[str]] = {}
  for entry in entries:
    if not entry.endswith('/'):
      yield folder + entry
      continue
    if entry not in listed:
      ahead, folders = folders[:_AHEAD], folders[_AHEAD:]
      found = pool.map(list_folder, [folder + name for name in ahead])
      listed = dict(zip(ahead, found, strict=True))
    yield from _walk(pool, list_folder, folder + entry, listed.pop(entry))


def _list_folder(root: str, extensions: tuple[str, ...], folder: str) -> list[str]:
  """List the files of one folder, and its folders with '/' behind them, sorted."""
  found = []
  with os.scandir(os.path.join(root, folder) if folder else root) as entries:
    for entry in entries:
      name = entry.name
      if name.startswith('.'):
        continue
      if entry.is_dir(follow_symlinks=False):
        found.append(name + '/')
      elif name.lower().endswith(extensions):
        found.append(name)
  return sorted(found)


def _walk_remote(root: epath.Path, extensions: tuple[str, ...]) -> Iterator[str]:
  def refuse(error: OSError) -> NoReturn:
    raise error

  for folder, folders, names in root.walk(on_error=refuse):
    folders[:] = [name for name in folders if not name.startswith('.')]
    parent = folder.relative_to(root)
    for name in names:
      if name.lower().endswith(extensions) and not name.startswith('.'):
        yield str(parent / name)
