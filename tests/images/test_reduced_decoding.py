"""Tests of large JPEG files that are decoded at a part of their size."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from sr3_jax.config import ConfigError
from sr3_jax.core.relations import check_relations
from sr3_jax.data import crops, input_pipeline, sources
from sr3_jax.images import fast_jpeg, image_files, pixels
from tests.support import datasets, runs

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


@pytest.fixture(scope='module')
def photo():
  return Image.open(datasets.PHOTO).convert('RGB')


def encoded(image, **options):
  file = io.BytesIO()
  image.save(file, 'JPEG', **{'quality': 90} | options)
  return file.getvalue()


def drafted(data, by):
  """Return a file as Pillow's own reduced decoding reads it."""
  image = Image.open(io.BytesIO(data))
  image.draft(None, (image.width // by, image.height // by))
  image = ImageOps.exif_transpose(image)
  return np.asarray(image.convert('RGB'))


@pytest.mark.parametrize(
  ('side', 'decode_side', 'divisor'),
  [
    *[(800, 100, 8), (799, 100, 4), (800, 101, 4), (200, 100, 2), (199, 100, 1)],
    *[(800, 0, 1), (50, 100, 1), (10_000, 1, 8)],
  ],
)
def test_scale_divisor_leaves_enough_pixels(side, decode_side, divisor):
  assert fast_jpeg.scale_divisor(side, decode_side) == divisor


@pytest.mark.parametrize('by', [2, 4, 8])
@pytest.mark.parametrize(
  'options', [{}, {'subsampling': 0}, {'progressive': True}, {'restart_marker_rows': 1}]
)
@pytest.mark.parametrize('fast', [True, False])
def test_pixels_are_those_of_pillow(photo, by, options, fast, monkeypatch):
  if fast:
    pytest.importorskip('simplejpeg')
  else:
    monkeypatch.setattr(fast_jpeg, 'simplejpeg', None)
  for image in (photo, photo.crop((0, 0, 301, 273)), photo.crop((0, 0, 95, 211))):
    data = encoded(image, **options)
    found = image_files.read(data, 'x', decode_side=min(image.size) // by)
    assert found.shape == (-(-image.height // by), -(-image.width // by), 3)
    np.testing.assert_array_equal(found, drafted(data, by))


def test_an_eighth_is_the_mean_of_blocks(photo):
  grey = photo.convert('L').crop((0, 0, 304, 272))
  grey = grey.point(lambda level: 64 + level // 2)  # nothing to clip
  whole = image_files.read(data := encoded(grey), 'x', channels=1)
  found = image_files.read(data, 'x', channels=1, decode_side=30)
  means = whole.reshape(34, 8, 38, 8).mean((1, 3))
  assert np.abs(found[..., 0] - means).max() <= 1


def test_turned_pictures_are_turned(photo):
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encoded(photo.crop((0, 0, 320, 240)), exif=exif)
  found = image_files.read(data, 'x', decode_side=60)
  assert found.shape == (80, 60, 3)
  np.testing.assert_array_equal(found, drafted(data, 4))


@pytest.mark.parametrize('format_', ['PNG', 'WEBP', 'BMP'])
def test_other_files_are_decoded_whole(photo, format_):
  file = io.BytesIO()
  photo.save(file, format_)
  found = image_files.read(file.getvalue(), 'x', decode_side=16)
  assert found.shape == (photo.height, photo.width, 3)


@pytest.mark.parametrize('fast', [True, False])
def test_files_that_end_early_are_refused(photo, fast, monkeypatch):
  if not fast:
    monkeypatch.setattr(fast_jpeg, 'simplejpeg', None)
  data = encoded(photo)
  for share in (0.3, 0.6, 0.95):
    with pytest.raises(pixels.ImageError):
      image_files.read(data[: int(share * len(data))], 'x', decode_side=16)


@pytest.mark.parametrize(
  ('crop', 'levels'),
  [('none', 3.5), ('center', 7.0)],  # the middle may lie half a block beside
)
def test_training_examples_are_nearly_those_of_whole_files(
  tmp_path, photo, crop, levels
):
  side = min(photo.size)
  (tmp_path / 'images').mkdir()
  for i in range(4):
    part = photo.crop((i, 0, i + side, side)) if crop == 'none' else photo
    # These parts of a photograph are sharper than a telephone's pictures.
    part = part.resize((part.width * 3, part.height * 3), Image.Resampling.BICUBIC)
    part.save(tmp_path / f'images/{i}.jpg', quality=95)
  config = runs.get_config()
  config.data.source, config.data.path = 'folder', str(tmp_path / 'images')
  config.data.crop, config.data.reduce = crop, (1,)
  config.data.image_size = side * 3 // 8 // 4

  def example(reduced, shorter):
    config.data.reduced_decoding = reduced
    batches = input_pipeline.training_data(config)
    assert min(batches._reader.source[0]['image'].shape[:2]) == shorter
    image = next(batches)['image']
    batches.close()
    return image.astype(float)

  whole = example(False, side * 3)
  part = example(True, -(-side * 3 // 8))
  assert whole.shape == part.shape
  error = np.sqrt(np.mean((whole - part) ** 2))
  assert 0 < error < levels
  # Another picture of the set differs far more.
  moved = np.sqrt(np.mean((whole[:, 1:] - part[:, :-1]) ** 2))
  assert moved > 3 * error


def test_crops_of_the_picture_as_it_is_need_all_of_it():
  config = runs.get_config()
  config.data.reduced_decoding = True
  with pytest.raises(ConfigError, match=r"reduced_decoding is for data.crop='center'"):
    check_relations(config)
  assert crops.Cut(64, 'center').decode_side == 256


def test_labelled_folders_too(tmp_path, photo):
  (tmp_path / 'one').mkdir()
  photo.save(tmp_path / 'one/a.jpg')
  made = sources.make_source(
    'classes', path=str(tmp_path), decode_side=photo.height // 2
  )
  assert made[0]['image'].shape[0] == photo.height // 2 and made[0]['label'] == 0
