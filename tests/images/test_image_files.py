"""Tests of files against Pillow, scikit-image and what the formats define."""

import io
import pathlib
import struct
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from PIL import Image, ImageCms

from sr3_jax.images import image_files
from sr3_jax.images import pixels as images_pixels
from tests.support.pictures import UPRIGHT, noise

# pytest undoes the filter that images.py sets; test_nothing_leaks_to_stderr has it.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


def _smooth(height, width):
  """Return a picture that JPEG stores well, without any symmetry."""
  y, x = np.mgrid[0:height, 0:width] / max(height, width)
  return np.stack([255 * x, 255 * y, 120 * x * y], -1).astype(np.uint8)


def _png(width, height, depth, colour, rows=b''):
  """Write a PNG by hand, as Pillow writes neither 16-bit colour nor false headers."""

  def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + _crc(kind + body)

  header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(rows))
    + chunk(b'IEND', b'')
  )


def _crc(data):
  return struct.pack('>I', zlib.crc32(data))


def _encoded(format_, image=None, **options):
  buffer = io.BytesIO()
  image = Image.fromarray(_smooth(48, 64)) if image is None else image
  image.save(buffer, format_, **options)
  return buffer.getvalue()


def test_float_range():
  levels = np.arange(256, dtype=np.uint8)
  floats = images_pixels.to_float(levels)
  assert floats.dtype == np.float32
  assert floats[0] == -1 and floats[255] == 1
  np.testing.assert_array_equal(images_pixels.to_uint8(floats), levels)
  traced = jax.jit(images_pixels.to_float)(levels)
  assert traced.dtype == np.float32
  np.testing.assert_allclose(traced, floats, atol=1e-7)
  np.testing.assert_array_equal(images_pixels.to_uint8(traced), levels)


def test_to_uint8_clips_and_rounds():
  # 0.0 is level 127.5; a level is 2 / 255 wide.
  floats = np.array([-3, -1 + 0.49 * 2 / 255, -1 + 0.51 * 2 / 255, 1.001, 7])
  np.testing.assert_array_equal(images_pixels.to_uint8(floats), [0, 0, 1, 255, 255])


@pytest.mark.parametrize('extension', ['png', 'webp', 'bmp', 'tiff'])
def test_read_is_exact_where_the_format_is(tmp_path, extension):
  truth = noise(13, 17)
  path = tmp_path / f'a.{extension}'
  Image.fromarray(truth).save(path, **({'lossless': True} if 'w' in extension else {}))
  np.testing.assert_array_equal(image_files.read(path), truth)
  assert image_files.size(path) == (13, 17)


@pytest.mark.parametrize('extension', ['png', 'webp', 'jpg', 'JPEG'])
def test_write_then_pillow(tmp_path, extension):
  truth = _smooth(24, 40)
  path = tmp_path / 'new' / 'folder' / f'a.{extension}'
  image_files.write(path, images_pixels.to_float(truth))
  with Image.open(path) as file:
    written = np.asarray(file.convert('RGB')).astype(int)
  assert np.abs(written - truth).max() <= (4 if 'j' in extension.lower() else 0)
  grey = truth[..., :1]
  image_files.write(path, grey)
  again = image_files.read(path, channels=1)
  assert again.shape == grey.shape
  assert np.abs(again.astype(int) - grey).max() <= 4
  assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_write_errors_leave_the_old_file_alone(tmp_path):
  path = tmp_path / 'a.png'
  image_files.write(path, np.zeros((4, 4, 3), np.uint8))
  before = path.read_bytes()
  for image in (np.zeros((4, 4, 7), np.uint8), np.zeros((0, 4, 3), np.uint8)):
    with pytest.raises(images_pixels.ImageError, match=r'a\.png'):
      image_files.write(path, image)
  assert path.read_bytes() == before
  with pytest.raises(images_pixels.ImageError, match=r"'\.gif'.*\.png.*\.webp"):
    image_files.write(tmp_path / 'a.gif', np.zeros((4, 4, 3), np.uint8))
  with pytest.raises(images_pixels.ImageError, match=r'b\.png'):
    image_files.write(path / 'b.png', np.zeros((4, 4, 3), np.uint8))
  (tmp_path / 'folder.png').mkdir()
  with pytest.raises(images_pixels.ImageError, match=r'folder\.png'):
    image_files.write(tmp_path / 'folder.png', np.zeros((4, 4, 3), np.uint8))
  assert sorted(file.name for file in tmp_path.iterdir()) == ['a.png', 'folder.png']


