"""Which files of a folder can be used, judged by their headers alone."""

import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent import futures
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from sr3_jax import header_index, images, listing, rasters
from sr3_jax.header_index import Index
from sr3_jax.names import Names

# A future for each of a million files would be a gigabyte.
_PORTION = 10_000
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
  kept: epath.Path | None = None,
) -> Usable:
  """All images below a folder that can be used, and why the others can't.

  Hidden files and folders (a dot in front) and links to folders aren't followed.

  With `kept` only the headers of new names are read. Of names known from an earlier
  time those that would be left out are looked at again: if the file's size or times
  changed, or if it could not be read, its header is read anew. Those that are used
  aren't, because whoever uses them reads them.

  Args:
    root: the folder.
    min_size: shortest side of a usable image in pixels.
    max_pixels: larger images are left out.
    channels: 0 for pictures, as `images.read` shows them; another number for rasters
      of so many channels, all of the type of the first.
    kept: folder for what is found out of large folders; None keeps nothing.

  Raises:
    OSError: a folder that can't be read.
  """
  names = listing.files(root, rasters.EXTENSIONS if channels else images.EXTENSIONS)
  if len(names) < WORTH_KEEPING:
    kept = None
  place = os.path.abspath(root) if '://' not in os.fspath(root) else os.fspath(root)
  settings = {'folder': place, 'channels': channels, 'max_pixels': max_pixels}
  path = kept / f'{_digest(settings)}.npz' if kept else None
  old = header_index.load(path, settings) if path else None
  index = old.over(names) if old else Index.empty(names)
  known = index.known
  new = np.flatnonzero(~known)
  if len(new) > 20_000:
    hint = '' if kept else '; --cache keeps what is found for the next start'
    logging.info('%s: reading the headers of %d images%s', root, len(new), hint)
  look = functools.partial(_look, root, max_pixels=max_pixels, channels=channels)
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
      stamps = np.fromiter(_stamps(root, names, doubtful, pool), np.int64)
      anew = doubtful[(stamps != index.stamp[doubtful]) | (stamps == 0)]
      _read(index, anew, errors, pool, look)
      checked[doubtful] = True
      changed = changed or len(anew) > 0
  if path and (changed or len(new)):
    header_index.save(path, index, settings)
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


def _read(index: Index, numbers: np.ndarray, errors: dict[int, str], pool, look):
  """Puts what the headers of some files say into the index or into `errors`."""
  for start in range(0, len(numbers), _PORTION):
    portion = numbers[start : start + _PORTION].tolist()
    found = pool.map(look, (index.names[i] for i in portion))
    for i, (stamp, facts) in zip(portion, found, strict=True):
      index.stamp[i] = stamp
      if isinstance(facts, str):
        errors[i] = facts
        facts = (0, 0, 0)
      index.height[i], index.width[i], index.kind[i] = facts


def _stamps(
  root: epath.Path, names: Names, numbers: np.ndarray, pool: futures.Executor
) -> Iterable[int]:
  for start in range(0, len(numbers), _PORTION):
    portion = numbers[start : start + _PORTION].tolist()
    yield from pool.map(lambda i: _stamp(root, names[i]), portion)


def _stamp(root: epath.Path, name: str) -> int:
  """A number that changes when a file does; 0 if it may have changed just now.

  On gs:// always 0: to ask for it takes as long as to read a header.
  """
  path = os.path.join(root, name)
  try:
    stats = [os.stat(path)]
    if os.path.islink(path):
      stats.append(os.lstat(path))
  except OSError:
    return 0
  times = [(s.st_mtime_ns, s.st_ctime_ns) for s in stats]
  if max(map(max, times)) > time.time_ns() - _TICK_NS:
    return 0
  return hash((stats[0].st_size, *times))


def _look(
  root: epath.Path, name: str, *, max_pixels: int, channels: int
) -> tuple[int, tuple[int, int, int] | str]:
  """The stamp of a file, and height, width and type, or why it can't be used."""
  path, stamp, kind = os.path.join(root, name), _stamp(root, name), 0
  try:
    if channels:
      found = rasters.header(path, channels=channels, max_pixels=max_pixels)
      height, width, _, dtype = found
      kind = rasters.DTYPES.index(dtype)
    else:
      height, width = images.size(path, max_pixels=max_pixels)
  except images.ImageError as error:
    return stamp, str(error).removeprefix(f'{path}: ')
  return stamp, (height, width, kind)
