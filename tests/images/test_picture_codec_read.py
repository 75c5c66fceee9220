"""Tests of reading pictures against Pillow, tifffile and what the formats define."""

import io
import struct
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr3_jax.images import picture_codec, pixels
from tests.support.picture_files import SETTINGS, file_of, png_chunk, png_of, tiff_of
from tests.support.pictures import UPRIGHT, noise

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

_NO = ('BMP', 4)  # Pillow writes no transparent BMP


def _claiming(width, height):
  """Write a PNG whose header claims a size without any pixels behind it."""
  data = png_of(np.zeros((1, 1, 3), np.uint8))
  claim = data[12:16] + struct.pack('>II', width, height) + data[24:29]
  return data[:12] + claim + struct.pack('>I', zlib.crc32(claim)) + data[33:]


def _levels(floats, top):
  return np.round((floats.astype(np.float64) + 1) / 2 * top).astype(int)


@pytest.mark.parametrize(
  ('format_', 'channels'),
  [(f, c) for f in ('PNG', 'TIFF', 'WEBP', 'BMP') for c in (1, 3, 4) if (f, c) != _NO],
)
def test_read_8_bits(format_, channels):
  stored = noise(5, 7, channels)
  stored[..., 3:] |= 1  # what is fully transparent may lose its colour in WebP
  options = {'lossless': True} if format_ == 'WEBP' else {}
  picture = picture_codec.read(file_of(format_, np.squeeze(stored), **options))
  colours = 3 if channels == 4 or format_ == 'WEBP' else channels
  assert picture.format == format_ and picture.bits == 8
  assert picture.pixels.dtype == np.float32 and picture.pixels.shape == (5, 7, colours)
  expected = np.broadcast_to(stored[..., :3], (5, 7, 3))
  np.testing.assert_array_equal(
    np.broadcast_to(_levels(picture.pixels, 255), (5, 7, 3)), expected
  )
  if channels == 4:
    np.testing.assert_allclose(picture.alpha, stored[..., 3] / 255, atol=1e-7)
  else:
    assert picture.alpha is None


def test_read_modes():
  """Palettes, transparent colours, one bit and grey with alpha are read."""
  rgb = noise(6, 4)
  palette = Image.fromarray(rgb).quantize(24)
  buffer = io.BytesIO()
  palette.save(buffer, 'PNG', transparency=palette.getpixel((1, 2)))
  picture = picture_codec.read(buffer.getvalue())
  np.testing.assert_array_equal(
    _levels(picture.pixels, 255), np.asarray(palette.convert('RGB'))
  )
  assert picture.alpha[2, 1] == 0 and picture.alpha.max() == 1

  picture = picture_codec.read(file_of('PNG', rgb[..., 0] > 100))
  assert picture.pixels.shape == (6, 4, 1)
  np.testing.assert_array_equal(
    picture.pixels[..., 0], np.where(rgb[..., 0] > 100, 1, -1)
  )

  picture = picture_codec.read(file_of('PNG', rgb[..., :2]))
  np.testing.assert_array_equal(_levels(picture.pixels, 255), rgb[..., :1])
  np.testing.assert_allclose(picture.alpha, rgb[..., 1] / 255, atol=1e-7)

  grey = rgb[..., 0]
  picture = picture_codec.read(file_of('PNG', grey, transparency=int(grey[3, 3])))
  np.testing.assert_array_equal(_levels(picture.pixels, 255)[..., 0], grey)
  assert picture.alpha[3, 3] == 0 and picture.alpha.max() == 1


