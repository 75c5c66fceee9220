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
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import report
from sr3_jax.cascade.cascade import Cascade, CascadeError, Stage, job, load, name_option
from sr3_jax.cascade.report import alone_row, sampled_part, sampled_row, truth_part
from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data, held_out
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.measure import fingerprint
from sr3_jax.evaluation.records import Records, Values, open_records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files, pixels
from sr3_jax.metrics import image_metrics, lpips, reference_statistics
from sr3_jax.restoration.restorer import TRUTH, OnSteps, progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__


def evaluate_run(
  config: ConfigDict, workdir: epath.PathLike
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
  made_by = depends_on(config, cascade.made_by, evaluators, held) | {
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


def with_size(config: ConfigDict, cascade: Cascade) -> ConfigDict:
  """Return a configuration whose held-out images are as large as the last stage's."""
  config = config.copy_and_resolve_references()
  config.data.image_size, config.eval.image_size = cascade.side, 0
  config.data.channels = cascade.stages[0].model.channels
  return config


def _check_classes(config: ConfigDict, cascade: Cascade, held: HeldOut) -> None:
  """Refuse held-out images of other classes than those of the models."""
  found = len(held[0].classes)
  if cascade.num_classes and found != cascade.num_classes:
    raise CascadeError(
      f'{config.data.eval_path or config.data.path or config.data.source}: held-out '
      f'images of {found or "no"} classes, the models have {cascade.num_classes}: set '
      'data.source and data.path to labelled images like those of training'
    )


class HeldBatch(NamedTuple):
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


def held_batch(
  cascade: Cascade, number: int, host: Mapping[str, np.ndarray]
) -> HeldBatch:
  """Return a batch as `input_pipeline.evaluation_data` gives it, with true images."""
  sharded = devices.shard(host)
  sides = tuple(stage.side for stage in cascade.stages)
  truth = _truths(cascade.stages[0].model, sides)(sharded['image'])
  return HeldBatch(number, host, sharded, truth)


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

  config: ConfigDict
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
    batch = held_batch(self.cascade, number, host)
    self._add_truth(batch)
    self._add_sampled(batch)
    self._add_alone(batch)
    return int(host['mask'].sum())

  def _add_truth(self, batch: HeldBatch) -> None:
    """Measure the true images of all sizes."""
    parts = {truth_part(self.cascade, side): side for side in batch.truth}
    if all_recorded(self.records, parts, batch.host):
      return
    for part, side in parts.items():
      values = self.scorers[side].of_set(batch.truth[side], batch.sharded)
      if part == TRUTH:
        images = batch.host['image'][batch.host['mask']]
        values['hash'] = np.array([fingerprint(image) for image in images], np.uint64)
      self._write_pictures(f'true {side}', batch.truth[side], batch.host)
      self.records.add(part, batch.number, values)

  def _add_sampled(self, batch: HeldBatch) -> None:
    """Sample as many images as the batch has, and measure what each stage makes."""
    stages = self.cascade.stages
    parts = [sampled_part(self.cascade, stage) for stage in stages]
    if all_recorded(self.records, parts, batch.host):
      self.on_steps(sum(stage.num_steps for stage in stages))
      return
    wanted = sampled_batch(self.cascade, self.labels, batch.host)
    image = None
    for stage, part in zip(stages, parts, strict=True):
      image = stage(image, wanted, self.on_steps)
      self._write_pictures(part, image, batch.host)
      score = self.scorers[stage.side]
      values = sampled_values(self.cascade, stage, score, image, wanted, batch)
      self.records.add(part, batch.number, values)

  def _add_alone(self, batch: HeldBatch) -> None:
    """Measure what each stage after the first makes of true images."""
    stages = self.cascade.stages
    for before, stage in itertools.pairwise(stages):
      part = alone_row(self.cascade, stage)
      if all_recorded(self.records, [part], batch.host):
        self.on_steps(stage.num_steps)
        continue
      low, truth = batch.truth[before.side], batch.truth[stage.side]
      output = stage(low, batch.sharded, self.on_steps)
      self._write_pictures(part, output, batch.host)
      made = _downsample(stage.model.scale)(output)
      values = self.scorers[stage.side](output, truth, made, low, batch.sharded)
      self.records.add(part, batch.number, values)

  def _write_pictures(
    self, name: str, image: jax.Array, host: Mapping[str, np.ndarray]
  ) -> None:
    """Write the pictures of the report that are among this process's images."""
    count = self.config.sample.num_images
    rows = np.flatnonzero(host['mask'] & (host['index'] < count))
    if len(rows):
      shown = pixels.to_uint8(devices.gather(image)[rows])
      for row, picture in zip(rows, shown, strict=True):
        path = self.folder / 'pictures' / f'{host["index"][row]:05d}_{name}.png'
        image_files.write(path, picture)


def all_recorded(
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


def sampled_values(
  cascade: Cascade,
  stage: Stage,
  score: Scorer,
  image: jax.Array,
  sampled: Mapping[str, jax.Array],
  batch: HeldBatch,
) -> Values:
  """Measure a batch of sampled images.

  Args:
    cascade: the models.
    stage: that sampled them.
    score: measures images of this stage.
    image: [D, b, H, W, C] in [-1, 1].
    sampled: what they are, from `sampled_batch`.
    batch: the held-out images that they are measured as many as.

  Returns:
    Values of single images. 'power' and 'power_truth', [n, ...] each, are power spectra
    of sampled and true images; images of an odd side have none.
  """
  about = {'mask': batch.sharded['mask'], 'index': batch.sharded['index']}
  if cascade.num_classes:
    about['label'] = sampled['label']
  values = score.of_set(image, about)
  if stage.side % 2 == 0:
    truth = batch.truth[stage.side]
    spectra = {'power': _power()(image), 'power_truth': _power()(truth)}
    for name, value in devices.gather(spectra).items():
      values[name] = value[batch.host['mask']]
  return values


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
def _truths(
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
  config: ConfigDict,
  cascade: Mapping[str, object],
  evaluators: Evaluators,
  held: HeldOut,
) -> dict[str, object]:
  """Return all that a recorded value depends on, as JSON; `cascade` as well."""
  whole = as_json(config)
  return {
    'cascade': cascade,
    'classes': whole['cascade']['classes'],
    'data': whole['data'],
    'images': sources.fingerprint(held[0]),
    **evaluators.fingerprints(),
    'sr3_jax': __version__,
  }
