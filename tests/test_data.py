"""Sources, crops and the stream of batches."""

import itertools
import json
import multiprocessing
import pathlib
import subprocess
import sys

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
import skimage.data
import skimage.transform
from absl import logging
from PIL import Image

from sr3_jax import data, images, sources

# 600 x 400, without a colour profile.
PHOTO = pathlib.Path(skimage.data.__file__).parent / 'coffee.png'

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


class Numbers:
  """A source whose record i is a picture of the number i."""

  classes, channels, dtype = tuple('0123456789'), 3, np.uint8

  def __init__(self, count, bad=(), size=4):
    self._count, self._bad, self._size = count, bad, size

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    assert 0 <= index < self._count
    if index in self._bad:
      raise images.ImageError(f'{self.name(index)}: torn')
    pixels = np.full((self._size, self._size, 3), index, np.uint8)
    return {'image': pixels, 'label': np.int32(index % 10)}

  def name(self, index):
    return f'number {index}'


class One:
  """A source of one given picture."""

  classes, channels, dtype = (), 3, np.uint8

  def __init__(self, image):
    self._image = image

  def __len__(self):
    return 1

  def __getitem__(self, index):
    return {'image': self._image}

  def name(self, index):
    return 'one'


def _train(source, **changes):
  options = {'batch_size': 4, 'image_size': 4, 'crop': 'random'} | changes
  return data.train_batches(source, **options)


def _evaluate(source, **changes):
  options = {'batch_size': 4, 'image_size': 4, 'crop': 'random'} | changes
  return data.eval_batches(source, **options)


def _take(batches, count, close=True):
  taken = [next(batches) for _ in range(count)]
  if close:
    batches.close()
  return taken


def _numbers(batches):
  """Which records of `Numbers` are in a list of batches."""
  return np.concatenate([batch['image'][:, 0, 0, 0] for batch in batches])


def _assert_same(left, right):
  assert len(left) == len(right)
  for one, other in zip(left, right, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture
def warnings(monkeypatch):
  """Lines that are logged as warnings."""
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: lines.append(text % a))
  return lines


@pytest.fixture
def tree(tmp_path):
  """A folder as people have them: nested, mixed, with every kind of bad file."""
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


@pytest.fixture
def torn(tmp_path):
  """Five usable pictures and two whose bodies are cut off behind fine headers."""
  root = tmp_path / 'torn'
  root.mkdir()
  photo = Image.open(PHOTO)
  for i in range(7):
    path = root / f'{i}.jpg'
    photo.crop((i * 60, 200, i * 60 + 64, 264)).save(path, quality=98)
    if i in (2, 5):
      path.write_bytes(path.read_bytes()[:-300])
  return root


# --- sources


def test_photos_are_those_of_scikit_image():
  train, held_out = sources.Photos('train'), sources.Photos('eval')
  names = [[s.name(i) for i in range(len(s))] for s in (train, held_out)]
  assert set(names[0]).isdisjoint(names[1])
  # One scene seen twice must not be on both sides.
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
    with pytest.raises(data.DataError, match=reason) as error:
      sources.Folder(tmp_path / path)
    assert path in str(error.value) and '\n' not in str(error.value)
  with pytest.raises(data.DataError, match='at least 300 pixels') as error:
    sources.Folder(tree, min_size=300)
  assert '8 of 8' in str(error.value) and '\n' not in str(error.value)


def test_unknown_names_are_answered_with_the_known():
  known = 'photos, folder, classes, arrays, tfds'
  with pytest.raises(data.DataError, match=rf"'web'.*{known}"):
    sources.make_source('web')
  with pytest.raises(data.DataError, match='needs a path'):
    sources.make_source('folder')
  with pytest.raises(data.DataError, match=r"'test'.*train, eval"):
    sources.make_source('photos', split='test')
  with pytest.raises(data.DataError, match=r"'centre'.*random, center, none"):
    _train(Numbers(3), crop='centre')
  with pytest.raises(data.DataError, match='reduce'):
    _train(Numbers(3), crop='center', reduce=2)


