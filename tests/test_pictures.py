"""Pictures against Pillow, tifffile, libpng and values that follow from the formats."""

import io
import json
import pathlib
import struct
import subprocess
import sys
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin

from sr3_jax import images, pictures

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
GREY = SRGB[:16] + b'GRAY' + SRGB[20:]
_NO = ('BMP', 4)  # Pillow writes no transparent BMP
SETTINGS = {'steps': 3, 'model': 'abc', 'note': 'Größe 日本'}
# How a picture must be turned to be upright, from the EXIF 2.32 standard, tag 274.
UPRIGHT = {
  1: lambda a: a,
  2: np.fliplr,
  3: lambda a: np.rot90(a, 2),
  4: np.flipud,
  5: lambda a: a.transpose(1, 0, 2),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
  8: np.rot90,
}


def _noise(height, width, channels=3, dtype=np.uint8):
  rng = np.random.default_rng(0)
  top = np.iinfo(dtype).max + 1
  return rng.integers(0, top, (height, width, channels), dtype=dtype)


def _file(format_, image, **options):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format_, **options)
  return buffer.getvalue()


def _chunk(kind, body):
  return (
    struct.pack('>I', len(body))
    + kind
    + body
    + struct.pack('>I', zlib.crc32(kind + body))
  )


def _png(stored, *chunks, interlace=0):
  """A PNG by hand, from big-endian rows without filters."""
  height, width, channels = stored.shape
  depth = 8 * stored.dtype.itemsize
  kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, interlace)
  rows = b''.join(b'\0' + row.astype(f'>u{depth // 8}').tobytes() for row in stored)
  return (
    b'\x89PNG\r\n\x1a\n'
    + _chunk(b'IHDR', header)
    + b''.join(chunks)
    + _chunk(b'IDAT', zlib.compress(rows))
    + _chunk(b'IEND', b'')
  )


def _claiming(width, height):
  """A PNG whose header claims a size that nothing stands behind."""
  data = _png(np.zeros((1, 1, 3), np.uint8))
  claim = data[12:16] + struct.pack('>II', width, height) + data[24:29]
  return data[:12] + claim + struct.pack('>I', zlib.crc32(claim)) + data[33:]


def _tiff(stored, **options):
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, stored, metadata=None, **options)
  return buffer.getvalue()


def _levels(floats, top):
  return np.round((floats.astype(np.float64) + 1) / 2 * top).astype(int)


# ---------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
  ('format_', 'channels'),
  [(f, c) for f in ('PNG', 'TIFF', 'WEBP', 'BMP') for c in (1, 3, 4) if (f, c) != _NO],
)
def test_read_8_bits(format_, channels):
  stored = _noise(5, 7, channels)
  stored[..., 3:] |= 1  # what is fully transparent may lose its colour in WebP
  options = {'lossless': True} if format_ == 'WEBP' else {}
  picture = pictures.read(_file(format_, np.squeeze(stored), **options))
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
  """Palettes, transparent colours, one bit, grey with alpha."""
  rgb = _noise(6, 4)
  palette = Image.fromarray(rgb).quantize(24)
  buffer = io.BytesIO()
  palette.save(buffer, 'PNG', transparency=palette.getpixel((1, 2)))
  picture = pictures.read(buffer.getvalue())
  np.testing.assert_array_equal(
    _levels(picture.pixels, 255), np.asarray(palette.convert('RGB'))
  )
  assert picture.alpha[2, 1] == 0 and picture.alpha.max() == 1

  picture = pictures.read(_file('PNG', rgb[..., 0] > 100))
  assert picture.pixels.shape == (6, 4, 1)
  np.testing.assert_array_equal(
    picture.pixels[..., 0], np.where(rgb[..., 0] > 100, 1, -1)
  )

  picture = pictures.read(_file('PNG', rgb[..., :2]))
  np.testing.assert_array_equal(_levels(picture.pixels, 255), rgb[..., :1])
  np.testing.assert_allclose(picture.alpha, rgb[..., 1] / 255, atol=1e-7)

  grey = rgb[..., 0]
  picture = pictures.read(_file('PNG', grey, transparency=int(grey[3, 3])))
  np.testing.assert_array_equal(_levels(picture.pixels, 255)[..., 0], grey)
  assert picture.alpha[3, 3] == 0 and picture.alpha.max() == 1


