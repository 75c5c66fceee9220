"""Makes batches of training and evaluation images, which can resume where they ended.

Every batch is a function of its position. The stream of training examples is fixed by
(source, seed), and batch k holds examples k * B to (k + 1) * B - 1 of it, whatever the
number of threads, workers or processes is. Process p of P takes the batches p, p + P,
... of size B. Together the processes see what one process would see in batches of
P * B. The state of an iterator is therefore one number.

Start with `train_batches` and `eval_batches`.
"""

import functools
import os
import sys
from collections.abc import Iterable

import grain
import numpy as np
from absl import flags, logging

from sr3_jax.data.crops import Cut
from sr3_jax.data.example_reader import Batch, Reader
from sr3_jax.data.records import DataError, Source
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import interruption
from sr3_jax.runtime.errors import first_line


class Batches(grain.DatasetIterator[Batch]):
  """Iterator over batches; its state is how many examples all processes have had.

  A state counts examples of the global stream, so it may be restored with another
  number of workers or processes, and with another batch size.

  Attributes:
    skipped: name -> reason of every record so far that couldn't be used.
  """

  def __init__(
    self,
    batches: grain.MapDataset,
    reader: Reader,
    *,
    batch_size: int,
    workers: int = 0,
    total: int = 0,
  ):
    super().__init__()
    self._batches, self._reader, self._total = batches, reader, total
    self._batch_size = batch_size  # of all processes together
    self._workers = workers
    self._position = 0
    self._running: grain.DatasetIterator | None = None
    self.skipped: dict[str, str] = {}

  def __next__(self) -> Batch:
    if self._closed:
      raise ValueError('these batches were closed')
    try:
      batch = next(self._run())
    except StopIteration:
      raise
    except Exception as error:
      self.close()
      if isinstance(error, DataError | ImageError):
        raise DataError(str(error)) from None
      text = f'reading batch {self._position} failed: {first_line(error)}'
      if self._workers and isinstance(error, RuntimeError):
        text += ' (if the system killed it for memory, use fewer workers)'
      raise DataError(text) from None
    self._position += 1
    # Arrays from workers are views of shared memory; NumPy keeps it alive.
    batch = {key: np.asarray(value) for key, value in batch.items()}
    for index in batch.pop('skipped'):
      if index >= 0:
        self._report_skipped(int(index))
    return batch

  @property
  def num_batches(self) -> int:
    """Batches of a pass over an evaluation set; a huge number for training."""
    return len(self._batches)

  def get_state(self) -> dict[str, int]:
    """Return how many examples there were, and of how many records."""
    examples = self._position * self._batch_size
    return {'examples': examples, 'records': len(self._reader.source)}

  def set_state(self, state: dict[str, int]) -> None:
    """Go to a state of `get_state`; warn if the data or the batch size changed."""
    if state['records'] != (records := len(self._reader.source)):
      logging.warning(
        'The data changed since the checkpoint: '
        f'{state["records"]} records, now {records}. '
        'Batches go on in a new order.'
      )
    self._stop()
    self._position = -(-state['examples'] // self._batch_size)
    if left_out := self._position * self._batch_size - state['examples']:
      logging.warning(
        f'The batch size changed since the checkpoint: {left_out} example(s) are left '
        f'out, so that batches of {self._batch_size} begin where one ends.'
      )

  def start_prefetch(self) -> None:
    """Start to read the first batches before they are asked for."""
    self._run().start_prefetch()

  def close(self) -> None:
    """End worker processes and threads; there are no batches afterwards."""
    self._closed = True
    self._stop()

  def _run(self) -> grain.DatasetIterator:
    """Return the Grain iterator; start it at this iterator's position if need be."""
    if self._running is None:
      # Batches are made before they are dealt to workers, so that the number of workers
      # changes nothing. A few batches ahead are enough and bound the memory.
      threads = 1 if self._workers else min(4, _cores())
      ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
      stream = self._batches[self._position :].to_iter_dataset(ahead)
      if self._workers:
        # Grain reads absl flags of its own, and only `app.run` has parsed them.
        if not flags.FLAGS.is_parsed():
          flags.FLAGS.mark_as_parsed()
        interruption.shield_workers()
        stream = stream.mp_prefetch(
          grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
        )
      self._running = iter(stream)
    return self._running

  def _stop(self) -> None:
    running, self._running = getattr(self, '_running', None), None
    if running is not None:
      running.close()

  def image_name(self, index: int) -> str:
    """Return what messages call image `index` of an evaluation set."""
    return self._reader.source.name(self._reader.eval_number(self._total, index))

  def _report_skipped(self, index: int) -> None:
    """Log once why a record was skipped; read it again, as workers tell no reason."""
    name = self._reader.source.name(index)
    if name in self.skipped:
      return
    try:
      self._reader.read(index, np.random.default_rng(0))
      reason = f'{name}: could not be read at first'
    except ImageError as error:
      reason = str(error)
    self.skipped[name] = reason
    logging.warning('Skipped (%d so far): %s', len(self.skipped), reason)


def train_batches(
  source: Source,
  cut: Cut,
  *,
  batch_size: int,
  seed: int = 0,
  workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Make endless training batches, with every epoch in a new order.

  An epoch is `len(source)` consecutive examples of the global stream, each record once.
  A record that can't be used is replaced by another at random and named in
  `Batches.skipped`.

  Args:
    source: the images.
    cut: crops the images to squares of S pixels.
    batch_size: B, images per batch of this process.
    seed: fixes the order and the crops.
    workers: processes that read ahead; 0 reads by threads of this process. The batches
      are the same. Workers pay where Python is the limit, as with many small records.
    process_index: number of this process.
    process_count: processes that read the same source.

  Returns:
    Iterator over `{'image': [B, S, S, C]}`, of the source's type and channels, with
    `'label': int32 [B]` if the source has labels, and `'condition': [B, s, s, K]`, the
    inputs, if it has pairs. It raises DataError if too many records can't be used.

  Raises:
    DataError: the source is empty.
  """
  if not len(source):
    raise DataError('the source has no images')
  reader = Reader(source, cut, seed)
  read = functools.partial(reader.train_batch, batch_size)
  batches = grain.MapDataset.range(sys.maxsize // batch_size).map(read)
  mine = batches[process_index::process_count]
  return Batches(mine, reader, batch_size=batch_size * process_count, workers=workers)


def eval_batches(
  source: Source,
  cut: Cut,
  *,
  batch_size: int,
  limit: int | None = None,
  order: str = 'spread',
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Make evaluation batches: the same images in the same order every time.

  Every process gets the same number of batches. The last batches are padded with zeros,
  and an image that can't be used leaves zeros; `mask` is False for both.

  Args:
    source: the images.
    cut: crops the images to squares of S pixels.
    batch_size: B, images per batch of this process.
    limit: size of the set. If there are more than the source has, and crops are random,
      the records are cropped again in turn. None takes every record once.
    order: fewer images than the source has are spread evenly over it ('spread'), or are
      its 'first'.
    seed: fixes random crops.
    process_index: number of this process.
    process_count: processes that share the set.

  Returns:
    Iterator over `{'image': [B, S, S, C], 'mask': bool [B], 'index': int32 [B],
    'photograph': int32 [B]}`, of the source's type and channels, with 'label' and
    'condition' as in training. `index` is an image's position in the whole set, and
    `photograph` the number of the record that it is a crop of; -1 for padding.

  Raises:
    DataError: the source is empty.
  """
  reader = Reader(source, cut, seed, order)
  total, step = reader.eval_total(limit), batch_size * process_count
  read = functools.partial(reader.eval_example, total)
  padded = grain.MapDataset.range(-(-total // step) * step).map(read)
  mine = padded.batch(batch_size)[process_index::process_count]
  return Batches(mine, reader, batch_size=step, total=total)


def eval_images(
  source: Source,
  cut: Cut,
  numbers: Iterable[int],
  *,
  limit: int | None = None,
  order: str = 'spread',
  seed: int = 0,
) -> Batch:
  """Read some images of an evaluation set, as a batch like those of `eval_batches`.

  `numbers` are the 'index' of each image in the set, where -1 gives padding. The other
  arguments are those that `eval_batches` had.
  """
  reader = Reader(source, cut, seed, order)
  total = reader.eval_total(limit)
  rows = [reader.eval_example(total, i if i >= 0 else total) for i in numbers]
  return {k: np.stack([row[k] for row in rows]) for k in rows[0] if k != 'skipped'}


def _cores() -> int:
  """Return how many cores a scheduler lets this process use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
