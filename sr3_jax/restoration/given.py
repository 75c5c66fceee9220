"""Reads what users give an upscaler: paths, Pillow images and arrays."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from sr3_jax.core.sr3 import SR3
from sr3_jax.images import picture_codec, pixels, raster_codec, transparency
from sr3_jax.images.picture_codec import Picture

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | ArrayLike


class Given(NamedTuple):
  """An image as it was given, without its transparency, and what belongs to it."""

  image: ImageLike  # as `inputs.as_float` takes it
  alpha: np.ndarray | None  # float32 [h, w], 0 is transparent
  like: Picture  # all but the pixels, for a file of the result


def read(image: ImageLike, model: SR3) -> Given:
  """Read an image for a model, as `Upscaler.upscale` takes it.

  A path is read as `sr3-upscale` does, of several frames the first. A Pillow image is
  turned upright. For models of pictures, arrays of integers may have transparency as
  their last of 2 or 4 channels.

  Raises:
    ImageError: a file can't be read.
  """
  kind = model.input_channels, model.input_range
  if isinstance(image, str | os.PathLike):
    path = pathlib.Path(image).expanduser()
    picture = raster_codec.choose_codec(*kind, path.suffix).read(path)
    return _of(picture)
  if raster_codec.needs_rasters(*kind):
    return Given(image, None, _nothing(_bits(image)))
  if isinstance(image, Image.Image):
    return _of(picture_codec.from_pillow(image))
  array = np.asarray(image)
  integers = array.dtype in (np.uint8, np.uint16)
  if integers and array.ndim == 3 and array.shape[-1] in (2, 4) and array.size:
    stored = Picture(pixels.to_float(array[..., :-1]), bits=_bits(array))
    alpha = (pixels.to_float(array[..., -1]) + 1) / 2
    return Given(stored.pixels, alpha, _nothing(stored.bits))
  return Given(image, None, _nothing(_bits(array)))


def visible(image: ImageLike, alpha: np.ndarray | None) -> ImageLike:
  """Return an image in which nothing is left of what transparency hides."""
  if alpha is None:
    return image
  return transparency.extend_colours(np.asarray(image), alpha)


def enlarge_alpha(
  alpha: np.ndarray, margins: Sequence[int], size: tuple[int, int]
) -> np.ndarray:
  """Return the transparency of an output, [H, W].

  Args:
    alpha: of the input, [h, w] in [0, 1].
    margins: what is added to the input: above, on the right, below, on the left.
    size: of the output, height and width.
  """
  top, right, bottom, left = margins
  around = (top, bottom), (left, right)
  alpha = np.pad(alpha, around, constant_values=1.0)
  return picture_codec.resize_alpha(alpha, *size)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
  """Read a mask: bool [h, w], True where pixels are missing.

  Those are the pixels brighter than half. Transparent ones are known, whatever their
  colour is.

  Raises:
    ImageError: the file can't be read.
  """
  picture = picture_codec.read(pathlib.Path(path).expanduser())
  light = (picture.pixels.mean(-1) + 1) / 2
  return light * (1 if picture.alpha is None else picture.alpha) > 0.5


def _of(picture: Picture) -> Given:
  """Return a picture as a given image."""
  like = Picture(
    _NONE, None, picture.bits, picture.icc, picture.metadata, picture.format
  )
  return Given(picture.pixels, picture.alpha, like)


def _nothing(bits: int) -> Picture:
  """Return what belongs to an image of which only its type is known."""
  return Picture(_NONE, bits=bits)


def _bits(image: ImageLike) -> int:
  """Return the bits in which a result is saved: the input's, 8 for pictures of floats.

  `Picture.bits` of 32 are floating point, which only rasters have.
  """
  return {1: 8, 2: 16}.get(np.asarray(image).dtype.itemsize, 32)


_NONE = np.empty((0, 0, 1), np.float32)
