"""Reads and writes rasters: images of any number of channels, with their own values.

`image_files` turns every file into a picture: 8 bits, sRGB. Microscopes, scanners and
satellites measure instead: two stains, thirteen bands, 16 bits, floating point. Their
files are NumPy files, TIFFs (of pages, planes or samples; ImageJ's and OME's too) and
16-bit PNGs. Here the numbers of such a file stay as they are. Two stored values for
each channel say what the numbers mean for a network: see `to_float`.
"""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from etils import epath

from sr3_jax.images import formats, image_files, sixteen_bit
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images.image_files import Source
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files

if TYPE_CHECKING:  # imported where a file needs it
  import tifffile

EXTENSIONS = (*formats.EXTENSIONS, '.npy')
DESCRIPTION = 'Description'  # the keyword of a description in PNG files
WRITABLE = ('.npy', '.tif', '.tiff', '.png')
# The types of pixels, in arrays here and in files that we write.
DTYPES = (np.uint8, np.uint16, np.float32)

# Types that become float32, all but float64 without a change of value.
_FLOATS = ('float16', 'float32', 'float64', 'int8', 'int16')
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; palettes have no 16 bits
# Axes of a TIFF that may be channels: channels, samples, and a sequence of pages that
# has no name. Depth and time are never channels.
_CHANNEL_AXES = 'CSIQ'

Values = Sequence[float] | np.ndarray  # one for each channel, or none
Load = Callable[[], np.ndarray]


class Header(NamedTuple):
  """The shape and type of what `read` will return, known before decoding."""

  height: int
  width: int
  channels: int
  dtype: np.dtype  # one of DTYPES


def read(source: Source, name: str = '', *, channels: int | None = None) -> np.ndarray:
  """Read .npy [H, W] or [H, W, C], a TIFF of one image, PNG, or another picture.

  Values stay as they are; signed and wider numbers become float32. 8-bit colour
  pictures (JPEG, WebP and so on) are read as `image_files.read` does, as grey if one
  channel is asked for.

  Args:
    source: a path, local or gs://, or the bytes of a file.
    name: what errors call it.
    channels: how many there must be; None takes any number.

  Returns:
    uint8, uint16 or float32 [H, W, C].

  Raises:
    ImageError: the file can't be read, has another number of channels, or values that
      aren't finite, or its header claims more than `image_files.MAX_PIXELS` or four
      times as many values.
  """
  with _opened(source, name, channels) as (found, load):
    with np.errstate(over='ignore'):  # float64 may become infinite: refused below
      array = np.ascontiguousarray(load(), found.dtype)
    if array.shape != found[:3]:
      raise ImageError(f'holds {array.shape}, its header says {found[:3]}')
    if array.dtype == np.float32 and not np.isfinite(array).all():
      count = np.count_nonzero(~np.isfinite(array))
      raise ImageError(f'{count} values are not finite (NaN?): fill them first')
    return array


def header(source: Source, name: str = '', *, channels: int | None = None) -> Header:
  """Return shape and type of what `read` returns, from the header of the file only.

  Raises:
    ImageError: as `read`, as far as the header shows it.
  """
  with _opened(source, name, channels) as (found, _):
    return found


def write(path: epath.PathLike, array: np.ndarray, description: str = '') -> None:
  """Write a file, local or gs://, as `encode` makes it; it appears when it is complete.

  Raises:
    ImageError: as `encode`; a place that can't be written.
  """
  path = epath.Path(path)
  with image_files.errors(path):
    data = encode(array, path.suffix.lower(), description)
    atomic_files.write_bytes(path, data)


