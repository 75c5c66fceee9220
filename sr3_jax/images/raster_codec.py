"""Chooses how `sr3-upscale` reads and writes a file, and does so for rasters.

Pictures are left to `picture_codec`. A raster has any number of channels of 8 or 16
bits or floating point, in TIFF and .npy (and PNG where that holds them). The model says
which stored values mean -1 and 1. Rasters have no transparency and no colour profile.
"""

import contextlib
import dataclasses
import pathlib
from typing import Protocol

import numpy as np

from sr3_jax.images import formats, image_files, picture_codec, rasters
from sr3_jax.images.picture_codec import Header, Picture, Settings
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files, foreign_files

# Values of every channel.
Ends = tuple[float, ...]


class Codec(Protocol):
  """A reader and writer of files of one kind: `picture_codec` or a `RasterCodec`."""

  def header(self, source: pathlib.Path | bytes, name: str = '') -> Header:
    """Read the header of a file only."""

  def read(self, source: pathlib.Path | bytes, name: str = '') -> Picture:
    """Read a file, or the bytes of one that errors call `name`."""

  def extension(self, format_: str, height: int, width: int) -> str:
    """Return the extension under which such an image is written."""

  def check_sides(self, extension: str, height: int, width: int) -> None:
    """Refuse what files with this extension can't hold."""

  def encode(self, picture: Picture, extension: str, settings: Settings) -> bytes:
    """Return the bytes of a file that holds a picture and what made it."""

  def write(self, path: pathlib.Path, picture: Picture, settings: Settings) -> None:
    """Write a file as `encode` makes it; it appears when it is complete."""


@dataclasses.dataclass(frozen=True)
class RasterCodec:
  """A `Codec` of the rasters of one model."""

  channels: int
  # The stored values that mean -1 and 1, for each channel. If both are empty, they are
  # the ends of the file's type.
  low: Ends = ()
  high: Ends = ()
  # Whether all that is written is floating point, whatever the input was.
  floating: bool = False

  def header(self, source: pathlib.Path | bytes, name: str = '') -> Header:
    """Read the header of a raster only; it is never transparent."""
    found = rasters.header(source, name, channels=self.channels)
    return Header(found.height, found.width, _format(source), False)

  def read(self, source: pathlib.Path | bytes, name: str = '') -> Picture:
    """Read a raster; values beyond the range of the model are beyond [-1, 1]."""
    array = rasters.read(source, name, channels=self.channels)
    with image_files.errors(source, name):
      pixels = rasters.to_float(array, self.low, self.high)
    return Picture(pixels, bits=8 * array.itemsize, format=_format(source))

  def extension(self, format_: str, height: int, width: int) -> str:
    """Return .npy for .npy, .png for PNG of one or three channels, else .tif."""
    del height, width  # these formats have no limits
    if format_ == 'NPY':
      return '.npy'
    return '.png' if format_ != 'TIFF' and self._has_png else '.tif'

  @property
  def _has_png(self) -> bool:
    """Whether PNG can hold the outputs."""
    return self.channels in (1, 3) and not self.floating

  def check_sides(self, extension: str, height: int, width: int) -> None:
    """Refuse extensions of files that can't hold so many channels."""
    del height, width
    known = ['.npy', '.tif', *(['.png'] if self._has_png else [])]
    if extension not in known:
      what = f'rasters of {self.channels} channels'
      what += ' of floating point' if self.floating else ''
      raise ImageError(f'{extension} files hold no {what}: use {known[-1]}')

  def encode(self, picture: Picture, extension: str, settings: Settings) -> bytes:
    """Return the bytes of a file; TIFF and PNG hold the settings as description."""
    dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}[picture.bits]
    if self.floating:
      dtype = np.float32
    elif not self.low and dtype == np.float32:  # outputs of another kind than inputs
      dtype = np.uint16
    array = rasters.from_float(picture.pixels, dtype, self.low, self.high)
    return rasters.encode(array, extension, picture_codec.as_text(settings))

  def write(self, path: pathlib.Path, picture: Picture, settings: Settings) -> None:
    """Write a file; the settings of a .npy file are in a .json file beside it."""
    with image_files.errors(path):
      ending = formats.written_as(path.suffix) or path.suffix
      data = self.encode(picture, ending, settings)
      beside = path.with_suffix('.json')
      if ending == formats.ARRAY:
        # An old .json file describes another array: it must not stand beside this one.
        beside.unlink(missing_ok=True)
      atomic_files.write_bytes(path, data)
      if ending == formats.ARRAY:
        atomic_files.write_json(beside, {picture_codec.KEY: settings})


def metadata(path: pathlib.Path) -> Settings | None:
  """Return the settings of an output, picture or raster; None if it has none."""
  if path.suffix.lower() != formats.ARRAY:
    return picture_codec.metadata(path)
  with contextlib.suppress(Exception):
    return foreign_files.read_json(path.with_suffix('.json'))[picture_codec.KEY]
  if path.stem.endswith('_spread'):  # an array without settings, beside its drawing
    return picture_codec.metadata(path.with_suffix('.png'))
  return None


def choose_codec(
  channels: int,
  value_range: tuple[np.ndarray, np.ndarray] | None,
  suffix: str,
  *,
  floating: bool = False,
) -> Codec:
  """Return what reads and writes a file for a model.

  Args:
    channels: of the model.
    value_range: stored values that mean -1 and 1 to the model; None for pictures.
    suffix: of the file; models of pictures read .npy files, too.
    floating: whether calibrated values are written as floating point, because the type
      of an input says nothing about that of outputs.
  """
  if not needs_rasters(channels, value_range) and suffix.lower() != '.npy':
    return picture_codec
  floating &= value_range is not None
  return RasterCodec(channels, *_ends(value_range), floating)


def _ends(value_range: tuple[np.ndarray, np.ndarray] | None) -> tuple[Ends, Ends]:
  """Return what means -1 and 1 as a `RasterCodec` takes it."""
  low, high = value_range or ((), ())
  return tuple(np.ravel(low).tolist()), tuple(np.ravel(high).tolist())


def needs_rasters(
  channels: int, value_range: tuple[np.ndarray, np.ndarray] | None
) -> bool:
  """Return whether images of a model are something else than pictures."""
  return channels not in (1, 3) or value_range is not None


def _format(source: pathlib.Path | bytes) -> str:
  """Return 'NPY', 'TIFF', or 'PNG' for every other file."""
  with image_files.open_source(source) as file:
    start = file.read(8)
  if start[:6] == b'\x93NUMPY':
    return 'NPY'
  # The other formats that can be read lose values, so such images are written as PNG.
  return 'TIFF' if start[:2] in (b'II', b'MM') else 'PNG'
