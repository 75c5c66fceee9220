"""Which files of a folder can be used, judged by their headers alone."""

import functools
import hashlib
import io
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from PIL import __version__ as pillow_version

from sr3_jax.data import folder_listing
from sr3_jax.data.folder_listing import Names
from sr3_jax.images import image_files, pixels, rasters
from sr3_jax.runtime import atomic_files
from sr3_jax.runtime.version import __version__

_MADE_BY = {'format': 1, 'sr3_jax': __version__, 'pillow': pillow_version}


class Index(NamedTuple):
  """A row for each file: a million take 65 MB.

  Attributes:
    names: of the files.
    stamp: int64 [N], changes when a file does; 0 is not sure.
    height, width: int32 [N] in pixels; 0 of a file that couldn't be read.
    kind: uint8 [N], which of `rasters.DTYPES` its pixels are.
  """

  names: Names
  stamp: np.ndarray
  height: np.ndarray
  width: np.ndarray
  kind: np.ndarray

  @classmethod
  def empty(cls, names: Names) -> 'Index':
    """Nothing is known yet."""
    zeros = lambda dtype: np.zeros(len(names), dtype)
    sides = zeros(np.int32), zeros(np.int32)
    return cls(names, zeros(np.int64), *sides, zeros(np.uint8))

  @property
  def known(self) -> np.ndarray:
    """bool [N], of which files something is known."""
    return self.height > 0

  def over(self, names: Names) -> 'Index':
    """The same of other names; of those that are not in here nothing is known."""
    if self.names.same(names):
      return Index(names, *self[1:])
    rows = np.full(len(names), -1)
    mine = enumerate(self.names)
    row, old = next(mine, (-1, None))
    for i, name in enumerate(names):  # both are sorted
      while old is not None and old < name:
        row, old = next(mine, (-1, None))
      if old == name:
        rows[i] = row
    found, there = Index.empty(names), rows >= 0
    for new, known in zip(found[1:], self[1:], strict=True):
      new[there] = known[rows[there]]
    return found

  def reason(self, number: int, min_size: int, dtype: np.dtype) -> str:
    """Why a readable file is left out."""
    height, width = self.height[number], self.width[number]
    if min(height, width) < min_size:
      return f'{width} x {height} pixels'
    return f'{np.dtype(rasters.DTYPES[self.kind[number]])}, others are {dtype}'


def load(path: epath.Path, settings: dict) -> Index | None:
  """What was saved with the same settings by the same version; None if it wasn't."""
  try:
    if not path.exists():
      return None
    with path.open('rb') as file, np.load(file, allow_pickle=False) as stored:
      if json.loads(stored['made_by'].tobytes()) != _MADE_BY | settings:
        return None
      names = Names(stored['block'], stored['ends'])
      index = Index(names, *(stored[key] for key in Index._fields[1:]))
    _check(index)
    return index
  except Exception as error:  # zip and array headers fail in any way
    logging.warning('%s: damaged, headers are read again (%s)', path, error)
    return None


def _check(index: Index) -> None:
  ends, count = index.names.ends, len(index.names)
  whole = not count or (ends[-1] == len(index.names.block) and ends[0] >= 0)
  types = [(column.shape, column.dtype) for column in (ends, *index[1:])]
  expected = [(column.shape, column.dtype) for column in Index.empty(index.names)[1:]]
  if types != [((count,), np.dtype(np.int64)), *expected] or not whole:
    raise ValueError('columns do not fit together')
  if (np.diff(ends) < 0).any() or index.kind.max(initial=0) >= len(rasters.DTYPES):
    raise ValueError('values out of range')


def save(path: epath.Path, index: Index, settings: dict) -> None:
  """Writes an index; without a place for it the next start takes as long as this."""
  made_by = np.frombuffer(json.dumps(_MADE_BY | settings).encode(), np.uint8)
  columns = dict(zip(Index._fields[1:], index[1:], strict=True))
  buffer = io.BytesIO()
  names = {'block': index.names.block, 'ends': index.names.ends}
  np.savez(buffer, made_by=made_by, **names, **columns)
  try:
    atomic_files.write_bytes(path, buffer.getvalue())
  except OSError as error:
    logging.warning('headers are read again at the next start: %s', error)


# Files that a thread takes at a time: handing over a single one takes as long as to
# read its header, and a future for each of a million would be a gigabyte.
_PART = 250
# Of fewer files headers are read within a second or two.
WORTH_KEEPING = 5_000
# A file changed so shortly before it was looked at may change again within the same
# tick of its clock (2 s on FAT).
_TICK_NS = 2_000_000_000


class Usable(NamedTuple):
  """What `find` found.

  Attributes:
    names: relative to the folder, sorted.
    left_out: the others, name -> why.
    dtype: of the pixels of all `names`.
  """

  names: Names
  left_out: dict[str, str]
  dtype: np.dtype


