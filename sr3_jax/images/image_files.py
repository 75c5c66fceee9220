"""Reads and writes image files as 8-bit pictures, the way people look at them.

Images are uint8 `[H, W, C]` arrays, C = 3 (sRGB) or 1 (grey). The rest of the package
works on float32 in [-1, 1]; `pixels.to_float` and `pixels.to_uint8` convert between the
two. `rasters` reads files whose stored values matter: more bits, or other channels.
"""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
import numpy.typing as npt
from etils import epath
from PIL import Image, ImageCms, ImageOps

from sr3_jax.images import fast_jpeg, formats, jpeg_xl, png_chunks, sixteen_bit
from sr3_jax.images.pixels import ImageError, to_pillow, to_uint8
from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.atomic_files import write_bytes
from sr3_jax.runtime.errors import line

# The most pixels that a header may claim before any is decoded. It is the bound at
# which Pillow warns, 89 Mpx.
MAX_PIXELS = 1024**3 // 12

Source = epath.PathLike | bytes  # a path, local or gs://, or the bytes of a file

# A file meets no other decoder, whatever its name is; EPS would run Ghostscript. TGA
# and HEIF are tried where the first bytes allow it.
_FORMATS = tuple(name for name in formats.FORMATS if name not in ('MPO', 'TGA', 'HEIF'))
# JPEG without chroma subsampling; WebP without loss, as PNG always is.
_SAVE = {
  '.png': ('PNG', {}),
  '.jpg': ('JPEG', {'quality': 95, 'subsampling': 0}),
  '.jpeg': ('JPEG', {'quality': 95, 'subsampling': 0}),
  '.webp': ('WEBP', {'lossless': True}),
}
_ICC_MODES = {'RGB': 'RGB', 'GRAY': 'L', 'CMYK': 'CMYK'}

jpeg_xl.register()
# ImageError already says what is wrong with a file. The filter is for the whole
# process, because `warnings.catch_warnings` isn't safe in the threads that read images.
warnings.filterwarnings('ignore', module=r'PIL\.')


def read(
  source: Source, name: str = '', *, channels: int = 3, decode_side: int = 0
) -> np.ndarray:
  """Read a file of one of `formats.FORMATS` as it is meant to be looked at.

  EXIF orientation is applied, an embedded colour profile is converted to sRGB (a
  broken one is ignored), 16 bits are scaled to 8, transparent pixels are laid over
  white, and of several frames the first is taken.

  Args:
    source: the file; its extension doesn't matter.
    name: what errors call it; '' takes the path.
    channels: 3 for RGB, 1 for grey.
    decode_side: pixels of the shorter side that are enough; 0 decodes all. A JPEG file
      is decoded at 1/2, 1/4 or 1/8 of its size if that leaves so many pixels.

  Returns:
    uint8 `[H, W, channels]`.

  Raises:
    ImageError: the file can't be read, for whatever reason, or its header claims more
      than MAX_PIXELS.
  """
  with errors(source, name):
    return decode(read_bytes(source), channels, decode_side)


