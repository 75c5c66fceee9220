"""Matches images of several folders by name, and batches them by size."""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from sr3_jax.images import image_files
from sr3_jax.images.image_names import ImageSetError, find
from sr3_jax.images.pixels import ImageError
from sr3_jax.metrics import image_metrics
from sr3_jax.metrics.feature_nets import LeftOut
from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import some

TRUTH, INPUT = 'truth', 'input'
Size = tuple[int, int]
Batch = dict[str, np.ndarray]


class Item(NamedTuple):
  """An image in all its versions."""

  name: str  # path below the folders, without extension
  files: Mapping[str, pathlib.Path]  # of TRUTH, INPUT if there is one, each method
  size: Size  # height and width of the truth and the outputs
  input_size: Size | None


def match(
  truth: pathlib.Path,
  outputs: Mapping[str, pathlib.Path],
  inputs: pathlib.Path | None = None,
) -> tuple[list[Item], dict[str, str]]:
  """Return images that are there in every folder and fit together.

  `outputs` is method -> folder, `inputs` the folder of the low-resolution inputs.

  Returns:
    The items, sorted by name, and name -> reason of every image that was left out.

  Raises:
    ImageSetError: nothing fits, or a folder cannot be used.
  """
  folders = {TRUTH: truth, **({INPUT: inputs} if inputs else {}), **outputs}
  found = {key: find(folder) for key, folder in folders.items()}
  items, left_out = [], {}
  for name in sorted(set().union(*found.values())):
    missing = [str(folders[key]) for key in found if name not in found[key]]
    if missing:
      left_out[name] = f'not in {", ".join(missing)}'
      continue
    files = {key: found[key][name] for key in found}
    try:
      sizes = {key: image_files.size(path) for key, path in files.items()}
    except ImageError as error:
      left_out[name] = str(error)
      continue
    small = sizes.pop(INPUT, None)
    if len(set(sizes.values())) > 1:
      text = ', '.join(f'{k} {w} x {h}' for k, (h, w) in sizes.items())
      left_out[name] = f'sizes differ: {text}'
    else:
      items.append(Item(name, files, sizes[TRUTH], small))
  if not items:
    name, reason = next(iter(left_out.items()))
    raise ImageSetError(
      f'{truth}: no image fits those of the other folders; {name}: {reason} (files '
      'belong together by their names without extensions)'
    )
  return items, left_out


def without_border(
  items: Sequence[Item], border: int
) -> tuple[list[Item], dict[str, str]]:
  """Return the items that are larger than their border, and name -> reason of others.

  Raises:
    ImageSetError: there are none.
  """
  left = [item for item in items if min(item.size) > 2 * border]
  if not left:
    side = min(min(item.size) for item in items)
    raise ImageSetError(f'--border={border} leaves nothing of images of {side} pixels')
  reason = f'--border={border} leaves nothing of it'
  return left, {i.name: reason for i in items if min(i.size) <= 2 * border}


def unmeasured(
  items: Sequence[Item], border: int, networks: Mapping[str, int]
) -> list[LeftOut]:
  """Return which images some metrics leave out, by name, and why.

  `networks` has the shortest side that each network of LPIPS or DISTS can measure.
  """
  sides = collections.Counter(h for h, w in (i.size for i in items) if h == w)
  even = {side: count for side, count in sides.items() if side % 2 == 0}
  common = max(even, key=lambda side: (even[side], side), default=0)
  window = image_metrics.SSIM_WINDOW
  rules: list[tuple[list[str], str, Callable[[Item], bool]]] = [
    (
      ['ssim', 'ssim_y'],
      f'shorter than the window of {window} pixels',
      lambda item: min(item.size) - 2 * border < window,
    ),
    (
      ['detail', 'spectrum_db'],
      f'not {common} x {common}' if common else 'no square of even sides',
      lambda item: item.size != (common, common),
    ),
  ]
  for name, least in networks.items():
    rules.append(
      ([name], f'smaller than {least} x {least}', lambda i, n=least: min(i.size) < n)
    )
  found: list[LeftOut] = []
  for metrics, reason, lacks in rules:
    if names := [item.name for item in items if lacks(item)]:
      why = (
        f'{len(names)} of {len(items)} images are left out, {reason}: {some(names)}.'
      )
      found.append({'metrics': metrics, 'why': why})
  return found


