"""Tests of TensorFlow Datasets as sources of images and of pairs."""

import subprocess
import sys

import numpy as np
import pytest

from sr3_jax.data import sources
from sr3_jax.data.records import DataError, PairSource
from sr3_jax.data.tfds_rows import TfdsRows
from sr3_jax.images import pixels
from tests.support import datasets, runs
from tests.support.datasets import take, training

warnings = datasets.warnings

BUILD = """
import sys, io
import numpy as np, tensorflow_datasets as tfds
from PIL import Image

class Squares(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features.FeaturesDict({
      'image': tfds.features.Image(),
      'small': tfds.features.Image(),
      'label': tfds.features.ClassLabel(num_classes=3),
      'number': tfds.features.Scalar(np.int64),
    })
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(12):
      file = io.BytesIO()
      Image.fromarray(np.full((6, 8), 10 * i, np.uint8)).save(file, 'PNG')
      body = file.getvalue()[: 30 if i == 7 else None]
      file = io.BytesIO()
      Image.fromarray(np.full((3, 4), 10 * i + 5, np.uint8)).save(file, 'PNG')
      small = io.BytesIO(file.getvalue())
      row = {'image': io.BytesIO(body), 'small': small, 'label': i % 3, 'number': i}
      yield i, row

tfds.disable_progress_bar()
Squares(data_dir=sys.argv[1], file_format='array_record').download_and_prepare()
"""


@pytest.fixture(scope='module')
def tfds_folder(tmp_path_factory):
  # It runs in a process of its own, so that reading can't use the builder's class.
  folder = tmp_path_factory.mktemp('tfds')
  subprocess.run([sys.executable, '-c', BUILD, folder], check=True, capture_output=True)
  return str(folder)


def config(folder, **data):
  c = runs.get_config().data
  c.update({'source': 'tfds', 'path': 'squares', 'data_dir': folder} | data)
  return c


def test_tfds(tfds_folder, warnings):
  source = sources.make_dataset(config(tfds_folder), held_out=False)
  assert len(source) == 12 and source.classes
  seen = {}
  for i in range(12):
    try:
      record = source[i]
    except pixels.ImageError as error:
      torn = source.name(i)
      assert str(error).startswith(torn)
      continue
    assert record['image'].shape == (6, 8, 3) and record['image'].dtype == np.uint8
    seen[record['image'][0, 0, 0] // 10] = record['label']
  # TFDS shuffles when it writes; label and picture must have stayed together.
  assert seen == {i: i % 3 for i in range(12) if i != 7}

  batches = training(source)
  for batch in take(batches, 9):
    assert batch['label'].dtype == np.int32
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0] // 10 % 3, batch['label'])
  assert list(batches.skipped) == [torn]
  assert len(warnings) == 1

  half = TfdsRows('squares', 'train[50%:]', tfds_folder)
  assert len(half) == 6


def test_tfds_that_is_not_there(tfds_folder):
  with pytest.raises(DataError, match='download_and_prepare') as error:
    TfdsRows('mnist', 'train', tfds_folder)
  assert '\n' not in str(error.value) and tfds_folder in str(error.value)
  with pytest.raises(DataError, match='download_and_prepare') as error:
    TfdsRows('imagenet2012', 'train', tfds_folder)
  # This data set has files that only the user may download.
  assert "manual_dir='FOLDER'" in str(error.value)
  assert 'ILSVRC2012_img_train.tar' in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(DataError, match='not found') as error:
    TfdsRows('no_such_dataset', 'train', tfds_folder)
  assert '\n' not in str(error.value)
  with pytest.raises(DataError, match=r"Unknown split 'test'"):
    TfdsRows('squares', 'test', tfds_folder)


def test_without_tfds_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
  with pytest.raises(DataError, match="pip install 'sr3_jax\\[tfds\\]'"):
    TfdsRows('mnist', 'train')


def test_two_columns_are_pairs(tfds_folder):
  d = config(tfds_folder, input_column='small', input_channels=1)
  source = sources.make_dataset(d, held_out=False)
  assert isinstance(source, PairSource) and not source.classes
  usable = 0
  for i in range(12):
    try:
      record = source[i]
    except pixels.ImageError:
      continue
    usable += 1
    assert record['image'].shape == (6, 8, 3) and record['condition'].shape == (3, 4, 1)
    assert (record['condition'] == record['image'][0, 0, 0] + 5).all()
    assert 'label' not in record
  assert usable == 11


@pytest.mark.parametrize(
  ('columns', 'message'),
  [
    ({'image_column': 'picture'}, r"no column 'picture' \(data.image_column\), only"),
    ({'image_column': 'label'}, r"'label' \(data.image_column\) holds ClassLabel"),
    ({'input_column': 'number'}, r"'number' \(data.input_column\) holds Scalar, not"),
    ({'image_column': 'small', 'input_column': 'small'}, 'are the same'),
    ({'label_column': 'number'}, r'holds Scalar, not class labels'),
    ({'label_column': 'gone'}, r"no column 'gone' \(data.label_column\)"),
    ({'channels': 2}, '1 or 3 channels, not 2'),
    ({'path': ''}, r'needs --config\.data\.path'),
  ],
)
def test_columns_that_are_not_there_or_hold_something_else(
  tfds_folder, columns, message
):
  with pytest.raises(DataError, match=message) as error:
    sources.make_dataset(config(tfds_folder, **columns), held_out=False)
  assert '\n' not in str(error.value)
