"""Which mask belongs to which picture, and what it says (layer 1: on pictures)."""

import pathlib

import numpy as np

from sr3_jax.images import image_files, picture_codec
from sr3_jax.images.pixels import ImageError

# Instead of a file: what is transparent is missing.
ALPHA = 'alpha'


def find(where: pathlib.Path, place: pathlib.PurePath) -> pathlib.Path:
  """The mask of a picture.

  Args:
    where: a file, the mask of all pictures; or a folder of masks.
    place: of the picture, below the folder that it was found in.

  Returns:
    `where`, or the one image file in it with the place and stem of the picture.

  Raises:
    ImageError: there is none, or more than one.
  """
  if not where.is_dir():
    if not where.exists():
      raise ImageError(f'{where}: no such file or folder')
    return where
  folder = where / place.parent
  there = sorted(folder.iterdir()) if folder.is_dir() else []
  found = [
    path
    for path in there
    if path.stem == place.stem and path.suffix.lower() in image_files.EXTENSIONS
  ]
  if len(found) != 1:
    names = ' and '.join(path.name for path in found)
    wanted = f'{where / place.with_suffix("")}.png'
    raise ImageError(
      f'{folder} has {names}: which is the mask?' if found else f'no mask {wanted}'
    )
  return found[0]


def is_mask(
  file: pathlib.Path, root: pathlib.Path, where: pathlib.Path | str | None
) -> bool:
  """Whether a file, found in the folder `root`, is a mask and no picture."""
  if not isinstance(where, pathlib.Path):
    return False
  among = root.resolve() in where.resolve().parents
  return among and file.resolve().is_relative_to(where.resolve())


def check(path: pathlib.Path, height: int, width: int) -> None:
  """Refuses a mask of another size than its picture's, by its header.

  Raises:
    ImageError: the sizes differ, or it can't be read.
  """
  have = picture_codec.header(path)[:2]
  if have != (height, width):
    raise ImageError(
      f'the mask {path} has {have[1]} x {have[0]} pixels, the picture {width} x '
      f'{height}: make them agree'
    )


def read(path: pathlib.Path) -> np.ndarray:
  """A mask: bool [h, w], True (what is brighter than half) is missing.

  Transparent parts are known, whatever colour is below.

  Raises:
    ImageError: it can't be read.
  """
  picture = picture_codec.read(path)
  light = (picture.pixels.mean(-1) + 1) / 2
  return light * (1 if picture.alpha is None else picture.alpha) > 0.5


def of_alpha(alpha: np.ndarray, must: bool) -> np.ndarray | None:
  """What is missing where transparency [h, w] in [0, 1], 0 transparent, tells: bool.

  Args:
    alpha: of the picture.
    must: whether something has to be missing.

  Returns:
    The mask, or None where nothing is missing.

  Raises:
    ImageError: nothing is that must be.
  """
  mask = alpha < 0.5
  if must and not mask.any():
    raise ImageError('no pixel of it is transparent, so none is missing: give --mask')
  return mask if mask.any() else None
