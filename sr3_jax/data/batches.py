"""Makes batches of training and evaluation images, which can resume where they ended.

Every batch is a function of its position. The stream of training examples is fixed by
(source, seed), and batch k holds examples k * B to (k + 1) * B - 1 of it, whatever the
number of threads, workers or processes is. Process p of P takes the batches p, p + P,
... of size B. Together the processes see what one process would see in batches of
P * B. The state of an iterator is therefore one number.

Start with `train_batches` and `eval_batches`.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable

import grain
import numpy as np
from absl import flags, logging

from sr3_jax.data.crops import Cut
from sr3_jax.data.records import DataError, PairSource, Record, Source
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime.errors import first_line

# A training image that can't be used is replaced by another one at random. So many
# failures in a row end the training.
_TRIES = 64

ORDERS = ('spread', 'first')  # of a part of the images that is evaluated

# 'image' [B, S, S, C] and, where they belong to it, 'label', 'mask', 'index' and
# 'photograph' [B], and 'condition' [B, s, s, K] of pairs.
Batch = dict[str, np.ndarray]
# One row of a batch. 'skipped' is the number of a record that can't be used, or -1.
_Example = dict[str, np.ndarray | np.generic]


@dataclasses.dataclass(frozen=True)
class _Reader:
  """A reader of cropped images of a source, for which `seed` fixes what is random."""

  source: Source
  cut: Cut
  seed: int
  order: str = 'spread'  # of a part of the images for evaluation; or 'first'

  def __post_init__(self):
    if self.order not in ORDERS:
      raise DataError(f'no eval.order {self.order!r}, only {", ".join(ORDERS)}')

  def read(
    self, index: int, rng: np.random.Generator, out: np.ndarray | None = None
  ) -> Record:
    """Read a record and crop its image, into `out` if that is given."""
    record = self.source[index]
    try:
      return self.cut.crop_record(record, rng, out)
    except ImageError as error:
      raise ImageError(f'{self.source.name(index)}: {error}') from None

  def train_batch(self, batch_size: int, number: int) -> Batch:
    """Return batch `number` of the stream.

    All examples are made here, with one generator. Grain would take 0.1 ms to map and
    batch each example, and a new generator 0.07 ms, beside 1.4 ms for a photograph.
    """
    shape = (batch_size, self.cut.image_size, self.cut.image_size, self.source.channels)
    pixels, examples = np.empty(shape, self.source.dtype), []
    bits = np.random.Philox(key=self.seed)
    state, rng = bits.state, np.random.Generator(bits)
    for row in range(batch_size):
      # The counter depends on the example, not on its batch. 2^64 blocks of random bits
      # lie between one example and the next.
      position = number * batch_size + row
      state['state']['counter'][1] = position
      bits.state = state
      examples.append(self._train_example(position, rng, pixels[row]))
    rest = {key: np.stack([row[key] for row in examples]) for key in examples[0]}
    return rest | {'image': pixels}

  def _train_example(
    self, position: int, rng: np.random.Generator, out: np.ndarray
  ) -> _Example:
    """Read an example of the stream, its pixels into `out` [S, S, C]."""
    count = len(self.source)
    epoch, in_epoch = divmod(position, count)
    index = int(_epoch_order(self.seed, epoch, count)[in_epoch])
    skipped, candidate, reason = -1, index, ''
    for _ in range(_TRIES):
      try:
        record = self.read(candidate, rng, out)
      except ImageError as error:
        skipped, reason = index, str(error)
        candidate = int(rng.integers(count))
      else:
        example = _as_example(record)
        del example['image']  # it is in `out`
        return {**example, 'skipped': np.int32(skipped)}
    raise DataError(f'{_TRIES} images in a row cannot be used, the last one: {reason}')

  def eval_total(self, limit: int | None) -> int:
    """Return the number of images in an evaluation set; see `eval_batches`."""
    if not len(self.source):
      raise DataError('the source has no images')
    total = len(self.source) if limit is None else limit
    return total if self.cut.crop == 'random' else min(total, len(self.source))

  def eval_number(self, total: int, index: int) -> int:
    """Return the number of the record of image `index` of an evaluation set."""
    count = len(self.source)
    spread = self.order == 'spread' and total <= count
    return index * count // total if spread else index % count

  def eval_example(self, total: int, index: int) -> _Example:
    """Read image number `index` of an evaluation set of `total`, or make padding."""
    record = self._blank()
    skipped, usable, number = -1, False, -1
    if index < total:
      number = self.eval_number(total, index)
      try:
        record = self.read(number, np.random.default_rng((self.seed, int(index))))
        usable = True
      except ImageError:
        skipped = number
    example = _as_example(record)
    example['mask'] = np.bool_(usable)
    example['index'] = np.int32(index if index < total else -1)
    example['photograph'] = np.int32(number)
    example['skipped'] = np.int32(skipped)
    return example

  def _blank(self) -> Record:
    """Return a record of zeros, as padding."""
    source, side = self.source, self.cut.image_size
    record: Record = {'image': np.zeros((side, side, source.channels), source.dtype)}
    if source.classes:
      record['label'] = np.int32(0)
    if isinstance(source, PairSource):
      shape = self.cut.input_size, self.cut.input_size, source.input_channels
      record['condition'] = np.zeros(shape, source.input_dtype)
    return record


def _as_example(record: Record) -> _Example:
  """Return the arrays of a record, those that belong to a batch."""
  example: _Example = {'image': record['image']}
  if 'label' in record:
    example['label'] = record['label']
  if 'condition' in record:
    example['condition'] = record['condition']
  return example


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
    reader: _Reader,
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
  reader = _Reader(source, cut, seed)
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
  reader = _Reader(source, cut, seed, order)
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
  reader = _Reader(source, cut, seed, order)
  total = reader.eval_total(limit)
  rows = [reader.eval_example(total, i if i >= 0 else total) for i in numbers]
  return {k: np.stack([row[k] for row in rows]) for k in rows[0] if k != 'skipped'}


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Return the permutation of the records in one epoch.

  Grain's own `shuffle` follows a cycle of at least 2^16 for each index, which takes
  7 ms for a dozen photographs. This takes 20 ms an epoch for ImageNet.
  """
  return np.random.default_rng((seed, epoch)).permutation(count)


def _cores() -> int:
  """Return how many cores a scheduler lets this process use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