def batches(items: Sequence[Item], batch_size: int) -> Iterator[tuple[int, Batch]]:
  """Yield batches of one size each, numbered; the last of a size is padded with zeros.

  Yields:
    Number, and {key: uint8 [B, H, W, 3], 'mask': bool [B], 'index': int32 [B]}; index
    is the place in `items`, -1 for padding. An image that turns out to be broken is
    padding, too, and named in the log.
  """
  groups: dict[tuple[Size, Size | None], list[int]] = {}
  for i, item in enumerate(items):
    groups.setdefault((item.size, item.input_size), []).append(i)
  number = 0
  for _, places in sorted(groups.items(), key=str):
    for start in range(0, len(places), batch_size):
      yield number, _batch(items, places[start : start + batch_size], batch_size)
      number += 1


def _batch(items: Sequence[Item], places: Sequence[int], batch_size: int) -> Batch:
  """Read the batch of items at some places."""
  batch: Batch = {
    'index': np.full(batch_size, -1, np.int32),
    'mask': np.zeros(batch_size, bool),
  }
  for row, place in enumerate(places):
    item = items[place]
    try:
      pixels = {key: image_files.read(path) for key, path in item.files.items()}
      for key, image in pixels.items():
        # A header may promise another size, EXIF behind the pixels turn the image.
        if image.shape[:2] != (item.input_size if key == INPUT else item.size):
          raise ImageError(f'{item.files[key]}: not the size its header says')
    except ImageError as error:
      logging.warning('left out: %s', error)
      continue
    batch['index'][row], batch['mask'][row] = place, True
    for key, image in pixels.items():
      if key not in batch:
        batch[key] = np.zeros((batch_size, *image.shape), np.uint8)
      batch[key][row] = image
  return batch


def labels(path: pathlib.Path, items: Sequence[Item]) -> np.ndarray:
  """Read the class of every item, int32 [n], from lines of NAME CLASS.

  Raises:
    ImageSetError: a line is another, or there is none for an item.
  """
  found = _told(path, items, '[0-9]{1,9}', 'class')
  return np.array([int(text) for text in found], np.int32)


def photographs(path: pathlib.Path, items: Sequence[Item]) -> np.ndarray:
  """Read of which photograph each item is, int32 [n], from lines of NAME PHOTOGRAPH.

  Names of photographs hold no spaces; they are numbered in their order.

  Raises:
    ImageSetError: a line is another, or there is none for an item.
  """
  found = _told(path, items, r'\S+', 'photograph')
  return np.unique(found, return_inverse=True)[1].astype(np.int32)


def _told(
  path: pathlib.Path, items: Sequence[Item], pattern: str, what: str
) -> list[str]:
  """Return the word of each item's line NAME WORD, which has to fit the pattern."""
  found = {}
  text = foreign_files.read_text(path, error=ImageSetError, replace=True)
  for number, line in enumerate(text.splitlines(), 1):
    name, _, word = line.strip().rpartition(' ')
    if not line.strip():
      continue
    name = name.strip()
    if not re.fullmatch(pattern, word):
      raise ImageSetError(f'{path}:{number}: not "NAME {what.upper()}"')
    if found.setdefault(name, word) != word:
      raise ImageSetError(f'{path}:{number}: a second {what} for {name}')
  missing = [item.name for item in items if item.name not in found]
  if missing:
    more = f' and {len(missing) - 1} more' if missing[1:] else ''
    raise ImageSetError(
      f'{path}: no {what} for {missing[0]}{more} (names are without extensions)'
    )
  return [found[item.name] for item in items]


def fingerprint(items: Sequence[Item]) -> str:
  """Return a hash of names, sizes and times of all files; it changes if one does."""
  digest = hashlib.sha256()
  for item in items:
    for key, path in item.files.items():
      stat = path.stat()
      line = f'{item.name}\n{key}\n{stat.st_size}\n{stat.st_mtime_ns}\n'
      digest.update(os.fsencode(line))
  return digest.hexdigest()[:16]