BUILD = """
import sys, io
import numpy as np, tensorflow_datasets as tfds
from PIL import Image

class Squares(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = tfds.features.FeaturesDict({
      'image': tfds.features.Image(),
      'label': tfds.features.ClassLabel(num_classes=3),
    })
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(12):
      file = io.BytesIO()
      Image.fromarray(np.full((6, 8), 10 * i, np.uint8)).save(file, 'PNG')
      body = file.getvalue()[: 30 if i == 7 else None]
      yield i, {'image': io.BytesIO(body), 'label': i % 3}

tfds.disable_progress_bar()
Squares(data_dir=sys.argv[1], file_format='array_record').download_and_prepare()
"""


@pytest.fixture(scope='module')
def tfds_folder(tmp_path_factory):
  # In a process of its own, so that reading can't lean on the builder's class.
  folder = tmp_path_factory.mktemp('tfds')
  subprocess.run([sys.executable, '-c', BUILD, folder], check=True, capture_output=True)
  return str(folder)


def test_tfds(tfds_folder, warnings):
  source = sources.make_source('tfds', path='squares', data_dir=tfds_folder)
  assert len(source) == 12 and source.classes
  seen = {}
  for i in range(12):
    try:
      record = source[i]
    except images.ImageError as error:
      torn = source.name(i)
      assert str(error).startswith(torn)
      continue
    assert record['image'].shape == (6, 8, 3) and record['image'].dtype == np.uint8
    seen[record['image'][0, 0, 0] // 10] = record['label']
  # TFDS shuffles when it writes; label and picture must have stayed together.
  assert seen == {i: i % 3 for i in range(12) if i != 7}

  batches = _train(source)
  for batch in _take(batches, 9):
    assert batch['label'].dtype == np.int32
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0] // 10 % 3, batch['label'])
  assert list(batches.skipped) == [torn]
  assert len(warnings) == 1

  half = sources.Tfds('squares', 'train[50%:]', tfds_folder)
  assert len(half) == 6


def test_tfds_that_is_not_there(tfds_folder):
  with pytest.raises(data.DataError, match='download_and_prepare') as error:
    sources.Tfds('mnist', 'train', tfds_folder)
  assert '\n' not in str(error.value) and tfds_folder in str(error.value)
  with pytest.raises(data.DataError, match='not found') as error:
    sources.Tfds('no_such_dataset', 'train', tfds_folder)
  assert '\n' not in str(error.value)
  with pytest.raises(data.DataError, match=r"Unknown split 'test'"):
    sources.Tfds('squares', 'test', tfds_folder)


# --- crops


def _map(height, width):
  """A picture whose pixels know their place: (row, column, 0)."""
  y, x = np.mgrid[0:height, 0:width]
  return np.stack([y, x, 0 * x], -1).astype(np.uint8)


def test_random_crops_are_uniform_and_independent():
  cut = data.Cut(8, 'random', flip=True, rotate=True)
  rng = np.random.default_rng(0)
  crops = [cut(_map(12, 13), rng) for _ in range(2000)]
  counts = np.zeros((5, 6, 4, 2))
  for crop in crops:
    top, left = crop[..., 0].min(), crop[..., 1].min()
    plain = _map(12, 13)[top : top + 8, left : left + 8]
    # Which of the eight symmetries of the square is it?
    (pose,) = (
      (turn, flip)
      for turn in range(4)
      for flip in range(2)
      if np.array_equal(np.rot90(plain, turn)[:, :: 1 - 2 * flip], crop)
    )
    counts[(top, left, *pose)] += 1
  # Pearson's test of 240 equal cells: 239 degrees of freedom, 99.99 % at 326.
  expected = len(crops) / counts.size
  assert ((counts - expected) ** 2 / expected).sum() < 326


def test_reduced_crops_are_block_means():
  image = images.read(PHOTO)[100:170, 200:280]
  cut = data.Cut(16, 'random', reduce=3)
  crop = cut(image, np.random.default_rng(5)).astype(float)
  errors = []
  for y, x in itertools.product(range(3), range(3)):
    rows = (image.shape[0] - y) // 3 * 3
    columns = (image.shape[1] - x) // 3 * 3
    reduced = skimage.transform.downscale_local_mean(
      image[y : y + rows, x : x + columns], (3, 3, 1)
    )
    windows = np.lib.stride_tricks.sliding_window_view(reduced, (16, 16, 3))[:, :, 0]
    errors.append(np.abs(windows - crop).max((-1, -2, -3)).min())
  assert min(errors) <= 1.0  # it is one of the crops of one of the reduced images


