"""Changed bytes of pictures of every format: one line, or a picture that is written."""

import functools
import io
import itertools
import pathlib
import random
import struct
import warnings
import zlib
from unittest import mock

import imagecodecs
import numpy as np
from PIL import Image

from sr3_jax.check_data import file_check
from sr3_jax.images import (
  formats,
  frames,
  image_files,
  metadata,
  picture_codec,
  rasters,
)
from sr3_jax.images.pixels import ImageError
from tests.fuzz import damage, lines
from tests.support.picture_files import SRGB, file_of, png_chunk, png_of, tiff_of

MAX_PIXELS = 2**20  # of what is decoded
_Y, _X = np.mgrid[:12, :16]
RGBA = np.stack([_X * 15, _Y * 20, 255 - _X * 15, 255 - _Y * 20], -1).astype(np.uint8)
RGB = np.ascontiguousarray(RGBA[..., :3])
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'


def _film(format_: str, **options) -> bytes:
  images = [Image.fromarray(np.roll(RGB, 4 * i, 1)) for i in range(3)]
  buffer = io.BytesIO()
  rest = {'save_all': True, 'append_images': images[1:], **options}
  images[0].save(buffer, format_, **rest)
  return buffer.getvalue()


def _exif() -> bytes:
  exif = Image.Exif()
  exif[0x010E], exif[0x9C9B], exif[0x0112] = 'a caption', b't\0\0\0', 6
  exif.get_ifd(0x8769)[0x9286] = b'ASCII\0\0\0a comment'
  return exif.tobytes()


def _palette() -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(RGB).quantize(16).save(buffer, 'PNG', transparency=b'\0\x80\xff')
  return buffer.getvalue()


def _jpeg(mode: str, **options) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(RGB).convert(mode).save(buffer, 'JPEG', **options)
  return buffer.getvalue()


_ALL = {'exif': _exif(), 'icc_profile': SRGB}
# By the format that has them, and a note where there are several.
FILES = {
  'JPEG': lambda: file_of('JPEG', RGB, **_ALL, xmp=XMP, dpi=(300, 300), comment=b'c'),
  'JPEG progressive': lambda: _jpeg('RGB', progressive=True, quality=40),
  'JPEG CMYK': lambda: _jpeg('CMYK'),
  'JPEG grey': lambda: _jpeg('L'),
  'MPO': lambda: _film('MPO'),
  'PNG': lambda: file_of('PNG', RGBA, **_ALL, dpi=(300, 300)),
  'PNG palette': _palette,
  'PNG 16 bit': lambda: png_of(
    RGBA.astype(np.uint16) * 257,
    png_chunk(b'gAMA', (45455).to_bytes(4)),
    png_chunk(b'cHRM', bytes(range(32))),
    png_chunk(b'cICP', b'\x01\x0d\x00\x01'),
    png_chunk(b'zTXt', b'Key\0\0' + zlib.compress(b'text' * 50)),
  ),
  'PNG film': lambda: _film('PNG', duration=50, disposal=2, blend=1),
  'WEBP': lambda: file_of('WEBP', RGBA, **_ALL, xmp=XMP),
  'WEBP film': lambda: _film('WEBP', duration=50),
  'TIFF': lambda: tiff_of(RGB, photometric='rgb'),
  'TIFF 16 bit': lambda: tiff_of(RGBA.astype(np.uint16) * 257, photometric='rgb'),
  'TIFF float': lambda: tiff_of(RGB[..., 0].astype(np.float32)),
  'TIFF LZW': lambda: file_of('TIFF', RGB, compression='tiff_lzw', icc_profile=SRGB),
  'TIFF JPEG': lambda: file_of('TIFF', RGB, compression='jpeg'),
  'TIFF pages': lambda: _film('TIFF'),
  'BMP': lambda: file_of('BMP', RGB),
  'GIF': lambda: _film('GIF', duration=50, disposal=2, comment=b'c'),
  'AVIF': lambda: file_of('AVIF', RGBA, **_ALL),
  'AVIF film': lambda: _film('AVIF', duration=50),
  'JXL': lambda: imagecodecs.jpegxl_encode(RGBA, lossless=True),
  'JXL boxes': lambda: imagecodecs.jpegxl_encode(
    RGB, lossless=False, usecontainer=True
  ),
  'JPEG2000': lambda: file_of('JPEG2000', RGBA),
  'PPM': lambda: file_of('PPM', RGB),
  'TGA': lambda: file_of('TGA', RGBA, compression='tga_rle'),
}
assert {name.split()[0] for name in FILES} == set(formats.FORMATS) - {'HEIF'}


@functools.cache
def _file(name: str) -> bytes:
  return FILES[name]()


def _with_checksums(data: bytes) -> bytes:
  """Make the checksums of a PNG right again, so that chunks are not just refused."""
  data, place = bytearray(data), 8
  while place + 12 <= len(data):
    (length,) = struct.unpack_from('>I', data, place)
    end = place + 8 + length
    if end + 4 > len(data):
      break
    struct.pack_into('>I', data, end, zlib.crc32(data[place + 4 : end]))
    place = end + 4
  return bytes(data)


def attack(rng: random.Random, folder: pathlib.Path) -> str:
  """Read a damaged picture in every way; write what could be read in every format."""
  name = rng.choice([*FILES])
  data = damage.of_bytes(_file(name), rng)
  if name.startswith('PNG') and rng.random() < 0.7:
    data = _with_checksums(data)
  path = folder / 'a.png'
  path.write_bytes(data)
  found = set()
  with (
    warnings.catch_warnings(action='ignore'),
    mock.patch.object(image_files, 'MAX_PIXELS', MAX_PIXELS),
  ):
    for read in (
      lambda: picture_codec.header(data),
      lambda: image_files.read(data),
      lambda: image_files.size(path),
      lambda: [*itertools.islice(frames.read(data), 9)],
      lambda: rasters.read(path),
      lambda: picture_codec.metadata(path),
      lambda: _checked(path),
    ):
      try:
        read()
        found.add('read')
      except ImageError as error:
        found.add(lines.refused(error))
    try:
      picture = picture_codec.read(data)
      ending = rng.choice(picture_codec.EXTENSIONS)
      written = picture_codec.encode(
        picture, ending, {'a': 1}
      )  # WebP has largest sides
    except ImageError as error:
      return lines.refused(error)
    metadata.not_kept(picture.metadata, ending)
    with Image.open(io.BytesIO(written)) as image:
      image.load()
      assert image.size == picture.pixels.shape[1::-1], ending
    path = folder / f'b{ending}'
    path.write_bytes(written)
    assert picture_codec.metadata(path) == {'a': 1}, ending
  return 'read'


def _checked(path: pathlib.Path) -> None:
  """Check a file as --mode=check-data does, which returns what is wrong."""
  if reason := file_check.check_file(path).error:
    raise ImageError(reason)
