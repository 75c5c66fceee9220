"""A user's picture with all that belongs to it, from file to file (layer 1: on images).

`images` makes every file what a network is trained on: 8 bits, sRGB, no transparency.
This keeps what its owner wants back: 16 bits, alpha, the colour profile, EXIF. Pillow
reads and writes 8-bit pixels and all headers; it has no 16-bit colour, which tifffile
and imagecodecs (libpng) have.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from sr3_jax.images import image_files, sixteen_bit
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import atomic_files

# What may be written: Pillow reads no more than 179 Mpx back.
MAX_OUTPUT = 2**27
# Longest side that a format can hold (JPEG: libjpeg's).
MAX_SIDE = {'.jpg': 65500, '.webp': 16383}
EXTENSIONS = ('.png', '.jpg', '.webp', '.tif')
KEY = 'sr3_jax'
# The same where there are no keys; and how EXIF announces the encoding of a comment.
_MARK, _ASCII = f'{KEY}: ', b'ASCII\0\0\0'

_EXTENSION = {'PNG': '.png', 'BMP': '.png', 'WEBP': '.webp', 'TIFF': '.tif'}
_ORIENTATION, _DESCRIPTION, _USER_COMMENT = 0x0112, 0x010E, 0x9286
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
# Camera, date, people. What describes the old pixels stays behind, be it in the main
# directory or below: sizes, resolution, orientation, the thumbnail, maker notes (they
# point into the old file) and the offset of a further directory.
_KEPT_TAGS = (_DESCRIPTION, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_LEFT_TAGS = (0xA002, 0xA003, 0xA005, 0x927C)
_COLOUR_SPACE = {1: b'GRAY', 3: b'RGB '}


@dataclasses.dataclass(frozen=True)
class Picture:
  """Pixels, and what else a file holds.

  Attributes:
    pixels: float32 [h, w, C] in [-1, 1], C = 1 (grey) or 3, upright, in the colour
      space of `icc`.
    alpha: float32 [h, w] in [0, 1], 0 is transparent; None without transparency.
      Colours aren't premultiplied with it.
    bits: 8 or 16, of a channel in the file.
    icc: colour profile of the pixels; None is sRGB.
    exif: block without orientation, sizes, thumbnail and maker notes; None if empty.
    format: Pillow's name, 'JPEG' say.
  """

  pixels: np.ndarray
  alpha: np.ndarray | None = None
  bits: int = 8
  icc: bytes | None = None
  exif: bytes | None = None
  format: str = 'PNG'


def header(source: pathlib.Path | bytes, name: str = '') -> tuple[int, int, str]:
  """(height, width, format) of a file as `read` returns it, from its header only.

  Raises:
    ImageError: the header can't be read, or it claims more than `images.MAX_PIXELS`.
  """
  with image_files.errors(name or source), _opened(source) as file:
    with sixteen_bit.tiff_page(file) as page:
      if page is not None:
        image_files.check_size(page.imagewidth, page.imagelength)
        size = page.imagelength, page.imagewidth
        turned = sixteen_bit.orientation(page) in (5, 6, 7, 8)
        return (*(size[::-1] if turned else size), 'TIFF')
    with image_files.open_image(file) as image:
      return (*image_files.upright_size(image), image.format)


def is_transparent(source: pathlib.Path | bytes, name: str = '') -> bool:
  """Whether a file has an alpha channel or a transparent colour, by its header.

  Raises:
    ImageError: as `header`.
  """
  with image_files.errors(name or source), _opened(source) as file:
    with sixteen_bit.tiff_page(file) as page:
      if page is not None:
        return bool(sixteen_bit.ALPHAS & set(page.extrasamples[:1]))
    with image_files.open_image(file) as image:
      return image.has_transparency_data


def read(source: pathlib.Path | bytes, name: str = '') -> Picture:
  """Reads a JPEG, PNG, WebP, TIFF or BMP file.

  EXIF orientation is applied. Grey stays grey; palettes become RGB; CMYK becomes sRGB,
  through its profile if it has one. 16-bit PNG and TIFF, grey or RGB, keep all their
  bits. Of several frames the first is taken.

  Args:
    source: a file, or the bytes of one.
    name: what errors call it.

  Raises:
    ImageError: the file can't be read, for whatever reason.
  """
  with image_files.errors(name or source):
    data = source if isinstance(source, bytes) else source.read_bytes()
    with sixteen_bit.tiff_page(io.BytesIO(data)) as page:
      if page is not None:
        image_files.check_size(page.imagewidth, page.imagelength)
        stored = sixteen_bit.upright(
          sixteen_bit.read_tiff(page), sixteen_bit.orientation(page)
        )
        icc, exif = page.iccprofile, None
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
        stored = _read8(image, icc)
    return _picture(stored, icc, exif, format_)


def _picture(
  stored: np.ndarray, icc: bytes | None, exif: bytes | None, format_: str
) -> Picture:
  """From uint8 or uint16 [h, w, 1 to 4]: grey or RGB, then alpha if there is any."""
  channels = 1 if stored.shape[-1] < 3 else 3
  pixels, alpha = stored[..., :channels], None
  bits = 8 * stored.dtype.itemsize
  if stored.shape[-1] > channels:
    alpha = stored[..., channels].astype(np.float32) / np.iinfo(stored.dtype).max
  return Picture(
    pixels=images_pixels.to_float(pixels) if bits == 8 else _to_float(pixels),
    alpha=alpha,
    bits=bits,
    icc=_suiting(icc, channels),
    exif=exif,
    format=format_,
  )


def extension(format_: str, height: int, width: int) -> str:
  """The extension under which a picture of this format and size is written.

  BMP becomes PNG, and so does what the sides of its format can't hold.
  """
  found = _EXTENSION.get(format_, '.jpg')
  return found if max(height, width) <= MAX_SIDE.get(found, 2**31) else '.png'


def check_sides(extension: str, height: int, width: int) -> None:
  """Refuses what a format can't hold.

  Raises:
    ImageError: a side is too long.
  """
  if max(height, width) > MAX_SIDE.get(extension, 2**31):
    raise ImageError(f'{extension} files hold no {width} x {height} pixels: use .png')


def encode(picture: Picture, extension: str, settings: dict[str, Any]) -> bytes:
  """The bytes of a file.

  PNG and TIFF keep 16 bits; JPEG (quality 95, full colour resolution) and WebP
  (lossless) have 8, and JPEG lays transparency over white. The colour profile goes
  along, and EXIF too: into a TIFF its texts only.

  Args:
    picture: values beyond [-1, 1] are clipped.
    extension: one of EXTENSIONS.
    settings: what made it, readable by `metadata` and as JSON by everybody: in the PNG
      text 'sr3_jax', the TIFF image description, the EXIF user comment.

  Raises:
    ImageError: an unknown extension, or sides that the format can't hold.
  """
  if extension not in EXTENSIONS:
    raise ImageError(f'cannot write {extension!r} files, only {", ".join(EXTENSIONS)}')
  check_sides(extension, *picture.pixels.shape[:2])
  if picture.bits == 16 and extension in ('.png', '.tif'):
    stored, top = _to_uint16(picture.pixels), 65535
  else:
    stored, top = images_pixels.to_uint8(picture.pixels), 255
  if picture.alpha is not None:
    alpha = np.clip(np.round(picture.alpha * top), 0, top).astype(stored.dtype)
    stored = np.concatenate([stored, alpha[..., None]], -1)
  icc = _suiting(picture.icc, picture.pixels.shape[-1])
  text = json.dumps(settings)
  if extension == '.tif':
    return sixteen_bit.encode_tiff(stored, _tiff_texts(picture.exif, text), icc)
  if stored.dtype == np.uint16:
    return sixteen_bit.encode_png(stored, {KEY: text}, icc, picture.exif)
  return _encode8(stored, extension, icc, picture.exif, text)


def write(path: pathlib.Path, picture: Picture, settings: dict[str, Any]) -> None:
  """`encode` into a file that appears only when it is complete.

  Raises:
    ImageError: as `encode`; a place that can't be written.
  """
  with image_files.errors(path):
    data = encode(picture, path.suffix, settings)
    atomic_files.write_bytes(path, data)


def metadata(path: pathlib.Path) -> dict[str, Any] | None:
  """The settings that `write` left in a file; None if it isn't one of ours."""
  with contextlib.suppress(Exception), path.open('rb') as file:
    with sixteen_bit.tiff_page(file) as page:
      if page is not None:
        return from_text(page.description)
    with image_files.open_image(file, MAX_OUTPUT) as image:
      if image.format == 'PNG':
        return from_text(_MARK + image.info[KEY])
      if image.format == 'TIFF':
        return from_text(image.tag_v2[_DESCRIPTION])
      comment = image.getexif().get_ifd(_EXIF_IFD)[_USER_COMMENT]
      return from_text(comment.removeprefix(_ASCII).decode())
  return None


