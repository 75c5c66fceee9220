"""Makes the batches of training and evaluation from a configuration."""

from fractions import Fraction
from typing import NamedTuple

import jax
import ml_collections
from absl import logging

from sr3_jax.data import sources
from sr3_jax.data.batches import Batches, eval_batches, train_batches
from sr3_jax.data.crops import Cut
from sr3_jax.data.records import Source
from sr3_jax.images import pair_grid
from sr3_jax.runtime import devices


class HeldOut(NamedTuple):
  """The held-out images, and how they are cropped.

  Making one reads the headers of the whole set, so it is made once and handed on.
  """

  source: Source
  cut: Cut


def make_source(
  config: ml_collections.ConfigDict,
  *,
  held_out: bool,
  min_size: int = 1,
  decode_side: int = 0,
) -> Source:
  """Make the source of the training images or of the held-out images.

  Without data.eval_path, held-out images have the path of the training images. The
  arguments and errors are those of `sources.make_source`.
  """
  d, cache_folder = config.data, devices.cache_folder('folders')
  if d.source == 'pairs':
    return sources.make_pairs(
      d, held_out=held_out, min_size=min_size, cache_folder=cache_folder
    )
  if d.source in sources.DATASETS:
    return sources.make_dataset(d, held_out=held_out, decode_side=decode_side)
  return sources.make_source(
    d.source,
    path=d.eval_path or d.path if held_out else d.path,
    split=d.eval_split if held_out else d.split,
    min_size=min_size,
    channels=d.channels,
    calibrated=len(d.low) > 0,
    cache_folder=cache_folder,
    decode_side=decode_side,
  )


def make_cut(config: ml_collections.ConfigDict, *, held_out: bool) -> Cut:
  """Return how the training images or the held-out images are cropped."""
  d, ratio = config.data, Fraction(1)
  if config.task.name == 'pairs':
    ratio = pair_grid.side_ratio(config.task.pair_scale)
  size, training = d.image_size, {'flip': d.flip, 'rotate': d.rotate}
  if held_out:
    size, training = config.eval.image_size or d.image_size, {}
  return Cut(size, d.crop, reduce=tuple(d.reduce), area=d.area, ratio=ratio, **training)


def held_out(config: ml_collections.ConfigDict) -> HeldOut:
  """Open the held-out images of a configuration.

  Raises:
    DataError: there are none that can be used, or their labels don't suit the model.
  """
  d = config.data
  cut = make_cut(config, held_out=True)
  source = make_source(config, held_out=True, min_size=cut.min_size)
  sources.check_classes(source, config.model.num_classes)
  if d.source in sources.FOLDERS and not d.eval_path:
    logging.warning('no data.eval_path: evaluating on the training images')
  return HeldOut(source, cut)


def evaluation_data(
  config: ml_collections.ConfigDict, limit: int, held: HeldOut | None = None
) -> Batches:
  """Make this process's share of the evaluation batches, the same every time.

  Args:
    config: the configuration.
    limit: images of the set; see `eval_batches`.
    held: the result of `held_out`; None opens the images anew.

  Raises:
    DataError: as of `held_out`.
  """
  source, cut = held or held_out(config)
  return eval_batches(
    source,
    cut,
    batch_size=devices.per_process(config.eval.batch_size, key='eval.batch_size'),
    limit=limit,
    order=config.eval.order,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def training_data(config: ml_collections.ConfigDict) -> Batches:
  """Make this process's share of the training batches.

  Raises:
    DataError: there are no usable images, or their labels don't suit the model.
  """
  d = config.data
  cut = make_cut(config, held_out=False)
  decode_side = cut.decode_side if d.reduced_decoding else 0
  source = make_source(
    config, held_out=False, min_size=cut.min_size, decode_side=decode_side
  )
  logging.info('training images: %d (%s)', len(source), d.path or d.source)
  sources.check_classes(source, config.model.num_classes)
  return train_batches(
    source,
    cut,
    batch_size=devices.per_process(config.train.batch_size, key='train.batch_size'),
    seed=config.seed,
    workers=d.workers,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
