"""Lists the files below a folder, in the same order on every file system.

All commands look into folders with this module. What isn't listed is counted by kind,
so that a command can say what it passed over.
"""

import collections
import dataclasses
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple, NoReturn, overload

import numpy as np
from etils import epath

# How many folders are listed at the same time: over a network each takes 10 ms.
_AHEAD = 32

# Kinds of what is passed over, beside endings of names.
HIDDEN, UNNAMED = 'hidden', 'without an ending'
SEEN = 'link(s) to what is read already'
_SPECIAL = {
  stat.S_IFIFO: 'named pipe(s)',
  stat.S_IFSOCK: 'socket(s)',
  stat.S_IFCHR: 'device(s)',
  stat.S_IFBLK: 'device(s)',
}
_SHOWN = 8  # kinds that `describe` names
Identity = tuple[int, int]  # device and inode of a folder


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


class Listing(NamedTuple):
  """What is below a folder."""

  names: FileNames  # of files with the wanted endings, relative to the folder, sorted
  passed: collections.Counter[str]  # kind -> number of all other entries


def describe(passed: Mapping[str, int]) -> str:
  """Return counts of kinds as a text, the largest first: '3 .txt, 1 .mov'."""
  order = sorted(passed.items(), key=lambda entry: (-entry[1], entry[0]))
  texts = [f'{count} {kind}' for kind, count in order[:_SHOWN]]
  if rest := sum(count for _, count in order[_SHOWN:]):
    texts.append(f'{rest} of {len(order) - _SHOWN} other kinds')
  return ', '.join(texts)


def list_files(
  root: epath.Path,
  extensions: tuple[str, ...],
  *,
  nested: bool = True,
  on_error: Callable[[OSError], None] | None = None,
) -> Listing:
  """List the files below a folder, sorted by their names relative to it.

  Parts of a name are separated by '/'. Hidden files and folders (a dot in front) are
  left out. Links to folders are followed, but no folder is read twice: those that lead
  to a folder inside of `root` or above it are passed over. No file is opened: a million
  names on a local disk take some seconds.

  Args:
    root: the folder, local or gs://.
    extensions: in small letters; files with other extensions are passed over.
    nested: look into folders inside, too.
    on_error: called for each folder that can't be read; None raises the error.

  Raises:
    OSError: a folder can't be read.
  """
  passed: collections.Counter[str] = collections.Counter()
  if '://' in os.fspath(root):
    names = sorted(_walk_remote(root, extensions, nested, passed))
    return Listing(FileNames.pack(names), passed)
  with futures.ThreadPoolExecutor(_AHEAD) as pool:
    walk = _Walk(pool, os.fspath(root), extensions, nested, on_error, passed)
    return Listing(FileNames.pack(walk.files()), passed)


class _Entries(NamedTuple):
  """What is in one folder."""

  names: list[str]  # of wanted files, and of folders with '/' behind them, sorted
  links: dict[str, str]  # those of the folders that are links -> where they lead
  passed: collections.Counter[str]
  error: OSError | None = None  # why the folder can't be read