def as_text(settings: dict[str, Any]) -> str:
  """Settings as a file holds them that has no keys for texts."""
  return _MARK + json.dumps(settings)


def from_text(text: str) -> dict[str, Any] | None:
  """The settings in such a text; None if it is another."""
  found = json.loads(text.removeprefix(_MARK)) if text.startswith(_MARK) else None
  return found if isinstance(found, dict) else None


def resize_alpha(alpha: np.ndarray, height: int, width: int) -> np.ndarray:
  """Transparency [h, w] in [0, 1] at another size: bicubic, clipped."""
  bicubic = Image.Resampling.BICUBIC
  resized = Image.fromarray(alpha.astype(np.float32)).resize((width, height), bicubic)
  return np.clip(np.asarray(resized), 0, 1)


# --------------------------------------------------------------------------- reading


def _opened(source: pathlib.Path | bytes) -> Any:
  return io.BytesIO(source) if isinstance(source, bytes) else source.open('rb')


def _read8(image: Image.Image, icc: bytes | None) -> np.ndarray:
  """Any opened picture as uint8 [h, w, 1 to 4], upright."""
  image.load()
  ImageOps.exif_transpose(image, in_place=True)
  if image.mode[0] in 'IF':
    raise ImageError(f'{image.mode} pixels have no defined range: use 8 or 16 bits')
  if image.mode == 'CMYK':
    transform = image_files.icc_transform(icc, 'CMYK') if icc else None
    image = transform.apply(image) if transform else image.convert('RGB')
  mode = 'L' if image.mode in ('1', 'L', 'LA', 'La') else 'RGB'
  if image.has_transparency_data:
    # Grey with a transparent level becomes LA only by way of RGBA.
    rgba = image.convert('RGBA')
    image = rgba if mode == 'RGB' else rgba.convert('LA')
  else:
    image = image.convert(mode)
  return np.array(image).reshape(image.height, image.width, -1)


