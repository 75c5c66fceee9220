"""Tests of the batches of training and of evaluation."""

import itertools
import json
import multiprocessing

import grain
import numpy as np
import orbax.checkpoint as ocp
import pytest
from PIL import Image

from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from tests.support import datasets
from tests.support.datasets import PHOTO, Numbers, One, coordinates, take, training

warnings = datasets.warnings

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


def _evaluate(source, **changes):
  cut, options = datasets.cut_and_rest(changes)
  return data_batches.eval_batches(source, cut, **options)


def _numbers(batches):
  """Return which records of `Numbers` are in a list of batches."""
  return np.concatenate([batch['image'][:, 0, 0, 0] for batch in batches])


def _assert_same(left, right):
  assert len(left) == len(right)
  for one, other in zip(left, right, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


@pytest.fixture
def torn(tmp_path):
  """Write five usable pictures and two that are truncated behind a sound header."""
  root = tmp_path / 'torn'
  root.mkdir()
  photo = Image.open(PHOTO)
  for i in range(7):
    path = root / f'{i}.jpg'
    photo.crop((i * 60, 200, i * 60 + 64, 264)).save(path, quality=98)
    if i in (2, 5):
      path.write_bytes(path.read_bytes()[:-300])
  return root


# --- training batches


@pytest.mark.parametrize('count', [1, 2, 11, 50])
def test_every_epoch_has_every_record_once(count):
  epochs = 6
  batches = -(-count * epochs // 4)
  numbers = _numbers(take(training(Numbers(count)), batches))[: count * epochs]
  orders = numbers.reshape(epochs, count)
  np.testing.assert_array_equal(np.sort(orders, 1), [np.arange(count)] * epochs)
  if count > 2:
    assert len({tuple(order) for order in orders}) == epochs


def test_batches_are_a_function_of_the_seed():
  source = sources.Photos('train')
  options = {'image_size': 16, 'flip': True, 'rotate': True, 'reduce': (1, 2)}
  first = take(training(source, seed=3, **options), 5)
  _assert_same(first, take(training(source, seed=3, **options), 5))
  other = take(training(source, seed=4, **options), 5)
  assert not np.array_equal(first[0]['image'], other[0]['image'])
  assert first[0]['image'].shape == (4, 16, 16, 3)
  assert first[0]['image'].dtype == np.uint8


def test_no_crop_comes_twice():
  """They repeat neither within a batch nor in the next epoch."""
  batches = take(training(One(coordinates(200, 200)), batch_size=8), 8)
  corners = np.concatenate([batch['image'][:, 0, 0, :2] for batch in batches])
  assert len(np.unique(corners, axis=0)) >= 60  # of 64; 197^2 places


@pytest.mark.parametrize('hosts', [1, 2, 3, 4])
def test_hosts_share_the_stream_of_one(hosts):
  """Shares are disjoint and complete, and make the same global batch for any hosts."""
  options = {'image_size': 3, 'flip': True}
  source = Numbers(7 * hosts, size=9)
  whole = take(training(source, batch_size=2 * hosts, **options), 7)
  parts = [
    take(
      training(source, batch_size=2, process_index=i, process_count=hosts, **options), 7
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
  straight = take(training(source, flip=True), 9)
  batches = training(source, flip=True)
  take(batches, 4)
  state = json.loads(json.dumps(batches.get_state()))
  again = training(source, flip=True)
  again.set_state(state)
  _assert_same(straight[4:], take(again, 5, close=False))
  again.set_state(state)  # also backwards, in an iterator that is running
  _assert_same(straight[4:], take(again, 5))


def share(batch_size, process, processes):
  """Return the part that a process has of global batches."""
  return training(
    Numbers(11),
    batch_size=batch_size // processes,
    process_index=process,
    process_count=processes,
  )


@pytest.mark.parametrize('processes', [1, 2, 4])
def test_another_number_of_processes_goes_on_where_others_were(processes):
  before = share(8, 1, 2)
  take(before, 3, close=False)
  state = before.get_state()
  before.close()
  parts = []
  for process in range(processes):
    batches = share(8, process, processes)
    batches.set_state(state)
    parts.append(take(batches, 4))
  one = training(Numbers(11), batch_size=8)
  straight = _numbers(take(one, 7)[3:])
  # The batches are in order of steps, and within a step in order of processes.
  steps = [_numbers(batches) for batches in zip(*parts, strict=True)]
  np.testing.assert_array_equal(np.concatenate(steps), straight)


def test_other_batches_go_on_at_the_next_that_begins(warnings):
  before = training(Numbers(11), batch_size=4)
  take(before, 3, close=False)
  state = before.get_state()
  before.close()
  after = training(Numbers(11), batch_size=8)
  after.set_state(state)
  straight = take(training(Numbers(11), batch_size=8), 4)
  _assert_same(straight[2:], take(after, 2))
  assert '4 example(s) are left out' in warnings[0]


def test_changed_data_is_a_warning_at_restart(warnings):
  batches = training(Numbers(11))
  batches.set_state({'examples': 4, 'records': 10})
  assert '10 records, now 11' in warnings[0]


def test_orbax_keeps_model_and_data_together(tmp_path):
  source = Numbers(10, size=9)
  straight = take(training(source), 8)
  batches = training(source)
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    take(batches, 3, close=False)
    model = {'w': np.arange(4.0)}
    manager.save(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(model),
        data=grain.checkpoint.CheckpointSave(batches),
      ),
    )
    # Saving is asynchronous: batches read meanwhile must not move the saved position.
    take(batches, 3)
  fresh = training(source)
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    restored = manager.restore(
      3,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(model),
        data=grain.checkpoint.CheckpointRestore(fresh),
      ),
    )
  np.testing.assert_array_equal(restored['state']['w'], model['w'])
  _assert_same(straight[3:], take(fresh, 5))


def test_workers_change_nothing(torn, warnings):
  """Order, crops, restart and skipped files are the same; no process is left over."""
  source = sources.Folder(torn)
  options = {'image_size': 16, 'flip': True}
  straight = take(training(source, **options), 8)
  batches = training(source, workers=2, **options)
  _assert_same(straight[:5], take(batches, 5, close=False))
  state = batches.get_state()
  assert len(multiprocessing.active_children()) == 2
  batches.close()
  assert multiprocessing.active_children() == []
  assert batches.skipped.keys() == {'2.jpg', '5.jpg'}

  again = training(source, workers=1, **options)
  again.set_state(state)
  _assert_same(straight[5:], take(again, 3))
  assert multiprocessing.active_children() == []
  with pytest.raises(ValueError, match='closed'):
    next(again)


def test_torn_files_are_replaced_and_named_once(torn, warnings):
  source = sources.Folder(torn)
  assert len(source) == 7 and not source.left_out  # headers are fine
  batches = training(source, image_size=64, crop='none')
  good = [source[i]['image'].tobytes() for i in range(7) if i not in (2, 5)]
  for batch in take(batches, 12):
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

  batches = training(Mixed(4))
  numbers = _numbers(take(batches, 6))
  assert set(numbers) == {0, 2, 3}
  assert batches.skipped == {
    'number 1': 'number 1: 3 x 3 pixels are too small, 4 are needed'
  }


def test_one_good_record_is_enough():
  batches = training(Numbers(3, bad={0, 2}))
  assert set(_numbers(take(batches, 6))) == {1}
  assert batches.skipped.keys() == {'number 0', 'number 2'}


@pytest.mark.parametrize('workers', [0, 1])
def test_nothing_readable_ends_with_one_line(tmp_path, workers):
  Image.open(PHOTO).crop((0, 0, 64, 64)).save(tmp_path / 'a.jpg', quality=98)
  (tmp_path / 'a.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes()[:-300])
  batches = training(sources.Folder(tmp_path), image_size=16, workers=workers)
  with pytest.raises(
    data_batches.DataError, match=r'in a row.*a\.jpg.*truncated'
  ) as error:
    next(batches)
  assert '\n' not in str(error.value)
  assert error.value.__suppress_context__
  assert multiprocessing.active_children() == []


def test_a_defect_in_a_source_is_one_line():
  class Broken(Numbers):
    def __getitem__(self, index):
      raise RuntimeError('first line\nsecond line')

  with pytest.raises(
    data_batches.DataError, match=r'batch 0 failed: first line$'
  ) as error:
    next(training(Broken(3)))
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
  assert batches[0].keys() == {'image', 'label', 'mask', 'index', 'photograph'}
  assert batches[2]['photograph'].tolist() == [8, 9, -1, -1]
  labels = np.concatenate([batch['label'] for batch in batches])
  np.testing.assert_array_equal(labels, [*range(10), 0, 0])


def test_evaluation_is_the_same_every_time_and_never_flipped():
  source = One(coordinates(30, 40))
  first = list(_evaluate(source, limit=20))
  _assert_same(first, list(_evaluate(source, limit=20)))
  crops = np.concatenate([batch['image'] for batch in first]).astype(int)
  assert len(np.unique(crops[:, 0, 0], axis=0)) >= 19  # different places
  assert (crops[:, 0, 1, 1] - crops[:, 0, 0, 1] == 1).all()
  other = list(_evaluate(source, limit=20, seed=1))
  assert not np.array_equal(first[0]['image'], other[0]['image'])


def test_evaluation_limits():
  def numbers(**options):
    return _numbers(list(_evaluate(Numbers(10), **options)))

  # Few images are spread over the source, many go round it; whole ones never repeat.
  np.testing.assert_array_equal(numbers(limit=4), [0, 2, 5, 7])
  np.testing.assert_array_equal(numbers(limit=12), [*range(10), 0, 1])
  np.testing.assert_array_equal(numbers(limit=4, order='first'), [0, 1, 2, 3])
  np.testing.assert_array_equal(numbers(limit=12, order='first'), [*range(10), 0, 1])
  with pytest.raises(
    data_batches.DataError, match=r"no eval\.order 'last', only spread, first"
  ):
    numbers(limit=4, order='last')
  assert len(list(_evaluate(Numbers(10), crop='none', limit=40))) == 3


@pytest.mark.parametrize('hosts', [2, 3])
def test_evaluation_on_several_hosts(hosts):
  source = Numbers(9, size=9)  # 5 batches of 2, which neither 2 nor 3 hosts divide
  whole = list(_evaluate(source, batch_size=2 * hosts))
  parts = [
    list(_evaluate(source, batch_size=2, process_index=i, process_count=hosts))
    for i in range(hosts)
  ]
  # Hosts run in step, so each has the same number of batches.
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