def encode(array: np.ndarray, extension: str, description: str = '') -> bytes:
  """Return the bytes of a file of which `read` makes the same array.

  Args:
    array: uint8, uint16 or float32 [H, W, C]; PNG has no float, and C = 1 or 3 only.
    extension: one of WRITABLE. TIFFs are deflated, a pixel's channels side by side.
    description: a text that TIFF and PNG files hold; .npy files have no place for it.

  Raises:
    ImageError: an unknown extension, or an array that such files don't hold.
  """
  if extension not in WRITABLE:
    raise ImageError(f'cannot write {extension!r} files, only {", ".join(WRITABLE)}')
  if array.ndim != 3 or array.dtype not in DTYPES or not array.size:
    raise ImageError(f'not an image: {array.dtype} array of shape {array.shape}')
  channels = array.shape[-1]
  if extension == '.png':
    if array.dtype == np.float32 or channels not in (1, 3):
      raise ImageError(f'PNG has no {array.dtype} of {channels} channels: use .tif')
    pixels = array if channels == 3 else array[..., 0]
    return sixteen_bit.encode_png(pixels, {DESCRIPTION: description})
  if extension == '.npy':
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
  return sixteen_bit.deflate_tiff(
    array, photometric='minisblack', description=description
  )


def to_float(array: np.ndarray, low: Values = (), high: Values = ()) -> np.ndarray:
  """Convert stored values to float32, `low` to -1 and `high` to 1; clip nothing.

  Args:
    array: [..., C].
    low: the stored value that means -1, for each channel. If `low` and `high` are empty
      they are the ends of the integer type.
    high: the stored value that means 1, for each channel.

  Raises:
    ImageError: floating point without `low` and `high`.
  """
  bottom, top = _range(array.dtype, low, high)
  return (array.astype(np.float32) - bottom) * (2 / (top - bottom)) - 1


def from_float(
  image: np.ndarray, dtype: npt.DTypeLike, low: Values = (), high: Values = ()
) -> np.ndarray:
  """Invert `to_float`: convert float [..., C] to one of DTYPES.

  Integers are rounded, and clipped to their type.

  Raises:
    ImageError: as `to_float`.
  """
  stored: np.dtype = np.dtype(dtype)
  bottom, top = _range(stored, low, high)

  def convert(part: np.ndarray) -> np.ndarray:
    # In float64, because float32 may round half a level of 16 bits wrong.
    array = (part.astype(np.float64) + 1) * ((top - bottom) / 2) + bottom
    if stored.kind == 'u':
      array = np.clip(np.round(array), 0, np.iinfo(stored).max)
    return array

  return images_pixels.by_parts(convert, image, stored)


def _range(dtype: np.dtype, low: Values, high: Values) -> tuple[np.ndarray, np.ndarray]:
  """Return the stored values that mean -1 and 1, float32 [C] or one for all."""
  if not len(low) and not len(high):
    if dtype.kind != 'u':
      raise ImageError(
        f'{dtype} values have no range of their own: say what is -1 and 1 by data.low '
        'and data.high (sr3-channels finds them)'
      )
    return np.array(0, np.float32), np.array(np.iinfo(dtype).max, np.float32)
  return np.asarray(low, np.float32), np.asarray(high, np.float32)


@contextlib.contextmanager
def _opened(
  source: Source, name: str, channels: int | None
) -> Iterator[tuple[Header, Load]]:
  """Open a file: yield its header, checked, and a function that loads its pixels."""
  with contextlib.ExitStack() as stack:
    stack.enter_context(image_files.errors(source, name))
    file = stack.enter_context(image_files.open_source(source))
    start = file.read(26)
    found = None
    if start[:6] == b'\x93NUMPY':
      found = _npy(file)
    elif sixteen_bit.is_tiff(file):
      tiff = stack.enter_context(sixteen_bit.open_tiff(file))
      found = _tiff(tiff, channels)
    elif start[:8] == b'\x89PNG\r\n\x1a\n' and start[24:25] == b'\x10':
      found = _png(file, start[25])
    shape, _ = found = found or _picture(file, channels)
    image_files.check_size(shape.width, shape.height)
    if math.prod(shape[:3]) > 4 * image_files.MAX_PIXELS:
      raise ImageError(
        f'{shape.width} x {shape.height} pixels of {shape.channels} channels are more '
        f'than the limit of {4 * image_files.MAX_PIXELS / 1e6:.0f} million values'
      )
    if channels not in (None, shape.channels):
      raise ImageError(f'{shape.channels} channel(s), {channels} are needed')
    yield found


