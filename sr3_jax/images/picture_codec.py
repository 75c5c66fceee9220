"""Reads and writes a user's picture with all that belongs to it.

`image_files` turns every file into what a network is trained on: 8 bits, sRGB, no
transparency. This module keeps what the owner of a picture wants back: 16 bits, alpha,
the colour profile, EXIF. Pillow reads and writes 8-bit pixels and all headers;
`sixteen_bit` does the rest.

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
from PIL import Image, ImageOps, PngImagePlugin

from sr3_jax.images import formats, image_files, jpeg_xl, rasters, resizing, sixteen_bit
from sr3_jax.images import pixels as images_pixels
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

_ORIENTATION, _DESCRIPTION, _USER_COMMENT = 0x0112, 0x010E, 0x9286
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
# Tags about camera, date and people are kept. Tags that describe the old pixels are
# left out, in the main directory and below: sizes, resolution, orientation, thumbnail,
# maker notes (they point into the old file) and the offset of a further directory.
_KEPT_TAGS = (_DESCRIPTION, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_OMITTED_TAGS = (0xA002, 0xA003, 0xA005, 0x927C)
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
  # The block without orientation, sizes, thumbnail and maker notes.
  exif: bytes | None = None
  format: str = 'PNG'  # as Pillow names it


class Header(NamedTuple):
  """What the header of a picture file says about it."""

  height: int  # in pixels, upright
  width: int
  format: str  # as Pillow names it
  transparent: bool  # whether it has an alpha channel or a transparent colour


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
        return Header(*sides, 'TIFF', transparent)
    with image_files.open_image(file) as image:
      sides = image_files.upright_size(image)
      return Header(*sides, image.format or '', image.has_transparency_data)


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
        stored, icc, exif = sixteen_bit.upright(stored, turned), page.iccprofile, None
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as image:
          exif = _kept_exif(image.getexif())
        return _picture(stored, icc, exif, 'TIFF')
    with image_files.open_image(io.BytesIO(data)) as image:
      orientation, exif = 1, None
      # A damaged EXIF block is no reason to lose the picture.
      with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION, 1)
        exif = _kept_exif(image.getexif())
      # Taken now: turning a picture may drop what it came with.
      icc, format_ = image.info.get('icc_profile'), image.format
      if format_ == 'PNG' and data[24] == 16:  # the depth in IHDR, the first chunk
        stored = sixteen_bit.upright(sixteen_bit.read_png(data), orientation)
      else:
        stored = _read_opened(image, icc)
    return _picture(stored, icc, exif, str(format_))


def _picture(
  stored: np.ndarray, icc: bytes | None, exif: bytes | None, format_: str
) -> Picture:
  """Make a picture of uint8 or uint16 [h, w, 1 to 4]: grey or RGB, then alpha."""
  channels = 1 if stored.shape[-1] < 3 else 3
  pixels, alpha = images_pixels.to_float(stored[..., :channels]), None
  if stored.shape[-1] > channels:
    alpha = stored[..., channels].astype(np.float32) / np.iinfo(stored.dtype).max
  bits, icc = 8 * stored.dtype.itemsize, _matching(icc, channels)
  return Picture(pixels, alpha, bits, icc, exif, format_)


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
  (lossless) have 8, and JPEG lays transparency over white. The colour profile and EXIF
  are written too; a TIFF gets the texts of EXIF only.

  Args:
    picture: values beyond [-1, 1] are clipped.
    extension: one of EXTENSIONS.
    settings: what made the picture, for `metadata`. Other programs find them as JSON in
      the PNG text 'sr3_jax', the TIFF image description or the EXIF user comment.

  Raises:
    ImageError: an unknown extension, or sides that the format can't hold.
  """
  if extension not in EXTENSIONS:
    raise ImageError(f'cannot write {extension!r} files, only {", ".join(EXTENSIONS)}')
  check_sides(extension, *picture.pixels.shape[:2])
  if picture.bits == 16 and extension in ('.png', '.tif'):
    stored, top = rasters.from_float(picture.pixels, np.uint16), 65535
  else:
    stored, top = images_pixels.to_uint8(picture.pixels), 255
  if picture.alpha is not None:
    alpha = np.clip(np.round(picture.alpha * top), 0, top).astype(stored.dtype)
    stored = np.concatenate([stored, alpha[..., None]], -1)
  icc = _matching(picture.icc, picture.pixels.shape[-1])
  text = json.dumps(settings)
  if extension == '.tif':
    return sixteen_bit.encode_tiff(stored, _tiff_texts(picture.exif, text), icc)
  if stored.dtype == np.uint16:
    return sixteen_bit.encode_png(stored, {KEY: text}, icc, picture.exif)
  return _encode8(stored, extension, icc, picture.exif, text)


