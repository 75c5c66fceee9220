"""Measures a cascade stage by stage, which tells where quality is lost.

Every stage has two rows: its outputs for true images, downsampled by area as those of
the stage before are, and its outputs in the cascade, for sampled ones. The first stage,
which has no input, has only the second row. The outputs for true images have a truth
each. The others are compared as sets, with true images of the same size and in the same
number.
"""

import functools
import itertools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import report
from sr3_jax.cascade.cascade import Cascade, CascadeError, Stage, load
from sr3_jax.cascade.measurement import (
  HeldBatch,
  Measurement,
  row_name,
  truth_part,
  with_size,
)
from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core import degradations
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, held_out
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.measure import NONE_READ, hashes, photographs_of
from sr3_jax.images import image_files, pixels
from sr3_jax.metrics import image_metrics
from sr3_jax.restoration.restorer import TRUTH, check_finite, progress
from sr3_jax.runtime import activity, atomic_files, devices


def evaluate_run(
  config: ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """Measure a cascade (`--mode=eval`): write report/ and results.json.

  Returns:
    The table: row -> metric -> value, and the number of 'images'.

  Raises:
    CascadeError: the models do not fit together, or not to the held-out images.
    UserError: a model, the images, statistics or a classifier cannot be read.
  """
  workdir = epath.Path(workdir)
  cascade, folder = load(config, workdir), workdir / 'report'
  config = with_size(config, cascade)
  with activity.doing('looking for the held-out images'):
    held = held_out(config)
  _check_classes(config, cascade, held)
  count = config.eval.final_images
  more = {
    'eval': {'final_images': count, 'border': config.eval.border},
    'pictures': config.sample.num_images,
  }
  made = Measurement.open(config, cascade, held, folder / 'records', count, more)
  steps = [stage.num_steps for stage in cascade.stages]
  with progress(
    (2 * sum(steps) - steps[0]) * made.batches.num_batches
  ) as made.on_steps:
    seen = 0
    for number, host in enumerate(made.batches):
      batch = made.batch(number, host)
      _add_truth(made, batch, folder)
      _add_sampled(made, batch, folder)
      _add_alone(made, batch, folder)
      seen += int(host['mask'].sum())
  made.batches.close()
  if all(devices.everywhere([seen == 0])):
    raise sources.DataError(NONE_READ)
  devices.barrier('measured')
  with activity.doing('computing distances of sets and intervals'):
    rows = table(made)
  count = len(made.records.scalars(TRUTH)['index'])
  found = {n: row | {'images': count} for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    with activity.doing('writing the report'):
      report.write(made, rows, folder)
    results = {'table': found, 'config': as_json(config)}
    atomic_files.write_json(workdir / 'results.json', results)
    logging.info('%d held-out images and as many sampled ones:', count)
    print(summary.format_table(found))
    print(f'report: {folder / "report.html"}, pictures: {folder / "samples.png"}')
  return found


def _check_classes(config: ConfigDict, cascade: Cascade, held: HeldOut) -> None:
  """Refuse held-out images of other classes than those of the models."""
  found, d = len(held.source.classes), config.data
  if cascade.num_classes and found != cascade.num_classes:
    raise CascadeError(
      f'{d.eval_path or d.path or d.source}: held-out images of {found or "no"} '
      f'classes, the models have {cascade.num_classes}: set data.source and data.path '
      'to labelled images like those of training'
    )


def _add_truth(made: Measurement, batch: HeldBatch, folder: epath.Path) -> None:
  """Measure the true images of all sizes."""
  parts = {truth_part(made.cascade, side): side for side in batch.truth}
  if made.is_done(parts, batch.host):
    return
  for part, side in parts.items():
    values = made.scorers[side].of_set(batch.truth[side], batch.sharded)
    if part == TRUTH:
      images = batch.host['image'][batch.host['mask']]
      values |= hashes(images)
    values |= photographs_of(batch.host)
    _write_pictures(made, folder, f'true {side}', batch.truth[side], batch.host)
    made.records.add(part, batch.number, values)


def _add_sampled(made: Measurement, batch: HeldBatch, folder: epath.Path) -> None:
  """Sample as many images as the batch has, and measure what each stage makes."""
  stages = made.cascade.stages
  parts = [row_name(stage, 'drawn') for stage in stages]
  if made.is_done(parts, batch.host):
    made.on_steps(sum(stage.num_steps for stage in stages))
    return
  image, wanted = None, made.wanted(batch.host)
  for stage, part in zip(stages, parts, strict=True):
    image = stage(image, wanted, made.on_steps)
    _check(made, batch, image, stage)
    _write_pictures(made, folder, part, image, batch.host)
    made.add_sampled(part, stage, image, batch)


def _add_alone(made: Measurement, batch: HeldBatch, folder: epath.Path) -> None:
  """Measure what each stage after the first makes of true images."""
  for before, stage in itertools.pairwise(made.cascade.stages):
    part = row_name(stage, 'true')
    if made.is_done([part], batch.host):
      made.on_steps(stage.num_steps)
      continue
    low, truth = batch.truth[before.side], batch.truth[stage.side]
    output = stage(low, batch.sharded, made.on_steps)
    _check(made, batch, output, stage)
    _write_pictures(made, folder, part, output, batch.host)
    again = _downsample(stage.model.scale)(output)
    score = made.scorers[stage.side]
    values = score(output, truth, again, low, batch.sharded)
    made.records.add(part, batch.number, values | photographs_of(batch.host))


def _check(made: Measurement, batch: HeldBatch, image: jax.Array, stage: Stage) -> None:
  """Raise NotFiniteError, with the held-out images that outputs go with."""
  index = batch.host['index'].tolist()

  def name(row: int) -> str:
    return made.batches.image_name(index[row])

  check_finite(image, batch.host['mask'], name, stage.name)


def _write_pictures(
  made: Measurement,
  folder: epath.Path,
  name: str,
  image: jax.Array,
  host: Mapping[str, np.ndarray],
) -> None:
  """Write the pictures of the report that are among this process's images."""
  rows = np.flatnonzero(host['mask'] & (host['index'] < made.config.sample.num_images))
  if len(rows):
    shown = pixels.to_uint8(devices.gather(image)[rows])
    for row, picture in zip(rows, shown, strict=True):
      path = folder / 'pictures' / f'{host["index"][row]:05d}_{name}.png'
      image_files.write(path, picture)


@functools.lru_cache(maxsize=8)
def _downsample(factor: int) -> Callable[[jax.Array], jax.Array]:
  """Compile images -> images of 256 levels, downsampled by area."""
  return devices.pmap(
    lambda image: degradations.area(image_metrics.quantize(image), factor)
  )


def table(made: Measurement) -> dict[str, summary.Row]:
  """Return all rows, stage by stage, with all metrics and their intervals."""
  cascade = made.cascade
  rows: dict[str, summary.Row] = {}
  for stage in cascade.stages:
    truth, methods = truth_part(cascade, stage.side), {}
    if stage.place:
      name = row_name(stage, 'true')
      methods[name] = [name]
    methods[row_name(stage, 'sampled')] = [row_name(stage, 'drawn')]
    if 'top1_error' in next(made.records.stream(truth), {}):
      methods[f'{stage.side} true'] = [truth]
    scale = stage.model.scale if stage.place else None
    rows |= made.rows(stage, methods, scale=scale)
  return rows
