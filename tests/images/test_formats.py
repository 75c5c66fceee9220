"""Tests of the formats that are read, and of what is said of files that aren't."""

import io
import sys
import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr3_jax.images import formats, image_files, picture_codec
from sr3_jax.images.pixels import ImageError
from tests.support.picture_files import file_of, tiff_of

Y, X = np.mgrid[:24, :32]
RGB = np.stack([X * 8, Y * 10, 255 - X * 8], -1).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = GREY.T.repeat(2, 0)[:24, :24].repeat(2, 1)[:, :32]


def read(data):
  """Read with the codec of pictures and as training does, and compare headers."""
  picture, header = picture_codec.read(data), picture_codec.header(data)
  assert picture.pixels.shape[:2] == header[:2] and picture.format == header.format
  assert header.transparent == (picture.alpha is not None)
  flat = image_files.read(data)
  assert flat.shape == (*header[:2], 3)
  return picture, flat


def levels(picture):
  return np.round((picture.pixels.astype(np.float64) + 1) * 127.5, 3)


@pytest.mark.parametrize(
  ('format_', 'off', 'ending'),
  [
    *[('JPEG2000', 0.1, '.png'), ('PPM', 0, '.png'), ('TGA', 0, '.png')],
    *[('GIF', 6, '.png'), ('AVIF', 3, '.png'), ('BMP', 0, '.png')],
    *[('JPEG', 3, '.jpg'), ('WEBP', 3, '.webp'), ('TIFF', 0, '.tif')],
  ],
)
def test_formats_of_pillow(format_, off, ending):
  picture, flat = read(file_of(format_, RGB))
  assert np.abs(levels(picture) - RGB).mean() <= off
  assert np.abs(flat.astype(int) - RGB).mean() <= off
  assert picture_codec.extension(picture.format, 24, 32) == ending


def test_every_format_has_a_decoder():
  Image.init()
  for name, known in formats.FORMATS.items():
    assert name in Image.OPEN or name in ('HEIF', 'MPO')
    assert known.output in picture_codec.EXTENSIONS
  assert len(set(formats.EXTENSIONS)) == len(formats.EXTENSIONS)
  wanted = {'.jpe', '.jfif', '.avif', '.gif', '.jxl', '.heic', '.jp2', '.tga', '.bmp'}
  assert wanted <= set(formats.EXTENSIONS)


@pytest.mark.parametrize('lossless', [True, False])
@pytest.mark.parametrize('container', [True, False])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_jpeg_xl(channels, lossless, container):
  stored = np.dstack([RGB, ALPHA])[
    ..., [[0], [0, 3], [0, 1, 2], [0, 1, 2, 3]][channels - 1]
  ]
  data = imagecodecs.jpegxl_encode(
    np.squeeze(stored), lossless=lossless, usecontainer=container
  )
  picture, _ = read(data)
  colours = 1 if channels < 3 else 3
  off = 0 if lossless else 4
  shown = ALPHA > 0 if channels in (2, 4) else np.full(ALPHA.shape, True)
  assert np.abs(levels(picture) - stored[..., :colours])[shown].mean() <= off
  if channels in (2, 4):
    assert np.abs(picture.alpha * 255 - ALPHA).max() <= 2 * off + 1e-4


def test_jpeg_xl_of_16_and_10_bits_in_linear_light():
  """imagecodecs declares deep pixels as linear: they look the same in sRGB."""
  linear = np.where(
    GREY <= 10, GREY / 255 / 12.92, ((GREY / 255 + 0.055) / 1.055) ** 2.4
  )
  for bits in (16, 10):
    stored = np.round(linear * (2**bits - 1)).astype(np.uint16)
    data = imagecodecs.jpegxl_encode(stored, lossless=True, bitspersample=bits)
    picture, flat = read(data)
    assert picture.bits == 16
    assert np.abs(levels(picture)[..., 0] - GREY).max() < (0.1 if bits == 16 else 2)
    assert np.abs(flat[..., 0].astype(int) - GREY).max() <= (1 if bits == 16 else 2)


def test_damaged_jpeg_xl_is_one_line():
  data = imagecodecs.jpegxl_encode(RGB, lossless=True)
  for broken in (
    data[:3],
    data[:20],
    data[:-9],
    data[:2] + b'\xff' * 40,
    data[:5] * 30,
  ):
    with pytest.raises(ImageError) as error:
      picture_codec.read(broken)
    assert '\n' not in str(error.value)


def test_deep_grey_of_other_formats_keeps_its_bits():
  stored = GREY.astype(np.uint16) * 257 + 3
  for format_ in ('JPEG2000', 'PPM'):
    picture, flat = read(file_of(format_, stored))
    assert picture.bits == 16
    np.testing.assert_array_equal(
      np.round((picture.pixels[..., 0].astype(float) + 1) * 32767.5), stored
    )
    assert np.abs(flat[..., 0].astype(int) - GREY).max() <= 1


