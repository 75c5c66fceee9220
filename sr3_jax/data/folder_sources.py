"""Sources of images in folders, with a class for each folder or without."""

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any, Protocol

import numpy as np
from absl import logging
from etils import epath

from sr3_jax.data import image_headers
from sr3_jax.images import image_files, pixels, rasters
from sr3_jax.runtime.errors import UserError


class DataError(UserError):
  """One line: what is wrong with a source of images, and what to do."""


class Source(Protocol):
  """What `train_batches` and `eval_batches` read from."""

  classes: tuple[str, ...]  # none: no labels
  channels: int
  dtype: Any  # of the pixels

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict[str, Any]: ...
  def name(self, index: int) -> str: ...


class Folder:
  """All images below a folder, in sorted order; labels none.

  Only headers are read here. Files whose header is broken or whose shorter side is
  below `min_size` are left out, counted and named in `left_out` and in the log; of
  rasters those with other channels, or of another type than the first, too.
  Hidden files and folders (a dot in front) and links to folders aren't followed.

  Args:
    path: local or gs://.
    min_size: shortest side of a usable image in pixels.
    max_pixels: larger images are left out.
    channels: 3 is pictures, of 8 bits in sRGB; another number is `rasters`.
    as_rasters: rasters for 3 channels, too.
    cache_folder: where headers are cached for the next start; see `image_headers.find`.
    decode_side: pixels of the shorter side of a JPEG picture that are enough; see
      `image_files.read`.

  Raises:
    DataError: no such folder, nothing in it, or nothing that can be used.
  """

  classes: tuple[str, ...] = ()

  def __init__(
    self,
    path: epath.PathLike,
    *,
    min_size: int = 1,
    max_pixels: int = image_files.MAX_PIXELS,
    channels: int = 3,
    as_rasters: bool = False,
    cache_folder: epath.Path | None = None,
    decode_side: int = 0,
  ):
    self._root = epath.Path(path)
    self._place = os.fspath(self._root)
    self._max_pixels, self._decode_side, self.channels = (
      max_pixels,
      decode_side,
      channels,
    )
    self._as_rasters = as_rasters or channels != 3
    if not self._root.is_dir():
      what = 'is a file, not a folder' if self._root.exists() else 'no such folder'
      raise DataError(f'{path}: {what}')
    try:
      self._names, self.left_out, self.dtype = image_headers.find(
        self._root,
        min_size=min_size,
        max_pixels=max_pixels,
        channels=channels if self._as_rasters else 0,
        cache_folder=cache_folder,
      )
    except OSError as error:
      raise DataError(f'{error.filename}: {error.strerror}') from None
    if not self._names and not self.left_out:
      known = ', '.join(
        rasters.EXTENSIONS if self._as_rasters else image_files.EXTENSIONS
      )
      raise DataError(f'{path}: no images in this folder ({known})')
    if self.left_out:
      some = [f'{k} ({why})' for k, why in itertools.islice(self.left_out.items(), 3)]
      more = ', ...' if len(self.left_out) > 3 else ''
      total = len(self._names) + len(self.left_out)
      summary = (
        f'{path}: {len(self.left_out)} of {total} images left out: '
        f'{", ".join(some)}{more}'
      )
      if not self._names:
        needed = f'images of at least {min_size} pixels are needed'
        raise DataError(f'{summary}; {needed}, of {channels} channel(s)')
      logging.warning('%s', summary)

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = f'{self._place}/{self._names[index]}'
    if not self._as_rasters:
      limits = {'max_pixels': self._max_pixels, 'decode_side': self._decode_side}
      return {'image': image_files.read(path, **limits)}
    image = rasters.read(path, channels=self.channels, max_pixels=self._max_pixels)
    if image.dtype != self.dtype:  # written anew since
      raise pixels.ImageError(f'{path}: {image.dtype}, others are {self.dtype}')
    return {'image': image}

  def name(self, index: int) -> str:
    return self._names[index]

  def states(self) -> Iterator[str]:
    """Name, size and time of every file."""
    state = lambda i: file_state(self._root / self._names[i], self._names[i])
    with futures.ThreadPoolExecutor(16) as pool:
      for start in range(0, len(self), 10_000):  # not a future for each at once
        yield from pool.map(state, range(start, min(start + 10_000, len(self))))


def file_state(path: epath.Path, name: str) -> str:
  """Changes when a file does: its name, size and time."""
  stat = path.stat()
  return f'{name} {stat.length} {stat.mtime}'


class ClassFolder(Folder):
  """A folder of folders, one for each class: labels are numbers of the sorted names.

  Args:
    path: local or gs://.
    **options: as of `Folder`.

  Raises:
    DataError: as `Folder`, or an image outside of the folders.
  """

  def __init__(self, path: epath.PathLike, **options: Any):
    super().__init__(path, **options)
    # Also of classes without a usable image: labels must not depend on image sizes.
    tops = {*_tops(self._names), *_tops([*self.left_out])}
    if stray := [name for name, is_folder in tops if not is_folder]:
      raise DataError(f'{path}: {min(stray)} is not in the folder of a class')
    self.classes = tuple(sorted(name for name, _ in tops))
    self._numbers = {name: np.int32(i) for i, name in enumerate(self.classes)}

  def __getitem__(self, index: int) -> dict[str, Any]:
    label = self._numbers[self._names[index].partition('/')[0]]
    return super().__getitem__(index) | {'label': label}


def _tops(names: Sequence[str]) -> Iterator[tuple[str, bool]]:
  """First parts of sorted names, each once, and whether they are folders."""
  at = 0
  while at < len(names):
    top, slash, _ = names[at].partition('/')
    yield top, bool(slash)
    # '0' follows '/': to the first name behind this folder.
    at = bisect.bisect_left(names, f'{top}0', at + 1) if slash else at + 1