def _npy(file: IO[bytes]) -> tuple[Header, Load]:
  """Return the header of a NumPy file [H, W] or [H, W, C], and its loader."""
  file.seek(0)
  if np.lib.format.read_magic(file) == (1, 0):
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
  else:
    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
  if len(shape) not in (2, 3) or 0 in shape:
    raise ImageError(f'an array of shape {shape}, not [H, W] or [H, W, C]')
  height, width, *channels = shape
  found = Header(height, width, channels[0] if channels else 1, _stored(dtype))
  begin = file.tell()
  if file.seek(0, os.SEEK_END) - begin < math.prod(shape) * dtype.itemsize:
    raise ImageError('truncated')

  def load() -> np.ndarray:
    file.seek(0)
    return np.load(file, allow_pickle=False).reshape(found[:3])

  return found, load


def _png(file: IO[bytes], colour: int) -> tuple[Header, Load]:
  """Return the header of a 16-bit PNG file, alpha included, and its loader."""
  file.seek(0)
  with image_files.open_image(file) as image:
    width, height = image.size
  found = Header(height, width, _PNG_CHANNELS[colour], np.dtype(np.uint16))

  def load() -> np.ndarray:
    file.seek(0)
    return sixteen_bit.read_png(file.read())

  return found, load


def _tiff(
  tiff: 'tifffile.TiffFile', channels: int | None
) -> tuple[Header, Load] | None:
  """Return the header of a TIFF's first image, and its loader; None for a picture."""
  page, series = tiff.pages.first, tiff.series[0]
  if page.photometric not in sixteen_bit.PLAIN or page.bitspersample in range(8):
    return None  # palettes, YCbCr, fax
  axes, shape = series.axes, series.shape
  others = [i for i, a in enumerate(axes) if a not in 'YX' and shape[i] > 1]
  if axes.count('Y') != 1 or axes.count('X') != 1:
    raise ImageError(f'not an image: a TIFF with axes {axes}, {shape}')
  if len(others) > 1 or any(axes[i] not in _CHANNEL_AXES for i in others):
    raise ImageError(
      f'a stack with axes {axes}, {shape}: write one file for each image [H, W, C]'
    )
  at = [axes.index('Y'), axes.index('X'), *others]
  height, width, count = [*(shape[i] for i in at), 1][:3]
  like_picture = page.photometric == sixteen_bit.RGB or count == 1
  convertible = series.dtype == np.uint8 and like_picture and channels in (1, 3)
  if convertible and count != channels:
    return None  # a picture is read in colour or in grey, whichever is wanted
  # A tile is decoded as a whole, even if only a part of it lies in the image.
  tile = page.tilewidth * page.tilelength * max(1, page.tiledepth)
  if page.is_tiled and tile > image_files.MAX_PIXELS:
    raise ImageError(f'tiles of {page.tilewidth} x {page.tilelength} pixels')
  orientation = sixteen_bit.orientation(page)
  sides = (width, height) if orientation >= 5 else (height, width)  # quarter turns
  found = Header(*sides, count, _stored(series.dtype))

  def load() -> np.ndarray:
    array = series.asarray()
    array = array.transpose(at + [i for i in range(array.ndim) if i not in at])
    array = array.reshape(height, width, count)
    if page.photometric == sixteen_bit.WHITE_IS_ZERO and array.dtype.kind == 'u':
      array = np.iinfo(array.dtype).max - array
    return sixteen_bit.upright(array, orientation)

  return found, load


def _picture(file: IO[bytes], channels: int | None) -> tuple[Header, Load]:
  """Return the header of a picture as 8 bits of 1 or 3 channels, and its loader."""
  file.seek(0)
  with image_files.open_image(file) as image:
    sides = image_files.upright_size(image)
    own = 1 if image.mode in ('1', 'L', 'LA', 'La') else 3
  count = channels if channels in (1, 3) else own

  def load() -> np.ndarray:
    file.seek(0)
    return image_files.decode(file.read(), count)

  return Header(*sides, count, np.dtype(np.uint8)), load


def _stored(dtype: np.dtype) -> np.dtype:
  """Return the type that `read` gives to pixels which a file holds as `dtype`."""
  name = dtype.newbyteorder('=').name
  if name in ('uint8', 'uint16'):
    return np.dtype(name)
  if name not in _FLOATS:
    raise ImageError(f'{name} values: only uint8, uint16, int16 and floating point')
  return np.dtype(np.float32)
