"""Tests that the faster JPEG decoder gives Pillow's pixels and refusals."""

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from sr3_jax.images import fast_jpeg, image_files
from sr3_jax.images import pixels as images_pixels
from tests.support import datasets

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


@pytest.fixture(scope='module')
def photo():
  return Image.open(datasets.PHOTO).crop((200, 100, 301, 173))  # 101 x 73


@pytest.fixture
def taken(monkeypatch):
  """Return a list of the sizes of all images that the faster decoder decodes."""
  simplejpeg = pytest.importorskip('simplejpeg')
  sizes, decode = [], simplejpeg.decode_jpeg

  def noted(*args, **options):
    pixels = decode(*args, **options)
    sizes.append(pixels.shape)
    return pixels

  monkeypatch.setattr(simplejpeg, 'decode_jpeg', noted)
  return sizes


def encoded(image, **options):
  file = io.BytesIO()
  image.save(file, 'JPEG', **options)
  return file.getvalue()


def by_pillow(data, channels=3):
  """Return the pixels that Pillow alone decodes, or the error that it raises."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fast_jpeg, 'simplejpeg', None)
    patch.setattr(fast_jpeg, 'plain_shape', lambda *args: None)
    return outcome(data, channels)


def outcome(data, channels=3):
  try:
    return image_files.read(data, 'x', channels=channels)
  except images_pixels.ImageError as error:
    return str(error)


def same(one, other):
  if isinstance(one, str) or isinstance(other, str):
    return isinstance(one, str) and isinstance(other, str)
  return one.shape == other.shape and np.array_equal(one, other)


PLAIN = {
  'plain': {},
  '4:4:4': {'subsampling': 0},
  '4:2:2': {'subsampling': 1},
  'progressive': {'progressive': True},
  'optimized': {'optimize': True, 'quality': 30},
  'restarts': {'restart_marker_blocks': 2},
  'stored as RGB': {'keep_rgb': True},
  'comment': {'comment': b'by nobody'},
  'best': {'quality': 100, 'subsampling': 0},
  'worst': {'quality': 1},
}


@pytest.mark.parametrize('kind', PLAIN)
def test_plain_files(photo, kind, taken):
  data = encoded(photo, **PLAIN[kind])
  truth = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
  np.testing.assert_array_equal(image_files.read(data, 'x'), truth)
  grey = np.asarray(Image.open(io.BytesIO(data)).convert('L'))
  np.testing.assert_array_equal(image_files.read(data, 'x', channels=1)[..., 0], grey)
  assert taken == [(73, 101, 3)] * 2


def test_grey_files(photo, taken):
  data = encoded(photo.convert('L'))
  truth = np.asarray(Image.open(io.BytesIO(data)))
  np.testing.assert_array_equal(image_files.read(data, 'x', channels=1)[..., 0], truth)
  np.testing.assert_array_equal(
    image_files.read(data, 'x'), np.repeat(truth[..., None], 3, 2)
  )
  assert taken == [(73, 101, 1)] * 2


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_files(photo, orientation, taken):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(photo, exif=exif)
  truth = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
  np.testing.assert_array_equal(image_files.read(data, 'x'), truth)
  assert len(taken) == (orientation == 1)


def test_profiles(photo, taken):
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  lab = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
  for profile in (srgb, lab, b'no profile'):  # nothing to do, or not to be done
    data = encoded(photo, icc_profile=profile)
    assert same(image_files.read(data, 'x'), by_pillow(data))
  assert len(taken) == 3
  # This matrix profile has its columns swapped, so that red and blue change places.
  at = [srgb.index(tag) for tag in (b'rXYZ', b'bXYZ')]
  swapped = bytearray(srgb)
  for here, there in (at, at[::-1]):
    swapped[here + 4 : here + 8] = srgb[there + 4 : there + 8]
  data = encoded(photo, icc_profile=bytes(swapped))
  assert same(image_files.read(data, 'x'), by_pillow(data))
  plain = np.asarray(Image.open(io.BytesIO(data))).astype(int)
  assert np.abs(image_files.read(data, 'x') - plain).max() > 20
  assert len(taken) == 3


def test_inks_are_left_to_pillow(photo, taken):
  data = encoded(photo.convert('CMYK'))
  assert same(image_files.read(data, 'x'), by_pillow(data)) and not taken


def test_claims_are_checked_before_pixels(photo, taken, monkeypatch):
  data = encoded(photo)
  monkeypatch.setattr(image_files, 'MAX_PIXELS', 73 * 101 - 1)
  for channels in (1, 3):
    said = outcome(data, channels)
    assert 'more than the limit' in said and said == by_pillow(data)
  monkeypatch.undo()
  at = data.index(b'\xff\xc0') + 5
  huge = data[:at] + b'\xff\xff\xff\xff' + data[at + 4 :]  # 4,295 Mpx
  assert 'limit' in outcome(huge) and not taken
  monkeypatch.setattr(image_files, 'MAX_PIXELS', 73 * 101)
  assert outcome(data).shape == (73, 101, 3)


def damaged(data, rng):
  """Return the file with something wrong, one of the ways that files have."""
  data = bytearray(data)
  kind = rng.randrange(6)
  if kind == 0:
    del data[rng.randrange(len(data)) :]
  elif kind == 1:  # anywhere
    for _ in range(rng.randrange(1, 4)):
      data[rng.randrange(2, len(data))] ^= 1 << rng.randrange(8)
  elif kind == 2:  # in the headers
    data[rng.randrange(2, 600)] = rng.randrange(256)
  elif kind == 3:
    at = rng.randrange(600, len(data) - 20)
    data[at : at + 20] = rng.randbytes(20)
  elif kind == 4:
    del data[-2:]  # the end marker only
  else:
    data += rng.randbytes(rng.randrange(1, 50))
  return bytes(data)


def test_damaged_files_are_what_pillow_says(photo, taken, tmp_path):
  rng = random.Random(0)
  whole = [
    encoded(photo),
    encoded(photo, progressive=True),
    encoded(photo.convert('L'), quality=90),
    encoded(photo, exif=b'Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00'),
  ]
  refused, path = 0, tmp_path / 'x.jpg'
  for i in range(400):
    data = damaged(whole[i % len(whole)], rng)
    truth = by_pillow(data)
    assert same(outcome(data), truth)
    refused += isinstance(truth, str)
    path.write_bytes(data)
    try:
      height, width = image_files.size(path)
    except images_pixels.ImageError:
      assert isinstance(truth, str)
    else:
      assert isinstance(truth, str) or truth.shape[:2] == (height, width)
  assert 100 < refused < 300 and len(taken) > 50


def test_sizes_are_those_that_pillow_sees(photo, tmp_path, monkeypatch):
  path = tmp_path / 'x.jpg'
  opened, open_image = [], image_files.open_image

  def open_and_note(*args):
    opened.append(1)
    return open_image(*args)

  monkeypatch.setattr(image_files, 'open_image', open_and_note)
  for turned in (False, True):
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    path.write_bytes(encoded(photo, **({'exif': exif} if turned else {})))
    assert image_files.size(path) == ((101, 73) if turned else (73, 101))
    assert len(opened) == turned  # Pillow's reading takes ten times as long
  # This header is longer than the part that is read at first.
  path.write_bytes(encoded(photo, comment=b' ' * 9000))
  assert image_files.size(path) == (73, 101)


def test_without_the_faster_decoder(photo, monkeypatch):
  data = encoded(photo)
  fast = image_files.read(data, 'x')
  monkeypatch.setattr(fast_jpeg, 'simplejpeg', None)
  np.testing.assert_array_equal(image_files.read(data, 'x'), fast)
