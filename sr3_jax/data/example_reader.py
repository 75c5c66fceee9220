"""Reads the examples that batches are made of, each a function of its number."""

import dataclasses
import functools

import numpy as np

from sr3_jax.data.crops import Cut
from sr3_jax.data.records import DataError, PairSource, Record, Source
from sr3_jax.images.pixels import ImageError

# A training image that can't be used is replaced by another one at random. So many
# failures in a row end the training.
_TRIES = 64

ORDERS = ('spread', 'first')  # of a part of the images that is evaluated

# 'image' [B, S, S, C] and, where they belong to it, 'label', 'mask', 'index' and
# 'photograph' [B], and 'condition' [B, s, s, K] of pairs.
Batch = dict[str, np.ndarray]
# One row of a batch. 'skipped' is the number of a record that can't be used, or -1.
Example = dict[str, np.ndarray | np.generic]


@dataclasses.dataclass(frozen=True)
class Reader:
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
  ) -> Example:
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

  def eval_example(self, total: int, index: int) -> Example:
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


def _as_example(record: Record) -> Example:
  """Return the arrays of a record, those that belong to a batch."""
  example: Example = {'image': record['image']}
  if 'label' in record:
    example['label'] = record['label']
  if 'condition' in record:
    example['condition'] = record['condition']
  return example


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
  """Return the permutation of the records in one epoch.

  Grain's own `shuffle` follows a cycle of at least 2^16 for each index, which takes
  7 ms for a dozen photographs. This takes 20 ms an epoch for ImageNet.
  """
  return np.random.default_rng((seed, epoch)).permutation(count)