@dataclasses.dataclass
class _Walk:
  """A walk through a local folder, of which many folders are listed at a time."""

  pool: futures.Executor
  root: str
  extensions: tuple[str, ...]
  nested: bool
  on_error: Callable[[OSError], None] | None
  passed: collections.Counter[str]
  # Folders that links have led to, and those below them.
  visited: set[Identity] = dataclasses.field(default_factory=set)

  def files(self) -> Iterator[str]:
    """Yield the names of all files in order."""
    self.real = os.path.realpath(self.root)
    return self._walk('', self._list_folder(''), linked=False)

  def _walk(self, folder: str, entries: _Entries, linked: bool) -> Iterator[str]:
    """Yield the names below one folder in order, given its entries.

    A folder is sorted by its name with '/' behind it, so that all names come out sorted
    although they are never in one list.
    """
    self.passed.update(entries.passed)
    if entries.error is not None:
      if self.on_error is None:
        raise entries.error
      self.on_error(entries.error)
    folders = [
      entry
      for entry in entries.names
      if entry.endswith('/') and self._enters(folder, entry, entries, linked)
    ]
    inside, listed = set(folders), {}
    for entry in entries.names:
      if not entry.endswith('/'):
        yield folder + entry
        continue
      if entry not in inside:
        continue
      if entry not in listed:
        ahead, folders = folders[:_AHEAD], folders[_AHEAD:]
        found = self.pool.map(self._list_folder, [folder + name for name in ahead])
        listed = dict(zip(ahead, found, strict=True))
      below = linked or entry in entries.links
      yield from self._walk(folder + entry, listed.pop(entry), below)

  def _enters(self, folder: str, entry: str, entries: _Entries, linked: bool) -> bool:
    """Return whether a folder is read here; it isn't if it is read elsewhere."""
    if not self.nested:
      return False
    real = entries.links.get(entry)
    if real is None and not linked:
      return True
    if real is not None and self._contains(real):
      self.passed[SEEN] += 1
      return False
    try:
      found = os.stat(os.path.join(self.root, folder, entry))
    except OSError:  # it has just been removed: listing it tells
      return True
    identity = (found.st_dev, found.st_ino)
    if identity in self.visited or os.path.samestat(found, os.stat(self.root)):
      self.passed[SEEN] += 1
      return False
    self.visited.add(identity)
    return True

  def _contains(self, real: str) -> bool:
    """Return whether a folder lies in the root, or the root in it."""
    common = os.path.commonpath([self.real, real])
    return common in (self.real, real)

  def _list_folder(self, folder: str) -> _Entries:
    """List one folder; an error becomes part of the result."""
    found = _Entries([], {}, collections.Counter())
    path = os.path.join(self.root, folder) if folder else self.root
    try:
      with os.scandir(path) as entries:
        for entry in entries:
          self._sort(entry, found)
    except OSError as error:
      found = found._replace(error=error)
    found.names.sort()
    return found

  def _sort(self, entry: os.DirEntry[str], found: _Entries) -> None:
    """Add an entry of a folder to what was found in it."""
    name = entry.name
    if name.startswith('.'):
      found.passed[HIDDEN] += 1
    elif _is_folder(entry):
      found.names.append(name + '/')
      if entry.is_symlink():
        found.links[name + '/'] = os.path.realpath(entry.path)
    elif kind := special(entry):
      found.passed[kind] += 1
    elif name.lower().endswith(self.extensions):
      found.names.append(name)
    else:
      found.passed[ending(name)] += 1


def ending(name: str) -> str:
  """Return the kind of a file by its name: '.txt', or 'without an ending'."""
  return os.path.splitext(name)[1].lower() or UNNAMED


def special(entry: os.DirEntry[str] | os.PathLike[str]) -> str:
  """Return what kind of thing a path is if it is no file and no folder, else ''.

  A link that leads nowhere is none of these things either: whoever opens it is told.
  """
  if isinstance(entry, os.DirEntry) and entry.is_file(follow_symlinks=False):
    return ''  # known without asking the file system
  try:
    return _SPECIAL.get(stat.S_IFMT(os.stat(entry).st_mode), '')
  except OSError:
    return ''


def _is_folder(entry: os.DirEntry[str]) -> bool:
  """Return whether an entry is a folder, or a link to one."""
  try:
    return entry.is_dir()
  except OSError:  # a link that leads to itself
    return False


def _walk_remote(
  root: epath.Path,
  extensions: tuple[str, ...],
  nested: bool,
  passed: collections.Counter[str],
) -> Iterator[str]:
  def refuse(error: OSError) -> NoReturn:
    raise error

  for folder, folders, names in root.walk(on_error=refuse):
    folders[:] = [name for name in folders if nested and not name.startswith('.')]
    parent = folder.relative_to(root)
    for name in names:
      if name.startswith('.'):
        passed[HIDDEN] += 1
      elif name.lower().endswith(extensions):
        yield str(parent / name)
      else:
        passed[ending(name)] += 1
