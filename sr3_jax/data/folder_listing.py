"""The files below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures

import numpy as np
from etils import epath


class Names(Sequence[str]):
  """Texts one after the other, and where each ends.

  A million file names take 40 MB so, and 90 as a list of Python's strings, each of
  which the garbage collector and every worker process would meet again.

  Args:
    block: uint8, the texts in UTF-8, without anything in between.
    ends: int64 [N], where in `block` each text ends.
  """

  def __init__(self, block: np.ndarray, ends: np.ndarray):
    self.block, self.ends = block, ends

  @classmethod
  def of(cls, texts: Iterable[str]) -> 'Names':
    """From single texts, which may be file names that are no proper Unicode."""
    block, ends, end = bytearray(), [], 0
    for text in texts:
      encoded = text.encode('utf-8', 'surrogateescape')
      block += encoded
      end += len(encoded)
      ends.append(end)
    return cls(np.frombuffer(bytes(block), np.uint8), np.array(ends, np.int64))

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, index: int) -> str:
    index = range(len(self.ends))[index]  # also from behind; IndexError beyond
    start = self.ends[index - 1] if index else 0
    text = self.block[start : self.ends[index]].tobytes()
    return text.decode('utf-8', 'surrogateescape')

  def __iter__(self) -> Iterator[str]:
    whole, start = self.block.tobytes(), 0
    for end in map(int, self.ends):
      yield whole[start:end].decode('utf-8', 'surrogateescape')
      start = end

  def same(self, other: 'Names') -> bool:
    """Whether the texts are those of another."""
    equal = np.array_equal
    return equal(self.ends, other.ends) and equal(self.block, other.block)

  def where(self, wanted: np.ndarray) -> 'Names':
    """The texts where bool [N] `wanted` is true."""
    if wanted.all():
      return self
    lengths = np.diff(self.ends, prepend=0)
    block = self.block[np.repeat(wanted, lengths)]
    return Names(block, np.cumsum(lengths[wanted]))


# Folders that are looked into at the same time: a listing over a network takes 10 ms.
_AHEAD = 32


def files(root: epath.Path, extensions: tuple[str, ...]) -> Names:
  """Names of files below a folder, relative to it, with '/' in between, sorted.

  Hidden files and folders (a dot in front) and links to folders aren't followed. No
  file is touched: a million names of a local disk take some seconds.

  Args:
    root: the folder, local or gs://.
    extensions: in small letters; files of others are left out.

  Raises:
    OSError: a folder that can't be read.
  """
  if '://' in os.fspath(root):
    return Names.of(sorted(_remote(root, extensions)))
  with futures.ThreadPoolExecutor(_AHEAD) as pool:
    place = os.fspath(root)
    entries = _entries(place, extensions)
    return Names.of(_below(pool, place, '', entries, extensions))


def _below(
  pool: futures.Executor,
  root: str,
  place: str,
  entries: Sequence[str],
  extensions: tuple[str, ...],
) -> Iterator[str]:
  """Names below one folder, whose entries are known, in order.

  A folder stands where its name with '/' does. So the whole is sorted without ever
  being in one list.
  """
  folders = [entry for entry in entries if entry.endswith('/')]
  listed: dict[str, list[str]] = {}
  for entry in entries:
    if not entry.endswith('/'):
      yield place + entry
      continue
    if entry not in listed:
      ahead, folders = folders[:_AHEAD], folders[_AHEAD:]
      found = pool.map(lambda f: _entries(root + '/' + place + f, extensions), ahead)
      listed = dict(zip(ahead, found, strict=True))
    inside = listed.pop(entry)
    yield from _below(pool, root, place + entry, inside, extensions)


def _entries(folder: str, extensions: tuple[str, ...]) -> list[str]:
  """Files of a folder, and the folders in it with '/' behind them, sorted."""
  found = []
  with os.scandir(folder) as entries:
    for entry in entries:
      name = entry.name
      if name.startswith('.'):
        continue
      if entry.is_dir(follow_symlinks=False):
        found.append(name + '/')
      elif name.lower().endswith(extensions):
        found.append(name)
  return sorted(found)


def _remote(root: epath.Path, extensions: tuple[str, ...]) -> Iterator[str]:
  def refuse(error: OSError):
    raise error

  for folder, folders, names in root.walk(on_error=refuse):
    folders[:] = [name for name in folders if not name.startswith('.')]
    place = folder.relative_to(root)
    for name in names:
      if name.lower().endswith(extensions) and not name.startswith('.'):
        yield str(place / name)