def test_deep_grey_with_a_transparent_level_is_laid_over_white():
  """What Pillow reads as I;16 has alpha, too: the hidden level must not show."""
  stored = np.full((4, 6), 1000, np.uint16)
  stored[:, 3:] = 30000
  buffer = io.BytesIO()
  Image.fromarray(stored).save(buffer, 'PNG', transparency=1000)
  picture, flat = read(buffer.getvalue())
  np.testing.assert_array_equal(picture.alpha[:, 2:4], np.tile([0, 1], (4, 1)))
  np.testing.assert_array_equal(flat[0, 2:4, 0], [255, round(30000 / 257)])


REFUSED = {
  'float32': (tiff_of(RGB.astype(np.float32) / 255, photometric='rgb'), 'floating'),
  'half': (tiff_of(GREY.astype(np.float16)), '16 bits, floating point'),
  'int16': (tiff_of(RGB.astype(np.int16), photometric='rgb'), '16 bits, signed'),
  'int8': (tiff_of((GREY // 2).astype(np.int8)), '8 bits, signed'),
  'uint32': (tiff_of(RGB.astype(np.uint32), photometric='rgb'), '32 bits, integers'),
  'thumbnail': (tiff_of(RGB, photometric='rgb', subfiletype=1), 'thumbnail'),
  'page': (b'<!DOCTYPE html>\n<html>', 'a web page, not a JPEG'),
  'drawing': (b'<?xml version="1.0"?>\n<svg>', 'an SVG drawing'),
  'pointer': (b'version https://git-lfs.github.com/spec/v1\n', 'git-lfs'),
  'pdf': (b'%PDF-1.7\n\xff\xff', 'a PDF'),
  'video': (b'\0\0\0\x18ftypisom\0\0\0\0isommp42' + b'\xff' * 50, 'a video'),
  'text': (b'hello ' * 40, 'a text, not a JPEG'),
  'noise': (bytes(np.random.default_rng(0).integers(0, 256, 999, np.uint8)), 'not a'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_not_read_is_named(kind):
  data, reason = REFUSED[kind]
  for function in (picture_codec.header, picture_codec.read, image_files.read):
    with pytest.raises(ImageError) as error:
      function(data, 'a.png')
    text = str(error.value)
    assert reason in text and '\n' not in text and text.startswith('a.png: ')


def test_heic_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pillow_heif', None)
  data = b'\0\0\0\x18ftypmif1\0\0\0\0mif1heic' + b'\xff' * 99
  with pytest.raises(ImageError, match=r"pip install 'sr3_jax\[heif\]'"):
    image_files.read(data)


def test_heic_is_read_where_its_reader_is_installed():
  heif = pytest.importorskip('pillow_heif')
  buffer = io.BytesIO()
  heif.from_pillow(Image.fromarray(RGB)).save(buffer, quality=-1)
  picture, _ = read(buffer.getvalue())
  assert picture.format == 'HEIF'
  assert np.abs(levels(picture) - RGB).mean() < 5


def test_no_bytes_are_taken_for_a_tga():
  """TGA has no mark; random bytes and the beginnings of other files are none."""
  rng = np.random.default_rng(1)
  noise = rng.integers(0, 256, (2000, 64), np.uint8)
  assert np.mean([formats.is_tga(bytes(row)) for row in noise]) < 0.001
  for format_ in ('PNG', 'JPEG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'PPM', 'AVIF'):
    assert not formats.is_tga(file_of(format_, RGB))
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    assert formats.is_tga(file_of('TGA', RGB)) and formats.is_tga(file_of('TGA', GREY))


def test_tiffs_that_pillow_does_not_read():
  deep = np.dstack([GREY, ALPHA]).astype(np.uint16) * 257
  data = tiff_of(deep, photometric='minisblack', extrasamples=['unassalpha'])
  picture, flat = read(data)
  assert (
    picture.bits == 16
    and (picture.alpha * 255).round().astype(int)[3, 4] == ALPHA[3, 4]
  )
  white = 255 - (255 - GREY.astype(float)) * (ALPHA / 255)
  assert np.abs(flat[..., 0] - white).max() <= 1
  data = tiff_of(RGB, photometric='rgb', compression='jpegxl')
  picture, _ = read(data)
  np.testing.assert_array_equal(levels(picture).round(), RGB)


def test_planes_and_big_tiffs():
  planes = tiff_of(np.moveaxis(RGB, -1, 0), photometric='rgb', planarconfig='separate')
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, RGB, bigtiff=True, photometric='rgb')
  for data in (planes, buffer.getvalue()):
    picture, _ = read(data)
    np.testing.assert_array_equal(levels(picture).round(), RGB)


@pytest.mark.parametrize(
  ('kind', 'words'),
  [
    ('int16', '16 bits, signed'),
    ('int32', '32 bits, signed'),
    ('uint32', '32 bits, integers'),
    ('float32', '32 bits, floating'),
  ],
)
def test_grey_pixels_without_a_range_are_named_as_they_are_stored(kind, words):
  """Pillow reads all of them as 'I' or 'F', of 32 bits."""
  data = tiff_of(GREY.astype(kind))
  for function in (picture_codec.read, image_files.read):
    with pytest.raises(ImageError, match=f'pixels of {words}'):
      function(data)
