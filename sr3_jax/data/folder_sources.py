"""Reads images from a folder, with a class for each folder in it or without classes."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np
from absl import logging
from etils import epath

from sr3_jax.data.image_headers import find_usable
from sr3_jax.data.records import DataError, Record
from sr3_jax.images import folder_listing, formats, image_files, pixels, rasters
from sr3_jax.runtime import foreign_files


class Folder:
  """A source of all images below a folder, in sorted order, without labels.

  Only headers are read at first. Files whose header is broken or whose shorter side is
  below `min_size` are left out, counted, and named in `left_out` and in the log. So are
  rasters whose number of channels or type differs from the first one's. Hidden files
  and folders (a dot in front) are passed over; linked folders are read, each once.

  Args:
    path: local or gs://.
    min_size: shortest side of a usable image in pixels.
    channels: 3 reads pictures of 8 bits in sRGB; another number reads `rasters`.
    as_rasters: read rasters if there are 3 channels, too.
    cache_folder: where headers are cached; see `image_headers.find_usable`.
    decode_side: how a JPEG picture may be decoded; see `image_files.read`.

  Attributes:
    root: the folder.
    left_out: name -> reason of every file that can't be used.
    passed: kind -> number of files that are no images by their names.

  Raises:
    DataError: no such folder, nothing in it, or nothing that can be used.
  """

  def __init__(
    self,
    path: epath.PathLike,
    *,
    min_size: int = 1,
    channels: int = 3,
    as_rasters: bool = False,
    cache_folder: epath.Path | None = None,
    decode_side: int = 0,
  ):
    self.root = foreign_files.place(path)
    self.channels, self._decode_side = channels, decode_side
    self._as_rasters = as_rasters or channels != 3
    if not self.root.is_dir():
      what = 'is a file, not a folder' if self.root.exists() else 'no such folder'
      raise DataError(f'{path}: {what}')
    raster_channels = channels if self._as_rasters else 0
    try:
      found = find_usable(self.root, min_size, raster_channels, cache_folder)
    except OSError as error:
      raise DataError(f'{error.filename}: {error.strerror}') from None
    self._names, self.left_out, self.dtype, self.passed = found
    if not self._names and not self.left_out:
      kinds = rasters.EXTENSIONS if self._as_rasters else formats.EXTENSIONS
      there = folder_listing.describe(self.passed)
      there = f'; passed over: {there}' if there else ''
      raise DataError(f'{path}: no images in this folder ({", ".join(kinds)}){there}')
    if self.passed:
      logging.info('%s: passed over: %s', path, folder_listing.describe(self.passed))
    if self.left_out:
      # The reasons of the first three: there may be as many as files.
      first = itertools.islice(self.left_out.items(), 3)
      shown = ', '.join(f'{name} ({reason})' for name, reason in first)
      shown += ', ...' if len(self.left_out) > 3 else ''
      total = len(self._names) + len(self.left_out)
      summary = f'{path}: {len(self.left_out)} of {total} images left out: {shown}'
      if not self._names:
        needed = f'images of at least {min_size} pixels are needed'
        raise DataError(f'{summary}; {needed}, of {channels} channel(s)')
      logging.warning('%s', summary)
    self.classes = self._find_classes()

  def _find_classes(self) -> tuple[str, ...]:
    return ()

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> Record:
    path = f'{self.root}/{self._names[index]}'
    if not self._as_rasters:
      return {'image': image_files.read(path, decode_side=self._decode_side)}
    image = rasters.read(path, channels=self.channels)
    if image.dtype != self.dtype:  # the file changed since its header was read
      raise pixels.ImageError(f'{path}: {image.dtype}, others are {self.dtype}')
    return {'image': image}

  def name(self, index: int) -> str:
    """Return the path of an image relative to the folder."""
    return self._names[index]

  def states(self) -> Iterator[str]:
    """Yield `file_state` of every file."""
    with futures.ThreadPoolExecutor(16) as pool:
      for start in range(0, len(self), 10_000):  # a future for each at once is too much
        numbers = range(start, min(start + 10_000, len(self)))
        yield from pool.map(self._state, numbers)

  def _state(self, index: int) -> str:
    return file_state(self.root / self._names[index], self._names[index])


def file_state(path: epath.Path, name: str) -> str:
  """Return a text that changes when a file does: its name, size and time."""
  stat = path.stat()
  return f'{name} {stat.length} {stat.mtime}'


class ClassFolder(Folder):
  """A folder with one folder for each class; labels are numbers of the sorted names.

  Arguments and errors are those of `Folder`. An image outside of the class folders is
  an error, too.
  """

  def _find_classes(self) -> tuple[str, ...]:
    # Classes without a usable image count: labels must not depend on image sizes.
    tops = {*_first_parts(self._names), *_first_parts([*self.left_out])}
    if stray := [name for name, is_folder in tops if not is_folder]:
      raise DataError(f'{self.root}: {min(stray)} is not in the folder of a class')
    classes = tuple(sorted(name for name, _ in tops))
    self._labels = {name: np.int32(i) for i, name in enumerate(classes)}
    return classes

  def __getitem__(self, index: int) -> Record:
    label = self._labels[self._names[index].partition('/')[0]]
    return {'image': super().__getitem__(index)['image'], 'label': label}


def _first_parts(names: Sequence[str]) -> Iterator[tuple[str, bool]]:
  """Yield the first part of sorted names, each once, and whether it is a folder."""
  at = 0
  while at < len(names):
    top, slash, _ = names[at].partition('/')
    yield top, bool(slash)
    # '0' follows '/' in ASCII: this finds the first name behind the folder.
    at = bisect.bisect_left(names, f'{top}0', at + 1) if slash else at + 1
