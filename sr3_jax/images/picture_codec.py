"""Reads and writes a user's picture with all that belongs to it.

`image_files` turns every file into what a network is trained on: 8 bits, sRGB, no
transparency. This module keeps what the owner of a picture wants back: 16 bits, alpha,
the colour profile, and `metadata`. Pillow reads and writes 8-bit pixels and all
headers; `sixteen_bit` does the rest.

The module's functions are those of `raster_codec.Codec`.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from sr3_jax.images import (
  exif_block,
  formats,
  image_files,
  jpeg_xl,
  png_chunks,
  rasters,
  resizing,
  sixteen_bit,
  tiff_metadata,
)
from sr3_jax.images import metadata as metadata_of
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files

# The most pixels of a file that is written: Pillow reads no more than 179 Mpx back.
MAX_OUTPUT = 2**27
# The longest side that a format can hold; that of JPEG is libjpeg's.
MAX_SIDE = {'.jpg': 65500, '.webp': 16383}
EXTENSIONS = ('.png', '.jpg', '.webp', '.tif')
# The facts of how a picture was made: names and values that JSON can hold.
Settings = Mapping[str, object]
# The name under which a file holds its settings.
KEY = 'sr3_jax'
# A text without a name begins with this mark instead.
_MARK = f'{KEY}: '
# In EXIF, this announces the encoding of a comment.
_ASCII = b'ASCII\0\0\0'

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_COLOUR_SPACE = {1: b'GRAY', 3: b'RGB '}


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture: its pixels, and what else its file holds."""

  # float32 [h, w, C] in [-1, 1], C = 1 (grey) or 3, upright, in the colours of `icc`.
  pixels: np.ndarray
  # float32 [h, w] in [0, 1], 0 is transparent. Colours aren't premultiplied with it.
  alpha: np.ndarray | None = None
  bits: int = 8  # of a channel in the file, 8 or 16 (32 of rasters)
  icc: bytes | None = None  # colour profile of the pixels; None is sRGB
  # What else the file holds.
  metadata: Metadata = dataclasses.field(default_factory=Metadata)
  format: str = 'PNG'  # as Pillow names it


class Header(NamedTuple):
  """What the header of a picture file says about it."""

  height: int  # in pixels, upright
  width: int
  format: str  # as Pillow names it
  transparent: bool  # whether it has an alpha channel or a transparent colour
  frames: int = 1  # of an animation, or pages; 0: several, which can't be read
  pages: bool = False  # are they pages?


def header(source: pathlib.Path | bytes, name: str = '') -> Header:
  """Read the header of a picture only.

  Raises:
    ImageError: the header can't be read, or claims more than `image_files.MAX_PIXELS`.
  """
  with image_files.errors(source, name), image_files.open_source(source) as file:
    with sixteen_bit.tiff_page(file) as page:
      if page is not None:
        image_files.check_size(page.imagewidth, page.imagelength)
        sides = page.imagelength, page.imagewidth
        if sixteen_bit.orientation(page) >= 5:  # a quarter turn
          sides = sides[::-1]
        transparent = bool(sixteen_bit.ALPHAS & set(page.extrasamples[:1]))
        count = len(sixteen_bit.split_pages(file))
        return Header(*sides, 'TIFF', transparent, count, True)
    with image_files.open_image(file) as image:
      sides = image_files.upright_size(image)
      found = Header(*sides, image.format or '', image.has_transparency_data)
      if image.format == 'TIFF':
        return found._replace(frames=len(sixteen_bit.split_pages(file)), pages=True)
      count = count_frames(image)
      return found._replace(frames=count, pages=image.format == 'HEIF')


def count_frames(image: Image.Image) -> int:
  """Return how many frames an opened file has; pages of TIFFs aren't counted here.

  The other pictures of a camera's MPO belong to the first one and are not counted. Of
  JPEG XL animations neither number nor timing is known: that is 0.
  """
  if image.format == 'JXL' and getattr(image, 'is_animated', False):
    return 0
  if image.format not in ('GIF', 'PNG', 'WEBP', 'AVIF', 'HEIF'):
    return 1
  hidden = getattr(image, 'default_image', False)  # what other frames don't belong to
  return max(1, getattr(image, 'n_frames', 1) - bool(hidden))


def from_opened(image: Image.Image, like: Picture) -> Picture:
  """Return a frame that Pillow has decoded, with all else from another picture."""
  stored = _read_opened(image, like.icc)
  return _picture(stored, like.icc, like.metadata, like.format)


def from_pillow(image: Image.Image) -> Picture:
  """Return an image that Pillow holds, upright, with its colour profile.

  Raises:
    ImageError: its numbers have no defined black and white.
  """
  icc = image.info.get('icc_profile')
  with image_files.errors(b'', f'a Pillow image of mode {image.mode}'):
    stored = _read_opened(image.copy(), icc)
  return _picture(stored, icc, Metadata(), image.format or 'PNG')