def test_read_cmyk_and_mpo(tmp_path):
  cmyk = Image.new('CMYK', (8, 8), (255, 0, 0, 0))
  buffer = io.BytesIO()
  cmyk.save(buffer, 'TIFF', icc_profile=b'\0' * 16 + b'CMYK' + b'\0' * 200)
  picture = pictures.read(buffer.getvalue())
  np.testing.assert_array_equal(_levels(picture.pixels, 255)[0, 0], [0, 255, 255])
  assert picture.icc is None
  # What phones write: a JPEG with a second picture behind.
  one = Image.new('RGB', (8, 8), (200, 10, 10))
  buffer = io.BytesIO()
  one.save(buffer, 'MPO', save_all=True, append_images=[Image.new('RGB', (4, 4))])
  picture = pictures.read(buffer.getvalue())
  assert picture.pixels.shape == (8, 8, 3)
  assert pictures.extension(picture.format, 8, 8) == '.jpg'


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_read_16_bit_png(channels):
  stored = _noise(5, 7, channels, np.uint16)
  picture = pictures.read(_png(stored))
  assert picture.bits == 16 and picture.pixels.dtype == np.float32
  colours = 1 if channels < 3 else 3
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored[..., :colours])
  if channels in (2, 4):
    np.testing.assert_allclose(picture.alpha, stored[..., -1] / 65535, atol=1e-7)
  else:
    assert picture.alpha is None


def test_read_16_bit_png_with_a_transparent_colour():
  stored = _noise(3, 4, 3, np.uint16)
  mark = _chunk(b'tRNS', stored[1, 2].astype('>u2').tobytes())
  picture = pictures.read(_png(stored, mark))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored)
  assert picture.alpha[1, 2] == 0 and picture.alpha.sum() == 11


@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw'])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_read_16_bit_tiff(channels, compression):
  stored = _noise(9, 7, channels, np.uint16)
  alpha = channels in (2, 4)
  data = _tiff(
    stored if channels > 1 else stored[..., 0],
    photometric='rgb' if channels > 2 else 'minisblack',
    planarconfig='contig' if channels > 1 else None,
    extrasamples=['unassalpha'] if alpha else None,
    compression=compression,
    predictor=compression is not None,
    byteorder='>' if channels == 3 else '<',
  )
  picture = pictures.read(data)
  colours = 1 if channels < 3 else 3
  assert picture.bits == 16
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored[..., :colours])
  assert (picture.alpha is not None) == alpha


def test_read_unusual_tiff():
  stored = _noise(6, 5, 3, np.uint16)
  planar = np.moveaxis(stored, -1, 0)
  picture = pictures.read(_tiff(planar, photometric='rgb', planarconfig='separate'))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), stored)

  picture = pictures.read(_tiff(stored[..., 0], photometric='miniswhite'))
  np.testing.assert_array_equal(_levels(picture.pixels, 65535), 65535 - stored[..., :1])

  # Premultiplied: half transparent white is stored as half.
  half = np.full((2, 2, 4), 32768, np.uint16)
  data = _tiff(half, photometric='rgb', extrasamples=['assocalpha'])
  picture = pictures.read(data)
  np.testing.assert_allclose(picture.pixels, 1, atol=1e-6)
  np.testing.assert_allclose(picture.alpha, 32768 / 65535, atol=1e-7)

  two = np.stack([stored, 65535 - stored])
  picture = pictures.read(_tiff(two, photometric='rgb'))
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
    data = _png(stored.astype(np.uint16) * 257, _chunk(b'eXIf', block))
  elif kind == 'TIFF16':
    tag = (274, 'H', 1, orientation, True)
    data = _tiff(stored.astype(np.uint16) * 257, photometric='rgb', extratags=[tag])
  else:
    options = {'JPEG': {'quality': 100, 'subsampling': 0}, 'WEBP': {'lossless': True}}
    data = _file(kind, stored, exif=exif, **options.get(kind, {}))
  expected = UPRIGHT[orientation](stored)
  assert pictures.header(data)[:2] == expected.shape[:2]
  picture = pictures.read(data)
  error = np.abs(_levels(picture.pixels, 255) - expected).max()
  assert error <= (6 if kind == 'JPEG' else 0)
  for extension in pictures.EXTENSIONS:
    written = pictures.encode(picture, extension, SETTINGS)
    with Image.open(io.BytesIO(written)) as image:
      assert image.getexif().get(274, 1) == 1
      assert image.size == expected.shape[1::-1]
      if kind != 'TIFF16':
        assert image.getexif()[271] == 'Camera'


