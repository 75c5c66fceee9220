"""Finds the usable image files of a folder by their headers, and caches the headers.

`find_usable` lists the folder, reads the header of every file, and decides by size and
type which files can be used. For a large folder it saves a `HeaderIndex`, from which
the next start takes the headers that it already knows.
"""

import functools
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging
from etils import epath
from PIL import __version__ as pillow_version

from sr3_jax.images import formats, image_files, pixels, rasters
from sr3_jax.images.folder_listing import FileNames, list_files
from sr3_jax.runtime import activity, atomic_files, foreign_arrays, foreign_files
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.version import __version__

# The headers of fewer files are read within two seconds: no index is saved.
WORTH_CACHING = 5_000
# Files that a thread takes at a time: handing over a single one takes as long as to
# read its header, and a future for each of a million would be a gigabyte.
_PART = 250
# A file changed so shortly before it was looked at may change again within the same
# tick of its clock (2 s on FAT).
_TICK_NS = 2_000_000_000
# An index is valid for the versions that made it: others may read headers differently.
_MADE_BY = {'format': 1, 'sr3_jax': __version__, 'pillow': pillow_version}

_Result = TypeVar('_Result')
# The settings that an index is valid for: the folder, and how its images are read.
_Settings = dict[str, str | int]


class UsableFiles(NamedTuple):
  """The files of a folder that can be used, and those that can't."""

  names: FileNames  # of the usable files relative to the folder, sorted
  left_out: dict[str, str]  # name -> reason of every file that can't be used
  dtype: np.dtype  # of the pixels of all usable files
  passed: Mapping[str, int]  # kind -> how many other files are there


class HeaderIndex(NamedTuple):
  """A table of the headers of N files of a folder: a million take 65 MB."""

  names: FileNames
  stamp: np.ndarray  # int64 [N], changes when a file does; 0 if that isn't certain
  height: np.ndarray  # int32 [N], pixels; 0 if a file is unknown or couldn't be read
  width: np.ndarray  # int32 [N], pixels
  kind: np.ndarray  # uint8 [N], position of the pixels' type in `rasters.DTYPES`

  @classmethod
  def empty(cls, names: FileNames) -> 'HeaderIndex':
    """Make an index in which no file is known."""
    types = np.int64, np.int32, np.int32, np.uint8
    return cls(names, *(np.zeros(len(names), dtype) for dtype in types))

  @property
  def known(self) -> np.ndarray:
    """Return whether the header of a file is known, bool [N]."""
    return self.height > 0

  def for_names(self, names: FileNames) -> 'HeaderIndex':
    """Make an index of other names, with what this one knows of them."""
    if self.names.equals(names):
      return HeaderIndex(names, *self[1:])
    rows = np.full(len(names), -1)
    mine = enumerate(self.names)
    row, old = next(mine, (-1, None))
    for i, name in enumerate(names):  # both are sorted
      while old is not None and old < name:
        row, old = next(mine, (-1, None))
      if old == name:
        rows[i] = row
    # Unknown files are row -1, for which each column gets a zero at its end.
    columns = (np.append(known, known.dtype.type(0))[rows] for known in self[1:])
    return HeaderIndex(names, *columns)

  def usable(self, min_size: int) -> tuple[np.ndarray, np.dtype]:
    """Return which files can be used, bool [N], and the type of their pixels.

    The type is that of the first file that is large enough; files of other types can't
    be used.
    """
    sound = self.known & (np.minimum(self.height, self.width) >= min_size)
    kind = self.kind[sound][0] if sound.any() else 0
    return sound & (self.kind == kind), np.dtype(rasters.DTYPES[kind])

  def reason(self, row: int, min_size: int, dtype: np.dtype) -> str:
    """Return why a known file can't be used."""
    height, width = self.height[row], self.width[row]
    if min(height, width) < min_size:
      return f'{width} x {height} pixels'
    return f'{np.dtype(rasters.DTYPES[self.kind[row]])}, others are {dtype}'