def test_several_factors_are_drawn_where_they_fit():
  image = _map(40, 40)

  def factors(size, choice, draws=60):
    cut, rng = data.Cut(size, 'random', reduce=choice), np.random.default_rng(0)
    # Neighbours in a reduced map are `factor` apart.
    crops = (cut(image, rng).astype(int) for _ in range(draws))
    return {int(crop[-1, 0, 0] - crop[0, 0, 0]) // (size - 1) for crop in crops}

  assert factors(10, (1, 2, 4)) == {1, 2, 4}
  assert factors(11, (1, 2, 4)) == {1, 2}
  assert data.Cut(11, 'random', reduce=(2, 3)).min_size == 22
  with pytest.raises(images.ImageError, match='40 x 40 pixels are too small, 42'):
    data.Cut(21, 'random', reduce=(2, 4))(image, np.random.default_rng(0))


def test_center_crop_is_the_recipe_of_imagenet():
  image = images.read(PHOTO)
  truth = Image.fromarray(image).crop((100, 0, 500, 400)).resize((64, 64), Image.BOX)
  (batch,) = _take(_train(One(image), batch_size=1, image_size=64, crop='center'), 1)
  np.testing.assert_array_equal(batch['image'][0], np.asarray(truth))
  cut = data.Cut(401, 'center')
  with pytest.raises(images.ImageError, match='600 x 400 pixels are too small, 401'):
    cut(image, np.random.default_rng(0))


def test_whole_images():
  rng = np.random.default_rng(0)
  square = _map(16, 16)
  np.testing.assert_array_equal(data.Cut(16, 'none')(square, rng), square)
  truth = skimage.transform.downscale_local_mean(square, (2, 2, 1))
  assert np.abs(data.Cut(8, 'none')(square, rng) - truth).max() <= 1.0
  for image, size in ((square, 17), (_map(16, 18), 8)):
    with pytest.raises(images.ImageError, match='pixels'):
      data.Cut(size, 'none')(image, rng)


# --- training batches


@pytest.mark.parametrize('count', [1, 2, 11, 50])
def test_every_epoch_has_every_record_once(count):
  epochs = 6
  batches = -(-count * epochs // 4)
  numbers = _numbers(_take(_train(Numbers(count)), batches))[: count * epochs]
  orders = numbers.reshape(epochs, count)
  np.testing.assert_array_equal(np.sort(orders, 1), [np.arange(count)] * epochs)
  if count > 2:
    assert len({tuple(order) for order in orders}) == epochs


def test_batches_are_a_function_of_the_seed():
  source = sources.Photos('train')
  options = {'image_size': 16, 'flip': True, 'rotate': True, 'reduce': (1, 2)}
  first = _take(_train(source, seed=3, **options), 5)
  _assert_same(first, _take(_train(source, seed=3, **options), 5))
  other = _take(_train(source, seed=4, **options), 5)
  assert not np.array_equal(first[0]['image'], other[0]['image'])
  assert first[0]['image'].shape == (4, 16, 16, 3)
  assert first[0]['image'].dtype == np.uint8


def test_no_crop_comes_twice():
  """Neither within a batch nor in the next epoch."""
  batches = _take(_train(One(_map(200, 200)), batch_size=8), 8)
  corners = np.concatenate([batch['image'][:, 0, 0, :2] for batch in batches])
  assert len(np.unique(corners, axis=0)) >= 60  # of 64; 197^2 places


@pytest.mark.parametrize('hosts', [1, 2, 3, 4])
def test_hosts_share_the_stream_of_one(hosts):
  """Disjoint and complete; and the global batch doesn't depend on who reads it."""
  options = {'image_size': 3, 'flip': True}
  source = Numbers(7 * hosts, size=9)
  whole = _take(_train(source, batch_size=2 * hosts, **options), 7)
  parts = [
    _take(
      _train(source, batch_size=2, process_index=i, process_count=hosts, **options), 7
    )
    for i in range(hosts)
  ]
  together = [
    {key: np.concatenate([part[key] for part in step]) for key in step[0]}
    for step in zip(*parts, strict=True)
  ]
  _assert_same(whole, together)
  # 7 steps of 2 images on each host are two epochs.
  counts = np.bincount(_numbers(itertools.chain(*parts)))
  np.testing.assert_array_equal(counts, [2] * len(source))


def test_restart_in_the_middle():
  source = Numbers(10, size=9)
  straight = _take(_train(source, flip=True), 9)
  batches = _train(source, flip=True)
  _take(batches, 4)
  state = json.loads(json.dumps(batches.get_state()))
  again = _train(source, flip=True)
  again.set_state(state)
  _assert_same(straight[4:], _take(again, 5, close=False))
  again.set_state(state)  # also backwards, in an iterator that is running
  _assert_same(straight[4:], _take(again, 5))


def test_changed_data_is_told_at_restart(warnings):
  batches = _train(Numbers(11))
  batches.set_state({'position': 1, 'records': 10})
  assert '10 records, now 11' in warnings[0]


def test_orbax_keeps_model_and_data_together(tmp_path):
  source = Numbers(10, size=9)
  straight = _take(_train(source), 8)
  batches = _train(source)
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    _take(batches, 3, close=False)
    model = {'w': np.arange(4.0)}
    manager.save(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(model),
        data=grain.checkpoint.CheckpointSave(batches),
      ),
    )
    # Saving is asynchronous; what is read meanwhile must not move the position.
    _take(batches, 3)
  fresh = _train(source)
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    restored = manager.restore(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(model),
        data=grain.checkpoint.CheckpointRestore(fresh),
      ),
    )
  np.testing.assert_array_equal(restored['state']['w'], model['w'])
  _assert_same(straight[3:], _take(fresh, 5))


