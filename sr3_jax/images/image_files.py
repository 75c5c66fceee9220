"""Image files and 8-bit pixels: pictures, as they are looked at.

Images are uint8 `[H, W, C]` arrays, C = 3 (sRGB) or 1 (grey). Everything else in the
package works on float32 in [-1, 1]; `to_float` and `to_uint8` are the two doors.
What is measured rather than looked at, with other channels or more bits: `rasters`.
"""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from etils import epath
from PIL import Image, ImageCms, ImageOps

from sr3_jax.images import fast_jpeg
from sr3_jax.images.pixels import ImageError, to_pillow, to_uint8
from sr3_jax.runtime.atomic_files import write_bytes

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.bmp')
# What a header may claim before a pixel is decoded: Pillow's own bound, 89 Mpx.
MAX_PIXELS = 1024**3 // 12

# No other decoders meet a file, whatever it is called; EPS would run Ghostscript.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP')
# JPEG without chroma subsampling; WebP without loss, as PNG always is.
_SAVE = {
  '.png': ('PNG', {}),
  '.jpg': ('JPEG', {'quality': 95, 'subsampling': 0}),
  '.jpeg': ('JPEG', {'quality': 95, 'subsampling': 0}),
  '.webp': ('WEBP', {'lossless': True}),
}
_ICC_MODES = {'RGB': 'RGB', 'GRAY': 'L', 'CMYK': 'CMYK'}

# What is wrong with a file is said once, by ImageError. A filter for the process,
# because `warnings.catch_warnings` isn't safe in the threads that read images.
warnings.filterwarnings('ignore', module=r'PIL\.')


def read(
  path: epath.PathLike,
  *,
  channels: int = 3,
  max_pixels: int = MAX_PIXELS,
  decode_side: int = 0,
) -> np.ndarray:
  """Reads a JPEG, PNG, WebP, TIFF or BMP file as it is meant to be looked at.

  EXIF orientation is applied, an embedded colour profile is converted to sRGB (a
  broken one is ignored), 16 bits are scaled to 8, transparent pixels are laid over
  white, and of several frames the first is taken. Paths go through epath (gs://).

  Args:
    path: the file; its extension doesn't matter.
    channels: 3 for RGB, 1 for grey.
    max_pixels: a larger image is refused from its header, before it is decoded.
      Pillow refuses more than 179 Mpx whatever this says.
    decode_side: pixels that are enough of the shorter side; 0 for all. A JPEG file is
      then decoded at 1/2, 1/4 or 1/8 of its size if that leaves so many.

  Returns:
    uint8 `[H, W, channels]`.

  Raises:
    ImageError: the file can't be read, for whatever reason.
  """
  with errors(path):
    return _decode(read_bytes(path), channels, max_pixels, decode_side)


def decode(
  data: bytes,
  name: str,
  *,
  channels: int = 3,
  max_pixels: int = MAX_PIXELS,
  decode_side: int = 0,
) -> np.ndarray:
  """`read` for the bytes of a file; `name` is what errors call it."""
  with errors(name):
    return _decode(data, channels, max_pixels, decode_side)


