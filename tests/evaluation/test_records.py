"""What has been measured outlives kills, damage and another way of cutting batches."""

import json
import pathlib

import numpy as np
import pytest
from etils import epath

from sr3_jax.core.sr3 import SR3
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.runtime import atomic_files
from tests.support import runs


def values(*index: int) -> records.Values:
  """Something for each of these images that tells them apart."""
  index = np.array(index, np.int32)
  power = np.arange(3, dtype=np.float32)[None] + 10 * index[:, None]
  return {'index': index, 'psnr': np.float32(index) / 7, 'power': power}


def whole(kept: records.Records, part: str) -> records.Values:
  """All values of a part, sorted by image."""
  batches = list(kept.stream(part))
  joined = {key: np.concatenate([b[key] for b in batches]) for key in batches[0]}
  order = np.argsort(joined['index'])
  return {key: value[order] for key, value in joined.items()}


def files(folder: epath.Path) -> list[pathlib.Path]:
  """All there is of values."""
  return list(pathlib.Path(folder).rglob('*.npz'))


def assert_equal(found: records.Values, wanted: records.Values) -> None:
  assert set(found) == set(wanted)
  for key, value in wanted.items():
    np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.fixture(params=['memory', 'folder'])
def make(request, tmp_path):
  """Opens the same records again and again (those in memory, of course, once)."""
  if request.param == 'memory':
    kept = records.Records()
    return lambda: kept
  return lambda: records.Records(epath.Path(tmp_path))


def test_what_was_added_is_there(make):
  make().add('sr3/0', 1, values(9, 8))
  make().add('sr3/0', 0, values(3, 2, 11))
  make().add('bicubic', 0, values(3))
  kept = make()
  assert kept.has('sr3/0', np.array([2, 3, 8])) and kept.has('sr3/0', np.array([], int))
  assert not kept.has('sr3/0', np.array([2, 4])) and not kept.has('sr3', np.array([2]))
  batches = [batch['index'].tolist() for batch in kept.stream('sr3/0')]
  assert batches == [[3, 2, 11], [9, 8]]
  scalars = kept.scalars('sr3/0')
  assert set(scalars) == {'index', 'psnr'}  # one number each, sorted by image
  assert scalars['index'].tolist() == [2, 3, 8, 9, 11]
  np.testing.assert_array_equal(scalars['psnr'], values(2, 3, 8, 9, 11)['psnr'])
  assert kept.scalars('nothing') == {} and list(kept.stream('nothing')) == []


def test_what_an_image_lacks_is_nan(make):
  """One small picture removed SSIM for all."""
  make().add('a', 0, values(3, 0))
  make().add('a', 1, values(2) | {'ssim': np.ones(1), 'power': np.ones((1, 4))})
  found = make().scalars('a')
  assert set(found) == {'index', 'psnr', 'ssim'}
  np.testing.assert_array_equal(found['ssim'], [np.nan, 1, np.nan])
  assert found['index'].tolist() == [0, 2, 3]


def test_images_of_no_photograph_are_their_own(make):
  make().add('a', 0, values(3, 0))
  make().add('b', 0, values(3, 0) | {'photograph': np.array([7, 5])})
  assert make().photographs('a').tolist() == [0, 3]
  assert make().photographs('b').tolist() == [5, 7]
  assert make().photographs('c').tolist() == []


def test_an_image_counts_once(make):
  """Two processes of 4 images before a kill, one of 8 after it."""
  make().add('a', 0, values(0, 1, 2, 3))
  make().add('a', 0, values(4, 5, 6, 7))
  make().add('a', 1, values(8, 9, 10, 11))
  kept = make()
  kept.add('a', 1, values(8, 9, 10, 11, 12, 13, 14, 15))
  assert_equal(whole(make(), 'a'), values(*range(16)))
  assert make().scalars('a')['index'].tolist() == list(range(16))