def test_bad_files_are_one_line_errors(tmp_path):
  good = _file('PNG', _noise(40, 40))
  deep = imagecodecs.png_encode(_noise(40, 40, 3, np.uint16))
  tiff = _tiff(_noise(40, 40, 3, np.uint16), photometric='rgb')
  packed = _tiff(_noise(40, 40, 3, np.uint16), photometric='rgb', compression='lzw')
  wide = bytearray(tiff)
  with tifffile.TiffFile(io.BytesIO(tiff)) as file:
    tags = file.pages[0].tags
    for tag, claimed in (('ImageWidth', 12000), ('ImageLength', 10000)):
      struct.pack_into('<H', wide, tags[tag].valueoffset, claimed)
  flipped = bytearray(deep)
  flipped[3000] ^= 255
  files = {
    'text.png': b'Dear reader,\nthis is no picture.\n',
    'empty.jpg': b'',
    'cut8.png': good[: len(good) // 2],
    'cut16.png': deep[: len(deep) // 2],
    'flipped16.png': bytes(flipped),
    'cut.tif': tiff[: len(tiff) // 2],
    'cut-lzw.tif': packed[: len(packed) // 2],
    'float.tif': _tiff(np.zeros((4, 4), np.float32)),
    'bomb.png': _claiming(12000, 10000),
    'larger bomb.png': _claiming(30000, 20000),
    'bomb.tif': bytes(wide),
  }
  for name, data in files.items():
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(images.ImageError) as error:
      pictures.read(path)
    message = str(error.value)
    assert message.startswith(f'{path}: ') and '\n' not in message, message
    if 'bomb' in name:
      claimed = '600000000' if 'larger' in name else '12000 x 10000'
      assert claimed in message
      with pytest.raises(images.ImageError, match=claimed):
        pictures.header(path)
    if name in ('text.png', 'empty.jpg'):
      assert pictures.metadata(path) is None
  with pytest.raises(images.ImageError, match='no such file'):
    pictures.read(tmp_path / 'missing.png')
  with pytest.raises(images.ImageError, match=r'^standard input: zero bytes$'):
    pictures.read(b'', 'standard input')


def test_nothing_leaks_to_stderr(tmp_path):
  tiff = _tiff(_noise(40, 40, 3, np.uint16), photometric='rgb', compression='lzw')
  (tmp_path / 'a.tif').write_bytes(tiff[:-900])
  with tifffile.TiffFile(io.BytesIO(tiff)) as file:
    at = file.pages[0].tags['ResolutionUnit'].valueoffset
  odd = tiff[:at] + struct.pack('<H', 99) + tiff[at + 2 :]
  (tmp_path / 'b.tif').write_bytes(odd)
  code = """
import pathlib, sys
from sr3_jax import pictures
for name in sys.argv[1:]:
  try:
    pictures.read(pathlib.Path(name))
  except pictures.ImageError:
    print('error')
"""
  files = [str(tmp_path / name) for name in ('a.tif', 'b.tif')]
  done = subprocess.run(
    [sys.executable, '-c', code, *files], capture_output=True, text=True, check=True
  )
  assert done.stderr == '' and done.stdout == 'error\n'


# ---------------------------------------------------------------------------- writing


@pytest.mark.parametrize('extension', pictures.EXTENSIONS)
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_round_trip(tmp_path, extension, bits, channels):
  """What was written, as others read it and as we do."""
  dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
  stored = _noise(9, 14, channels, dtype)
  if extension == '.jpg':
    stored[:] = stored[:1, :1] // 2 + stored[0, 0] // 4
  colours = 1 if channels < 3 else 3
  picture = pictures.Picture(
    pixels=(stored[..., :colours] / (top / 2) - 1).astype(np.float32),
    alpha=(stored[..., -1] / top).astype(np.float32) if channels in (2, 4) else None,
    bits=bits,
    icc=GREY if colours == 1 else SRGB,
  )
  path = tmp_path / 'new folder' / f'bild ü{extension}'
  pictures.write(path, picture, SETTINGS)
  assert [file.name for file in path.parent.iterdir()] == [path.name]
  assert pictures.metadata(path) == SETTINGS

  again = pictures.read(path)
  assert again.bits == (bits if extension in ('.png', '.tif') else 8)
  if extension == '.webp' and colours == 1:  # WebP is always in colour
    with Image.open(path) as image:
      assert image.mode in ('RGB', 'RGBA') and 'icc_profile' not in image.info
  elif extension == '.tif':  # Pillow opens no 16-bit grey with alpha
    with tifffile.TiffFile(path) as file:
      assert file.pages[0].iccprofile == picture.icc == again.icc
  else:
    with Image.open(path) as image:
      assert image.info['icc_profile'] == picture.icc == again.icc
  seen = stored.astype(np.float64) / top
  if extension == '.jpg':
    assert again.alpha is None
    if picture.alpha is not None:  # over white
      opaque = seen[..., -1:]
      seen[..., :colours] = seen[..., :colours] * opaque + 1 - opaque
  elif picture.alpha is not None:
    tolerance = 0.6 / 255 if extension == '.webp' else 1e-7
    np.testing.assert_allclose(again.alpha, picture.alpha, atol=tolerance)
  tolerance = {'.jpg': 5 / 255, '.webp': 0.51 / 255}.get(extension, 1e-6)
  np.testing.assert_allclose(
    (again.pixels + 1) / 2, seen[..., :colours] + 0 * again.pixels, atol=tolerance
  )
  if bits == 16 and extension == '.png':
    np.testing.assert_array_equal(
      imagecodecs.png_decode(path.read_bytes()).reshape(stored.shape), stored
    )
  if extension == '.tif':
    np.testing.assert_array_equal(tifffile.imread(path).reshape(stored.shape), stored)


@pytest.mark.parametrize('extension', pictures.EXTENSIONS)
def test_one_pixel(tmp_path, extension):
  for channels in (1, 3):
    for bits in (8, 16):
      pixels = np.full((1, 1, channels), 0.2, np.float32)
      picture = pictures.Picture(pixels, np.ones((1, 1), np.float32), bits)
      path = tmp_path / f'a{extension}'
      pictures.write(path, picture, {})
      again = pictures.read(path).pixels
      assert again.shape[:2] == (1, 1)
      np.testing.assert_allclose(again, 0.2, atol=0.02)
      assert pictures.metadata(path) == {}


def test_exif_is_kept_where_it_still_holds():
  exif = Image.Exif()
  exif[271], exif[272], exif[0x0132] = 'Maker', 'Model Ü', '2026:11:22 10:00:00'
  exif[270], exif[282] = 'my words', 72.0
  comment = b'ASCII\0\0\0mine'
  exif[0x8769] = {0x829D: 2.8, 0xA002: 640, 0x927C: b'secret', 0x9286: comment}
  exif[0x8825] = {1: 'N'}
  data = _file('JPEG', _noise(8, 8), exif=exif)
  picture = pictures.read(data)
  for extension in ('.png', '.jpg', '.webp'):
    written = pictures.encode(picture, extension, SETTINGS)
    with Image.open(io.BytesIO(written)) as image:
      found = image.getexif()
      camera, gps = found.get_ifd(0x8769), found.get_ifd(0x8825)
    assert found[271] == 'Maker' and found[0x0132] == '2026:11:22 10:00:00'
    assert found[270] == 'my words' and 282 not in found
    assert float(camera[0x829D]) == 2.8 and gps[1] == 'N'
    assert 0xA002 not in camera and 0x927C not in camera
    comment = camera[0x9286]
    if extension == '.png':
      assert comment == b'ASCII\0\0\0mine'
    else:
      assert json.loads(comment[8:].decode().removeprefix('sr3_jax: ')) == SETTINGS
  for bits in (8, 16):
    deep = pictures.Picture(picture.pixels, bits=bits, exif=picture.exif)
    for extension in ('.png', '.tif'):
      written = pictures.encode(deep, extension, SETTINGS)
      with Image.open(io.BytesIO(written)) as image:
        assert image.getexif()[271] == 'Maker'
      if extension == '.png':  # by the standard, without 'Exif' in front
        at = written.index(b'eXIf') + 4
        assert written[at : at + 2] in (b'II', b'MM')


def test_large_exif_gives_way_to_the_settings(tmp_path):
  exif = Image.Exif()
  exif[270] = 'x' * 65400
  picture = pictures.read(_file('WEBP', _noise(8, 8), exif=exif))
  pictures.write(tmp_path / 'a.jpg', picture, SETTINGS)
  assert pictures.metadata(tmp_path / 'a.jpg') == SETTINGS


def test_profile_of_other_pixels_is_dropped():
  picture = pictures.read(_file('PNG', _noise(4, 4)[..., 0], icc_profile=SRGB))
  assert picture.icc is None
  assert pictures.read(_file('PNG', _noise(4, 4), icc_profile=SRGB)).icc == SRGB
  assert pictures.read(_file('JPEG', _noise(4, 4), icc_profile=SRGB)).icc == SRGB
  deep = _noise(4, 4, 3, np.uint16)
  chunk = _chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB))
  assert pictures.read(_png(deep, chunk)).icc == SRGB
  assert pictures.read(_tiff(deep, photometric='rgb', iccprofile=SRGB)).icc == SRGB


def test_write_errors(tmp_path):
  picture = pictures.Picture(np.zeros((1, 16384, 1), np.float32))
  with pytest.raises(images.ImageError, match=r'a\.webp: .*16384 x 1 '):
    pictures.write(tmp_path / 'a.webp', picture, {})
  with pytest.raises(images.ImageError, match=r"a\.gif: cannot write '\.gif'"):
    pictures.write(tmp_path / 'a.gif', picture, {})
  (tmp_path / 'file').write_text('')
  with pytest.raises(images.ImageError, match=r'a\.png'):
    pictures.write(tmp_path / 'file' / 'a.png', picture, {})
  assert [path.name for path in tmp_path.iterdir()] == ['file']
  assert pictures.extension('WEBP', 16384, 1) == '.png'
  assert pictures.extension('WEBP', 16383, 1) == '.webp'


def test_metadata_of_others(tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add_text('sr3_jax', 'not JSON')
  path = tmp_path / 'a.png'
  Image.new('L', (2, 2)).save(path, pnginfo=info)
  assert pictures.metadata(path) is None
  assert pictures.metadata(tmp_path / 'missing.png') is None
  for name in ('a.jpg', 'a.tif', 'a.webp'):
    Image.new('L', (2, 2)).save(tmp_path / name)
    assert pictures.metadata(tmp_path / name) is None


def test_resize_alpha_is_pillows_bicubic():
  y, x = np.mgrid[0:9, 0:6]
  alpha = (255 * np.sin(x / 4) ** 2 * np.cos(y / 6) ** 2).astype(np.uint8)
  expected = Image.fromarray(alpha).resize((24, 30), Image.Resampling.BICUBIC)
  resized = pictures.resize_alpha(alpha / 255, 30, 24)
  assert resized.min() >= 0 and resized.max() <= 1
  np.testing.assert_allclose(resized * 255, np.asarray(expected), atol=1.01)


def test_16_bits_are_quick(tmp_path):
  """A 2048 x 2048 picture takes seconds, not minutes as in pure Python."""
  stored = np.add.outer(np.arange(512) * 60, np.arange(512) * 60).astype(np.uint16)
  picture = pictures.read(_png(np.stack([stored] * 3, -1)))
  path = pathlib.Path(tmp_path) / 'a.png'
  pictures.write(path, picture, {})
  assert path.stat().st_size < stored.nbytes