def find_usable(
  root: epath.Path, min_size: int, channels: int, cache_folder: epath.Path | None = None
) -> UsableFiles:
  """Find all images below a folder that can be used, and why the others can't.

  Files are listed as `folder_listing.list_files` does: linked folders are read once.

  With `cache_folder` only the headers of new names are read, and those of known files
  that would be left out but changed in size or time since, or could not be read. Usable
  files aren't checked for changes, because whoever uses one reads it.

  Args:
    root: the folder.
    min_size: shortest side of a usable image in pixels.
    channels: 0 for pictures, as `image_files.read` shows them; another number for
      rasters of so many channels, all of the type of the first.
    cache_folder: where the headers of large folders are cached; None caches nothing.

  Raises:
    OSError: a folder can't be read.
  """
  with activity.doing(f'{root}: listing the files'):
    extensions = rasters.EXTENSIONS if channels else formats.EXTENSIONS
    names, passed = list_files(root, extensions)
  folder = os.fspath(root)
  if '://' not in folder:
    folder = os.path.abspath(folder)
  limit, path = image_files.MAX_PIXELS, None
  settings: _Settings = {'folder': folder, 'channels': channels, 'max_pixels': limit}
  if cache_folder and len(names) >= WORTH_CACHING:
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    path = cache_folder / f'{digest}.npz'
  old = load_index(path, settings) if path else None
  index = old.for_names(names) if old else HeaderIndex.empty(names)
  new = len(names) - np.count_nonzero(index.known)
  if new > 20_000:
    hint = '' if path else '; --cache keeps what is found for the next start'
    logging.info(f'{root}: reading the headers of {new} images{hint}')
  read = functools.partial(_read_header, folder, channels)
  with activity.doing(f'{root}: reading the headers of {new} images'):
    errors, changed = _read_missing(index, folder, min_size, read)
  if path and (changed or not (old and old.names.equals(names))):
    save_index(path, index, settings)
  usable, dtype = index.usable(min_size)
  left_out = {
    names[i]: errors.get(i) or index.reason(i, min_size, dtype)
    for i in np.flatnonzero(~usable).tolist()
  }
  return UsableFiles(names.select(usable), left_out, dtype, passed)


def load_index(path: epath.Path, settings: _Settings) -> HeaderIndex | None:
  """Load an index that was saved with these settings by the same versions.

  Returns:
    None if there is no such index, or if the file is damaged.
  """
  try:
    if not foreign_files.exists(path):
      return None
    with foreign_files.explained(path, 'an index of headers'):
      wanted = ('made_by', 'block', 'ends', *HeaderIndex._fields[1:])
      stored = foreign_arrays.read_npz(path, wanted)
      if json.loads(stored['made_by'].tobytes()) != _MADE_BY | settings:
        return None
      names = FileNames(stored['block'], stored['ends'])
      index = HeaderIndex(names, *(stored[key] for key in HeaderIndex._fields[1:]))
      _check_columns(index)
      return index
  except UserError as error:
    logging.warning('%s; headers are read again', error)
    return None


def save_index(path: epath.Path, index: HeaderIndex, settings: _Settings) -> None:
  """Save an index; if that fails, warn that the next start will take as long."""
  columns = index._asdict()
  names: FileNames = columns.pop('names')
  made_by = np.frombuffer(json.dumps(_MADE_BY | settings).encode(), np.uint8)
  buffer = io.BytesIO()
  np.savez(buffer, made_by=made_by, block=names.block, ends=names.ends, **columns)
  try:
    atomic_files.write_bytes(path, buffer.getvalue())
  except OSError as error:
    logging.warning('headers are read again at the next start: %s', error)