def write(path: pathlib.Path, picture: Picture, settings: Settings) -> None:
  """Write a file as `encode` makes it; it appears when it is complete.

  Raises:
    ImageError: as `encode`; a place that can't be written.
  """
  with image_files.errors(path):
    data = encode(picture, path.suffix, settings)
    atomic_files.write_bytes(path, data)


def metadata(path: pathlib.Path) -> Settings | None:
  """Return the settings that were written into a picture or raster; None if none."""
  with contextlib.suppress(Exception), path.open('rb') as file:
    if sixteen_bit.is_tiff(file):
      with sixteen_bit.open_tiff(file) as tiff:
        return from_text(tiff.pages.first.description)
    with image_files.open_image(file, MAX_OUTPUT) as image:
      if KEY in image.info:
        return from_text(_MARK + image.info[KEY])
      if rasters.DESCRIPTION in image.info:
        return from_text(image.info[rasters.DESCRIPTION])
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


def _kept_exif(exif: Image.Exif) -> bytes | None:
  """Return the tags that still hold for a picture of another size, turned upright."""
  kept = Image.Exif()
  kept.update({tag: exif[tag] for tag in _KEPT_TAGS if tag in exif})
  for directory in (_EXIF_IFD, _GPS_IFD):
    tags = exif.get_ifd(directory).items()
    if tags := {tag: value for tag, value in tags if tag not in _OMITTED_TAGS}:
      kept[directory] = tags
  return kept.tobytes() if len(kept) else None


def _matching(icc: bytes | None, channels: int) -> bytes | None:
  """Return the profile if it is one for pixels of so many channels, else None."""
  return icc if icc and icc[16:20] == _COLOUR_SPACE[channels] else None


def _encode8(
  stored: np.ndarray, extension: str, icc: bytes | None, exif: bytes | None, text: str
) -> bytes:
  """Return the bytes of a JPEG, PNG or WebP file of uint8 [h, w, 1 to 4]."""
  image = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
  options: dict[str, object] = {'icc_profile': icc}
  if extension == '.png':
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, text)
    options |= {'pnginfo': info, 'exif': exif or b''}
  else:
    options['exif'] = _commented(exif, text)
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
  format_ = {'.png': 'PNG', '.jpg': 'JPEG', '.webp': 'WEBP'}[extension]
  image.save(buffer, format_, **options)
  return buffer.getvalue()


def _commented(exif: bytes | None, text: str) -> bytes:
  """Add our user comment to an EXIF block; give the comment alone if that fails."""
  comment = {_USER_COMMENT: _ASCII + (_MARK + text).encode()}
  own = Image.Exif()
  own[_EXIF_IFD] = comment
  if exif:
    both = Image.Exif()
    # Pillow reads some tags that it can't write.
    with contextlib.suppress(Exception):
      both.load(exif)
      both[_EXIF_IFD] = both.get_ifd(_EXIF_IFD) | comment
      if len(data := both.tobytes()) < 65500:  # a JPEG segment
        return data
  return own.tobytes()


def _tiff_texts(exif: bytes | None, text: str) -> dict[int, str]:
  """Return the texts of an EXIF block as ASCII, with ours as the description."""
  known = Image.Exif()
  known.load(exif or b'')
  texts = {tag: str(known[tag]) for tag in _KEPT_TAGS if tag in known}
  texts[_DESCRIPTION] = _MARK + text
  ascii_ = {k: v.encode('ascii', 'replace').decode() for k, v in texts.items()}
  return {tag: kept for tag, text in ascii_.items() if (kept := text.strip('\0 '))}