@pytest.mark.parametrize('orientation', UPRIGHT)
@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tiff'])
def test_exif_orientation(tmp_path, extension, orientation):
  stored = _smooth(40, 64)
  path = tmp_path / f'a.{extension}'
  exif = Image.Exif()
  exif[274] = orientation
  options = {'jpg': {'quality': 98}, 'webp': {'lossless': True}}.get(extension, {})
  Image.fromarray(stored).save(path, exif=exif, **options)
  truth = UPRIGHT[orientation](stored)
  read = image_files.read(path)
  assert read.shape == truth.shape
  assert np.abs(read.astype(int) - truth).max() <= (6 if extension == 'jpg' else 0)
  assert image_files.size(path) == truth.shape[:2]


def test_broken_exif_is_ignored(tmp_path):
  truth = _smooth(40, 64)
  path = tmp_path / 'a.png'
  Image.fromarray(truth).save(path, exif=b'Exif\x00\x00MM\x00*\xff\xff\xff\xff')
  np.testing.assert_array_equal(image_files.read(path), truth)
  assert image_files.size(path) == (40, 64)


@pytest.mark.parametrize('extension', ['png', 'tiff'])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, extension):
  truth = np.arange(256, dtype=np.uint8).reshape(16, 16)
  path = tmp_path / f'a.{extension}'
  Image.fromarray(truth.astype(np.uint16) * 257).save(path)
  read = image_files.read(path)
  np.testing.assert_array_equal(read, np.repeat(truth[..., None], 3, -1))
  np.testing.assert_array_equal(image_files.read(path, channels=1)[..., 0], truth)


def test_16_bit_colour(tmp_path):
  truth = noise(5, 6)
  wide = (truth.astype(np.uint16) * 257).astype('>u2')
  rows = b''.join(b'\x00' + row.tobytes() for row in wide)
  (tmp_path / 'a.png').write_bytes(_png(6, 5, 16, 2, rows))
  np.testing.assert_array_equal(image_files.read(tmp_path / 'a.png'), truth)


def test_32_bit_pixels_are_refused(tmp_path):
  for dtype in (np.int32, np.float32):
    Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / 'a.tiff')
    with pytest.raises(images_pixels.ImageError, match=r'a\.tiff: pixels of 32 bits'):
      image_files.read(tmp_path / 'a.tiff')


def test_alpha_is_laid_over_white(tmp_path):
  rgba = np.zeros((1, 3, 4), np.uint8)
  rgba[0, :, 0] = 200
  rgba[0, :, 3] = 0, 51, 255  # nothing, a fifth, everything
  Image.fromarray(rgba).save(tmp_path / 'a.png')
  read = image_files.read(tmp_path / 'a.png')
  np.testing.assert_array_equal(read[0], [[255] * 3, [244, 204, 204], [200, 0, 0]])

  Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / 'grey.png')
  read = image_files.read(tmp_path / 'grey.png')
  np.testing.assert_array_equal(read[0], [[255] * 3, [244] * 3, [200] * 3])


def test_palette_and_its_transparent_colour(tmp_path):
  palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), 'P')
  palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
  palette.save(tmp_path / 'a.png')
  colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
  np.testing.assert_array_equal(image_files.read(tmp_path / 'a.png')[0], colours)
  palette.save(tmp_path / 'b.png', transparency=1)
  colours[1] = [255, 255, 255]
  np.testing.assert_array_equal(image_files.read(tmp_path / 'b.png')[0], colours)


def test_grey_and_bilevel(tmp_path):
  grey = noise(7, 9, 1)[..., 0]
  Image.fromarray(grey).save(tmp_path / 'grey.png')
  read = image_files.read(tmp_path / 'grey.png')
  np.testing.assert_array_equal(read, np.repeat(grey[..., None], 3, -1))
  Image.fromarray(grey > 127).save(tmp_path / 'bits.png')
  read = image_files.read(tmp_path / 'bits.png', channels=1)[..., 0]
  np.testing.assert_array_equal(read, np.where(grey > 127, 255, 0))


