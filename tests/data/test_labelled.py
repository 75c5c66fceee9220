"""Tests of sources with classes: a folder of folders, and arrays in a file."""

import numpy as np
import PIL.Image
import pytest

from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from sr3_jax.data.crops import Cut
from sr3_jax.weights import hub
from tests.support.sr3_models import tiny


def picture(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  PIL.Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
  for name, value in {'b/1.png': 10, 'a/2.png': 20, 'b/deep/0.png': 30}.items():
    picture(tmp_path / name, value)
  return tmp_path


def test_folders_are_classes_in_the_order_of_their_names(folder):
  source = sources.make_source('classes', path=folder)
  assert source.classes == ('a', 'b')
  found = {
    (r['image'][0, 0, 0], int(r['label'])) for r in map(source.__getitem__, range(3))
  }
  assert found == {(10, 1), (20, 0), (30, 1)}
  assert source[0]['label'].dtype == np.int32


def test_a_class_without_a_usable_image_keeps_its_number(folder):
  (folder / 'a' / '2.png').write_bytes(b'nothing')
  source = sources.make_source('classes', path=folder)
  assert source.classes == ('a', 'b') and len(source) == 2
  assert {int(source[i]['label']) for i in range(2)} == {1}


def test_an_image_outside_of_the_classes_is_a_mistake(folder):
  picture(folder / 'stray.png', 1)
  with pytest.raises(sources.DataError, match=r'stray\.png is not in the folder'):
    sources.make_source('classes', path=folder)


def images(count):
  return np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(
    (1, 4, 4, 3), np.uint8
  )


def test_arrays_with_splits(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(
    path,
    x_train=images(6),
    y_train=np.arange(6, dtype=np.uint8) % 2,
    x_test=images(3),
    y_test=np.zeros(3, int),
    classes=np.array(['cat', 'dog']),
  )
  source = sources.make_source('arrays', path=path, split='train')
  assert (len(source), source.classes, source.channels) == (6, ('cat', 'dog'), 3)
  assert source[5]['image'].max() == 5 and source[5]['label'] == 1
  assert len(sources.make_source('arrays', path=path, split='test')) == 3
  with pytest.raises(sources.DataError, match="no split 'eval', only 'train'"):
    sources.make_source('arrays', path=path, split='eval')
  batches = data_batches.train_batches(source, Cut(4, 'none'), batch_size=4)
  batch = next(batches)
  batches.close()
  np.testing.assert_array_equal(batch['label'], batch['image'][:, 0, 0, 0] % 2)


def test_arrays_without_splits_hold_every_tenth_out(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, x=images(25), y=np.full(25, 4))
  parts = [sources.make_source('arrays', path=path, split=s) for s in ('train', 'test')]
  shown = [[int(p[i]['image'][0, 0, 0]) for i in range(len(p))] for p in parts]
  assert shown[1] == [9, 19] and sorted(shown[0] + shown[1]) == list(range(25))
  assert parts[0].classes == parts[1].classes == ('0', '1', '2', '3', '4')


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'x': images(3)}, 'y'),
    ({'x': images(3) / 2, 'y': np.zeros(3, int)}, 'uint8'),
    ({'x': images(3), 'y': np.zeros(2, int)}, r'a\.npz: .*one for each image'),
    ({'x_train': images(3), 'y_train': np.zeros(2, int)}, 'one for each image'),
    ({'x': images(3), 'y': np.zeros(3)}, 'integers'),
    ({'x': images(3), 'y': np.array([None] * 3)}, 'Python objects'),
  ],
)
def test_arrays_that_are_not_data(tmp_path, arrays, message):
  path = tmp_path / 'a.npz'
  np.savez(path, **arrays)
  with pytest.raises(sources.DataError, match=message):
    sources.make_source('arrays', path=path)


def test_a_changed_file_has_another_fingerprint(tmp_path):
  path, other = tmp_path / 'a.npz', tmp_path / 'b.npz'

  def source(place):
    return sources.make_source('arrays', path=place)

  np.savez(path, x=images(3), y=np.zeros(3, int))
  first = sources.fingerprint(source(path))
  assert sources.fingerprint(source(path)) == first
  np.savez_compressed(path, x=images(3), y=np.ones(3, int))
  assert sources.fingerprint(source(path)) != first
  np.savez(other, x=images(3), y=np.zeros(3, int))
  assert sources.fingerprint(source(other)) != first


def test_files_that_are_not_arrays(tmp_path):
  path = tmp_path / 'a.npz'
  with pytest.raises(sources.DataError, match=r'a\.npz'):
    sources.make_source('arrays', path=path)
  path.write_bytes(b'no archive')
  with pytest.raises(sources.DataError, match=r'a\.npz'):
    sources.make_source('arrays', path=path)


def test_a_model_with_classes_wants_labels(folder):
  with pytest.raises(sources.DataError, match='has 2 classes: set'):
    sources.check_classes(sources.make_source('classes', path=folder), 1)
  with pytest.raises(sources.DataError, match='has no classes'):
    sources.check_classes(sources.make_source('folder', path=folder), 1)
  sources.check_classes(sources.make_source('folder', path=folder), 0)


def test_published_configurations_name_no_folders_of_this_machine():
  config = tiny(
    data__source='arrays',
    data__path='/home/me/secret/flowers.npz',
    cascade__stages=('/home/me/secret/base', 'hf://owner/up'),
  )
  shown = hub.publishable(config)
  assert shown.data.path == 'flowers.npz'
  assert shown.cascade.stages == ('base', 'hf://owner/up')
  assert 'secret' not in str(shown)
