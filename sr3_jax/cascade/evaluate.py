"""Measures a cascade stage by stage, which tells where quality is lost.

Every stage has two rows: its outputs for true images, downsampled by area as those of
the stage before are, and its outputs in the cascade, for sampled ones. The first stage,
which has no input, has only the second row. The outputs for true images have a truth
each. The others are compared as sets, with true images of the same size and in the same
number.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import report
from sr3_jax.cascade.cascade import Cascade, CascadeError, Stage, job, load, name_option
from sr3_jax.cascade.report import alone_row, sampled_part, sampled_row
from sr3_jax.config import as_json
from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data, held_out
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.measure import hashes
from sr3_jax.evaluation.records import Records, Values, open_records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files, pixels
from sr3_jax.metrics import image_metrics, lpips, reference_statistics
from sr3_jax.restoration.restorer import TRUTH, OnSteps, progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__


def truth_part(cascade: Cascade, side: int) -> str:
  """Return the part of the records that holds true images of a size."""
  return TRUTH if side == cascade.side else f'{TRUTH} {side}'


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """Measure a cascade (`--mode=eval`): write report/ and results.json.

  Args:
    config: of the cascade.
    workdir: of the cascade.

  Returns:
    The table: row -> metric -> value, and the number of 'images'.

  Raises:
    CascadeError: the models do not fit together, or not to the held-out images.
    UserError: a model, the images, statistics or a classifier cannot be read.
  """
  workdir = epath.Path(workdir)
  cascade = load(config, workdir)
  config = with_size(config, cascade)
  evaluators = load_evaluators(config)
  held = held_out(config)
  _check_classes(config, cascade, held)
  with name_option('eval.batch_size'):
    batches = evaluation_data(config, config.eval.final_images, held)
  folder = workdir / 'report'
  made_by = depends_on(config, cascade.about, evaluators, held) | {
    'eval': {key: config.eval[key] for key in ('final_images', 'border')},
    'pictures': config.sample.num_images,
  }
  records = open_records(folder / 'records', made_by)
  steps = [stage.num_steps for stage in cascade.stages]
  with progress((2 * sum(steps) - steps[0]) * batches.num_batches) as on_steps:
    measurement = Measurement(config, cascade, evaluators, records, folder, on_steps)
    seen = sum(measurement.add(number, host) for number, host in enumerate(batches))
  batches.close()
  if all(devices.everywhere([seen == 0])):
    raise sources.DataError('no held-out image could be read: nothing to measure')
  devices.barrier('measured')
  rows = table(cascade, records, evaluators)
  count = len(records.scalars(TRUTH)['index'])
  found = {n: row | {'images': count} for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    report.write(config, cascade, evaluators, records, rows, folder, made_by)
    results = {'table': found, 'config': as_json(config)}
    atomic_files.write_json(workdir / 'results.json', results)
    logging.info('%d held-out images and as many sampled ones:', count)
    print(summary.format_table(found))
    print(f'report: {folder / "report.html"}, pictures: {folder / "samples.png"}')
  return found


def with_size(
  config: ml_collections.ConfigDict, cascade: Cascade
) -> ml_collections.ConfigDict:
  """Return a configuration whose held-out images are as large as the last stage's."""
  config = config.copy_and_resolve_references()
  config.data.image_size, config.eval.image_size = cascade.side, 0
  config.data.channels = cascade.stages[0].model.channels
  return config


def _check_classes(
  config: ml_collections.ConfigDict, cascade: Cascade, held: HeldOut
) -> None:
  """Refuse held-out images of other classes than those of the models."""
  found = len(held[0].classes)
  if cascade.num_classes and found != cascade.num_classes:
    raise CascadeError(
      f'{config.data.eval_path or config.data.path or config.data.source}: held-out '
      f'images of {found or "no"} classes, the models have {cascade.num_classes}: set '
      'data.source and data.path to labelled images like those of training'
    )


class _Batch(NamedTuple):
  """A batch of held-out images.

  Attributes:
    number: of the batch.
    host: the batch as it was read.
    sharded: the same over all devices, [D, b, ...] each.
    truth: side -> true images of that size, [D, b, side, side, C] in [-1, 1].
  """

  number: int
  host: Mapping[str, np.ndarray]
  sharded: dict[str, jax.Array]
  truth: Mapping[int, jax.Array]


