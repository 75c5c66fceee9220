"""Tests of written pictures as this package, Pillow and libpng read them."""

import pathlib
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from sr3_jax.images import picture_codec
from sr3_jax.images import pixels as images_pixels
from tests.support.picture_files import (
  SETTINGS,
  SRGB,
  file_of,
  png_chunk,
  png_of,
  tiff_of,
)
from tests.support.pictures import noise

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

GREY = SRGB[:16] + b'GRAY' + SRGB[20:]


@pytest.mark.parametrize('extension', picture_codec.EXTENSIONS)
@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_round_trip(tmp_path, extension, bits, channels):
  """Other programs and this one read what was written."""
  dtype, top = (np.uint8, 255) if bits == 8 else (np.uint16, 65535)
  stored = noise(9, 14, channels, dtype)
  if extension == '.jpg':
    stored[:] = stored[:1, :1] // 2 + stored[0, 0] // 4
  colours = 1 if channels < 3 else 3
  picture = picture_codec.Picture(
    pixels=(stored[..., :colours] / (top / 2) - 1).astype(np.float32),
    alpha=(stored[..., -1] / top).astype(np.float32) if channels in (2, 4) else None,
    bits=bits,
    icc=GREY if colours == 1 else SRGB,
  )
  path = tmp_path / 'new folder' / f'bild ü{extension}'
  picture_codec.write(path, picture, SETTINGS)
  assert [file.name for file in path.parent.iterdir()] == [path.name]
  assert picture_codec.metadata(path) == SETTINGS

  again = picture_codec.read(path)
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


@pytest.mark.parametrize('extension', picture_codec.EXTENSIONS)
def test_one_pixel(tmp_path, extension):
  for channels in (1, 3):
    for bits in (8, 16):
      pixels = np.full((1, 1, channels), 0.2, np.float32)
      picture = picture_codec.Picture(pixels, np.ones((1, 1), np.float32), bits)
      path = tmp_path / f'a{extension}'
      picture_codec.write(path, picture, {})
      again = picture_codec.read(path).pixels
      assert again.shape[:2] == (1, 1)
      np.testing.assert_allclose(again, 0.2, atol=0.02)
      assert picture_codec.metadata(path) == {}


def test_profile_of_other_pixels_is_dropped():
  picture = picture_codec.read(file_of('PNG', noise(4, 4)[..., 0], icc_profile=SRGB))
  assert picture.icc is None
  assert picture_codec.read(file_of('PNG', noise(4, 4), icc_profile=SRGB)).icc == SRGB
  assert picture_codec.read(file_of('JPEG', noise(4, 4), icc_profile=SRGB)).icc == SRGB
  sixteen = noise(4, 4, 3, np.uint16)
  chunk = png_chunk(b'iCCP', b'x\0\0' + zlib.compress(SRGB))
  assert picture_codec.read(png_of(sixteen, chunk)).icc == SRGB
  assert (
    picture_codec.read(tiff_of(sixteen, photometric='rgb', iccprofile=SRGB)).icc == SRGB
  )


def test_write_errors(tmp_path):
  picture = picture_codec.Picture(np.zeros((1, 16384, 1), np.float32))
  with pytest.raises(images_pixels.ImageError, match=r'a\.webp: .*16384 x 1 '):
    picture_codec.write(tmp_path / 'a.webp', picture, {})
  with pytest.raises(images_pixels.ImageError, match=r"a\.gif: cannot write '\.gif'"):
    picture_codec.write(tmp_path / 'a.gif', picture, {})
  (tmp_path / 'file').write_text('')
  with pytest.raises(images_pixels.ImageError, match=r'a\.png'):
    picture_codec.write(tmp_path / 'file' / 'a.png', picture, {})
  assert [path.name for path in tmp_path.iterdir()] == ['file']
  assert picture_codec.extension('WEBP', 16384, 1) == '.png'
  assert picture_codec.extension('WEBP', 16383, 1) == '.webp'


def test_metadata_of_others(tmp_path):
  info = PngImagePlugin.PngInfo()
  info.add_text('sr3_jax', 'not JSON')
  path = tmp_path / 'a.png'
  Image.new('L', (2, 2)).save(path, pnginfo=info)
  assert picture_codec.metadata(path) is None
  assert picture_codec.metadata(tmp_path / 'missing.png') is None
  for name in ('a.jpg', 'a.tif', 'a.webp'):
    Image.new('L', (2, 2)).save(tmp_path / name)
    assert picture_codec.metadata(tmp_path / name) is None


def test_resize_alpha_is_pillows_bicubic():
  y, x = np.mgrid[0:9, 0:6]
  alpha = (255 * np.sin(x / 4) ** 2 * np.cos(y / 6) ** 2).astype(np.uint8)
  expected = Image.fromarray(alpha).resize((24, 30), Image.Resampling.BICUBIC)
  resized = picture_codec.resize_alpha(alpha / 255, 30, 24)
  assert resized.min() >= 0 and resized.max() <= 1
  np.testing.assert_allclose(resized * 255, np.asarray(expected), atol=1.01)


def test_16_bits_are_quick(tmp_path):
  """A 2048 x 2048 picture takes seconds; pure Python would take minutes."""
  stored = np.add.outer(np.arange(512) * 60, np.arange(512) * 60).astype(np.uint16)
  picture = picture_codec.read(png_of(np.stack([stored] * 3, -1)))
  path = pathlib.Path(tmp_path) / 'a.png'
  picture_codec.write(path, picture, {})
  assert path.stat().st_size < stored.nbytes