def _decode(
  data: bytes, channels: int, max_pixels: int, decode_side: int
) -> np.ndarray:
  shape = fast_jpeg.bare(data, min(max_pixels, MAX_PIXELS))
  if shape and (pixels := _of_jpeg(data, shape, channels, decode_side)) is not None:
    return pixels
  with open_image(io.BytesIO(data), max_pixels) as image:
    profile = image.info.get('icc_profile')
    # A damaged EXIF block is no reason to lose the picture.
    with contextlib.suppress(SyntaxError, KeyError, TypeError, ValueError):
      image.getexif()
    shape = _upright_jpeg(image, profile)
    if shape and (pixels := _of_jpeg(data, shape, channels, decode_side)) is not None:
      return pixels
    if (by := fast_jpeg.part(min(image.size), decode_side)) > 1:
      image.draft(None, tuple(side // by for side in image.size))  # only of JPEG
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    image = _flatten(image, profile)
    image = image.convert('L' if channels == 1 else 'RGB')
    return np.array(image).reshape(image.height, image.width, channels)


def read_bytes(path: epath.PathLike) -> bytes:
  """A file, local or gs://."""
  with _opened(path, buffering=0) as file:
    return file.read()


def _opened(path: epath.PathLike, **options: int) -> BinaryIO:
  """A file, local or gs://; local ones without what epath takes, 20 us each."""
  if '://' in str(path):
    return epath.Path(path).open('rb')
  return open(path, 'rb', **options)


def size(path: epath.PathLike, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
  """(height, width) of an image file as `read` returns it, from its header only.

  Raises:
    ImageError: the header can't be read, or it claims more than `max_pixels`.
  """
  with errors(path), _opened(path) as file:
    limit = min(max_pixels, MAX_PIXELS)
    if shape := fast_jpeg.bare(file.read(fast_jpeg.HEAD_BYTES), limit):
      return shape[:2]
    with open_image(file, max_pixels) as image:
      return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
  """(height, width) of an opened image once its EXIF orientation is applied."""
  width, height = image.size
  # Pillow reports a TIFF already turned. A PNG without EXIF in front of its pixels
  # would be decoded to look behind them.
  if image.format != 'TIFF' and (image.format != 'PNG' or 'exif' in image.info):
    with contextlib.suppress(Exception):
      if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
        width, height = height, width
  return height, width


def write(path: epath.PathLike, image: Any) -> None:
  """Writes a PNG, JPEG (quality 95) or lossless WebP file, by the extension.

  A reader sees the whole file or none: it is written under a temporary name beside
  its final one and renamed. Missing folders are made.

  Args:
    path: where to, local or gs://.
    image: uint8, or float in [-1, 1]; `[H, W, 3]`, `[H, W, 1]` or `[H, W]`.

  Raises:
    ImageError: unknown extension, not an image, or a place that can't be written.
  """
  path = epath.Path(path)
  known = ', '.join(_SAVE)
  if path.suffix.lower() not in _SAVE:
    raise ImageError(f'{path}: cannot write {path.suffix!r} files, only {known}')
  image = np.asarray(image)
  if image.dtype != np.uint8:
    image = to_uint8(image)
  with errors(path):
    format_, options = _SAVE[path.suffix.lower()]
    buffer = io.BytesIO()
    to_pillow(image).save(buffer, format_, **options)
    write_bytes(path, buffer.getvalue())


@contextlib.contextmanager
def errors(path: Any) -> Iterator[None]:
  """Turns whatever a file can provoke into one line that names it."""
  try:
    yield
  except ImageError as error:  # which may have met this already, further inside
    reason = str(error).removeprefix(f'{path}: ')
    raise ImageError(f'{path}: {reason}') from None
  except FileNotFoundError:
    raise ImageError(f'{path}: no such file or folder') from None
  # Decoders raise nearly anything on hostile bytes: OSError, SyntaxError,
  # struct.error, OverflowError, MemoryError, IndexError, ...
  except Exception as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise ImageError(f'{path}: {reason}') from None


def open_image(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
  """Opens a seekable file with Pillow, reading its header only.

  Raises:
    ImageError: no known format, or the header claims more than `max_pixels`.
  """
  file.seek(0, os.SEEK_END)
  if not file.tell():
    raise ImageError('zero bytes')
  file.seek(0)
  try:
    image = Image.open(file, formats=_FORMATS)
  except Image.UnidentifiedImageError:
    raise ImageError('not a JPEG, PNG, WebP, TIFF or BMP image') from None
  try:
    check_size(*image.size, max_pixels)
  except ImageError:
    image.close()
    raise
  return image


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
  """Refuses what a header claims, before memory is taken for it.

  Raises:
    ImageError: more than `max_pixels`.
  """
  if width * height > max_pixels:
    raise ImageError(
      f'{width} x {height} pixels are more than the limit of {max_pixels / 1e6:.0f} Mpx'
    )


def _upright_jpeg(
  image: Image.Image, profile: bytes | None
) -> tuple[int, int, int] | None:
  """(height, width, channels) of a JPEG file whose EXIF and profile change nothing."""
  if image.format != 'JPEG' or image.mode not in ('L', 'RGB'):
    return None
  with contextlib.suppress(Exception):
    upright = image.getexif().get(0x0112, 1) == 1
    if upright and not (profile and icc_transform(profile, image.mode)):
      return image.height, image.width, len(image.getbands())
  return None


def _of_jpeg(
  data: bytes, shape: tuple[int, int, int], channels: int, decode_side: int
) -> np.ndarray | None:
  """uint8 `[H, W, channels]` from the faster decoder; None: Pillow is to judge."""
  pixels = fast_jpeg.decode(data, shape, decode_side)
  if pixels is None or shape[2] == channels:
    return pixels
  image = to_pillow(pixels).convert('L' if channels == 1 else 'RGB')
  return np.array(image).reshape(image.height, image.width, channels)


def _flatten(image: Image.Image, profile: bytes | None) -> Image.Image:
  """Any Pillow mode -> 8 bits, no palette, no alpha, sRGB if it had a profile."""
  if image.mode.startswith('I;16') or (image.mode == 'I' and image.format == 'PNG'):
    # Pillow's own conversion of these modes to 8 bits clips at 255.
    pixels = np.asarray(image).astype(np.uint32)
    image = Image.fromarray(((pixels * 255 + 32767) // 65535).astype(np.uint8))
  elif image.mode in ('I', 'F'):
    raise ImageError('32-bit pixels have no defined range: convert to 8 or 16 bits')
  alpha = None
  if image.has_transparency_data:
    grey = image.mode in ('1', 'L', 'LA', 'La')
    image = image.convert('RGBA')
    alpha = image.getchannel('A')
    image = image.convert('L' if grey else 'RGB')
  elif image.mode not in ('L', 'RGB', 'CMYK'):
    image = image.convert('L' if image.mode in ('1', 'LA', 'La') else 'RGB')
  if profile and (transform := icc_transform(profile, image.mode)):
    image = transform.apply(image)
  if alpha is not None:
    white = Image.new('RGB', image.size, 'white')
    image = Image.composite(image.convert('RGB'), white, alpha)
  return image


@functools.lru_cache(maxsize=16)
def icc_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
  """Transform from an embedded profile to sRGB; None where there is nothing to do.

  That is: the profile is broken, is for another kind of pixel, or is sRGB itself
  (most are), which would cost time and a level of rounding.
  """
  try:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if _ICC_MODES.get(source.profile.xcolor_space.strip()) != mode:
      return None
    srgb = ImageCms.createProfile('sRGB')
    transform = ImageCms.buildTransform(source, srgb, mode, 'RGB')
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == 'CMYK':
      return transform
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    probe = Image.fromarray(grid).convert(mode)
    change = np.asarray(transform.apply(probe)).astype(int)
    change -= np.asarray(probe.convert('RGB'))
    return transform if np.abs(change).max() > 1 else None
  except Exception:  # what lcms thinks of a broken profile has no common type
    return None