def _check_columns(index: HeaderIndex) -> None:
  """Raise ValueError if the columns of a loaded index don't fit together."""
  ends, count = index.names.ends, len(index.names)
  whole = not count or (ends[-1] == len(index.names.block) and ends[0] >= 0)
  block = index.names.block
  if block.ndim != 1 or block.dtype != np.uint8 or ends.ndim != 1:
    raise ValueError('names do not fit together')
  types = [(column.shape, column.dtype) for column in (ends, *index[1:])]
  empty = HeaderIndex.empty(index.names)
  expected = [(column.shape, column.dtype) for column in empty[1:]]
  if types != [((count,), np.dtype(np.int64)), *expected] or not whole:
    raise ValueError('columns do not fit together')
  if (np.diff(ends) < 0).any() or index.kind.max(initial=0) >= len(rasters.DTYPES):
    raise ValueError('values out of range')


class _Header(NamedTuple):
  """The entries of one file for a `HeaderIndex`; `error` says why there are none."""

  stamp: int
  height: int = 0
  width: int = 0
  kind: int = 0
  error: str = ''


def _read_missing(
  index: HeaderIndex, folder: str, min_size: int, read: Callable[[str], _Header]
) -> tuple[dict[int, str], bool]:
  """Complete an index: read the headers of unknown files, and of changed ones.

  A known file is looked at only if it would be left out.

  Returns:
    Row -> error of the files that can't be read, and whether any header was read.
  """
  errors: dict[int, str] = {}
  checked = ~index.known
  changed = bool(checked.any())
  with futures.ThreadPoolExecutor(16) as pool:

    def read_rows(rows: np.ndarray) -> None:
      headers = _map_rows(pool, read, index.names, rows)
      for i, header in zip(rows.tolist(), headers, strict=True):
        index.stamp[i], index.height[i], index.width[i], index.kind[i], error = header
        if error:
          errors[i] = error

    read_rows(np.flatnonzero(checked))
    while True:  # a header that is read anew may change which type is used
      usable, _ = index.usable(min_size)
      doubtful = np.flatnonzero(~usable & ~checked)
      if not len(doubtful):
        return errors, changed
      stamp = functools.partial(_stamp, folder)
      stamps = np.fromiter(_map_rows(pool, stamp, index.names, doubtful), np.int64)
      anew = doubtful[(stamps != index.stamp[doubtful]) | (stamps == 0)]
      read_rows(anew)
      checked[doubtful] = True
      changed = changed or len(anew) > 0


def _map_rows(
  pool: futures.Executor,
  function: Callable[[str], _Result],
  names: FileNames,
  rows: np.ndarray,
) -> Iterator[_Result]:
  """Apply a function to some of the names by many threads; yield results in order."""
  parts = [rows[k : k + _PART].tolist() for k in range(0, len(rows), _PART)]
  for results in pool.map(lambda part: [function(names[i]) for i in part], parts):
    yield from results


def _stamp(root: str, name: str) -> int:
  """Return a number that changes when a file does; 0 if it may have changed just now.

  On gs:// it is always 0, because asking for it takes as long as to read a header.
  """
  path = os.path.join(root, name)
  try:
    stats = [os.lstat(path)]
    if stat.S_ISLNK(stats[0].st_mode):
      stats.append(os.stat(path))
  except OSError:
    return 0
  times = [(s.st_mtime_ns, s.st_ctime_ns) for s in stats]
  if max(map(max, times)) > time.time_ns() - _TICK_NS:
    return 0
  return hash((stats[-1].st_size, *times))


def _read_header(root: str, channels: int, name: str) -> _Header:
  path, stamp = os.path.join(root, name), _stamp(root, name)
  try:
    if not channels:
      return _Header(stamp, *image_files.size(path))
    found = rasters.header(path, channels=channels)
  except pixels.ImageError as error:
    return _Header(stamp, error=str(error).removeprefix(f'{path}: '))
  return _Header(stamp, found.height, found.width, rasters.DTYPES.index(found.dtype))
