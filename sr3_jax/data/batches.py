"""Batches that can be checkpointed.

Everything is a function of positions. The stream of training examples is fixed by
(source, seed); batch k holds examples k * B to (k + 1) * B - 1 of it, whatever the
number of threads, worker processes or hosts: host p of P takes the batches p, p + P,
... of size B, so the hosts together see the global batches of one host with P * B.
The state of an iterator is therefore one number.
"""

import functools
import os
import sys
from collections.abc import Iterable
from typing import Any

import grain
import numpy as np
from absl import flags, logging

from sr3_jax.data.crops import Cut
from sr3_jax.data.folder_sources import DataError, Source
from sr3_jax.images import pixels as images_pixels
from sr3_jax.runtime.errors import first_line

# A record that can't be used is replaced by another one at random, at most this often.
_TRIES = 64


class Batches(grain.DatasetIterator):
  """Iterator over batches; its state is how many examples all processes have had.

  A state counts examples of the global stream, so it may be restored with another
  number of workers, of processes, and with other batches.

  Attributes:
    skipped: name -> reason of every record so far that couldn't be used.
  """

  def __init__(
    self,
    batches: grain.MapDataset,
    source: Source,
    cut: Cut,
    *,
    batch_size: int,
    workers: int,
  ):
    super().__init__()
    self._batch_size = batch_size  # of all processes
    self.skipped: dict[str, str] = {}
    self._batches = batches
    self._source = source
    self._cut = cut
    self._workers = workers
    self._position = 0
    self._running: grain.DatasetIterator | None = None

  def __next__(self) -> dict[str, np.ndarray]:
    if self._closed:
      raise ValueError('these batches were closed')
    try:
      batch = next(self._run())
    except StopIteration:
      raise
    except (DataError, images_pixels.ImageError) as error:
      self.close()
      raise DataError(str(error)) from None
    except Exception as error:
      self.close()
      hint = ''
      if self._workers and isinstance(error, RuntimeError):
        hint = ' (if the system killed it for memory, use fewer workers)'
      raise DataError(
        f'reading batch {self._position} failed: {first_line(error)}{hint}'
      ) from None
    self._position += 1
    # Arrays from workers are views of shared memory; NumPy keeps it alive.
    batch = {key: np.asarray(value) for key, value in batch.items()}
    for index in batch.pop('bad'):
      if index >= 0:
        self._note(int(index))
    return batch

  @property
  def num_batches(self) -> int:
    """Batches of a pass over an evaluation set; a huge number for training."""
    return len(self._batches)

  def get_state(self) -> dict[str, Any]:
    examples = self._position * self._batch_size
    return {'examples': examples, 'records': len(self._source)}

  def set_state(self, state: dict[str, Any]) -> None:
    if state['records'] != len(self._source):
      logging.warning(
        'The data changed since the checkpoint: %d records, now %d. '
        'Batches go on in a new order.',
        state['records'],
        len(self._source),
      )
    self._stop()
    self._position = -(-state['examples'] // self._batch_size)
    if skipped := self._position * self._batch_size - state['examples']:
      logging.warning(
        'The batch size changed since the checkpoint: %d example(s) are left out, so '
        'that batches of %d begin where one ends.',
        skipped,
        self._batch_size,
      )

  def start_prefetch(self) -> None:
    self._run().start_prefetch()

  def close(self) -> None:
    """Ends worker processes and threads; there are no batches afterwards."""
    self._closed = True
    self._stop()

  def _run(self) -> grain.DatasetIterator:
    """The Grain iterator, started at the position where this one is."""
    if self._running is None:
      # Batches are made before workers take turns, so that the number of workers
      # changes nothing. A few batches ahead are enough and bound the memory.
      threads = min(4, _cores())
      if self._workers:
        threads = 1
      ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
      stream = self._batches[self._position :].to_iter_dataset(ahead)
      if self._workers:
        # Grain asks absl for its own flags, which only `app.run` has parsed.
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

  def _note(self, index: int) -> None:
    """Names a record that was skipped, once; workers only tell its index."""
    name = self._source.name(index)
    if name in self.skipped:
      return
    try:
      _use(self._source, self._cut, index, np.random.default_rng(0))
      reason = f'{name}: could not be read at first'
    except images_pixels.ImageError as error:
      reason = str(error)
    self.skipped[name] = reason
    logging.warning('Skipped (%d so far): %s', len(self.skipped), reason)


def train_batches(
  source: Source,
  *,
  batch_size: int,
  image_size: int,
  crop: str,
  flip: bool = False,
  rotate: bool = False,
  reduce: int | tuple[int, ...] = 1,
  seed: int = 0,
  workers: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Endless batches, every epoch in a new order.

  An epoch is `len(source)` consecutive examples of the global stream: each record
  once, in one process. A record that can't be used is replaced by another at random
  and named in `.skipped`.

  Args:
    source: see the top of this file.
    batch_size: images per batch of this process.
    image_size: side of an image in pixels.
    crop, flip, rotate, reduce: see `Cut`.
    seed: fixes the order and the crops.
    workers: processes that read ahead; 0 for threads in this one. The batches are
      the same. Worth it where Python is the limit: many small records.
    process_index: this host among `process_count`.
    process_count: hosts that read the same source.

  Returns:
    Iterator over `{'image': [B, S, S, C]}`, of the source's type and channels, with
    `'label': int32 [B]` if the source has labels.

  Raises:
    DataError: wrong arguments; from the iterator: records can't be used at all.
  """
  cut = Cut(image_size, crop, flip, rotate, reduce)
  if not len(source):
    raise DataError('the source has no images')
  read = functools.partial(
    _train_batch, batch_size=batch_size, source=source, cut=cut, seed=seed
  )
  batches = grain.MapDataset.range(sys.maxsize // batch_size).map(read)
  mine = batches[process_index::process_count]
  everybody = batch_size * process_count
  return Batches(mine, source, cut, batch_size=everybody, workers=workers)


def eval_batches(
  source: Source,
  *,
  batch_size: int,
  image_size: int,
  crop: str,
  reduce: int | tuple[int, ...] = 1,
  limit: int | None = None,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """The same images in the same order every time, nothing flipped.

  Every process gets the same number of batches. The last ones are filled up with
  zeros, and a record that can't be used leaves zeros: `mask` is False for both.

  Args:
    source: see the top of this file.
    batch_size: images per batch of this process.
    image_size: side of an image in pixels.
    crop, reduce: see `Cut`.
    limit: size of the set. Fewer images than the source has are spread evenly over
      it; more are further crops, record by record in turn, if the crop is random.
      None takes every record once.
    seed: fixes random crops.
    process_index: this host among `process_count`.
    process_count: hosts that share the set.

  Returns:
    Iterator over `{'image': [B, S, S, C], 'mask': bool [B], 'index': int32 [B]}`, of
    the source's type and channels, with `'label': int32 [B]` if the source has labels.
    `index` is the place in the whole set, -1 for filling.

  Raises:
    DataError: wrong arguments, or an empty source.
  """
  cut = Cut(image_size, crop, reduce=reduce)
  total = _eval_total(source, cut, limit)
  step = batch_size * process_count
  read = functools.partial(_eval_record, source=source, cut=cut, total=total, seed=seed)
  slots = grain.MapDataset.range(-(-total // step) * step).map(read)
  mine = slots.batch(batch_size)[process_index::process_count]
  return Batches(mine, source, cut, batch_size=step, workers=0)


def eval_images(
  source: Source,
  numbers: Iterable[int],
  *,
  image_size: int,
  crop: str,
  reduce: int | tuple[int, ...] = 1,
  limit: int | None = None,
  seed: int = 0,
) -> dict[str, np.ndarray]:
  """Some images of an evaluation set by their 'index': a batch as `eval_batches` has.

  Args:
    source, image_size, crop, reduce, limit, seed: as of the whole set.
    numbers: of the images, in this order; -1 is filling.
  """
  cut = Cut(image_size, crop, reduce=reduce)
  total = _eval_total(source, cut, limit)
  number = lambda i: i if i >= 0 else total
  records = [
    _eval_record(number(i), source=source, cut=cut, total=total, seed=seed)
    for i in numbers
  ]
  return {k: np.stack([r[k] for r in records]) for k in records[0] if k != 'bad'}


def _eval_total(source: Source, cut: Cut, limit: int | None) -> int:
  """Images in an evaluation set."""
  if not len(source):
    raise DataError('the source has no images')
  total = len(source) if limit is None else limit
  return total if cut.crop == 'random' else min(total, len(source))


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
  """The permutation of one epoch.

  Grain's own `shuffle` finds each index by walking a cycle of at least 2^16, which
  takes 7 ms for a dozen photographs; this takes 20 ms an epoch for ImageNet.
  """
  return np.random.default_rng((seed, epoch)).permutation(count)


def _cores() -> int:
  """Cores that this process may use; a scheduler may have given it a few of many."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _train_batch(
  number: int, *, batch_size: int, source: Source, cut: Cut, seed: int
) -> dict[str, np.ndarray]:
  """Batch `number` of the stream.

  In one piece, with one generator for all: to map and batch each example by itself
  takes Grain 0.1 ms, and making a generator 0.07 ms, of 1.4 ms for a photograph.
  """
  shape = (batch_size, cut.image_size, cut.image_size, source.channels)
  pixels, records = np.empty(shape, source.dtype), []
  bits = np.random.Philox(key=seed)
  state, rng = bits.state, np.random.Generator(bits)
  for row, position in enumerate(range(number * batch_size, (number + 1) * batch_size)):
    # A counter for each example, whichever batch it is in: 2^64 blocks before the next.
    state['state']['counter'][1] = position
    bits.state = state
    records.append(
      _train_record(position, rng, pixels[row], source=source, cut=cut, seed=seed)
    )
  rest = {key: [record[key] for record in records] for key in records[0]}
  return {key: np.stack(values) for key, values in rest.items()} | {'image': pixels}


def _train_record(
  position: int,
  rng: np.random.Generator,
  into: np.ndarray,
  *,
  source: Source,
  cut: Cut,
  seed: int,
) -> dict[str, Any]:
  """An example of the stream, its pixels `into` [S, S, C] and the rest returned.

  `bad` is the record that it stands in for, or -1.
  """
  epoch, place = divmod(position, len(source))
  index = int(_epoch_order(seed, epoch, len(source))[place])
  bad, candidate, reason = -1, index, ''
  for _ in range(_TRIES):
    try:
      record = _use(source, cut, candidate, rng, into)
    except images_pixels.ImageError as error:
      bad, reason = index, str(error)
      candidate = int(rng.integers(len(source)))
    else:
      del record['image']
      return record | {'bad': np.int32(bad)}
  raise DataError(f'{_TRIES} images in a row cannot be used, the last one: {reason}')


def _eval_record(
  index: int, *, source: Source, cut: Cut, total: int, seed: int
) -> dict[str, Any]:
  """Image number `index` of an evaluation set of `total`, or filling."""
  size = cut.image_size
  blank = np.zeros((size, size, source.channels), source.dtype)
  record: dict[str, Any] = {'image': blank}
  if source.classes:
    record['label'] = np.int32(0)
  bad, real = -1, False
  if index < total:
    count = len(source)
    place = index * count // total if total <= count else index % count
    try:
      rng = np.random.default_rng((seed, int(index)))
      record = _use(source, cut, place, rng)
      real = True
    except images_pixels.ImageError:
      bad = place
  return record | {
    'mask': np.bool_(real),
    'index': np.int32(index if index < total else -1),
    'bad': np.int32(bad),
  }


def _use(
  source: Source,
  cut: Cut,
  index: int,
  rng: np.random.Generator,
  into: np.ndarray | None = None,
) -> dict[str, Any]:
  """Record `index`, cut to size, in an array of its own or `into` another."""
  record = source[index]
  try:
    return record | {'image': cut(record['image'], rng, into)}
  except images_pixels.ImageError as error:
    raise images_pixels.ImageError(f'{source.name(index)}: {error}') from None
