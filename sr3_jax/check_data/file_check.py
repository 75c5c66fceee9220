"""What is known of one image before anything is trained on it.

JPEG files are decoded at an eighth of their size or so: their entropy code is read to
the end all the same, so that a truncated file is found. Everything else, and what fails
there, is decoded as training does it.
"""

import contextlib
import functools
import hashlib
import io
from typing import NamedTuple

import numpy as np
import scipy.fft
from etils import epath
from PIL import Image, ImageOps

from sr3_jax.images import image_files
from sr3_jax.images import pixels as images_pixels

THUMBNAIL = 16  # pixels on each side

_COLOURS = {'1': 'black and white', 'L': 'grey', 'P': 'palette', 'CMYK': 'CMYK'}
_BLOCK = 32  # of `detail`, pixels


class Look(NamedTuple):
  """One image.

  Attributes:
    height: in pixels, as it is looked at; 0 if even the header is broken.
    width: the same.
    kind: format and colours, as 'JPEG, RGB'.
    traits: what is done to the file when it is read, as 'turned (EXIF)'.
    quality: of a JPEG file, 1 to 100 on libjpeg's scale; 0 of others.
    digest: 64 bits of the file's bytes, or of the pixels.
    thumbnail: uint8 [THUMBNAIL, THUMBNAIL], grey, the whole image; None if broken.
    error: why it can't be used; '' if it can.
  """

  height: int
  width: int
  kind: str
  traits: tuple[str, ...]
  quality: int
  digest: int
  thumbnail: np.ndarray | None
  error: str


def of_file(path: epath.PathLike) -> Look:
  """Looks at a JPEG, PNG, WebP, TIFF or BMP file; never raises."""
  about: dict = {'height': 0, 'width': 0, 'kind': 'unknown', 'traits': (), 'quality': 0}
  about['digest'] = 0
  try:
    with image_files.errors(path):
      data = epath.Path(path).read_bytes()
    about['digest'] = _digest(data)
    with image_files.errors(path), image_files.open_image(io.BytesIO(data)) as image:
      about['height'], about['width'] = image_files.upright_size(image)
      about |= _header(image, data)
      grey = _reduced(image)
    if grey is None:
      pixels = image_files.decode(data, str(path), channels=1)[..., 0]
      grey = Image.fromarray(pixels)
  except images_pixels.ImageError as error:
    reason = str(error).removeprefix(f'{path}: ')
    return Look(**about, thumbnail=None, error=reason)
  return Look(**about, thumbnail=_thumbnail(grey), error='')


def of_pixels(image: np.ndarray, kind: str) -> Look:
  """Looks at decoded pixels: [H, W, C] of uint8, uint16 or float32."""
  height, width = image.shape[:2]
  thumbnail = _thumbnail(Image.fromarray(grey(image)))
  digest = _digest(np.ascontiguousarray(image).tobytes())
  return Look(height, width, kind, (), 0, digest, thumbnail, '')


def broken(reason: str) -> Look:
  """What is said of an image that couldn't be read at all."""
  return Look(0, 0, 'unknown', (), 0, 0, None, reason)


def grey(image: np.ndarray) -> np.ndarray:
  """One plane of 8 bits: luma of pictures, else the mean of channels, stretched.

  Args:
    image: uint8, uint16 or float32 [H, W, C].

  Returns:
    uint8 [H, W].
  """
  if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
    return np.asarray(images_pixels.to_pillow(image).convert('L'))
  plane = image.mean(-1, dtype=np.float32)
  low, high = float(plane.min()), float(plane.max())
  return np.round((plane - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)


def detail(plane: np.ndarray) -> float:
  """Energy in the finest octave of an image over that of the octave below.

  Photographs have about as much energy in every octave (Field 1987,
  doi:10.1364/JOSAA.4.002379). In the finest one (0.25 to 0.5 cycles a pixel) sharp ones
  have 0.3 to 1 of that, enlarged ones less: medians are 0.10 to 0.17 of those that were
  enlarged 1.5 times and 0.05 to 0.08 of two times. Blocks with texture count most, so a
  soft background does no harm.

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
  # What rounding to 8 bits adds to these frequencies is no pattern.
  rounding = down * across * octave.sum() * np.square(window).sum() ** 2 / 12
  return float(fine / below) if below > 4 * rounding else float('nan')


def _header(image: Image.Image, data: bytes) -> dict:
  """Kind, traits and quality of an opened file."""
  mode, traits = image.mode, []
  deep = mode.startswith('I') or (image.format == 'PNG' and data[24] == 16)
  colours = _COLOURS.get(mode, 'grey' if mode[0] in 'LIF' else 'RGB')
  with contextlib.suppress(Exception):  # a damaged EXIF block does no harm
    if image.getexif().get(0x0112, 1) in range(2, 9):
      traits.append('turned (EXIF)')
  if image.has_transparency_data:
    traits.append('transparent')
  if deep:
    traits.append('16 bits')
  profile = image.info.get('icc_profile')
  if profile and image_files.icc_transform(profile, mode.removesuffix('A')):
    traits.append('colour profile')
  if getattr(image, 'n_frames', 1) > 1:
    traits.append('several frames')
  tables = getattr(image, 'quantization', None)
  return {
    'kind': f'{image.format}, {colours}',
    'traits': tuple(traits),
    'quality': jpeg_quality(tables[0]) if tables else 0,
  }


def jpeg_quality(table: list[int]) -> int:
  """The quality at which libjpeg would use a luma table like this, 1 to 100."""
  return int(np.argmin(np.abs(_table_sums() - sum(table)))) + 1


@functools.cache
def _table_sums() -> np.ndarray:
  """Sums of libjpeg's luma tables at qualities 1 to 100, as it writes them."""
  sums = []
  for quality in range(1, 101):
    buffer = io.BytesIO()
    Image.new('L', (8, 8)).save(buffer, 'JPEG', quality=quality)
    with Image.open(buffer) as image:
      sums.append(sum(image.quantization[0]))
  return np.array(sums)


def _reduced(image: Image.Image) -> Image.Image | None:
  """A JPEG in grey and small, turned upright; None of other files or if that fails."""
  if image.format != 'JPEG' or image.mode not in ('L', 'RGB'):
    return None
  try:
    image.draft('L', (4 * THUMBNAIL, 4 * THUMBNAIL))
    with contextlib.suppress(SyntaxError, KeyError, TypeError, ValueError):
      image.getexif()
    return ImageOps.exif_transpose(image).convert('L')
  except Exception:  # whether it is broken is for the full decoder to say
    return None


def _thumbnail(grey: Image.Image) -> np.ndarray:
  sides = (THUMBNAIL, THUMBNAIL)
  # Not BOX, whose blocks differ in size where the ratio is no whole number.
  return np.asarray(grey.resize(sides, Image.Resampling.BILINEAR))


def _digest(data: bytes) -> int:
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), 'little')
