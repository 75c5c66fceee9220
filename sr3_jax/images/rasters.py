"""Images of any number of channels, with the values that a file holds (layer 1).

`images` makes a picture of every file: 8 bits, sRGB. Microscopes, scanners and
satellites measure instead: two stains, thirteen bands, 16 bits, floating point. Those
are NumPy files, TIFFs (of pages, planes or samples; ImageJ's and OME's too) and 16-bit
PNGs, and their numbers are kept. What they mean for a network is said apart from them,
per channel, by two stored values: see `to_float`.
"""

import contextlib
import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from etils import epath

from sr3_jax.images import image_files, sixteen_bit
from sr3_jax.images.image_files import MAX_PIXELS
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files

EXTENSIONS = (*image_files.EXTENSIONS, '.npy')
WRITABLE = ('.npy', '.tif', '.tiff', '.png')
# What pixels are stored as, here and in files that we write.
DTYPES = (np.uint8, np.uint16, np.float32)

# Becomes float32: exactly, but for float64.
_FLOATS = ('float16', 'float32', 'float64', 'int8', 'int16')
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type; palettes have no 16 bits
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # TIFF's photometric interpretations
# Axes of a TIFF that may be channels: channels, samples, and those nobody named (a
# sequence of pages). Depth and time are not.
_CHANNEL_AXES = 'CSIQ'

Source = epath.PathLike | bytes
Load = Callable[[], np.ndarray]


class Header(NamedTuple):
  """What `read` will return, known before a pixel is decoded."""

  height: int
  width: int
  channels: int
  dtype: np.dtype  # one of DTYPES