def test_workers_change_nothing(torn, warnings):
  """Order, crops, restart and skipped files are the same; no process is left."""
  source = sources.Folder(torn)
  options = {'image_size': 16, 'flip': True}
  straight = _take(_train(source, **options), 8)
  batches = _train(source, workers=2, **options)
  _assert_same(straight[:5], _take(batches, 5, close=False))
  state = batches.get_state()
  assert len(multiprocessing.active_children()) == 2
  batches.close()
  assert multiprocessing.active_children() == []
  assert batches.skipped.keys() == {'2.jpg', '5.jpg'}

  again = _train(source, workers=1, **options)
  again.set_state(state)
  _assert_same(straight[5:], _take(again, 3))
  assert multiprocessing.active_children() == []
  with pytest.raises(ValueError, match='closed'):
    next(again)


def test_torn_files_are_replaced_and_named_once(torn, warnings):
  source = sources.Folder(torn)
  assert len(source) == 7 and not source.left_out  # headers are fine
  batches = _train(source, image_size=64, crop='none')
  good = [source[i]['image'].tobytes() for i in range(7) if i not in (2, 5)]
  for batch in _take(batches, 12):
    assert batch.keys() == {'image'}
    assert all(image.tobytes() in good for image in batch['image'])
  assert batches.skipped.keys() == {'2.jpg', '5.jpg'}
  assert all('truncated' in reason for reason in batches.skipped.values())
  assert len(warnings) == 2 and all('.jpg' in line for line in warnings)


def test_images_that_are_too_small_are_skipped_too(warnings):
  class Mixed(Numbers):
    def __getitem__(self, index):
      record = super().__getitem__(index)
      size = 3 if index == 1 else 6
      return record | {'image': np.full((size, size, 3), index, np.uint8)}

  batches = _train(Mixed(4))
  numbers = _numbers(_take(batches, 6))
  assert set(numbers) == {0, 2, 3}
  assert batches.skipped == {
    'number 1': 'number 1: 3 x 3 pixels are too small, 4 are needed'
  }


