"""Stores per-image values of an evaluation as they come, which makes it resumable.

A part is one method's images ('bicubic', 'sr3/0', 'sr3/1', 'truth'). Its values arrive
in batches; each becomes one file PART/BATCH-IMAGES.npz, written whole or not at all,
so that a killed evaluation goes on where it was and memory doesn't grow with the number
of images. No file holds a pickle.
"""

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.runtime import atomic_files, devices, foreign_arrays, foreign_files
from sr3_jax.runtime.errors import UserError

Parts = dict[str, list[str]]  # method -> its parts, one for each seed
# [n, ...] each; 'index' int [n] is always there, PHOTOGRAPH int [n] where images are of
# photographs.
Values = dict[str, np.ndarray]
VERSION = 2  # of what is recorded; files of others are measured anew
# Number of the photograph that an image is of: crops of one resemble each other.
PHOTOGRAPH = 'photograph'


class Records:
  """The values of an evaluation so far, in a folder or, without one, in memory."""

  def __init__(self, folder: epath.Path | None = None):
    self.folder = folder
    self._memory: dict[str, dict[str, Values]] = {}
    self._index: dict[str, set[int]] = {}
    self._scalars: dict[str, Values] = {}

  def has(self, part: str, index: np.ndarray) -> bool:
    """Return whether all these images of a part are there."""
    return set(index.tolist()) <= self._done(part)

  def add(self, part: str, batch: int, values: Values) -> None:
    """Store the values of a batch of this process's images."""
    # Another batch size or number of processes gives other batches the same number, and
    # they must not replace the files of these.
    images = hashlib.sha256(values['index'].astype('<i8').tobytes()).hexdigest()[:8]
    name = f'{batch:08d}-{images}.npz'
    self._done(part).update(values['index'].tolist())
    self._scalars.pop(part, None)
    if self.folder is None:
      self._memory.setdefault(part, {})[name] = values
      return
    buffer = io.BytesIO()
    # NumPy's stub takes every name for `allow_pickle`.
    np.savez(buffer, **values)  # pyrefly: ignore[bad-argument-type]
    atomic_files.write_bytes(self.folder / part / name, buffer.getvalue())

  def stream(self, part: str) -> Iterator[Values]:
    """Yield the values of a part, batch by batch, in the order of the batches.

    Every image comes once, even if it was measured twice (by another number of
    processes before a kill).
    """
    seen: set[int] = set()
    for name in self._names(part):
      values = self._read(part, name)
      if values is None:
        continue
      fresh = np.array([i not in seen for i in values['index'].tolist()], bool)
      seen.update(values['index'].tolist())
      if fresh.any():
        yield {key: value[fresh] for key, value in values.items()}

  def scalars(self, part: str) -> Values:
    """Return the one-number values of a part, sorted by image: [n] each.

    Values that some images lack are NaN there, as SSIM of too small ones. Files are
    read once.
    """
    if part not in self._scalars:
      batches = [
        {key: value for key, value in values.items() if value.ndim == 1}
        for values in self.stream(part)
      ]
      keys = dict.fromkeys(key for values in batches for key in values)
      whole = {}
      for key in keys:
        columns = [v.get(key, np.full(len(v['index']), np.nan)) for v in batches]
        whole[key] = np.concatenate(columns)
      order = np.argsort(whole['index']) if whole else []
      self._scalars[part] = {key: value[order] for key, value in whole.items()}
    return self._scalars[part]

  def photographs(self, part: str) -> np.ndarray:
    """Return the photograph of each image of a part, int [n], sorted by image.

    Where none is recorded each image is one of its own.
    """
    values = self.scalars(part)
    return values.get(PHOTOGRAPH, values.get('index', np.empty(0, int)))

  def _done(self, part: str) -> set[int]:
    """Return the images of a part that are there; files are read once."""
    if part not in self._index:
      read = (self._read(part, name) for name in self._names(part))
      self._index[part] = {i for v in read if v for i in v['index'].tolist()}
    return self._index[part]

  def _names(self, part: str) -> list[str]:
    """Return the names of a part's files."""
    if self.folder is None:
      return sorted(self._memory.get(part, ()))
    return sorted(path.name for path in (self.folder / part).glob('*.npz'))

  def _read(self, part: str, name: str) -> Values | None:
    """Read a file of a part; None if it is damaged."""
    if self.folder is None:
      return self._memory[part][name]
    path = self.folder / part / name
    try:
      values = foreign_arrays.read_npz(path, ('index',), finite=False)
      index = values['index']
      if index.ndim != 1 or index.dtype.kind not in 'iu':
        raise UserError(f'{path}: index is no list of whole numbers')
      if any(value.shape[:1] != index.shape for value in values.values()):
        raise UserError(f'{path}: not one value for each image')
      return values
    except UserError as error:
      logging.warning('%s; measured again', error)
      return None


def open_records(folder: epath.Path, made_by: Mapping[str, object]) -> Records:
  """Open the records of an evaluation, or begin anew if they were made by others.

  `made_by` describes all that a value depends on: weights, images, settings. It is
  written to FOLDER/made_by.json. Every process must call this function.
  """
  path, known = folder / 'made_by.json', None
  wanted = json.loads(json.dumps(made_by))
  if jax.process_index() == 0:
    if foreign_files.exists(path):
      with contextlib.suppress(UserError):
        known = foreign_files.read_json(path)
      if known != wanted:
        reason = 'made by other weights, images or settings'
        logging.info('%s was %s: measuring anew', folder, reason)
        # made_by.json is replaced last: a kill in between leaves records that still
        # count as outdated.
        for old in folder.iterdir():
          if old.is_dir():
            old.rmtree()
    if known != wanted:
      atomic_files.write_bytes(path, json.dumps(made_by, indent=2).encode())
  devices.barrier('records')
  return Records(folder)
