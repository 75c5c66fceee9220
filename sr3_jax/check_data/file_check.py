"""Checks one image before anything is trained on it.

JPEG files are decoded at about an eighth of their size. Their entropy code is read to
the end all the same, so that truncated files are found. Other files, and JPEG files for
which that fails, are decoded as training decodes them.
"""

import contextlib
import functools
import hashlib
import io
from typing import NamedTuple

import numpy as np
import scipy.fft
from etils import epath
from PIL import Image, ImageOps, JpegImagePlugin

from sr3_jax.images import image_files
from sr3_jax.images.pixels import ImageError, to_pillow

THUMBNAIL = 16  # pixels on each side

_COLOURS = {'1': 'black and white', 'L': 'grey', 'P': 'palette', 'CMYK': 'CMYK'}
_BLOCK = 32  # side of a block of `fine_detail` in pixels


class FileFacts(NamedTuple):
  """The facts that are found about one image."""

  height: int = 0  # in pixels, once it is upright; 0 if even the header is broken
  width: int = 0
  kind: str = 'unknown'  # format and colours, as 'JPEG, RGB'
  traits: tuple[str, ...] = ()  # conversions when it is read, as 'turned (EXIF)'
  quality: int = 0  # of a JPEG file, 1 to 100 on libjpeg's scale; 0 of others
  digest: int = 0  # 64 bits of the file's bytes, or of the pixels
  thumbnail: np.ndarray | None = None  # uint8 [THUMBNAIL, THUMBNAIL], grey
  error: str = ''  # why the image can't be used; '' if it can


def check_file(path: epath.PathLike) -> FileFacts:
  """Check a file of a picture; return an error rather than raise it."""
  facts = FileFacts()
  try:
    with image_files.errors(path):
      data = image_files.read_bytes(path)
      facts = facts._replace(digest=_digest(data))
      with image_files.open_image(io.BytesIO(data)) as image:
        height, width = image_files.upright_size(image)
        facts = facts._replace(height=height, width=width)
        facts = _read_header(facts, image, data)
        grey = _decode_small(image)
      if grey is None:
        grey = Image.fromarray(image_files.decode(data, channels=1)[..., 0])
  except ImageError as error:
    return facts._replace(error=str(error).removeprefix(f'{path}: '))
  return facts._replace(thumbnail=_thumbnail(grey))


def check_pixels(image: np.ndarray, kind: str) -> FileFacts:
  """Check decoded pixels of a kind: [H, W, C] of uint8, uint16 or float32."""
  height, width = image.shape[:2]
  thumbnail = _thumbnail(Image.fromarray(to_grey(image)))
  digest = _digest(np.ascontiguousarray(image).tobytes())
  return FileFacts(height, width, kind, digest=digest, thumbnail=thumbnail)


def to_grey(image: np.ndarray) -> np.ndarray:
  """Convert uint8, uint16 or float32 [H, W, C] to grey uint8 [H, W].

  A picture gives its luma, a raster the mean of its channels, stretched to 0 to 255.
  """
  if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
    return np.asarray(to_pillow(image).convert('L'))
  plane = image.mean(-1, dtype=np.float32)
  low, high = float(plane.min()), float(plane.max())
  return np.round((plane - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)


def fine_detail(plane: np.ndarray) -> float:
  """Return the energy in the finest octave of an image over that in the one below.

  Photographs have about as much energy in every octave (Field 1987,
  doi:10.1364/JOSAA.4.002379). In the finest octave (0.25 to 0.5 cycles a pixel) a sharp
  photograph has 0.3 to 1 of that. An upsampled one has less: the median is 0.10 to 0.17
  after upsampling 1.5 times and 0.05 to 0.08 after two times. Blocks with texture count
  most, so a soft background does no harm.

  Args:
    plane: grey [H, W], of at least 32 pixels on each side.

  Returns:
    The ratio; nan if there are too few pixels or there is no pattern.
  """
  down, across = (side // _BLOCK for side in plane.shape)
  if not down or not across:
    return float('nan')
  blocks = plane[: down * _BLOCK, : across * _BLOCK].astype(np.float32)
  blocks = blocks.reshape(down, _BLOCK, across, _BLOCK).swapaxes(1, 2)
  blocks = blocks - blocks.mean((2, 3), keepdims=True)
  window = np.hanning(_BLOCK + 2)[1:-1].astype(np.float32)
  power = np.square(np.abs(scipy.fft.fft2(blocks * window * window[:, None])))
  power = power.sum((0, 1))
  frequency = np.abs(np.fft.fftfreq(_BLOCK))
  radius = np.hypot(frequency, frequency[:, None])
  fine = power[(radius > 0.25) & (radius <= 0.5)].sum()
  octave = (radius > 0.125) & (radius <= 0.25)
  below = power[octave].sum()
  # Rounding to 8 bits adds noise to these frequencies: that alone is no pattern.
  rounding = down * across * octave.sum() * np.square(window).sum() ** 2 / 12
  return float(fine / below) if below > 4 * rounding else float('nan')


def _read_header(facts: FileFacts, image: Image.Image, data: bytes) -> FileFacts:
  """Add kind, traits and quality of an opened file."""
  mode, traits = image.mode, []
  colours = _COLOURS.get(mode, 'grey' if mode[0] in 'LIF' else 'RGB')
  if image_files.orientation(image) in range(2, 9):
    traits.append('turned (EXIF)')
  if image.has_transparency_data:
    traits.append('transparent')
  if mode.startswith('I') or (image.format == 'PNG' and data[24] == 16):
    traits.append('16 bits')
  profile = image.info.get('icc_profile')
  if profile and image_files.icc_transform(profile, mode.removesuffix('A')):
    traits.append('colour profile')
  if getattr(image, 'n_frames', 1) > 1:
    traits.append('several frames')
  tables = getattr(image, 'quantization', None)
  quality = jpeg_quality(tables[0]) if tables else 0
  kind = f'{image.format}, {colours}'
  return facts._replace(kind=kind, traits=tuple(traits), quality=quality)


def jpeg_quality(table: list[int]) -> int:
  """Return the quality, 1 to 100, at which libjpeg would use a luma table like this."""
  return int(np.argmin(np.abs(_table_sums() - sum(table)))) + 1


@functools.cache
def _table_sums() -> np.ndarray:
  """Return sums of the luma tables that libjpeg writes at qualities 1 to 100."""
  sums = []
  for quality in range(1, 101):
    buffer = io.BytesIO()
    Image.new('L', (8, 8)).save(buffer, 'JPEG', quality=quality)
    buffer.seek(0)
    with JpegImagePlugin.JpegImageFile(buffer) as image:
      sums.append(sum(image.quantization[0]))
  return np.array(sums)


def _decode_small(image: Image.Image) -> Image.Image | None:
  """Decode a JPEG in grey and small, upright; None for other files, or if it fails."""
  if image.format != 'JPEG' or image.mode not in ('L', 'RGB'):
    return None
  try:
    image.draft('L', (4 * THUMBNAIL, 4 * THUMBNAIL))
    with contextlib.suppress(SyntaxError, KeyError, TypeError, ValueError):
      image.getexif()
    return ImageOps.exif_transpose(image).convert('L')
  except Exception:  # the full decoder decides whether the file is broken
    return None


def _thumbnail(grey: Image.Image) -> np.ndarray:
  sides = (THUMBNAIL, THUMBNAIL)
  # BOX would take blocks of different sizes where the ratio is no whole number.
  return np.asarray(grey.resize(sides, Image.Resampling.BILINEAR))


def _digest(data: bytes) -> int:
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little')