def _kept_exif(exif: Image.Exif) -> bytes | None:
  """What still holds for a picture of another size, turned upright."""
  kept = Image.Exif()
  for tag in _KEPT_TAGS:
    if tag in exif:
      kept[tag] = exif[tag]
  for directory in (_EXIF_IFD, _GPS_IFD):
    tags = exif.get_ifd(directory)
    tags = {tag: value for tag, value in tags.items() if tag not in _LEFT_TAGS}
    if tags:
      kept[directory] = tags
  data = kept.tobytes()
  return data if len(kept) else None


def _suiting(icc: bytes | None, channels: int) -> bytes | None:
  """The profile if it is one for pixels of so many channels."""
  return icc if icc and icc[16:20] == _COLOUR_SPACE[channels] else None


def _to_float(stored: np.ndarray) -> np.ndarray:
  """uint16 -> float32 in [-1, 1]; `_to_uint16` gives the very levels back."""
  return stored.astype(np.float32) / 32767.5 - 1


def _to_uint16(pixels: np.ndarray) -> np.ndarray:
  levels = np.round((pixels.astype(np.float32) + 1) * 32767.5)
  return np.clip(levels, 0, 65535).astype(np.uint16)


# --------------------------------------------------------------------------- writing


def _encode8(
  stored: np.ndarray, extension: str, icc: bytes | None, exif: bytes | None, text: str
) -> bytes:
  """JPEG, PNG or WebP of uint8 [h, w, 1 to 4]."""
  image = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
  options: dict[str, Any] = {'icc_profile': icc}
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
    if stored.shape[-1] < 3:  # WebP knows no grey, nor what its profile means
      image, options['icc_profile'] = (
        image.convert('RGB' + 'A' * ('A' in image.mode)),
        None,
      )
    # Quality is effort here: 80, the default, takes four times as long for 0.4 %.
    options |= {'lossless': True, 'exact': True, 'quality': 20}
  buffer = io.BytesIO()
  image.save(
    buffer, {'.png': 'PNG', '.jpg': 'JPEG', '.webp': 'WEBP'}[extension], **options
  )
  return buffer.getvalue()


def _commented(exif: bytes | None, text: str) -> bytes:
  """An EXIF block with our user comment; alone if the two don't go together."""
  comment = {_USER_COMMENT: _ASCII + (_MARK + text).encode()}
  own = Image.Exif()
  own[_EXIF_IFD] = comment
  if exif:
    both = Image.Exif()
    # Pillow may read what it can't write.
    with contextlib.suppress(Exception):
      both.load(exif)
      both[_EXIF_IFD] = both.get_ifd(_EXIF_IFD) | comment
      if len(data := both.tobytes()) < 65500:  # a JPEG segment
        return data
  return own.tobytes()


def _tiff_texts(exif: bytes | None, text: str) -> dict[int, str]:
  """The texts of an EXIF block, as ASCII, and ours as the description."""
  known = Image.Exif()
  if exif:
    known.load(exif)
  texts = {tag: str(known[tag]) for tag in _KEPT_TAGS if tag in known}
  texts |= {_DESCRIPTION: _MARK + text}
  plain = lambda value: value.encode('ascii', 'replace').decode().strip('\0 ')
  return {tag: plain(value) for tag, value in texts.items() if plain(value)}
