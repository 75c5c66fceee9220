"""Finds the masks of pictures and reads which pixels are missing."""

import pathlib

from sr3_jax.images import formats, picture_codec
from sr3_jax.images.pixels import ImageError
from sr3_jax.upscale.files import real

# Given instead of a file, this says that transparent pixels are missing.
ALPHA = 'alpha'


def find(where: pathlib.Path, place: pathlib.PurePath) -> pathlib.Path:
  """Return the mask of a picture: `where`, or the one in it if it is a folder.

  That is the image file with the stem and the place of the picture, which is relative
  to the folder that the picture was found in.

  Raises:
    ImageError: there is no such file, or more than one.
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
    if path.stem == place.stem and path.suffix.lower() in formats.EXTENSIONS
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
  """Return whether a file found in `root` is a mask, by --mask, and no picture."""
  if not isinstance(where, pathlib.Path):
    return False
  among = real(root) in real(where).parents
  return among and real(file).is_relative_to(real(where))


def check(path: pathlib.Path, height: int, width: int) -> None:
  """Check by its header that a mask has the size of its picture, `height` by `width`.

  Raises:
    ImageError: the sizes differ, or the mask can't be read.
  """
  have = picture_codec.header(path)[:2]
  if have != (height, width):
    raise ImageError(
      f'the mask {path} has {have[1]} x {have[0]} pixels, the picture {width} x '
      f'{height}: make them agree'
    )
