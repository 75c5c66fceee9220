"""What the headers of a large folder said, kept for the next start."""

import io
import json
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from PIL import __version__ as pillow_version

from sr3_jax.images import rasters
from sr3_jax.names import Names
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