def read(source: pathlib.Path | bytes, name: str = '') -> Picture:
  """Read a file of one of `formats.FORMATS`.

  EXIF orientation is applied. Grey stays grey; palettes become RGB; CMYK becomes sRGB,
  through its profile if it has one. 16-bit PNG and TIFF, grey or RGB, keep all their
  bits. The first of several frames is taken.

  Args:
    source: a file, or the bytes of one, which errors call `name`.
    name: '' takes the path.

  Raises:
    ImageError: the file can't be read, for whatever reason.
  """
  with image_files.errors(source, name):
    data = image_files.read_bytes(source)
    with sixteen_bit.tiff_page(io.BytesIO(data)) as page:
      if page is not None:
        image_files.check_size(page.imagewidth, page.imagelength)
        stored, turned = sixteen_bit.read_tiff(page), sixteen_bit.orientation(page)
        stored, icc = sixteen_bit.upright(stored, turned), page.iccprofile
        own = Metadata()
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:
          own = metadata_of.read(data, image, turned)
        return _picture(stored, icc, own, 'TIFF')
    with image_files.open_image(io.BytesIO(png_chunks.harmless(data))) as image:
      # Taken now: turning a picture may drop what it came with.
      turned, format_ = image_files.orientation(image), image.format
      own = metadata_of.read(data, image, turned)
      icc = image.info.get('icc_profile') or png_chunks.profile(data)
      if format_ == 'PNG' and data[24] == 16:  # the depth in IHDR, the first chunk
        stored = sixteen_bit.upright(sixteen_bit.read_png(data), turned)
      else:
        stored = _read_opened(image, icc)
    return _picture(stored, icc, own, str(format_))


def _picture(
  stored: np.ndarray, icc: bytes | None, own: Metadata, format_: str
) -> Picture:
  """Make a picture of uint8 or uint16 [h, w, 1 to 4]: grey or RGB, then alpha."""
  channels = 1 if stored.shape[-1] < 3 else 3
  pixels, alpha = images_pixels.to_float(stored[..., :channels]), None
  if stored.shape[-1] > channels:
    alpha = stored[..., channels].astype(np.float32) / np.iinfo(stored.dtype).max
  bits, icc = 8 * stored.dtype.itemsize, _matching(icc, channels)
  return Picture(pixels, alpha, bits, icc, own, format_)


def extension(format_: str, height: int, width: int) -> str:
  """Return the extension under which a picture of this format and size is written.

  Formats that aren't written become PNG (see `formats.FORMATS`), and so does a picture
  with longer sides than its format can hold.
  """
  found = formats.output_ending(format_)
  return found if max(height, width) <= MAX_SIDE.get(found, 2**31) else '.png'


def check_sides(extension: str, height: int, width: int) -> None:
  """Raise ImageError if a side is longer than a format can hold."""
  if max(height, width) > MAX_SIDE.get(extension, 2**31):
    raise ImageError(f'{extension} files hold no {width} x {height} pixels: use .png')


def encode(picture: Picture, extension: str, settings: Settings) -> bytes:
  """Return the bytes of a file.

  PNG and TIFF keep 16 bits; JPEG (quality 95, full colour resolution) and WebP
  (lossless) have 8, and JPEG lays transparency over white. The colour profile and the
  metadata are written too, as far as the format holds them (`metadata.not_kept`).

  Args:
    picture: values beyond [-1, 1] are clipped.
    extension: one of EXTENSIONS.
    settings: what made the picture, for `metadata`. Other programs find them as JSON in
      the PNG text 'sr3_jax', or the tag ProcessingSoftware of EXIF or TIFF.

  Raises:
    ImageError: an unknown extension, or sides that the format can't hold.
  """
  if extension not in EXTENSIONS:
    raise ImageError(f'cannot write {extension!r} files, only {", ".join(EXTENSIONS)}')
  check_sides(extension, *picture.pixels.shape[:2])
  if picture.bits > 8 and extension in ('.png', '.tif'):
    stored, top = rasters.from_float(picture.pixels, np.uint16), 65535
  else:
    stored, top = images_pixels.to_uint8(picture.pixels), 255
  if picture.alpha is not None:
    alpha = np.clip(np.round(picture.alpha * top), 0, top).astype(stored.dtype)
    stored = np.concatenate([stored, alpha[..., None]], -1)
  own, channels = picture.metadata, picture.pixels.shape[-1]
  icc = _matching(picture.icc, channels)
  icc = icc or metadata_of.colour_profile(own, extension, channels == 1)
  if extension == '.png':
    data = _encode_png(stored)
    return metadata_of.png(data, own, json.dumps(settings), icc, KEY)
  text = as_text(settings)
  if extension == '.tif':
    return tiff_metadata.encode(stored, own, text, icc)
  return _encode8(stored, extension, icc, own, text)


