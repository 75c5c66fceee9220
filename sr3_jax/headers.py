"""Which files of a folder can be used, judged by their headers alone."""

import functools
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath

from sr3_jax import images, rasters


class Usable(NamedTuple):
  """What `find` found.

  Attributes:
    names: relative to the folder, sorted.
    left_out: the others, name -> why.
    dtype: of the pixels of all `names`.
  """

  names: list[str]
  left_out: dict[str, str]
  dtype: np.dtype


def find(root: epath.Path, *, min_size: int, max_pixels: int, channels: int) -> Usable:
  """All images below a folder that can be used, and why the others can't.

  Hidden files and folders (a dot in front) and links to folders aren't followed.

  Args:
    root: the folder.
    min_size: shortest side of a usable image in pixels.
    max_pixels: larger images are left out.
    channels: 0 for pictures, as `images.read` shows them; another number for rasters
      of so many channels, all of the type of the first.

  Raises:
    OSError: a folder that can't be read.
  """
  names = sorted(_walk(root, rasters.EXTENSIONS if channels else images.EXTENSIONS))
  if len(names) > 20_000:  # about 4,000 a second
    logging.info('%s: reading the headers of %d images', root, len(names))
  check = functools.partial(
    _header, root, min_size=min_size, max_pixels=max_pixels, channels=channels
  )
  found: list[np.dtype | str] = []
  with futures.ThreadPoolExecutor(16) as pool:
    # In portions: a future for each of a million files would be a gigabyte.
    for start in range(0, len(names), 10_000):
      found.extend(pool.map(check, names[start : start + 10_000]))
  first = next((kind for kind in found if not isinstance(kind, str)), np.dtype('uint8'))
  left_out = {}
  for name, kind in zip(names, found, strict=True):
    if kind != first:
      left_out[name] = kind if isinstance(kind, str) else f'{kind}, others are {first}'
  return Usable([name for name in names if name not in left_out], left_out, first)


def _walk(root: epath.Path, extensions: tuple[str, ...]) -> Iterator[str]:
  """Names of the images below a folder, relative to it."""

  def refuse(error: OSError):
    raise error

  for folder, folders, files in root.walk(on_error=refuse):
    folders[:] = [name for name in folders if not name.startswith('.')]
    place = folder.relative_to(root)
    for name in files:
      if name.lower().endswith(extensions) and not name.startswith('.'):
        yield str(place / name)


def _header(
  root: epath.Path, name: str, *, min_size: int, max_pixels: int, channels: int
) -> np.dtype | str:
  """The type of the pixels of a file, or why it can't be used."""
  path = root / name
  dtype = np.dtype(np.uint8)
  try:
    if channels:
      found = rasters.header(path, channels=channels, max_pixels=max_pixels)
      height, width, _, dtype = found
    else:
      height, width = images.size(path, max_pixels=max_pixels)
  except images.ImageError as error:
    return str(error).removeprefix(f'{path}: ')
  return f'{width} x {height} pixels' if min(height, width) < min_size else dtype