def test_read_cmyk_and_mpo(tmp_path):
  cmyk = Image.new('CMYK', (8, 8), (255, 0, 0, 0))
  buffer = io.BytesIO()
  cmyk.save(buffer, 'TIFF', icc_profile=b'\0' * 16 + b'CMYK' + b'\0' * 200)
  picture = picture_codec.read(buffer.getvalue())
  np.testing.assert_array_equal(_levels(picture.pixels, 255)[0, 0], [0, 255, 255])
  assert picture.icc is None
  # Phones write such files: a JPEG with a second picture behind it.
  one = Image.new('RGB', (8, 8), (200, 10, 10))
  buffer = io.BytesIO()
  one.save(buffer, 'MPO', save_all=True, append_images=[Image.new('RGB', (4, 4))])
  picture = picture_codec.read(buffer.getvalue())
  assert picture.pixels.shape == (8, 8, 3)
  assert picture_codec.extension(picture.format, 8, 8) == '.jpg'


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_read_16_bit_png(channels):
  stored = noise(5, 7, channels, np.uint16)
  picture = picture_codec.read(png_of(stored))
  assert picture.bits == 16 and picture.pixels.dtype == np.float32
  colours = 1 if channels < 3 else 3
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored[..., :colours])
  if channels in (2, 4):
    np.testing.assert_allclose(picture.alpha, stored[..., -1] / 65535, atol=1e-7)
  else:
    assert picture.alpha is None


def test_read_16_bit_png_with_a_transparent_colour():
  stored = noise(3, 4, 3, np.uint16)
  mark = png_chunk(b'tRNS', stored[1, 2].astype('>u2').tobytes())
  picture = picture_codec.read(png_of(stored, mark))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored)
  assert picture.alpha[1, 2] == 0 and picture.alpha.sum() == 11


@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_read_16_bit_tiff(channels, compression):
  stored = noise(9, 7, channels, np.uint16)
  alpha = channels in (2, 4)
  data = tiff_of(
    stored if channels > 1 else stored[..., 0],
    photometric='rgb' if channels > 2 else 'minisblack',
    planarconfig='contig' if channels > 1 else None,
    extrasamples=['unassalpha'] if alpha else None,
    compression=compression,
    predictor=compression is not None,
    byteorder='>' if channels == 3 else '<',
  )
  picture = picture_codec.read(data)
  colours = 1 if channels < 3 else 3
  assert picture.bits == 16
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored[..., :colours])
  assert (picture.alpha is not None) == alpha


def test_read_unusual_tiff():
  stored = noise(6, 5, 3, np.uint16)
  planar = np.moveaxis(stored, -1, 0)
  picture = picture_codec.read(
    tiff_of(planar, photometric='rgb', planarconfig='separate')
  )
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored)

  picture = picture_codec.read(tiff_of(stored[..., 0], photometric='miniswhite'))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), 65535 - stored[..., :1])

  # Premultiplied alpha stores half transparent white as half.
  half = np.full((2, 2, 4), 32768, np.uint16)
  data = tiff_of(half, photometric='rgb', extrasamples=['assocalpha'])
  picture = picture_codec.read(data)
  np.testing.assert_allclose(picture.pixels, 1, atol=1e-6)
  np.testing.assert_allclose(picture.alpha, 32768 / 65535, atol=1e-7)

  two = np.stack([stored, 65535 - stored])
  picture = picture_codec.read(tiff_of(two, photometric='rgb'))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'PNG16', 'TIFF16'])
@pytest.mark.parametrize('orientation', UPRIGHT)
def test_orientation(kind, orientation):
  y, x = np.mgrid[0:24, 0:40]
  stored = np.stack([6 * x, 10 * y, 3 * x * y % 80], -1).astype(np.uint8)
  exif = Image.Exif()
  exif[274] = orientation
  exif[271] = 'Camera'
  if kind == 'PNG16':
    block = exif.tobytes().removeprefix(b'Exif\0\0')
    data = png_of(stored.astype(np.uint16) * 257, png_chunk(b'eXIf', block))
  elif kind == 'TIFF16':
    tag = (274, 'H', 1, orientation, True)
    data = tiff_of(stored.astype(np.uint16) * 257, photometric='rgb', extratags=[tag])
  else:
    options = {'JPEG': {'quality': 100, 'subsampling': 0}, 'WEBP': {'lossless': True}}
    data = file_of(kind, stored, exif=exif, **options.get(kind, {}))
  expected = UPRIGHT[orientation](stored)
  assert picture_codec.header(data)[:2] == expected.shape[:2]
  picture = picture_codec.read(data)
  error = np.abs(_levels(picture.pixels, 255) - expected).max()
  assert error <= (6 if kind == 'JPEG' else 0)
  for extension in picture_codec.EXTENSIONS:
    written = picture_codec.encode(picture, extension, SETTINGS)
    with Image.open(io.BytesIO(written)) as image:
      assert image.getexif().get(274, 1) == 1
      assert image.size == expected.shape[1::-1]
      if kind != 'TIFF16':
        assert image.getexif()[271] == 'Camera'