@dataclasses.dataclass
class Measurement:
  """The measurement of held-out images and of as many sampled ones.

  Attributes:
    config: with the held-out images' size.
    cascade: the models.
    evaluators: the networks that measure.
    records: where values go; images that are there already are passed over.
    folder: of the report, for its pictures.
    on_steps: called with the number of sampling steps just done (or passed over).
  """

  config: ml_collections.ConfigDict
  cascade: Cascade
  evaluators: Evaluators
  records: Records
  folder: epath.Path
  on_steps: OnSteps

  def __post_init__(self):
    self.labels = self.cascade.labels(self.config.cascade.classes)
    border = self.config.eval.border
    self.scorers = {
      stage.side: scorer(stage.side, self.evaluators, border)
      for stage in self.cascade.stages
    }

  def add(self, number: int, host: Mapping[str, np.ndarray]) -> int:
    """Measure a batch.

    Args:
      number: of the batch.
      host: of held-out images, from `data.input_pipeline.evaluation_data`.

    Returns:
      How many images it has, without those that fill it up.
    """
    sharded = devices.shard(host)
    sides = tuple(stage.side for stage in self.cascade.stages)
    truth = truths(self.cascade.stages[0].model, sides)(sharded['image'])
    batch = _Batch(number, host, sharded, truth)
    self._add_truth(batch)
    self._add_sampled(batch)
    self._add_alone(batch)
    return int(host['mask'].sum())

  def _add_truth(self, batch: _Batch) -> None:
    """Measure the true images of all sizes."""
    parts = {truth_part(self.cascade, side): side for side in batch.truth}
    if has_images(self.records, parts, batch.host):
      return
    for part, side in parts.items():
      values = self.scorers[side].of_set(batch.truth[side], batch.sharded)
      if part == TRUTH:
        images = batch.host['image'][batch.host['mask']]
        values |= hashes(images)
      self._show(f'true {side}', batch.truth[side], batch.host)
      self.records.add(part, batch.number, values)

  def _add_sampled(self, batch: _Batch) -> None:
    """Sample as many images as the batch has, and measure what each stage makes."""
    stages = self.cascade.stages
    parts = [sampled_part(self.cascade, stage) for stage in stages]
    if has_images(self.records, parts, batch.host):
      self.on_steps(sum(stage.num_steps for stage in stages))
      return
    wanted = sampled_batch(self.cascade, self.labels, batch.host)
    measured = measured_batch(self.cascade, batch.sharded, wanted)
    image = None
    for stage, part in zip(stages, parts, strict=True):
      image = stage(image, wanted, self.on_steps)
      self._show(part, image, batch.host)
      values = self.scorers[stage.side].of_set(image, measured)
      values |= powers(image, batch.truth[stage.side], batch.host['mask'])
      self.records.add(part, batch.number, values)

  def _add_alone(self, batch: _Batch) -> None:
    """Measure what each stage after the first makes of true images."""
    stages = self.cascade.stages
    for before, stage in itertools.pairwise(stages):
      part = alone_row(self.cascade, stage)
      if has_images(self.records, [part], batch.host):
        self.on_steps(stage.num_steps)
        continue
      low, truth = batch.truth[before.side], batch.truth[stage.side]
      output = stage(low, batch.sharded, self.on_steps)
      self._show(part, output, batch.host)
      made = _downsample(stage.model.scale)(output)
      values = self.scorers[stage.side](output, truth, made, low, batch.sharded)
      self.records.add(part, batch.number, values)

  def _show(self, name: str, image: jax.Array, host: Mapping[str, np.ndarray]) -> None:
    """Write the pictures of the report that are among this process's images."""
    count = self.config.sample.num_images
    rows = np.flatnonzero(host['mask'] & (host['index'] < count))
    if len(rows):
      shown = pixels.to_uint8(devices.gather(image)[rows])
      for row, picture in zip(rows, shown, strict=True):
        path = self.folder / 'pictures' / f'{host["index"][row]:05d}_{name}.png'
        image_files.write(path, picture)


def has_images(
  records: Records, parts: Iterable[str], host: Mapping[str, np.ndarray]
) -> bool:
  """Return whether all processes have measured all their images of a batch."""
  index = host['index'][host['mask']]
  return all(devices.everywhere([records.has(part, index) for part in parts]))


