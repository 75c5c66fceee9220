"""Tests of sources of images: photographs, and folders as people have them."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from tests.support import datasets
from tests.support.datasets import PHOTO

warnings = datasets.warnings

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


@pytest.fixture
def tree(tmp_path):
  """Make a folder as people have them: nested, mixed, with every kind of bad file."""
  root = tmp_path / 'tree'
  (root / 'b' / 'deep').mkdir(parents=True)
  (root / '.cache').mkdir()
  photo = Image.open(PHOTO)
  photo.crop((0, 0, 200, 120)).save(root / 'b' / 'deep' / 'one.JPG')
  photo.crop((300, 100, 500, 300)).save(root / 'a.png')
  photo.crop((300, 100, 364, 164)).save(root / 'exactly.webp')
  photo.crop((300, 100, 500, 163)).save(root / 'low.png')
  photo.crop((0, 0, 1, 1)).save(root / 'pixel.png')
  photo.crop((0, 0, 99, 99)).save(root / '.hidden.png')
  photo.crop((0, 0, 99, 99)).save(root / '.cache' / 'c.png')
  (root / 'zero.jpg').write_bytes(b'')
  (root / 'text.jpg').write_text('not a picture')
  (root / 'notes.txt').write_text('not a picture')
  Image.new('1', (10_000, 10_000)).save(root / 'huge.png')  # 100 Mpx, 15 kB
  return root


def test_photos_are_those_of_scikit_image():
  train, held_out = sources.Photos('train'), sources.Photos('eval')
  names = [[s.name(i) for i in range(len(s))] for s in (train, held_out)]
  assert set(names[0]).isdisjoint(names[1])
  # A scene that was photographed twice must not be in both splits.
  assert {n for n in names[0] + names[1] if 'motorcycle' in n} <= set(names[0])
  assert names[1][:2] == ['chelsea.png', 'coffee.png']
  np.testing.assert_array_equal(held_out[0]['image'], skimage.data.chelsea())
  np.testing.assert_array_equal(held_out[1]['image'], skimage.data.coffee())
  for i in range(len(train)):
    image = train[i]['image']
    assert image.dtype == np.uint8 and image.shape[-1] == 3
    assert min(image.shape[:2]) >= 256


def test_folder(tree, warnings):
  source = sources.make_source('folder', path=str(tree), min_size=64)
  assert [source.name(i) for i in range(len(source))] == [
    'a.png',
    'b/deep/one.JPG',
    'exactly.webp',
  ]
  with Image.open(tree / 'a.png') as file:
    np.testing.assert_array_equal(source[0]['image'], np.asarray(file))
  assert source.left_out.keys() == {
    'huge.png',
    'low.png',
    'pixel.png',
    'text.jpg',
    'zero.jpg',
  }
  assert source.left_out['zero.jpg'] == 'zero bytes'
  assert source.left_out['pixel.png'] == '1 x 1 pixels'
  assert 'Mpx' in source.left_out['huge.png']
  (line,) = warnings
  assert '5 of 8 images left out: huge.png (10000 x' in line and ', ...' in line


def test_folders_without_images(tree, tmp_path):
  (tmp_path / 'empty' / 'inside').mkdir(parents=True)
  cases = {
    'empty': 'no images in this folder',
    'gone': 'no such folder',
    'tree/a.png': 'is a file',
  }
  for path, reason in cases.items():
    with pytest.raises(data_batches.DataError, match=reason) as error:
      sources.Folder(tmp_path / path)
    assert path in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(data_batches.DataError, match='at least 300 pixels') as error:
    sources.Folder(tree, min_size=300)
  assert '8 of 8' in str(error.value) and '\n' not in str(error.value)


def test_unknown_names_are_answered_with_the_known():
  with pytest.raises(data_batches.DataError, match=r'needs --config\.data\.path=PATH'):
    sources.make_source('folder')
  with pytest.raises(data_batches.DataError, match=r"'test'.*train, eval"):
    sources.make_source('photos', split='test')