def decode(data: bytes, channels: int, decode_side: int = 0) -> np.ndarray:
  """Decode the bytes of a file as `read` does, but raise whatever damage provokes."""
  shape = fast_jpeg.plain_shape(data, MAX_PIXELS)
  if shape and (pixels := _fast(data, shape, channels, decode_side)) is not None:
    return pixels
  with open_image(io.BytesIO(png_chunks.harmless(data))) as image:
    profile = image.info.get('icc_profile')
    # A damaged EXIF block is no reason to lose the picture.
    with contextlib.suppress(SyntaxError, KeyError, TypeError, ValueError):
      image.getexif()
    shape = _upright_jpeg(image, profile)
    if shape and (pixels := _fast(data, shape, channels, decode_side)) is not None:
      return pixels
    if (divisor := fast_jpeg.scale_divisor(min(image.size), decode_side)) > 1:
      # Pillow does this for JPEG files and leaves others as they are.
      width, height = image.size
      image.draft(None, (width // divisor, height // divisor))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    image = _flatten(image, profile)
    image = image.convert('L' if channels == 1 else 'RGB')
    return np.array(image).reshape(image.height, image.width, channels)


def read_bytes(source: Source) -> bytes:
  """Return the bytes of a file."""
  return source if isinstance(source, bytes) else foreign_files.read_bytes(source)


def open_source(source: Source) -> IO[bytes]:
  """Open a regular file to read its bytes."""
  if isinstance(source, bytes):
    return io.BytesIO(source)
  return foreign_files.open_file(source)


def size(path: epath.PathLike) -> tuple[int, int]:
  """Return (height, width) of an image as `read` returns it, from the header only.

  Raises:
    ImageError: the header can't be read, or it claims more than MAX_PIXELS.
  """
  with errors(path), open_source(path) as file:
    if shape := fast_jpeg.plain_shape(file.read(fast_jpeg.HEAD_BYTES), MAX_PIXELS):
      return shape[:2]
    with open_image(file) as image:
      return upright_size(image)


def upright_size(image: Image.Image) -> tuple[int, int]:
  """Return (height, width) of an opened image after its EXIF orientation."""
  width, height = image.size
  # Pillow reports a TIFF already turned. A PNG without EXIF in front of its pixels
  # would be decoded to look behind them.
  oriented = image.format != 'TIFF' and (image.format != 'PNG' or 'exif' in image.info)
  if oriented and orientation(image) in range(5, 9):
    return width, height
  return height, width


def orientation(image: Image.Image) -> int:
  """Return the EXIF orientation of an opened image, 1 to 8; 1 if EXIF is damaged."""
  with contextlib.suppress(Exception):
    return image.getexif().get(0x0112, 1)
  return 1


def write(path: epath.PathLike, image: npt.ArrayLike) -> None:
  """Write a PNG, JPEG (quality 95) or lossless WebP file, by the extension.

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
def errors(source: object, name: str = '') -> Iterator[None]:
  """Turn every error that a file can provoke into one line that names the file.

  Raises:
    ImageError: in place of any exception from inside; it begins with `name`, or the
      path if that is ''.
  """
  name = name or ('data' if isinstance(source, bytes) else str(source))
  try:
    yield
  except ImageError as error:  # a call further inside may have named the file already
    raise ImageError(f'{name}: {str(error).removeprefix(f"{name}: ")}') from None
  except FileNotFoundError:
    raise ImageError(f'{name}: no such file or folder') from None
  except foreign_files.FileError as error:
    raise ImageError(f'{name}: {str(error).removeprefix(f"{source}: ")}') from None
  except OSError as error:  # those of Pillow have no number
    damaged = '' if error.errno else 'damaged: '
    raise ImageError(f'{name}: {damaged}{foreign_files.reason(error)}') from None
  except MemoryError:
    raise ImageError(f'{name}: out of memory') from None
  # Decoders raise nearly anything on hostile bytes: SyntaxError, struct.error,
  # OverflowError, IndexError, ...
  except Exception as error:
    whole = isinstance(error, ValueError | Image.DecompressionBombError)
    damaged = '' if whole else 'damaged: '
    raise ImageError(f'{name}: {damaged}{line(error)}') from None


def open_image(file: IO[bytes], max_pixels: int = 0) -> Image.Image:
  """Open a seekable file with Pillow, reading its header only.

  Raises:
    ImageError: no known format, or the header claims more than `max_pixels`, or than
      MAX_PIXELS if that is 0.
  """
  file.seek(0, os.SEEK_END)
  if not file.tell():
    raise ImageError('zero bytes')
  file.seek(0)
  image = _identify(file)
  try:
    check_size(*image.size, max_pixels)
    if image.format == 'TIFF':
      sixteen_bit.check_opened(image)
  except ImageError:
    image.close()
    raise
  return image


def _identify(file: IO[bytes]) -> Image.Image:
  """Open a file at its start with the decoder that its content asks for.

  Raises:
    ImageError: none can read it; it says what the file is, as far as that is known.
  """
  head = file.read(formats.HEAD)
  file.seek(0)
  known = _FORMATS
  if formats.is_heif(head):
    known = _heif_formats()
  elif formats.is_tga(head):
    known += ('TGA',)
  try:
    return _open(file, known)
  except Image.UnidentifiedImageError:
    file.seek(0)
    with contextlib.suppress(Exception):
      return sixteen_bit.TiffPageFile(file)
    file.seek(0)
    if what := sixteen_bit.describe_tiff(file):
      raise ImageError(what) from None
    what, kinds = formats.describe(head), f'not a {formats.NAMES} file'
    raise ImageError(f'{what}, {kinds}' if what else kinds) from None


def _open(file: IO[bytes], known: tuple[str, ...]) -> Image.Image:
  """Open a file with Pillow; a PNG without the texts that Pillow refuses it for."""
  try:
    return Image.open(file, formats=known)
  except Image.UnidentifiedImageError:
    raise
  except Exception:
    file.seek(0)
    data = file.read()
    if (harmless := png_chunks.harmless(data)) is data:
      raise
    return Image.open(io.BytesIO(harmless), formats=known)


def _heif_formats() -> tuple[str, ...]:
  """Return Pillow's names of HEIC files; raise ImageError if no reader is there."""
  try:
    import pillow_heif
  except ImportError:
    raise ImageError(
      "HEIC needs a reader: pip install 'sr3_jax[heif]' (or pillow-heif)"
    ) from None
  # Thumbnails and depth maps belong to the picture and are none themselves.
  pillow_heif.register_heif_opener(thumbnails=False)
  return ('HEIF',)


def check_size(width: int, height: int, max_pixels: int = 0) -> None:
  """Refuse a size that a header claims, before memory is taken for it.

  Raises:
    ImageError: more than `max_pixels`, or than MAX_PIXELS if that is 0.
  """
  max_pixels = max_pixels or MAX_PIXELS
  if width * height > max_pixels:
    limit = f'the limit of {max_pixels / 1e6:.0f} Mpx'
    raise ImageError(f'{width} x {height} pixels are more than {limit}')


def _upright_jpeg(
  image: Image.Image, profile: bytes | None
) -> tuple[int, int, int] | None:
  """Return the shape of a JPEG whose EXIF and profile change no pixel, else None."""
  if image.format != 'JPEG' or image.mode not in ('L', 'RGB'):
    return None
  with contextlib.suppress(Exception):
    upright = image.getexif().get(0x0112, 1) == 1
    if upright and not (profile and icc_transform(profile, image.mode)):
      return image.height, image.width, len(image.getbands())
  return None


def _fast(
  data: bytes, shape: tuple[int, int, int], channels: int, decode_side: int
) -> np.ndarray | None:
  """Decode uint8 `[H, W, channels]` without Pillow; None leaves the file to it."""
  pixels = fast_jpeg.decode(data, shape, decode_side)
  if pixels is None or shape[2] == channels:
    return pixels
  image = to_pillow(pixels).convert('L' if channels == 1 else 'RGB')
  return np.array(image).reshape(image.height, image.width, channels)


def _flatten(image: Image.Image, profile: bytes | None) -> Image.Image:
  """Turn any Pillow mode into 8 bits: no palette, no alpha, sRGB by its profile."""
  if (wide := sixteen_bit.from_pillow(image)) is not None:
    # Pillow's own conversion of these modes to 8 bits clips at 255.
    pixels = (wide.astype(np.uint32) * 255 + 32767) // 65535
    image = Image.fromarray(pixels.astype(np.uint8)[..., 0])
    if wide.shape[-1] == 2:
      alpha = Image.fromarray((wide[..., 1] // 257).astype(np.uint8))
      image.putalpha(alpha)
  alpha, image = None, straight(image)
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


def straight(image: Image.Image) -> Image.Image:
  """Return an image whose colours aren't premultiplied with its alpha."""
  straight_mode = {'La': 'LA', 'RGBa': 'RGBA'}.get(image.mode)
  return image.convert(straight_mode) if straight_mode else image


@functools.lru_cache(maxsize=16)
def icc_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
  """Return the transform from an embedded profile to sRGB, or None.

  There is none if the profile is broken or for another kind of pixel. There is none
  either if the profile is sRGB itself, as most are: it would cost time and a level of
  rounding.
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
  except Exception:  # lcms raises many types for a broken profile
    return None
