"""Tests of Hugging Face datasets, which that library itself writes here."""

import copy
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from sr3_jax.data import batches as data_batches
from sr3_jax.data import input_pipeline, sources
from sr3_jax.data.hf_rows import HfRows
from sr3_jax.data.records import DataError, PairSource
from sr3_jax.images import image_files, pixels
from sr3_jax.weights import hub
from tests.support import datasets as support
from tests.support import runs
from tests.support.datasets import take, training

hf = pytest.importorskip('datasets')
warnings = support.warnings
# pytest undoes the filter that image_files.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')
COUNT, TORN = 12, 7
# As `Image` stores them; the library puts the files into datasets that have `Image`.
NAMED_FILES = hf.Features(
  {'image': {'bytes': hf.Value('binary'), 'path': hf.Value('string')}}
)


def picture(value, shape=(6, 8), **options):
  file = io.BytesIO()
  Image.fromarray(np.full(shape, value, np.uint8)).save(file, 'PNG', **options)
  return file.getvalue()


def features(**more):
  named = hf.ClassLabel(names=['a', 'b', 'c'])
  return hf.Features({'image': hf.Image(), 'label': named, **more})


def columns(count=COUNT):
  images = [{'bytes': picture(10 * i), 'path': None} for i in range(count)]
  return {'image': images, 'label': [i % 3 for i in range(count)]}


