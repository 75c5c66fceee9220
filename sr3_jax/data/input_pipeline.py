"""Makes the batches of training and evaluation from a configuration."""

from typing import Any

import jax
import ml_collections
from absl import logging

from sr3_jax.data import batches as data_batches
from sr3_jax.data import crops, sources
from sr3_jax.runtime import devices

# The source of the held-out images, and how they are cut. Making one reads headers of
# the whole set, so it is made once and handed on.
HeldOut = tuple[sources.Source, dict[str, Any]]


def held_out(config: ml_collections.ConfigDict) -> HeldOut:
  """The held-out images of a configuration."""
  d = config.data
  cut = {
    'image_size': config.eval.image_size or d.image_size,
    'crop': d.crop,
    'reduce': tuple(d.reduce),
    'seed': config.seed,
  }
  source = sources.make_source(
    d.source,
    path=d.eval_path or d.path,
    split=d.eval_split,
    data_dir=d.data_dir or None,
    min_size=crops.Cut(cut['image_size'], d.crop, reduce=cut['reduce']).min_size,
    channels=d.channels,
    calibrated=len(d.low) > 0,
    cache_folder=devices.kept('folders'),
  )
  sources.check_classes(source, config.model.num_classes)
  if d.source in ('folder', 'classes') and not d.eval_path:
    logging.warning('no data.eval_path: evaluating on the training images')
  return source, cut


def evaluation_data(
  config: ml_collections.ConfigDict, limit: int, held: HeldOut | None = None
) -> data_batches.Batches:
  """This process's share of the first `limit` held-out images, always the same."""
  source, cut = held or held_out(config)
  return data_batches.eval_batches(
    source,
    batch_size=devices.per_process(config.eval.batch_size),
    limit=limit,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    **cut,
  )


def training_data(config: ml_collections.ConfigDict) -> data_batches.Batches:
  """This process's share of the training batches."""
  d = config.data
  cut = crops.Cut(d.image_size, d.crop, reduce=tuple(d.reduce))
  source = sources.make_source(
    d.source,
    path=d.path,
    split=d.split,
    data_dir=d.data_dir or None,
    min_size=cut.min_size,
    channels=d.channels,
    calibrated=len(d.low) > 0,
    cache_folder=devices.kept('folders'),
    decode_side=cut.decode_side if d.reduced_decoding else 0,
  )
  logging.info('training images: %d (%s)', len(source), d.path or d.source)
  sources.check_classes(source, config.model.num_classes)
  return stream(
    config,
    source,
    batch_size=devices.per_process(config.train.batch_size),
    workers=d.workers,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def stream(
  config: ml_collections.ConfigDict, source: sources.Source, **share: int
) -> data_batches.Batches:
  """Training batches of a source, as `data.train_batches` shares them out."""
  d = config.data
  return data_batches.train_batches(
    source,
    image_size=d.image_size,
    crop=d.crop,
    flip=d.flip,
    rotate=d.rotate,
    reduce=tuple(d.reduce),
    seed=config.seed,
    **share,
  )