def sampled_batch(
  cascade: Cascade, labels: Sequence[int], host: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
  """Return what to sample for a batch of held-out images, for `Stage.__call__`.

  Held-out image i goes with image i of the order of sampling. Rows that only fill up
  the batch are image 0, whose values are left out later.
  """
  places = np.where(host['mask'], host['index'], 0).tolist()
  return cascade.batch([job(place, labels) for place in places], len(places))


def measured_batch(
  cascade: Cascade, batch: Mapping[str, jax.Array], sampled: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """Return what a `Scorer` needs to know about sampled images.

  These are numbers and mask of the held-out images, and the classes that were sampled.
  """
  label = {'label': sampled['label']} if cascade.num_classes else {}
  return {'mask': batch['mask'], 'index': batch['index']} | label


def scorer(side: int, evaluators: Evaluators, border: int = 0) -> Scorer:
  """Return what measures images of a size, without networks that need larger ones."""
  nets = {
    name: net
    for name, net in evaluators.nets.items()
    if side >= lpips.SMALLEST.get(name.removeprefix('lpips_'), 0)
  }
  border = border if side > 2 * border else 0
  return Scorer(border=border, nets=nets, classifier=evaluators.classifier)


@functools.lru_cache(maxsize=4)
def truths(
  model: SR3, sides: tuple[int, ...]
) -> Callable[[jax.Array], dict[int, jax.Array]]:
  """Compile stored images [D, b, H, W, C] -> side -> [D, b, side, side, C].

  Images are downsampled by area and have 256 levels in [-1, 1].
  """

  def downsample(stored):
    hr = model.to_float(stored)
    whole = hr.shape[1]
    return {
      side: image_metrics.quantize(degradations.area(hr, whole // side))
      for side in sides
    }

  return devices.pmap(downsample)


@functools.lru_cache(maxsize=8)
def _downsample(factor: int) -> Callable[[jax.Array], jax.Array]:
  """Compile images -> images of 256 levels, downsampled by area."""
  return devices.pmap(
    lambda image: degradations.area(image_metrics.quantize(image), factor)
  )


def powers(image: jax.Array, truth: jax.Array, mask: np.ndarray) -> Values:
  """Return the power spectra of a batch's sampled and true images.

  Args:
    image: sampled, [D, b, H, W, C] in [-1, 1].
    truth: true images, like `image`.
    mask: bool [D b], the rows to return.

  Returns:
    'power' and 'power_truth', [n, ...] each; nothing for images of an odd side.
  """
  if image.shape[2] % 2:
    return {}
  found = {'power': _power()(image), 'power_truth': _power()(truth)}
  return {name: value[mask] for name, value in devices.gather(found).items()}


@functools.cache
def _power() -> Callable[[jax.Array], jax.Array]:
  """Compile images [D, b, H, W, C] -> their radial power spectra."""
  return devices.pmap(image_metrics.radial_power)


def table(
  cascade: Cascade, records: Records, evaluators: Evaluators
) -> dict[str, summary.Row]:
  """Return all rows, stage by stage, with all metrics and their intervals."""
  rows: dict[str, summary.Row] = {}
  for stage in cascade.stages:
    truth = truth_part(cascade, stage.side)
    methods = {}
    if stage.place:
      name = alone_row(cascade, stage)
      methods[name] = [name]
    methods[sampled_row(cascade, stage)] = [sampled_part(cascade, stage)]
    if 'top1_error' in next(records.stream(truth), {}):
      methods[f'{stage.side} true'] = [truth]
    scale = stage.model.scale if stage.place else None
    rows |= stage_table(cascade, stage, records, evaluators, methods, scale=scale)
  return rows


def stage_table(
  cascade: Cascade,
  stage: Stage,
  records: Records,
  evaluators: Evaluators,
  methods: dict[str, Sequence[str]],
  *,
  scale: float | None,
  intervals: bool = True,
) -> dict[str, summary.Row]:
  """Return rows of images of one stage.

  FID and KID compare with the evaluators' reference, whose images have one size, only
  for the last stage. Other stages are compared with the true images of their size.

  Args:
    cascade: the models.
    stage: whose images were measured.
    records: of single images.
    evaluators: the networks that measured.
    methods: row -> its parts of the records.
    scale: magnification, for the metric `detail`; None leaves it out.
    intervals: False for values only.
  """
  inception = evaluators.nets.get('inception')
  against = evaluators.reference if stage.side == cascade.side else None
  if inception and against is None:
    features = summary.gather_features(records, truth_part(cascade, stage.side))
    against = reference_statistics.of_features(features, {'images': 'the true images'})
  return summary.table(
    records,
    methods,
    scale=scale,
    reference=against,
    probabilities=inception.probabilities if inception else None,
    intervals=intervals,
  )


def depends_on(
  config: ml_collections.ConfigDict,
  about: Mapping[str, object],
  evaluators: Evaluators,
  held: HeldOut,
) -> dict[str, object]:
  """Return all that a recorded value depends on, as JSON.

  Args:
    config: of the cascade.
    about: what the images of the cascade depend on.
    evaluators: the networks that measure.
    held: the held-out images.
  """
  whole = as_json(config)
  return {
    'cascade': about,
    'classes': whole['cascade']['classes'],
    'data': whole['data'],
    'images': sources.fingerprint(held[0]),
    **evaluators.fingerprints(),
    'sr3_jax': __version__,
  }
