"""Tests that each example comes once an epoch, for any processes and batch sizes."""

import itertools

import numpy as np
import pytest

from sr3_jax.data import batches as data_batches
from sr3_jax.data.crops import Cut
from tests.support.datasets import Numbers, take, training

RNG = np.random.default_rng(0)
# (records, processes, batch of each process): small ones of all kinds, and at random.
SHARES = [
  *itertools.product((1, 7, 12), (1, 2, 3, 4), (1, 3)),
  *(tuple(int(RNG.integers(1, n)) for n in (60, 9, 11)) for _ in range(12)),
]


def shared(records, processes, batch, steps, workers=0):
  """Return which records are in which batch: int [steps, processes, batch]."""
  parts = []
  for process in range(processes):
    batches = training(
      Numbers(records),
      batch_size=batch,
      process_index=process,
      process_count=processes,
      workers=workers,
    )
    parts.append([b['image'][:, 0, 0, 0] for b in take(batches, steps)])
  return np.swapaxes(parts, 0, 1)


def assert_epochs(numbers, records):
  """Epochs follow one another without gaps, and all but the last are whole."""
  stream = numbers.reshape(-1)
  for start in range(0, len(stream), records):
    epoch = stream[start : start + records]
    assert len(set(epoch.tolist())) == len(epoch)


@pytest.mark.parametrize('records,processes,batch', SHARES)
def test_training_shows_each_example_once_an_epoch(records, processes, batch):
  step = processes * batch
  steps = -(-2 * records // step) + 1  # two epochs and a bit
  numbers = shared(records, processes, batch, steps)
  assert_epochs(numbers, records)
  # So after every step no example has come twice more often than another.
  for k in range(1, steps + 1):
    counts = np.bincount(numbers[:k].reshape(-1), minlength=records)
    assert np.ptp(counts) <= 1 and counts.sum() == k * step


@pytest.mark.slow  # starts six processes; test_batches.py has two in the usual run
def test_workers_share_as_threads_do():
  numbers = shared(11, 2, 3, 5, workers=3)
  np.testing.assert_array_equal(numbers, shared(11, 2, 3, 5))
  assert_epochs(numbers, 11)


@pytest.mark.parametrize('after', [(1, 12), (3, 2), (4, 3), (2, 1)])
def test_a_restart_with_others_leaves_no_gap(after):
  """12 examples a step become 12, 6, 12 or 2; batches of both sizes end there."""
  before = shared(17, 2, 6, 3)
  processes, batch = after
  parts = []
  for process in range(processes):
    batches = training(
      Numbers(17), batch_size=batch, process_index=process, process_count=processes
    )
    batches.set_state({'examples': before.size, 'records': 17})
    parts.append([b['image'][:, 0, 0, 0] for b in take(batches, 5)])
  again = np.swapaxes(parts, 0, 1)
  assert_epochs(np.concatenate([before.reshape(-1), again.reshape(-1)]), 17)


@pytest.mark.parametrize('records,processes,batch', SHARES)
@pytest.mark.parametrize('part', [None, 0.6])
def test_evaluation_sees_each_image_once(records, processes, batch, part):
  limit = None if part is None else max(1, int(part * records))
  total = limit or records
  seen, lengths = [], set()
  for process in range(processes):
    batches = data_batches.eval_batches(
      Numbers(records),
      Cut(4, 'none'),
      batch_size=batch,
      limit=limit,
      process_index=process,
      process_count=processes,
    )
    taken = take(batches, batches.num_batches)
    lengths.add(len(taken))
    for found in taken:
      real = found['mask']
      # The filling of the last batches is marked and empty.
      np.testing.assert_array_equal(found['index'] >= 0, real)
      assert not found['image'][~real].any()
      seen += zip(found['index'][real], found['image'][real, 0, 0, 0], strict=True)
  # Every process has the same number of batches, so that none waits for another.
  assert lengths == {-(-total // (processes * batch))}
  indices, images = zip(*sorted(seen), strict=True)
  assert list(indices) == list(range(total))
  assert len(set(images)) == total
  if limit is None:
    assert list(images) == list(range(records))
