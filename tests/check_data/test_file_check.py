"""Tests of the check of one file: is it whole, what does it hold, how sharp is it?"""

import io
import pathlib

import imagecodecs
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageCms

from sr3_jax.check_data import file_check
from sr3_jax.images import image_files
from sr3_jax.images import pixels as images_pixels

FOLDER = pathlib.Path(skimage.data.__file__).parent


@pytest.fixture(scope='module')
def photo():
  """Return 300 x 200 pixels of a photograph."""
  return Image.open(FOLDER / 'coffee.png').convert('RGB').crop((100, 50, 400, 250))


def _bytes(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


@pytest.fixture
def look(tmp_path):
  """Return a function that writes a file and checks it."""

  def look(data, name='file'):
    (tmp_path / name).write_bytes(data)
    return file_check.check_file(tmp_path / name)

  return look


FORMATS = {
  'baseline': ('JPEG', {'quality': 90}),
  'progressive': ('JPEG', {'quality': 90, 'progressive': True}),
  'png': ('PNG', {}),
  'webp': ('WEBP', {'quality': 90}),
  'tiff': ('TIFF', {'compression': 'tiff_lzw'}),
}


@pytest.mark.parametrize('name', FORMATS)
def test_truncated_files_are_found_wherever_they_end(photo, look, name):
  kind, options = FORMATS[name]
  data = _bytes(photo, kind, **options)
  whole = look(data)
  assert whole.error == '' and (whole.height, whole.width) == (200, 300)
  ends = [len(data) * share // 100 for share in (1, 5, 30, 60, 90, 99)]
  for end in [*ends, len(data) - 200, len(data) - 20, len(data) - 2]:
    found = look(data[:end])
    try:
      image_files.read(data[:end], 'file')
      broken = False
    except images_pixels.ImageError:
      broken = True
    assert bool(found.error) == broken, (end, len(data), found.error)
    assert (found.thumbnail is None) == broken
    assert broken or end > 0.9 * len(data)


@pytest.mark.parametrize(
  'data', [b'', b'no image', b'\xff\xd8\xff\xe0', b'\x89PNG\r\n\x1a\n']
)
def test_what_is_no_image_is_broken(look, data):
  found = look(data)
  assert found.error and '\n' not in found.error and found.thumbnail is None
  assert not found.error.startswith('/')


def test_a_missing_file_is_broken(tmp_path):
  assert 'no such file' in file_check.check_file(tmp_path / 'gone.jpg').error


@pytest.mark.parametrize('quality', [5, 20, 40, 50, 75, 89, 95, 100])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_jpeg_quality_is_read_back(photo, look, quality, mode):
  data = _bytes(photo.convert(mode), 'JPEG', quality=quality, subsampling=2)
  found = look(data)
  assert found.quality == quality
  assert found.kind == {'RGB': 'JPEG, RGB', 'L': 'JPEG, grey'}[mode]
  assert look(_bytes(photo, 'PNG')).quality == 0


def test_kinds_and_traits(photo, look):
  exif = Image.Exif()
  exif[0x0112] = 6
  sixteen = np.asarray(photo).astype(np.uint16) * 257
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  # This profile exchanges red and blue.
  swapped = srgb.replace(b'rXYZ', b'----').replace(b'bXYZ', b'rXYZ')
  swapped = swapped.replace(b'----', b'bXYZ')
  frames = {'save_all': True, 'append_images': [photo.rotate(90)]}
  cases = [
    (_bytes(photo, 'JPEG'), 'JPEG, RGB', ()),
    (_bytes(photo, 'JPEG', exif=exif), 'JPEG, RGB', ('turned (EXIF)',)),
    (_bytes(photo, 'JPEG', icc_profile=srgb), 'JPEG, RGB', ()),
    (_bytes(photo, 'JPEG', icc_profile=swapped), 'JPEG, RGB', ('colour profile',)),
    (_bytes(photo.convert('CMYK'), 'JPEG'), 'JPEG, CMYK', ()),
    (_bytes(photo.convert('RGBA'), 'PNG'), 'PNG, RGB', ('transparent',)),
    (_bytes(photo.quantize(16), 'PNG'), 'PNG, palette', ()),
    (_bytes(photo.convert('1'), 'PNG'), 'PNG, black and white', ()),
    (imagecodecs.png_encode(sixteen), 'PNG, RGB', ('16 bits',)),
    (imagecodecs.png_encode(sixteen[..., 0].copy()), 'PNG, grey', ('16 bits',)),
    (_bytes(photo, 'TIFF', **frames), 'TIFF, RGB', ('several frames',)),
  ]
  for data, kind, traits in cases:
    found = look(data)
    assert (found.kind, found.traits, found.error) == (kind, traits, '')


def test_thumbnails_of_reduced_decoding_are_those_of_whole_files(photo, look):
  large = photo.resize((1200, 800), Image.BICUBIC)
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = large.transpose(Image.Transpose.ROTATE_90)
  for data in (
    _bytes(large, 'JPEG', quality=90),
    _bytes(turned, 'JPEG', quality=90, exif=exif),
    _bytes(large, 'WEBP', quality=90),
  ):
    found = look(data)
    assert (found.height, found.width) == (800, 1200)
    luma = Image.fromarray(image_files.read(data, 'file', channels=1)[..., 0])
    expected = luma.resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found.thumbnail, np.asarray(expected), atol=3)


def test_digests_are_of_the_bytes(photo, look):
  data = _bytes(photo, 'JPEG')
  assert look(data, 'a').digest == look(data, 'b').digest
  assert look(data).digest != look(data + b'\0').digest


def test_pixels_of_any_type(photo):
  pixels = np.asarray(photo)
  eight = file_check.check_pixels(pixels, '3 x uint8')
  sixteen = file_check.check_pixels(pixels.astype(np.uint16) * 200, '3 x uint16')
  floating = file_check.check_pixels(pixels[..., :1] / np.float32(7), '1 x float32')
  assert (eight.height, eight.width, eight.kind) == (200, 300, '3 x uint8')
  for other in (sixteen, floating):
    both = eight.thumbnail.ravel(), other.thumbnail.ravel()
    assert np.corrcoef(*both)[0, 1] > 0.9
  assert len({eight.digest, sixteen.digest, floating.digest}) == 3


def _fractal(side, slope, seed=0):
  """Return noise whose power falls with frequency to the power of `slope`."""
  rng = np.random.default_rng(seed)
  frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
  frequency[0, 0] = 1
  waves = np.fft.fft2(rng.normal(size=(side, side))) * frequency ** (slope / 2)
  image = np.fft.ifft2(waves).real
  return 128 + 40 * image / image.std()


@pytest.mark.parametrize(('slope', 'expected'), [(0, 4.0), (-1, 2.0), (-2, 1.0)])
def test_detail_of_noise_whose_spectrum_is_known(slope, expected):
  # An octave is twice as wide and has twice the circumference of the one below.
  assert file_check.fine_detail(_fractal(512, slope)) == pytest.approx(
    expected, rel=0.12
  )


def test_upsampled_photographs_lack_detail():
  for name in ('coffee.png', 'chelsea.png', 'camera.png', 'astronaut.png'):
    image = Image.open(FOLDER / name).convert('L')
    detail = {1: file_check.fine_detail(np.asarray(image))}
    for factor in (1.5, 2, 3):
      sides = round(image.width * factor), round(image.height * factor)
      large = image.resize(sides, Image.Resampling.BICUBIC)
      detail[factor] = file_check.fine_detail(np.asarray(large))
    assert detail[1] > 0.3, name
    assert detail[1.5] < 0.6 * detail[1], name
    assert max(detail[2], detail[3]) < 0.2, name


def test_detail_of_nothing_is_not_a_number():
  assert np.isnan(file_check.fine_detail(np.full((64, 64), 90)))
  rng = np.random.default_rng(0)
  assert np.isnan(
    file_check.fine_detail(np.round(90 + rng.uniform(-0.5, 0.5, (64, 64))))
  )
  assert np.isnan(file_check.fine_detail(np.zeros((31, 400))))