def write(path: pathlib.Path, picture: Picture, settings: Settings) -> None:
  """Write a file as `encode` makes it; it appears when it is complete.

  Raises:
    ImageError: as `encode`; a place that can't be written.
  """
  with image_files.errors(path):
    ending = formats.written_as(path.suffix) or path.suffix
    data = encode(picture, ending, settings)
    atomic_files.write_bytes(path, data)


def metadata(path: pathlib.Path) -> Settings | None:
  """Return the settings that were written into a picture or raster; None if none."""
  with contextlib.suppress(Exception), image_files.open_source(path) as file:
    if sixteen_bit.is_tiff(file):
      with sixteen_bit.open_tiff(file) as tiff:
        page = tiff.pages.first
        ours = page.tags.get(metadata_of.SETTINGS)
        # Earlier versions wrote it into the description.
        return from_text(ours.value if ours else page.description)
    with image_files.open_image(file, MAX_OUTPUT) as image:
      if KEY in image.info:
        return from_text(_MARK + image.info[KEY])
      if rasters.DESCRIPTION in image.info:
        return from_text(image.info[rasters.DESCRIPTION])
      block = exif_block.Block(image.info['exif'])
      if ours := block.text(metadata_of.SETTINGS):
        return from_text(ours)
      # Earlier versions wrote it into the comment.
      comment = image.getexif().get_ifd(_EXIF_IFD)[_USER_COMMENT]
      return from_text(comment.removeprefix(_ASCII).decode())
  return None


def as_text(settings: Settings) -> str:
  """Return settings as a text without a name, which `from_text` recognises."""
  return _MARK + json.dumps(settings)


def from_text(text: str) -> Settings | None:
  """Return the settings in a text of `as_text`; None if it is another text."""
  found = json.loads(text.removeprefix(_MARK)) if text.startswith(_MARK) else None
  return found if isinstance(found, dict) else None


def resize_alpha(alpha: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resize transparency [h, w] in [0, 1] to [height, width]: bicubic, clipped."""
  return np.clip(resizing.resize(alpha[..., None], height, width)[..., 0], 0, 1)


def _read_opened(image: Image.Image, icc: bytes | None) -> np.ndarray:
  """Decode an opened picture as uint8 or uint16 [h, w, 1 to 4], upright."""
  if (stored := jpeg_xl.as_stored(image)) is not None:
    return stored
  image.load()
  ImageOps.exif_transpose(image, in_place=True)
  if (stored := sixteen_bit.from_pillow(image)) is not None:
    return stored
  if image.mode == 'CMYK':
    transform = image_files.icc_transform(icc, 'CMYK') if icc else None
    image = transform.apply(image) if transform else image.convert('RGB')
  image = image_files.straight(image)
  mode = 'L' if image.mode in ('1', 'L', 'LA') else 'RGB'
  if image.has_transparency_data:
    # Pillow turns grey with a transparent level into LA only by way of RGBA.
    rgba = image.convert('RGBA')
    image = rgba if mode == 'RGB' else rgba.convert('LA')
  else:
    image = image.convert(mode)
  return np.array(image).reshape(image.height, image.width, -1)


def _matching(icc: bytes | None, channels: int) -> bytes | None:
  """Return the profile if it is one for pixels of so many channels, else None."""
  return icc if icc and icc[16:20] == _COLOUR_SPACE[channels] else None


def _encode_png(stored: np.ndarray) -> bytes:
  """Return the bytes of a PNG file of uint8 or uint16 [h, w, 1 to 4]."""
  if stored.dtype == np.uint16:
    return sixteen_bit.encode_png(stored, {})
  buffer = io.BytesIO()
  images_pixels.to_pillow(stored).save(buffer, 'PNG')
  return buffer.getvalue()


def _encode8(
  stored: np.ndarray, extension: str, icc: bytes | None, own: Metadata, text: str
) -> bytes:
  """Return the bytes of a JPEG or WebP file of uint8 [h, w, 1 to 4]."""
  image = images_pixels.to_pillow(stored)
  options = metadata_of.pillow_options(own, extension, text, *stored.shape[:2])
  options['icc_profile'] = icc
  if extension == '.jpg':
    if image.mode in ('LA', 'RGBA'):
      white = Image.new(image.mode, image.size, 'white')
      image = Image.alpha_composite(white.convert('RGBA'), image.convert('RGBA'))
      image = image.convert('L' if stored.shape[-1] == 2 else 'RGB')
    options |= {'quality': 95, 'subsampling': 0}
  elif extension == '.webp':
    if stored.shape[-1] < 3:  # WebP has no grey pixels, so no profile of them either
      image = image.convert('RGBA' if image.mode == 'LA' else 'RGB')
      options['icc_profile'] = None
    # Without loss, quality is effort: 80, the default, takes four times as long and
    # saves 0.4 % of the size.
    options |= {'lossless': True, 'exact': True, 'quality': 20}
  buffer = io.BytesIO()
  image.save(buffer, {'.jpg': 'JPEG', '.webp': 'WEBP'}[extension], **options)
  data = buffer.getvalue()
  return metadata_of.jpeg(data, own) if extension == '.jpg' else data