def read(
  source: Source,
  name: str = '',
  *,
  channels: int | None = None,
  max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
  """Reads .npy [H, W] or [H, W, C], TIFF of one image, PNG; and other pictures.

  Values stay as they are. Signed and wider numbers become float32. 8-bit colour
  pictures (JPEG, WebP and so on) are read as `images.read` does, as grey if one channel
  is asked for.

  Args:
    source: a path, local or gs://, or the bytes of a file.
    name: what errors call it.
    channels: how many there must be; None takes what there is.
    max_pixels: larger images are refused from their header; so are those of more than
      4 * max_pixels values.

  Returns:
    uint8, uint16 or float32 [H, W, C].

  Raises:
    ImageError: the file can't be read, has another number of channels, or values that
      aren't finite.
  """
  name = name or _name(source)
  with _opened(source, name, channels, max_pixels) as (found, load):
    with np.errstate(over='ignore'):  # infinite: said below
      array = np.ascontiguousarray(load(), found.dtype)
    if array.shape != found[:3]:
      raise ImageError(f'holds {array.shape}, its header says {found[:3]}')
    if array.dtype == np.float32 and not np.isfinite(array).all():
      count = np.count_nonzero(~np.isfinite(array))
      raise ImageError(f'{count} values are not finite (NaN?): fill them first')
    return array


def header(
  source: Source,
  name: str = '',
  *,
  channels: int | None = None,
  max_pixels: int = MAX_PIXELS,
) -> Header:
  """What `read` with the same arguments returns, from the header only.

  Raises:
    ImageError: as `read`, as far as the header shows it.
  """
  with _opened(source, name or _name(source), channels, max_pixels) as (found, _):
    return found


def size(source: Source, name: str = '') -> tuple[int, int]:
  """(height, width) of an image as `read` returns it, from its header only.

  Raises:
    ImageError: as `header`.
  """
  return header(source, name)[:2]


def write(path: epath.PathLike, array: np.ndarray, description: str = '') -> None:
  """`encode` into a file that appears only when it is complete; makes folders.

  Raises:
    ImageError: as `encode`; a place that can't be written.
  """
  path = epath.Path(path)
  with image_files.errors(path):
    data = encode(array, path.suffix.lower(), description)
    atomic_files.write_bytes(path, data)


def encode(array: np.ndarray, extension: str, description: str = '') -> bytes:
  """The bytes of a file that `read` makes the same array of.

  Args:
    array: uint8, uint16 or float32 [H, W, C]; PNG has no float, and C = 1 or 3 only.
    extension: one of WRITABLE. TIFFs are deflated, a pixel's channels side by side.
    description: a text that `description` finds again; .npy has no place for one.

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
    return sixteen_bit.encode_png(pixels, {'Description': description}, None, None)
  buffer = io.BytesIO()
  if extension == '.npy':
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
  import tifffile

  tifffile.imwrite(
    buffer,
    array if channels > 1 else array[..., 0],
    photometric='minisblack',
    planarconfig='contig' if channels > 1 else None,
    compression='zlib',
    predictor=True,
    description=description,
    software=False,
    metadata=None,
  )
  return buffer.getvalue()


def description(path: epath.PathLike) -> str:
  """The text that `write` left in a file; '' if there is none."""
  with contextlib.suppress(Exception), epath.Path(path).open('rb') as file:
    if _is_tiff(file):
      with _tiff_file(file) as tiff:
        return tiff.pages[0].description
    with image_files.open_image(file) as image:
      return image.info.get('Description', '')
  return ''


def to_float(
  array: np.ndarray, low: Sequence[float] = (), high: Sequence[float] = ()
) -> np.ndarray:
  """Stored values to float32, where -1 is `low` and 1 is `high`; nothing is clipped.

  Args:
    array: [..., C].
    low: one value for each channel; none of both: the ends of the type of integer.
    high: the same.

  Raises:
    ImageError: floating point without `low` and `high`.
  """
  low, high = _range(array.dtype, low, high)
  return (array.astype(np.float32) - low) * (2 / (high - low)) - 1


def from_float(
  image: np.ndarray, dtype: Any, low: Sequence[float] = (), high: Sequence[float] = ()
) -> np.ndarray:
  """The inverse of `to_float`: integers are rounded, and clipped to their type.

  Args:
    image: float [..., C].
    dtype: one of DTYPES.
    low: as in `to_float`.
    high: the same.

  Raises:
    ImageError: as `to_float`.
  """
  dtype = np.dtype(dtype)
  low, high = _range(dtype, low, high)
  # In float64: in float32 half a level of 16 bits may tip over.
  array = (image.astype(np.float64) + 1) * ((high - low) / 2) + low
  if dtype.kind == 'u':
    array = np.clip(np.round(array), 0, np.iinfo(dtype).max)
  return array.astype(dtype)


def _range(dtype: np.dtype, low, high) -> tuple[np.ndarray, np.ndarray]:
  if not len(low) and not len(high):
    if dtype.kind != 'u':
      raise ImageError(
        f'{dtype} values have no range of their own: say what is -1 and 1 by data.low '
        'and data.high (sr3-channels finds them)'
      )
    return np.float32(0), np.float32(np.iinfo(dtype).max)
  return np.asarray(low, np.float32), np.asarray(high, np.float32)


# --------------------------------------------------------------------------- reading


@contextlib.contextmanager
def _opened(
  source: Source, name: str, channels: int | None, max_pixels: int
) -> Iterator[tuple[Header, Load]]:
  """The header of a file, and what loads its pixels; one line of any error."""
  with contextlib.ExitStack() as stack:
    stack.enter_context(image_files.errors(name))
    if isinstance(source, bytes):
      file: BinaryIO = io.BytesIO(source)
    else:
      file = stack.enter_context(epath.Path(source).open('rb'))
    start = file.read(26)
    if start[:6] == b'\x93NUMPY':
      found = _npy(file)
    elif _is_tiff(file):
      found = _tiff(stack.enter_context(_tiff_file(file)), channels)
    elif start[:8] == b'\x89PNG\r\n\x1a\n' and start[24:25] == b'\x10':
      found = _png(file, start[25], max_pixels)
    else:
      found = None
    if found is None:  # a picture as all others
      found = _picture(file, name, channels, max_pixels)
    shape = found[0]
    image_files.check_size(shape.width, shape.height, max_pixels)
    if math.prod(shape[:3]) > 4 * max_pixels:
      raise ImageError(
        f'{shape.width} x {shape.height} pixels of {shape.channels} channels are more '
        f'than the limit of {4 * max_pixels / 1e6:.0f} million values'
      )
    if channels not in (None, shape.channels):
      raise ImageError(f'{shape.channels} channel(s), {channels} are needed')
    yield found


def _npy(file: BinaryIO) -> tuple[Header, Load]:
  """Of a NumPy file: [H, W] or [H, W, C]."""
  file.seek(0)
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
  else:
    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
  if len(shape) not in (2, 3) or 0 in shape:
    raise ImageError(f'an array of shape {shape}, not [H, W] or [H, W, C]')
  found = Header(*shape[:2], *(shape[2:] or (1,)), _stored(dtype))
  begin = file.tell()
  if file.seek(0, os.SEEK_END) - begin < math.prod(shape) * dtype.itemsize:
    raise ImageError('truncated')

  def load():
    file.seek(0)
    return np.load(file, allow_pickle=False).reshape(found[:3])

  return found, load


def _png(file: BinaryIO, colour: int, max_pixels: int) -> tuple[Header, Load]:
  """Of a PNG file of 16 bits: all its channels, transparency among them."""
  file.seek(0)
  with image_files.open_image(file, max_pixels) as image:
    width, height = image.size
  found = Header(height, width, _PNG_CHANNELS[colour], np.dtype(np.uint16))

  def load():
    file.seek(0)
    return sixteen_bit.read_png(file.read())

  return found, load


def _tiff(tiff: Any, channels: int | None) -> tuple[Header, Load] | None:
  """Of a TIFF's first image; None if it is better read as a picture."""
  page, series = tiff.pages[0], tiff.series[0]
  plain = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
  if not plain or page.bitspersample in range(8):
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
  eight = page.photometric == _RGB or count == 1
  if series.dtype == np.uint8 and eight and channels in (1, 3) and count != channels:
    return None  # in colour where grey is wanted, or the other way round
  # A segment is decoded whole, whatever of it lies in the image.
  tile = page.tilewidth * page.tilelength * max(1, page.tiledepth)
  if page.is_tiled and tile > MAX_PIXELS:
    raise ImageError(f'tiles of {page.tilewidth} x {page.tilelength} pixels')
  orientation = sixteen_bit.orientation(page)
  turned = orientation in (5, 6, 7, 8)
  sides = (width, height) if turned else (height, width)
  found = Header(*sides, count, _stored(series.dtype))

  def load():
    array = series.asarray()
    array = array.transpose(at + [i for i in range(array.ndim) if i not in at])
    array = array.reshape(height, width, count)
    if page.photometric == _WHITE_IS_ZERO and array.dtype.kind == 'u':
      array = np.iinfo(array.dtype).max - array
    return sixteen_bit.upright(array, orientation)

  return found, load


def _picture(
  file: BinaryIO, name: str, channels: int | None, max_pixels: int
) -> tuple[Header, Load]:
  """Of a file of 8 bits or less, in grey or in colour as is asked for."""
  file.seek(0)
  with image_files.open_image(file, max_pixels) as image:
    sides = image_files.upright_size(image)
    own = 1 if image.mode in ('1', 'L', 'LA', 'La') else 3
  count = channels if channels in (1, 3) else own

  def load():
    file.seek(0)
    data = file.read()
    return image_files.decode(data, name, channels=count, max_pixels=max_pixels)

  return Header(*sides, count, np.dtype(np.uint8)), load


def _stored(dtype: np.dtype) -> np.dtype:
  """What pixels of a file become."""
  name = dtype.newbyteorder('=').name
  if name in ('uint8', 'uint16'):
    return np.dtype(name)
  if name not in _FLOATS:
    raise ImageError(f'{name} values: only uint8, uint16, int16 and floating point')
  return np.dtype(np.float32)


def _is_tiff(file: BinaryIO) -> bool:
  """Whether a file begins as TIFF or BigTIFF does; leaves it at its start."""
  file.seek(0)
  start = file.read(4)
  file.seek(0)
  return start[:2] in (b'II', b'MM') and bool({42, 43} & set(start[2:]))


def _tiff_file(file: BinaryIO) -> Any:
  import tifffile

  logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # what matters, it raises
  # The others of a data set of many files are not asked for.
  return tifffile.TiffFile(file, _multifile=False)


def _name(source: Source) -> str:
  return 'data' if isinstance(source, bytes) else str(source)