@pytest.fixture(scope='module', autouse=True)
def _quiet():
  hf.disable_progress_bars()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Save a dataset of twelve images, of which one is torn, and one of three."""
  root = tmp_path_factory.mktemp('saved')
  torn = columns()
  torn['image'][TORN]['bytes'] = picture(0)[:30]
  train = hf.Dataset.from_dict(torn, features=features())
  test = hf.Dataset.from_dict(columns(3), features=features())
  hf.DatasetDict({'train': train, 'test': test}).save_to_disk(root / 'splits')
  return root


def save(path, rows, kinds):
  hf.Dataset.from_dict(rows, features=kinds).save_to_disk(path)
  return str(path)


def config(path, **data):
  c = runs.get_config()
  c.data.update({'source': 'hf', 'path': str(path)} | data)
  return c


def opened(path, **data):
  return sources.make_dataset(config(path, **data).data, held_out=False)


def value(record):
  return int(record['image'][0, 0, 0])


def test_a_saved_dataset_has_images_and_labels_by_number(saved, warnings):
  source = opened(saved / 'splits')
  assert len(source) == COUNT and source.classes == ('a', 'b', 'c')
  record = source[5]
  assert record['image'].shape == (6, 8, 3) and record['image'].dtype == np.uint8
  assert value(record) == 50 and record['label'] == 2
  assert record['label'].dtype == np.int32
  with pytest.raises(pixels.ImageError, match=r'^splits:train\[7\]: '):
    source[TORN]
  batches = training(source)
  for batch in take(batches, 9):
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0] // 10 % 3, batch['label'])
  assert list(batches.skipped) == ['splits:train[7]'] and len(warnings) == 1


def test_batches_go_on_where_they_ended(saved):
  stream = training(opened(saved / 'splits'), seed=3)
  first = take(stream, 7, close=False)
  state = copy.deepcopy(stream.get_state())
  rest = take(stream, 5)
  again = training(opened(saved / 'splits'), seed=3)
  again.set_state(state)
  for one, other in zip(rest, take(again, 5), strict=True):
    np.testing.assert_array_equal(one['image'], other['image'])
    np.testing.assert_array_equal(one['label'], other['label'])
  once = np.concatenate([b['label'] for b in first])[:COUNT]
  assert np.bincount(once).tolist() != [COUNT]


@pytest.mark.slow  # a process that imports everything anew takes half a minute
def test_a_worker_process_reads_the_same(saved):
  alone = take(training(opened(saved / 'splits'), seed=1), 3)
  with_worker = take(training(opened(saved / 'splits'), seed=1, workers=1), 3)
  for one, other in zip(alone, with_worker, strict=True):
    np.testing.assert_array_equal(one['image'], other['image'])


@pytest.mark.parametrize(
  ('split', 'values'),
  [
    ('test', [0, 10, 20]),
    ('train[:25%]', [0, 10, 20]),
    ('train[10:]', [100, 110]),
    ('train[-1:]+test[:1]', [110, 0]),
  ],
)
def test_splits_and_parts_of_them(saved, split, values):
  source = opened(saved / 'splits', split=split)
  assert [value(source[i]) for i in range(len(source))] == values


def test_the_held_out_images_are_another_split(saved):
  c = config(
    saved / 'splits', eval_split='test', image_size=4, crop='center', reduce=(1,)
  )
  held = input_pipeline.make_source(c, held_out=True)
  assert len(held) == 3 and held.name(1) == 'splits:test[1]'


@pytest.mark.parametrize('split', ['validation', 'train[5', 'train[:200%]', ''])
def test_a_split_that_is_not_there(saved, split):
  with pytest.raises(DataError, match=r'only test, train: set data.split') as error:
    opened(saved / 'splits', split=split)
  assert '\n' not in str(error.value)


def test_parquet_files(tmp_path):
  folder = tmp_path / 'parquet'
  folder.mkdir()
  whole = hf.Dataset.from_dict(columns(), features=features())
  whole.select(range(8)).to_parquet(folder / 'train-00000-of-00002.parquet')
  whole.select(range(8, 12)).to_parquet(folder / 'train-00001-of-00002.parquet')
  whole.select(range(2)).to_parquet(folder / 'test-00000-of-00001.parquet')
  (folder / 'README.md').write_text('---\nlicense: mit\n---\nA dataset.')
  place = {'data_dir': str(tmp_path / 'cache')}
  source = opened(folder, **place)
  assert [value(source[i]) for i in range(12)] == [10 * i for i in range(12)]
  assert source.classes == ('a', 'b', 'c')
  assert len(opened(folder, split='test', **place)) == 2
  alone = opened(folder / 'test-00000-of-00001.parquet', **place)
  assert [value(alone[i]) for i in range(2)] == [0, 10]


def test_bytes_without_features_of_the_library_are_images(tmp_path):
  pa = pytest.importorskip('pyarrow')
  pq = pytest.importorskip('pyarrow.parquet')
  rows = columns(4)
  table = pa.table(
    {
      'picture': [{'bytes': r['bytes'], 'path': 'x.png'} for r in rows['image']],
      'label': pa.array([0, 4, 2, 0]),
      'text': ['a', 'b', 'c', 'd'],
    }
  )
  pq.write_table(table, tmp_path / 'data.parquet')
  source = opened(tmp_path, data_dir=str(tmp_path / 'cache'))
  assert [value(source[i]) for i in range(4)] == [0, 10, 20, 30]
  # Whole numbers are classes up to the largest.
  assert source.classes == tuple('01234') and source[1]['label'] == 4


def test_files_are_decoded_as_those_of_a_folder_are(tmp_path):
  """Orientation and transparency come out as `image_files` has them, not as Pillow."""
  turned, clear = io.BytesIO(), io.BytesIO()
  gradient = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(gradient).save(turned, 'JPEG', exif=exif, quality=95)
  Image.new('RGBA', (8, 6), (200, 0, 0, 0)).save(clear, 'PNG')
  rows = [{'bytes': f.getvalue(), 'path': None} for f in (turned, clear)]
  place = save(tmp_path / 'd', {'image': rows}, hf.Features({'image': hf.Image()}))
  source = opened(place)
  assert source[0]['image'].shape == (8, 6, 3)
  np.testing.assert_array_equal(
    source[0]['image'], image_files.read(turned.getvalue(), 'x')
  )
  assert (source[1]['image'] == 255).all()
  assert opened(place, channels=1)[1]['image'].shape == (6, 8, 1)


def test_a_picture_that_claims_too_much_is_refused_by_its_header(tmp_path):
  huge = io.BytesIO()
  Image.new('1', (10_000, 10_000)).save(huge, 'PNG')
  rows = [{'bytes': huge.getvalue(), 'path': None}]
  place = save(tmp_path / 'd', {'image': rows}, hf.Features({'image': hf.Image()}))
  with pytest.raises(pixels.ImageError, match='Mpx'):
    opened(place)[0]


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    (None, r'no image here \(empty\)'),
    ('https://example.org/a.png', r'no image here \(https:'),
    ('gs://bucket/a.png', r'no image here \(gs:'),
    ('zip://a.png::b.zip', r'no image here \(zip:'),
    ('/gone/a.png', 'no such file'),
  ],
)
def test_a_row_without_an_image_here_is_skipped(tmp_path, path, message):
  rows = [{'bytes': None, 'path': path}]
  place = save(tmp_path / 'd', {'image': rows}, NAMED_FILES)
  with pytest.raises(pixels.ImageError, match=r'^d:train\[0\]: ' + message):
    opened(place)[0]


def test_a_row_may_name_a_file_of_this_machine(tmp_path):
  path = tmp_path / 'file.png'
  path.write_bytes(picture(33))
  rows = [{'bytes': None, 'path': str(path)}]
  assert value(opened(save(tmp_path / 'd', {'image': rows}, NAMED_FILES))[0]) == 33


def pairs(root, **more):
  rows = columns(4)
  small = [
    {'bytes': picture(10 * i + 5, (3, 4)), 'path': None}
    for i in range(len(rows['image']))
  ]
  return save(root / 'pairs', rows | {'low': small} | more, features(low=hf.Image()))


def test_two_columns_are_pairs(tmp_path):
  c = config(pairs(tmp_path), input_column='low', input_channels=1)
  c.task.name, c.task.pair_scale = 'pairs', 2.0
  c.data.image_size, c.data.reduce, c.data.crop = 4, (1,), 'random'
  c.train.batch_size = 8
  source = input_pipeline.make_source(c, held_out=False)
  assert isinstance(source, PairSource) and not source.classes
  stream = input_pipeline.training_data(c)
  batch = next(stream)
  stream.close()
  assert batch['image'].shape == (8, 4, 4, 3)
  assert batch['condition'].shape == (8, 2, 2, 1)
  given, target = batch['condition'][:, 0, 0, 0], batch['image'][:, 0, 0, 0]
  np.testing.assert_array_equal(given, target + 5)


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ({'image_column': ''}, 'columns left, right hold images: set data.image_column'),
    ({'image_column': 'gone'}, r"no column 'gone' \(data.image_column\), only"),
    ({'image_column': 'text'}, r"'text' \(data.image_column\) holds string, not im"),
    ({'input_column': 'list'}, r"'list' \(data.input_column\) holds List, not im"),
    ({'label_column': 'text'}, "'text' holds string, not whole numbers"),
    ({'label_column': 'right'}, "'right' holds images, not whole numbers"),
    ({'label_column': 'below'}, "'below' holds values that are no labels"),
    ({'label_column': 'holes'}, "'holes' holds values that are no labels"),
    ({'label_column': 'ids'}, "'ids' holds values that are no labels"),
    ({'label_column': 'gone'}, r"no column 'gone' \(data.label_column\), only"),
    ({'channels': 4}, '1 or 3 channels, not 4'),
    ({'revision': 'v1'}, 'data.revision are of hub datasets'),
  ],
)
def test_columns_that_are_not_there_or_hold_something_else(tmp_path, data, message):
  images = columns(2)['image']
  rows = {'left': images, 'right': images, 'text': ['a', 'b'], 'list': [[1], [2]]}
  rows |= {'below': [0, -1], 'holes': [None, 1], 'ids': [10**9, 1]}
  numbers = {name: hf.Value('int64') for name in ('below', 'holes', 'ids')}
  kinds = {'left': hf.Image(), 'right': hf.Image(), 'text': hf.Value('string')}
  kinds |= {'list': hf.List(hf.Value('int64'))} | numbers
  place = save(tmp_path / 'd', rows, hf.Features(kinds))
  with pytest.raises(DataError, match=message) as error:
    opened(place, **({'image_column': 'left'} | data))
  assert '\n' not in str(error.value)


def test_labels_that_nobody_asked_for_may_be_unusable(tmp_path):
  place = save(tmp_path / 'd', columns(2) | {'label': [-1, -1]}, features())
  source = opened(place)
  assert not source.classes and 'label' not in source[0]
  with pytest.raises(DataError, match='has no classes'):
    sources.check_classes(source, 3)


def test_places_that_hold_no_dataset(saved, tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / 'train.parquet').write_bytes(b'PAR1 no table PAR1')
  (tmp_path / 'broken').mkdir()
  (tmp_path / 'broken' / 'state.json').write_text('{')
  none = save(tmp_path / 'none', columns(0), features())
  cases = {
    tmp_path / 'gone': 'no such folder or file here, and no name of the hub',
    tmp_path / 'empty': 'neither saved by save_to_disk nor a folder of Parquet',
    tmp_path / 'bad': 'bad: ',
    tmp_path / 'broken': 'broken: ',
    none: 'none: no rows',
  }
  for path, message in cases.items():
    with pytest.raises(DataError, match=message) as error:
      opened(path, data_dir=str(tmp_path / 'cache'))
    assert '\n' not in str(error.value)
  with pytest.raises(DataError, match=r'splits:train\[:0\]: no rows'):
    opened(saved / 'splits', split='train[:0]')
  with pytest.raises(DataError, match=r'needs --config\.data\.path'):
    opened('')


def test_arrow_that_points_outside_of_its_file_is_refused(tmp_path):
  """Pixels must not come from elsewhere in memory."""
  rows = {'image': [bytes(100)] * 8}
  place = save(tmp_path / 'd', rows, hf.Features({'image': hf.Value('binary')}))
  assert len(opened(place)) == 8
  (file,) = (tmp_path / 'd').glob('*.arrow')
  data = bytearray(file.read_bytes())
  offset = data.index(b''.join((100 * k).to_bytes(4, 'little') for k in (1, 2, 3)))
  data[offset : offset + 4] = (2**31 - 1).to_bytes(4, 'little')
  file.write_bytes(data)
  with pytest.raises(DataError, match='damaged'):
    opened(place)


def test_a_name_of_the_hub_is_asked_for_without_code(saved, monkeypatch):
  asked = []

  def load_dataset(*args, **options):
    asked.append((args, options))
    return hf.load_from_disk(str(saved / 'splits'))

  monkeypatch.setattr(hf, 'load_dataset', load_dataset)
  data = {'subset': 'small', 'revision': 'v1', 'data_dir': '/c'}
  source = opened('owner/name', **data)
  assert source.name(0) == 'owner/name:train[0]'
  options = {'revision': 'v1', 'cache_dir': '/c'}
  assert asked == [(('owner/name', 'small'), options)]

  def refuse(*args, **options):
    raise ConnectionError("Couldn't reach 'owner/name' on the Hub\nmore")

  monkeypatch.setattr(hf, 'load_dataset', refuse)
  with pytest.raises(DataError, match=r"owner/name: Couldn't reach .* Hub$"):
    opened('owner/name')


def test_a_model_that_is_published_names_the_hub_but_no_folders(saved):
  c = config('owner/name', eval_path=str(saved / 'splits'))
  shown = hub.publishable(c).data
  assert (shown.path, shown.eval_path) == ('owner/name', 'splits')


def test_the_fingerprint_changes_with_files_split_and_columns(saved, tmp_path):
  first = sources.fingerprint(opened(saved / 'splits', split='train[:3]'))
  assert first == sources.fingerprint(opened(saved / 'splits', split='train[:3]'))
  others = [
    opened(saved / 'splits', split='train[1:4]'),
    opened(pairs(tmp_path), image_column='low', split='train[:3]'),
    opened(saved / 'splits', split='test'),
  ]
  assert len({first, *map(sources.fingerprint, others)}) == 4
  (file,) = (saved / 'splits' / 'test').glob('*.arrow')
  before = sources.fingerprint(others[2])
  os.utime(file, (1, 1))
  assert sources.fingerprint(others[2]) != before


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'datasets', None)
  with pytest.raises(DataError, match=r"pip install 'sr3_jax\[hf\]'"):
    HfRows('owner/name', 'train')


def test_no_format_of_the_stored_dataset_is_used(tmp_path):
  place = save(tmp_path / 'd', columns(2), features())
  state = tmp_path / 'd' / 'state.json'
  stored = json.loads(state.read_text()) | {'_format_type': 'pandas'}
  state.write_text(json.dumps(stored))
  assert value(opened(place)[1]) == 10


def test_evaluation_marks_what_cannot_be_read(saved):
  c = config(saved / 'splits', eval_split='train', image_size=4)
  c.data.crop, c.eval.image_size, c.data.reduce = 'center', 4, (1,)
  held = input_pipeline.make_source(c, held_out=True)
  cut = input_pipeline.make_cut(c, held_out=True)
  with_all = [*data_batches.eval_batches(held, cut, batch_size=12)]
  assert with_all[0]['mask'].sum() == COUNT - 1 and not with_all[0]['mask'][TORN]