def test_bad_files_are_one_line_errors(tmp_path):
  good = file_of('PNG', noise(40, 40))
  sixteen = imagecodecs.png_encode(noise(40, 40, 3, np.uint16))
  tiff = tiff_of(noise(40, 40, 3, np.uint16), photometric='rgb')
  packed = tiff_of(noise(40, 40, 3, np.uint16), photometric='rgb', compression='lzw')
  wide = bytearray(tiff)
  with tifffile.TiffFile(io.BytesIO(tiff)) as file:
    tags = file.pages[0].tags
    for tag, claimed in (('ImageWidth', 12000), ('ImageLength', 10000)):
      struct.pack_into('<H', wide, tags[tag].valueoffset, claimed)
  flipped = bytearray(sixteen)
  flipped[3000] ^= 255
  files = {
    'text.png': b'Dear reader,\nthis is no picture.\n',
    'empty.jpg': b'',
    'cut8.png': good[: len(good) // 2],
    'cut16.png': sixteen[: len(sixteen) // 2],
    'flipped16.png': bytes(flipped),
    'cut.tif': tiff[: len(tiff) // 2],
    'cut-lzw.tif': packed[: len(packed) // 2],
    'float.tif': tiff_of(np.zeros((4, 4), np.float32)),
    'bomb.png': _claiming(12000, 10000),
    'larger bomb.png': _claiming(30000, 20000),
    'bomb.tif': bytes(wide),
  }
  for name, data in files.items():
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(pixels.ImageError) as error:
      picture_codec.read(path)
    message = str(error.value)
    assert message.startswith(f'{path}: ') and '\n' not in message, message
    if 'bomb' in name:
      claimed = '600000000' if 'larger' in name else '12000 x 10000'
      assert claimed in message
      with pytest.raises(pixels.ImageError, match=claimed):
        picture_codec.header(path)
    if name in ('text.png', 'empty.jpg'):
      assert picture_codec.metadata(path) is None
  with pytest.raises(pixels.ImageError, match='no such file'):
    picture_codec.read(tmp_path / 'missing.png')
  with pytest.raises(pixels.ImageError, match=r'^standard input: zero bytes$'):
    picture_codec.read(b'', 'standard input')


def test_nothing_leaks_to_stderr(tmp_path):
  tiff = tiff_of(noise(40, 40, 3, np.uint16), photometric='rgb', compression='lzw')
  (tmp_path / 'a.tif').write_bytes(tiff[:-900])
  with tifffile.TiffFile(io.BytesIO(tiff)) as file:
    at = file.pages[0].tags['ResolutionUnit'].valueoffset
  odd = tiff[:at] + struct.pack('<H', 99) + tiff[at + 2 :]
  (tmp_path / 'b.tif').write_bytes(odd)
  code = """
import pathlib, sys
from sr3_jax.images import picture_codec, pixels
for name in sys.argv[1:]:
  try:
    picture_codec.read(pathlib.Path(name))
  except pixels.ImageError:
    print('error')
"""
  files = [str(tmp_path / name) for name in ('a.tif', 'b.tif')]
  done = subprocess.run(
    [sys.executable, '-c', code, *files], capture_output=True, text=True, check=True
  )
  assert done.stderr == '' and done.stdout == 'error\n'
