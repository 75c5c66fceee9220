"""Files of measurements for models of such: what `pictures` does for pictures.

Any number of channels, 8 or 16 bits or floating point, in TIFF and .npy (PNG where that
holds them). Which stored values mean -1 and 1 is the model's to say. There is no
transparency and no colour profile.
"""

import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from sr3_jax.images import image_files, picture_codec, rasters
from sr3_jax.images.picture_codec import Picture
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files

EXTENSIONS = rasters.EXTENSIONS
_DTYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}


@dataclasses.dataclass(frozen=True)
class RasterCodec:
  """Reads and writes the images of one model; its methods are those of `pictures`.

  Attributes:
    channels: how many.
    low: stored values that mean -1, one for each channel; none: those of the type.
    high: stored values that mean 1.
  """

  channels: int
  low: tuple[float, ...] = ()
  high: tuple[float, ...] = ()

  def header(
    self, source: pathlib.Path | bytes, name: str = ''
  ) -> tuple[int, int, str]:
    found = rasters.header(source, name, channels=self.channels)
    return found.height, found.width, _format(source)

  def is_transparent(self, source: pathlib.Path | bytes, name: str = '') -> bool:
    del source, name  # nothing says so
    return False

  def read(self, source: pathlib.Path | bytes, name: str = '') -> Picture:
    """Values beyond the range of the model are beyond [-1, 1]."""
    array = rasters.read(source, name, channels=self.channels)
    with image_files.errors(name or source):
      pixels = rasters.to_float(array, self.low, self.high)
    bits = 8 * array.dtype.itemsize
    return Picture(pixels, bits=bits, format=_format(source))

  def extension(self, format_: str, height: int, width: int) -> str:
    """TIFF, but of .npy and, of one or three channels, of PNG."""
    del height, width  # no limits
    kept = {'NPY': '.npy'} | ({'PNG': '.png'} if self.channels in (1, 3) else {})
    return kept.get(format_, '.tif')

  def check_sides(self, extension: str, height: int, width: int) -> None:
    del height, width
    known = ('.npy', '.tif') + ('.png',) * (self.channels in (1, 3))
    if extension not in known:
      raise ImageError(
        f'{extension} files hold no such measurements of {self.channels} channels: '
        f'use {known[-1]}'
      )

  def encode(self, picture: Picture, extension: str, settings: dict[str, Any]) -> bytes:
    """The settings are in the description of TIFF and PNG."""
    dtype = _DTYPES[picture.bits]
    array = rasters.from_float(picture.pixels, dtype, self.low, self.high)
    return rasters.encode(array, extension, picture_codec.as_text(settings))

  def write(
    self, path: pathlib.Path, picture: Picture, settings: dict[str, Any]
  ) -> None:
    """Beside a .npy file, its settings are in a .json file."""
    with image_files.errors(path):
      data = self.encode(picture, path.suffix, settings)
    beside = path.with_suffix('.json')
    if path.suffix == '.npy':  # what is there tells of another array
      with image_files.errors(beside):
        beside.unlink(missing_ok=True)
    with image_files.errors(path):
      atomic_files.write_bytes(path, data)
    if path.suffix == '.npy':
      text = json.dumps({picture_codec.KEY: settings}, indent=2)
      with image_files.errors(beside):
        atomic_files.write_bytes(beside, text.encode())

  def metadata(self, path: pathlib.Path) -> dict[str, Any] | None:
    return metadata(path)


def metadata(path: pathlib.Path) -> dict[str, Any] | None:
  """The settings of an output of ours, picture or measurement; None if it isn't one."""
  if path.suffix != '.npy':
    found = picture_codec.from_text(rasters.description(path))
    return found or picture_codec.metadata(path)
  with contextlib.suppress(Exception):
    return json.loads(path.with_suffix('.json').read_text())[picture_codec.KEY]
  if path.stem.endswith('_spread'):  # numbers, with a drawing of them
    return picture_codec.metadata(path.with_suffix('.png'))
  return None


def choose_codec(
  channels: int, value_range: tuple[np.ndarray, np.ndarray] | None, suffix: str
) -> Any:
  """What reads and writes a model's files of one kind: `pictures`, or a `RasterCodec`.

  Args:
    channels: of the model.
    value_range: of the model.
    suffix: of the file.
  """
  if needs_rasters(channels, value_range) or suffix.lower() == '.npy':
    low, high = value_range or ((), ())
    values = lambda ends: tuple(np.ravel(ends).tolist())
    return RasterCodec(channels, values(low), values(high))
  return picture_codec


def needs_rasters(
  channels: int, value_range: tuple[np.ndarray, np.ndarray] | None
) -> bool:
  """Whether images of a model are something else than pictures."""
  return channels not in (1, 3) or value_range is not None


def _format(source: pathlib.Path | bytes) -> str:
  if isinstance(source, bytes):
    start = source[:8]
  else:
    with source.open('rb') as file:
      start = file.read(8)
  if start[:6] == b'\x93NUMPY':
    return 'NPY'
  # Of the others only these are without loss.
  return 'TIFF' if start[:2] in (b'II', b'MM') else 'PNG'
