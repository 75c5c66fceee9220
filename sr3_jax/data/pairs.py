"""Reads pairs: a folder of targets and a folder of inputs, matched by name.

The input of 'a/cell_07.tif' is 'a/cell_07.png', or another ending, in the other folder:
names must be the same below the two folders, without their endings.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from absl import logging

from sr3_jax.data.folder_sources import Folder
from sr3_jax.data.records import DataError, Record
from sr3_jax.runtime.errors import some

# In front of the last ending, these belong to it: 'a.ome.tif' is called 'a'.
_DOUBLE_ENDINGS = ('.ome',)


class Pairs:
  """A source of pairs of a target, 'image', and its input, 'condition'.

  Attributes:
    left_out: name -> reason of every file of the two folders that can't be used.
    unpaired: name -> reason of every usable file without a partner.

  Raises:
    DataError: the two are one folder, or there is not one pair.
  """

  classes: tuple[str, ...] = ()

  def __init__(self, targets: Folder, inputs: Folder):
    self.targets, self.inputs = targets, inputs
    self.channels, self.dtype = targets.channels, targets.dtype
    self.input_channels, self.input_dtype = inputs.channels, inputs.dtype
    if targets.root.resolve() == inputs.root.resolve():
      raise DataError(
        f'data.path and data.input_path are one folder, {targets.root}: targets and '
        'inputs need a folder each'
      )
    self.left_out = dict(targets.left_out)
    self.left_out |= {f'{inputs.root}/{k}': v for k, v in inputs.left_out.items()}
    self.passed = targets.passed
    self._rows, self.unpaired = _match(targets, inputs)
    if not len(self._rows):
      raise DataError(
        f'no file of {inputs.root} has the name of a file of {targets.root}, apart '
        f'from the ending: {_first(inputs)} there, {_first(targets)} here'
      )
    if self.unpaired:
      first = some(self.unpaired)
      count = len(self.unpaired)
      logging.warning('%s: %d files have no partner: %s', targets.root, count, first)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    target, given = self._rows[index].tolist()
    image, condition = self.targets[target]['image'], self.inputs[given]['image']
    return {'image': image, 'condition': condition}

  def name(self, index: int) -> str:
    """Return the path of a target relative to its folder."""
    return self.targets.name(int(self._rows[index, 0]))

  def input_name(self, index: int) -> str:
    """Return the path of an input relative to its folder."""
    return self.inputs.name(int(self._rows[index, 1]))

  def states(self) -> Iterator[str]:
    """Yield `folder_sources.file_state` of every file of the two folders."""
    yield from self.targets.states()
    yield from self.inputs.states()


def key_of(name: str) -> str:
  """Return what the names of a pair have in common: the path without its ending.

  Letters with accents count as the same however a file system writes them.
  """
  path = PurePosixPath(unicodedata.normalize('NFC', name))
  stem = path.stem
  for ending in _DOUBLE_ENDINGS:
    if stem.lower().endswith(ending) and len(stem) > len(ending):
      stem = stem[: -len(ending)]
  return str(path.parent / stem)


def _match(targets: Folder, inputs: Folder) -> tuple[np.ndarray, dict[str, str]]:
  """Return the numbers of target and input of each pair, [n, 2], and who has none."""
  sides = [_by_key(folder) for folder in (targets, inputs)]
  rows, unpaired = [], {}
  for folder, mine, theirs, what in (
    (targets, sides[0], sides[1], 'input'),
    (inputs, sides[1], sides[0], 'target'),
  ):
    for key, numbers in mine.items():
      others = theirs.get(key, [])
      if len(numbers) == len(others) == 1:
        rows += [(numbers[0], others[0])] if folder is targets else []
        continue
      reason = f'no {what} of this name'
      if others:
        reason = f'{len(numbers)} files and {len(others)} {what}(s) have this name'
      for i in numbers:
        shown = folder.name(i)
        unpaired[shown if folder is targets else f'{folder.root}/{shown}'] = reason
  return np.array(sorted(rows), np.int64).reshape(-1, 2), unpaired


def _by_key(folder: Folder) -> dict[str, list[int]]:
  """Return the numbers of a folder's files by `key_of` their names."""
  found: dict[str, list[int]] = {}
  for i in range(len(folder)):
    found.setdefault(key_of(folder.name(i)), []).append(i)
  return found


def _first(folder: Folder) -> str:
  """Return the first names of a folder."""
  names: Sequence[str] = [folder.name(i) for i in range(min(2, len(folder)))]
  return ', '.join(names) + (', ...' if len(folder) > 2 else '')