def test_one_good_record_is_enough():
  batches = _train(Numbers(3, bad={0, 2}))
  assert set(_numbers(_take(batches, 6))) == {1}
  assert batches.skipped.keys() == {'number 0', 'number 2'}


@pytest.mark.parametrize('workers', [0, 1])
def test_nothing_readable_ends_with_one_line(tmp_path, workers):
  Image.open(PHOTO).crop((0, 0, 64, 64)).save(tmp_path / 'a.jpg', quality=98)
  (tmp_path / 'a.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes()[:-300])
  batches = _train(sources.Folder(tmp_path), image_size=16, workers=workers)
  with pytest.raises(data.DataError, match=r'in a row.*a\.jpg.*truncated') as error:
    next(batches)
  assert '\n' not in str(error.value)
  assert error.value.__suppress_context__
  assert multiprocessing.active_children() == []


def test_a_defect_in_a_source_is_one_line():
  class Broken(Numbers):
    def __getitem__(self, index):
      raise RuntimeError('first line\nsecond line')

  with pytest.raises(data.DataError, match=r'batch 0 failed: first line$') as error:
    next(_train(Broken(3)))
  assert error.value.__suppress_context__


# --- evaluation batches


def test_evaluation_order_and_filling():
  batches = list(_evaluate(Numbers(10), crop='center'))
  assert [batch['index'].tolist() for batch in batches] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9, -1, -1],
  ]
  np.testing.assert_array_equal(batches[2]['mask'], [True, True, False, False])
  assert batches[0]['mask'].dtype == bool and batches[0]['index'].dtype == np.int32
  np.testing.assert_array_equal(_numbers(batches), [*range(10), 0, 0])
  assert batches[0].keys() == {'image', 'label', 'mask', 'index'}
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(labels, [*range(10), 0, 0])


def test_evaluation_is_the_same_every_time_and_never_flipped():
  source = One(_map(30, 40))
  first = list(_evaluate(source, limit=20))
  _assert_same(first, list(_evaluate(source, limit=20)))
  crops = np.concatenate([batch['image'] for batch in first]).astype(int)
  assert len(np.unique(crops[:, 0, 0], axis=0)) >= 19  # different places
  assert (crops[:, 0, 1, 1] - crops[:, 0, 0, 1] == 1).all()
  other = list(_evaluate(source, limit=20, seed=1))
  assert not np.array_equal(first[0]['image'], other[0]['image'])


def test_evaluation_limits():
  numbers = lambda **options: _numbers(list(_evaluate(Numbers(10), **options)))
  # Few are spread over the source, many go round it, and whole images never repeat.
  np.testing.assert_array_equal(numbers(limit=4), [0, 2, 5, 7])
  np.testing.assert_array_equal(numbers(limit=12), [*range(10), 0, 1])
  assert len(list(_evaluate(Numbers(10), crop='none', limit=40))) == 3


@pytest.mark.parametrize('hosts', [2, 3])
def test_evaluation_on_several_hosts(hosts):
  source = Numbers(9, size=9)  # 5 batches of 2, which neither 2 nor 3 hosts divide
  whole = list(_evaluate(source, batch_size=2 * hosts))
  parts = [
    list(_evaluate(source, batch_size=2, process_index=i, process_count=hosts))
    for i in range(hosts)
  ]
  # The same number of batches everywhere: hosts run in step.
  assert {len(part) for part in parts} == {len(whole)}
  together = [
    {key: np.concatenate([part[key] for part in step]) for key in step[0]}
    for step in zip(*parts, strict=True)
  ]
  _assert_same(whole, together)


def test_bad_records_of_an_evaluation_are_masked(warnings):
  batches = _evaluate(Numbers(6, bad={1}))
  first, second = list(batches)
  np.testing.assert_array_equal(first['mask'], [True, False, True, True])
  np.testing.assert_array_equal(first['index'], [0, 1, 2, 3])
  assert not first['image'][1].any()
  np.testing.assert_array_equal(second['mask'], [True, True, False, False])
  assert batches.skipped == {'number 1': 'number 1: torn'}
  assert warnings == ['Skipped (1 so far): number 1: torn']