def find(
  root: epath.Path,
  *,
  min_size: int,
  max_pixels: int,
  channels: int,
  cache_folder: epath.Path | None = None,
) -> Usable:
  """All images below a folder that can be used, and why the others can't.

  Hidden files and folders (a dot in front) and links to folders aren't followed.

  With `cache_folder` only the headers of new names are read. A known file that would be
  left out is looked at again: if its size or times changed, or if it could not be read,
  its header is read anew. A file that is used isn't, because whoever uses it reads it.

  Args:
    root: the folder.
    min_size: shortest side of a usable image in pixels.
    max_pixels: larger images are left out.
    channels: 0 for pictures, as `image_files.read` shows them; another number for
      rasters of so many channels, all of the type of the first.
    cache_folder: folder for what is found out of large folders; None keeps nothing.

  Raises:
    OSError: a folder that can't be read.
  """
  names = folder_listing.files(
    root, rasters.EXTENSIONS if channels else image_files.EXTENSIONS
  )
  if len(names) < WORTH_KEEPING:
    cache_folder = None
  place = os.fspath(root)
  if '://' not in place:
    place = os.path.abspath(place)
  settings = {'folder': place, 'channels': channels, 'max_pixels': max_pixels}
  path = cache_folder / f'{_digest(settings)}.npz' if cache_folder else None
  old = load(path, settings) if path else None
  index = old.over(names) if old else Index.empty(names)
  known = index.known
  new = np.flatnonzero(~known)
  if len(new) > 20_000:
    hint = '' if cache_folder else '; --cache keeps what is found for the next start'
    logging.info('%s: reading the headers of %d images%s', root, len(new), hint)
  look = functools.partial(_look, place, max_pixels=max_pixels, channels=channels)
  errors = dict[int, str]()
  changed = not (old and old.names.same(names))
  with futures.ThreadPoolExecutor(16) as pool:
    _read(index, new, errors, pool, look)
    checked = ~known
    while True:  # what is read anew may change the type of all
      usable, dtype = _judge(index, min_size)
      doubtful = np.flatnonzero(~usable & ~checked)
      if not len(doubtful):
        break
      stamp = functools.partial(_stamp, place)
      stamps = np.fromiter(_each(pool, stamp, names, doubtful), np.int64)
      anew = doubtful[(stamps != index.stamp[doubtful]) | (stamps == 0)]
      _read(index, anew, errors, pool, look)
      checked[doubtful] = True
      changed = changed or len(anew) > 0
  if path and (changed or len(new)):
    save(path, index, settings)
  left_out = {
    names[i]: errors.get(i) or index.reason(i, min_size, dtype)
    for i in np.flatnonzero(~usable).tolist()
  }
  return Usable(names.where(usable), left_out, dtype)


def _digest(settings: dict) -> str:
  return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def _judge(index: Index, min_size: int) -> tuple[np.ndarray, np.dtype]:
  """bool [N], which files can be used, and the type of their pixels."""
  sound = index.known & (np.minimum(index.height, index.width) >= min_size)
  kind = index.kind[sound][0] if sound.any() else 0
  return sound & (index.kind == kind), np.dtype(rasters.DTYPES[kind])


def _read(
  index: Index,
  numbers: np.ndarray,
  errors: dict[int, str],
  pool: futures.Executor,
  look: Callable[[str], tuple[int, tuple[int, int, int] | str]],
) -> None:
  """Puts what the headers of some files say into the index or into `errors`."""
  found = _each(pool, look, index.names, numbers)
  for i, (stamp, facts) in zip(numbers.tolist(), found, strict=True):
    index.stamp[i] = stamp
    if isinstance(facts, str):
      errors[i] = facts
      facts = (0, 0, 0)
    index.height[i], index.width[i], index.kind[i] = facts


def _each(
  pool: futures.Executor,
  function: Callable[[str], Any],
  names: Names,
  numbers: np.ndarray,
) -> Iterator[Any]:
  """A function of some of the names, in order, by many threads."""
  parts = [numbers[k : k + _PART].tolist() for k in range(0, len(numbers), _PART)]
  for results in pool.map(lambda part: [function(names[i]) for i in part], parts):
    yield from results


def _stamp(root: str, name: str) -> int:
  """A number that changes when a file does; 0 if it may have changed just now.

  On gs:// always 0: to ask for it takes as long as to read a header.
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


def _look(
  root: str, name: str, *, max_pixels: int, channels: int
) -> tuple[int, tuple[int, int, int] | str]:
  """The stamp of a file, and height, width and type, or why it can't be used."""
  path, stamp, kind = os.path.join(root, name), _stamp(root, name), 0
  try:
    if channels:
      found = rasters.header(path, channels=channels, max_pixels=max_pixels)
      height, width, _, dtype = found
      kind = rasters.DTYPES.index(dtype)
    else:
      height, width = image_files.size(path, max_pixels=max_pixels)
  except pixels.ImageError as error:
    return stamp, str(error).removeprefix(f'{path}: ')
  return stamp, (height, width, kind)