@pytest.mark.parametrize('extension', ['tiff', 'jpg'])
def test_cmyk(tmp_path, extension):
  # Ink of one kind absorbs one colour of light: cyan leaves green and blue.
  inks = np.zeros((16, 80, 4), np.uint8)
  for i in range(4):
    inks[:, 16 * (i + 1) : 16 * (i + 2), i] = 255
  path = tmp_path / f'a.{extension}'
  Image.fromarray(inks, 'CMYK').save(
    path, **({'quality': 100} if extension == 'jpg' else {})
  )
  read = image_files.read(path)[8, 8::16].astype(int)
  truth = [[255] * 3, [0, 255, 255], [255, 0, 255], [255, 255, 0], [0] * 3]
  assert np.abs(read - truth).max() <= 3


def _swapped_profile():
  """Make sRGB with red and blue primaries exchanged, so that the truth is exact."""
  profile = bytearray(
    ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  )
  (count,) = struct.unpack('>I', profile[128:132])
  places = {bytes(profile[p : p + 4]): p for p in range(132, 132 + 12 * count, 12)}
  red, blue = places[b'rXYZ'], places[b'bXYZ']
  profile[red : red + 4], profile[blue : blue + 4] = b'bXYZ', b'rXYZ'
  return bytes(profile)


@pytest.mark.parametrize('extension', ['png', 'webp', 'tiff', 'jpg'])
def test_colour_profile_is_converted(tmp_path, extension):
  stored = _smooth(40, 64)
  path = tmp_path / f'a.{extension}'
  options = {'webp': {'lossless': True}, 'jpg': {'quality': 98}}.get(extension, {})
  Image.fromarray(stored).save(path, icc_profile=_swapped_profile(), **options)
  error = np.abs(image_files.read(path).astype(int) - stored[..., ::-1])
  assert error.max() <= (8 if extension == 'jpg' else 2)


def test_profiles_that_change_nothing(tmp_path):
  stored = noise(9, 9)
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  lab = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
  broken = [b'no profile', srgb[:200], srgb[:128] + b'\xff' * 400]
  for profile in (srgb, lab, *broken):
    Image.fromarray(stored).save(tmp_path / 'a.png', icc_profile=profile)
    np.testing.assert_array_equal(image_files.read(tmp_path / 'a.png'), stored)


def _grey_profile(gamma):
  """Make the least that ICC.1:2001 wants of a grey display: white point and curve."""
  white = struct.pack('>3i', *(round(65536 * v) for v in (0.9642, 1.0, 0.8249)))
  curve = struct.pack('>IHxx', 1, round(256 * gamma))
  table = struct.pack('>I', 2)
  table += b'wtpt' + struct.pack('>II', 156, 20) + b'kTRC' + struct.pack('>II', 176, 16)
  body = b'XYZ \0\0\0\0' + white + b'curv\0\0\0\0' + curve
  header = struct.pack('>I4xI', 192, 0x02400000) + b'mntrGRAYXYZ ' + bytes(12)
  header = (header + b'acsp').ljust(68, b'\0') + white
  return header.ljust(128, b'\0') + table + body


@pytest.mark.parametrize('alpha', [False, True])
def test_grey_profile(tmp_path, alpha):
  levels = np.arange(256, dtype=np.uint8)[None]
  pixels = np.stack([levels, np.full_like(levels, 255)], -1) if alpha else levels
  Image.fromarray(pixels).save(tmp_path / 'a.png', icc_profile=_grey_profile(1.5))
  light = (levels[0] / 255) ** 1.5
  # The curve of sRGB, IEC 61966-2-1.
  curve = np.where(
    light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055
  )
  read = image_files.read(tmp_path / 'a.png')[0]
  assert np.abs(read - 255 * curve[:, None]).max() <= 2


def test_a_profile_that_is_nearly_srgb_costs_no_level(tmp_path):
  profile = bytearray(
    ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  )
  place = profile.index(b'rXYZ') + 4
  (place,) = struct.unpack('>I', profile[place : place + 4])
  profile[place + 11] += 20  # 20 / 65536 more red
  stored = noise(64, 64)
  Image.fromarray(stored).save(tmp_path / 'a.png', icc_profile=bytes(profile))
  np.testing.assert_array_equal(image_files.read(tmp_path / 'a.png'), stored)


def test_profile_and_alpha_together(tmp_path):
  rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
  Image.fromarray(rgba).save(tmp_path / 'a.png', icc_profile=_swapped_profile())
  read = image_files.read(tmp_path / 'a.png')[0].astype(int)
  assert np.abs(read - [[0, 0, 200], [255, 255, 255]]).max() <= 2