def test_larger_batches_after_a_kill_replace_nothing(make):
  """Batch 1 of 4 images is another one than batch 1 of 8."""
  for batch in range(3):
    make().add('a', batch, values(*range(4 * batch, 4 * batch + 4)))
  kept = make()
  for batch in range(2):
    index = np.arange(8 * batch, 8 * batch + 8)
    if not kept.has('a', index):
      kept.add('a', batch, values(*index))
  assert_equal(whole(make(), 'a'), values(*range(16)))


def test_a_batch_without_images_of_this_process(make):
  make().add('a', 0, values())
  make().add('a', 1, values(5))
  assert_equal(whole(make(), 'a'), values(5))


DAMAGES = {
  'empty': lambda data: b'',
  'half': lambda data: data[: len(data) // 2],
  'end': lambda data: data[:-30],
  'flipped': lambda data: data[:90] + bytes([data[90] ^ 255]) + data[91:],
  'other': lambda data: b'no npz at all',
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_files_are_measured_again(tmp_path, damage):
  folder = epath.Path(tmp_path)
  for batch in range(2):
    records.Records(folder).add('a', batch, values(2 * batch, 2 * batch + 1))
  path = sorted((tmp_path / 'a').iterdir())[0]
  path.write_bytes(DAMAGES[damage](path.read_bytes()))
  kept = records.Records(folder)
  assert not kept.has('a', np.array([0, 1])) and kept.has('a', np.array([2, 3]))
  assert_equal(whole(kept, 'a'), values(2, 3))
  kept.add('a', 0, values(0, 1))
  assert_equal(whole(records.Records(folder), 'a'), values(0, 1, 2, 3))
  assert len(list((tmp_path / 'a').iterdir())) == 2


def test_pickles_and_ragged_files_are_not_read(tmp_path):
  (tmp_path / 'a').mkdir()
  index = np.arange(2)
  trap = np.array([{}, {}], object)
  np.savez(tmp_path / 'a' / '1.npz', index=index, psnr=trap)
  np.savez(tmp_path / 'a' / '2.npz', index=index, psnr=np.zeros(3))
  np.savez(tmp_path / 'a' / '3.npz', psnr=np.zeros(2))
  kept = records.Records(epath.Path(tmp_path))
  assert list(kept.stream('a')) == [] and not kept.has('a', index)


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
  """A kill while bytes are written, and one before the file gets its name."""
  folder = epath.Path(tmp_path)
  for name in ('_temporary_name', 'os.replace'):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

      def killed(*args):
        raise KeyboardInterrupt

      patch.setattr(f'sr3_jax.runtime.atomic_files.{name}', killed)
      records.Records(folder).add('a', 0, values(0, 1))
    assert files(tmp_path) == []
    assert not records.Records(folder).has('a', np.array([0]))


MADE_BY = {'seed': 0, 'weights': {'sr3': 'abc'}, 'eval': {'final_images': 8}, 'x': (1,)}
OTHERS = {
  'seed': {'seed': 1},
  'weights': {'weights': {'sr3': 'abd'}},
  'image count': {'eval': {'final_images': 9}},
  'less': {'x': None},
}


def test_the_same_things_go_on(tmp_path):
  folder = epath.Path(tmp_path) / 'records'
  records.open_records(folder, MADE_BY).add('sr3/0', 0, values(1))
  assert records.open_records(folder, dict(MADE_BY)).has('sr3/0', np.array([1]))
  assert json.loads((folder / 'made_by.json').read_text())['x'] == [1]


@pytest.mark.parametrize('other', OTHERS)
def test_other_things_start_anew(tmp_path, other):
  folder = epath.Path(tmp_path) / 'records'
  records.open_records(folder, MADE_BY).add('sr3/0', 0, values(1))
  changed = MADE_BY | OTHERS[other]
  for _ in range(2):  # and it stays so
    kept = records.open_records(folder, changed)
    assert not kept.has('sr3/0', np.array([1])) and files(folder) == []
  assert not records.open_records(folder, MADE_BY).has('sr3/0', np.array([1]))


def test_a_kill_while_clearing_up_leaves_nothing_old(tmp_path, monkeypatch):
  folder = epath.Path(tmp_path) / 'records'
  kept = records.open_records(folder, MADE_BY)
  for part in ('a', 'b', 'c'):
    kept.add(part, 0, values(1))
  changed = MADE_BY | {'seed': 1}
  rmtree, calls = type(folder).rmtree, []

  def killed(self, *args, **kwargs):
    rmtree(self, *args, **kwargs)
    calls.append(self)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(type(folder), 'rmtree', killed)
    records.open_records(folder, changed)
  assert len(calls) == 1
  records.open_records(folder, changed)
  assert files(folder) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'a.txt').write_text('mine')
  records.open_records(epath.Path(tmp_path), MADE_BY)
  assert (tmp_path / 'mine' / 'a.txt').exists()


# Evaluation in one piece, and killed after every batch.


class Counted:
  """A method that costs nothing: grey plus noise by (image, sample); counts its calls.

  Real restorers are held to the same in test_evaluation.
  """

  num_steps, is_random = 3, True

  def __init__(self):
    self.calls: list[tuple[int, int]] = []

  def __call__(self, condition, batch, sample=0, on_steps=lambda steps: None):
    from sr3_jax.runtime import devices

    index = devices.gather(batch['index'])
    self.calls.append((int(index.max()), sample))
    on_steps(self.num_steps)

    def draw(i):
      return np.random.default_rng((sample, i + 1)).uniform(-1, 1, (16, 16, 3))

    return devices.shard(np.float32([draw(i) for i in index.tolist()]))


class Killed(Exception):
  pass


write_bytes = atomic_files.write_bytes


def make_batches(sizes=(8, 8, 3)):
  """Batches of eight, some of them padded."""
  first = 0
  for size in sizes:
    mask = np.arange(8) < size
    draw = np.random.default_rng(first)
    yield {
      'image': draw.integers(0, 256, (8, 16, 16, 3), np.uint8),
      'mask': mask,
      'index': np.where(mask, first + np.arange(8), -1).astype(np.int32),
    }
    first += size


def test_killed_evaluations_equal_an_undisturbed_one(tmp_path, monkeypatch):
  model = SR3.from_config(runs.get_config())

  def measure(folder, method, kill_after=10**9):
    kept = records.open_records(epath.Path(folder), MADE_BY)
    writes = [0]

    def write_or_die(path, data):
      if writes[0] == kill_after:
        raise Killed
      writes[0] += 1
      write_bytes(path, data)

    with monkeypatch.context() as patch:
      patch.setattr(atomic_files, 'write_bytes', write_or_die)
      return evaluation_measure.evaluate(
        model,
        {'sr3': method},
        make_batches(),
        seed=0,
        scorer=Scorer(),
        records=kept,
        num_seeds=2,
        beside=('bicubic',),
      )

  undisturbed = measure(tmp_path / 'whole', Counted())
  assert undisturbed.count() == 19
  method, kills = Counted(), 0
  while True:
    try:
      # Four files a batch: bicubic, two samples, truth; three at a time.
      result = measure(tmp_path / 'killed', method, kill_after=3)
      break
    except Killed:
      kills += 1
  assert kills == 3
  assert result.table() == undisturbed.table()
  for part in ('bicubic', 'sr3/0', 'sr3/1', 'truth'):
    assert_equal(whole(result.records, part), whole(undisturbed.records, part))
  # What was recorded is not made again; only what a kill cut off is.
  once = [(last, sample) for last in (7, 15, 18) for sample in (0, 1)]
  assert sorted(set(method.calls)) == once
  assert len(method.calls) - len(once) <= kills
  before = len(method.calls)
  measure(tmp_path / 'killed', method)
  assert len(method.calls) == before