BAD = {
  'zero.jpg': (b'', 'zero bytes'),
  'text.jpg': (b'This is not a picture.\n' * 40, 'not a JPEG, PNG'),
  'svg.png': (b'<svg>', 'not a JPEG, PNG'),
  'cut.jpg': (_encoded('JPEG')[:-200], 'truncated'),
  'cut.png': (_encoded('PNG')[:-200], ''),
  'cut.webp': (_encoded('WEBP')[:-50], ''),
  'cut.tiff': (_encoded('TIFF')[:-200], ''),
  'stub.png': (_encoded('PNG')[:20], ''),
  'crc.png': (_encoded('PNG').replace(b'IDAT', b'IDAT\x00', 1), ''),
  # The file is only a header: an error about the limit shows that none was decoded.
  'large.png': (_png(10_000, 10_000, 8, 2), '10000 x 10000 pixels are more'),
  'bomb.png': (_png(100_000, 100_000, 8, 2), 'pixels'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_files_are_one_line_errors(tmp_path, name):
  data, reason = BAD[name]
  path = tmp_path / name
  path.write_bytes(data)
  with pytest.raises(images_pixels.ImageError) as error:
    image_files.read(path)
  message = str(error.value)
  assert message.startswith(f'{path}: ') and reason in message
  assert '\n' not in message and len(message) > len(f'{path}: ')


@pytest.mark.parametrize('name', ['zero.jpg', 'text.jpg', 'stub.png', 'large.png'])
def test_size_of_bad_files(tmp_path, name):
  (tmp_path / name).write_bytes(BAD[name][0])
  with pytest.raises(images_pixels.ImageError, match=name):
    image_files.size(tmp_path / name)


def test_places_that_are_no_files(tmp_path):
  for function in (image_files.read, image_files.size):
    with pytest.raises(images_pixels.ImageError, match=r'gone\.png: no such file'):
      function(tmp_path / 'gone.png')
    with pytest.raises(images_pixels.ImageError, match=str(tmp_path)):
      function(tmp_path)


def test_max_pixels(tmp_path, monkeypatch):
  image_files.write(tmp_path / 'a.png', noise(10, 20))
  monkeypatch.setattr(image_files, 'MAX_PIXELS', 200)
  assert image_files.read(tmp_path / 'a.png').shape == (10, 20, 3)
  monkeypatch.setattr(image_files, 'MAX_PIXELS', 199)
  for function in (image_files.read, image_files.size):
    with pytest.raises(images_pixels.ImageError, match='20 x 10 pixels are more'):
      function(tmp_path / 'a.png')


@pytest.mark.parametrize(
  ('error', 'said'),
  [
    (IndexError('index out of range'), 'damaged: index out of range'),
    (OSError('could not create decoder object'), 'damaged: could not create decoder'),
    (MemoryError(), 'out of memory'),
    (Image.DecompressionBombError('too many pixels'), 'too many pixels'),
    (OSError(5, 'Input/output error'), 'Input/output error'),
  ],
)
def test_what_decoders_raise_says_that_the_file_is_damaged(error, said):
  with (
    pytest.raises(images_pixels.ImageError, match=f'^a.gif: {said}'),
    image_files.errors('a.gif'),
  ):
    raise error


@pytest.mark.parametrize('format_', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP'])
def test_damaged_bytes_raise_nothing_else(format_, monkeypatch):
  monkeypatch.setattr(image_files, 'MAX_PIXELS', 10_000)
  whole = _encoded(format_, exif=b'Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00')
  rng = np.random.default_rng(0)
  outcomes = set()
  for _ in range(150):
    damaged = bytearray(whole)
    for place in rng.integers(0, min(len(whole), 300), 4):
      damaged[place] = rng.integers(256)
    try:
      image = image_files.read(bytes(damaged), 'x')
      outcomes.add(image.dtype)
    except images_pixels.ImageError as error:
      outcomes.add('error')
      assert str(error).startswith('x: ') and '\n' not in str(error)
  assert 'error' in outcomes


def test_nothing_leaks_to_stderr(tmp_path):
  for name, (data, _) in BAD.items():
    (tmp_path / name).write_bytes(data)
  code = (
    'import sys, pathlib\n'
    'from sr3_jax.images import image_files, pixels\n'
    'for path in pathlib.Path(sys.argv[1]).iterdir():\n'
    '  for function in (image_files.read, image_files.size):\n'
    '    try: function(path)\n'
    '    except pixels.ImageError: pass\n'
  )
  done = subprocess.run(
    [sys.executable, '-W', 'always', '-c', code, tmp_path],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(image_files.__file__).parents[2],
  )
  assert done.returncode == 0 and done.stderr == ''
