"""Measures a cascade stage by stage, which tells where quality is lost.

Every stage has two rows: its outputs for true images, made small by area as those of
the stage before are, and its outputs in the cascade, for generated ones. (The first
stage, which has no input, has one.) The former have a truth each; the latter are
compared as sets, with true images of the same size and in the same number.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import report as cascade_report
from sr3_jax.cascade.cascade import (
  Cascade,
  CascadeError,
  Stage,
  alone_name,
  drawn_name,
  fits,
  job,
  load,
)
from sr3_jax.config import as_json
from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data, held_out
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.measure import fingerprint
from sr3_jax.evaluation.records import Records, open_records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files, pixels
from sr3_jax.metrics import (
  image_metrics,
  lpips,
  reference_statistics,
)
from sr3_jax.restoration.restorer import TRUTH, progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__


def truth_name(cascade: Cascade, side: int) -> str:
  """The part of the records that holds true images of a size."""
  return TRUTH if side == cascade.side else f'{TRUTH} {side}'


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """--mode=eval: writes report/ and results.json; returns the table.

  Raises:
    CascadeError, sources.DataError, hub.HubError, reference.StatisticsError,
    classifier.ClassifierError: as they say.
  """
  workdir = epath.Path(workdir)
  cascade = load(config, workdir)
  config = sized(config, cascade)
  evaluators = load_evaluators(config)
  held = held_out(config)
  found = len(held[0].classes)
  if cascade.num_classes and found != cascade.num_classes:
    raise CascadeError(
      f'{config.data.eval_path or config.data.path or config.data.source}: held-out '
      f'images of {found or "no"} classes, the models have {cascade.num_classes}: set '
      'data.source and data.path to labelled images like those of training'
    )
  with fits('eval.batch_size'):
    batches = evaluation_data(config, config.eval.final_images, held)
  folder = workdir / 'report'
  made_by = _made_by(config, cascade, evaluators, held)
  records = open_records(folder / 'records', made_by)
  steps = [stage.num_steps for stage in cascade.stages]
  with progress((2 * sum(steps) - steps[0]) * batches.num_batches) as on_steps:
    measure = Measurement(config, cascade, evaluators, records, folder, on_steps)
    seen = sum(measure(number, host) for number, host in enumerate(batches))
  batches.close()
  if all(devices.everywhere([seen == 0])):
    raise sources.DataError('no held-out image could be read: nothing to measure')
  devices.barrier('measured')
  rows = table(cascade, records, evaluators)
  count = len(records.scalars(TRUTH)['index'])
  found = {n: row | {'images': count} for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    cascade_report.write(config, cascade, evaluators, records, rows, folder, made_by)
    results = {'table': found, 'config': as_json(config)}
    atomic_files.write_json(workdir / 'results.json', results)
    logging.info('%d held-out images and as many drawn:', count)
    print(summary.format_table(found))
    print(f'report: {folder / "report.html"}, pictures: {folder / "samples.png"}')
  return found


def sized(
  config: ml_collections.ConfigDict, cascade: Cascade
) -> ml_collections.ConfigDict:
  """The configuration with held-out images as large as those of the last stage."""
  config = config.copy_and_resolve_references()
  config.data.image_size, config.eval.image_size = cascade.side, 0
  config.data.channels = cascade.stages[0].model.channels
  return config


@dataclasses.dataclass
class Measurement:
  """Measures one batch of held-out images, and as many drawn ones, by each call.

  Attributes:
    config: with the held-out images' size.
    cascade: the models.
    evaluators: networks.
    records: where values go; what is there already is passed over.
    folder: of the report, for its pictures.
    on_steps: called with the number of sampling steps just done (or passed over).
  """

  config: ml_collections.ConfigDict
  cascade: Cascade
  evaluators: Evaluators
  records: Records
  folder: epath.Path
  on_steps: Callable[[int], None]

  def __post_init__(self):
    self.labels = self.cascade.labels(self.config.cascade.classes)
    border = self.config.eval.border
    self.scorers = {
      stage.side: scorer(stage.side, self.evaluators, border)
      for stage in self.cascade.stages
    }

  def __call__(self, number: int, host: dict[str, np.ndarray]) -> int:
    """Measures batch `number`, as `data.eval_batches` gives it; its real images."""
    cascade, records = self.cascade, self.records
    mask = host['mask']
    index = host['index'][mask]
    batch = devices.shard(host)
    sides = tuple(stage.side for stage in cascade.stages)
    truth = truths(cascade.stages[0].model, sides)(batch['image'])
    truth_parts = [truth_name(cascade, side) for side in sides]
    drawn_parts = [drawn_name(cascade, stage) for stage in cascade.stages]
    if not self._has(truth_parts, index):
      for side, part in zip(sides, truth_parts, strict=True):
        values = self.scorers[side].of_set(truth[side], batch)
        if part == TRUTH:
          hashes = [fingerprint(image) for image in host['image'][mask]]
          values['hash'] = np.array(hashes, np.uint64)
        self._show(f'true {side}', truth[side], host)
        records.add(part, number, values)
    if self._has(drawn_parts, index):
      self.on_steps(sum(stage.num_steps for stage in cascade.stages))
    else:
      for stage, values in self._drawn(host, batch, truth):
        records.add(drawn_name(cascade, stage), number, values)
    for before, stage in zip(cascade.stages, cascade.stages[1:], strict=False):
      part = alone_name(cascade, stage)
      if self._has([part], index):
        self.on_steps(stage.num_steps)
        continue
      low = truth[before.side]
      output = stage(low, batch, self.on_steps)
      self._show(part, output, host)
      made = _smaller(stage.model.scale)(output)
      score = self.scorers[stage.side]
      records.add(part, number, score(output, truth[stage.side], made, low, batch))
    return len(index)

  def _has(self, parts: list[str], index: np.ndarray) -> bool:
    return all(devices.everywhere([self.records.has(p, index) for p in parts]))

  def _drawn(self, host, batch, truth) -> Iterator[tuple[Stage, dict[str, np.ndarray]]]:
    """Draws as many images as the batch has; each stage's values."""
    number = np.where(host['mask'], host['index'], -1).tolist()
    # Filling, too, is an image that might have been asked for: it is left out later.
    jobs = [job(max(place, 0), self.labels) for place in number]
    drawn = self.cascade.batch(jobs, len(jobs))
    judged = {k: batch[k] for k in ('mask', 'index')}
    if self.cascade.num_classes:
      judged['label'] = drawn['label']
    image = None
    for stage in self.cascade.stages:
      image = stage(image, drawn, self.on_steps)
      self._show(drawn_name(self.cascade, stage), image, host)
      values = self.scorers[stage.side].of_set(image, judged)
      values |= powers(image, truth[stage.side], host['mask'])
      yield stage, values

  def _show(self, name: str, image: jax.Array, host: Mapping[str, np.ndarray]) -> None:
    """Writes the pictures of the report, of this process's first images."""
    count = self.config.sample.num_images
    rows = np.flatnonzero(host['mask'] & (host['index'] < count))
    if len(rows):
      shown = pixels.to_uint8(devices.gather(image)[rows])
      for row, picture in zip(rows, shown, strict=True):
        path = self.folder / 'pictures' / f'{host["index"][row]:05d}_{name}.png'
        image_files.write(path, picture)


def scorer(side: int, evaluators: Evaluators, border: int = 0) -> Scorer:
  """What measures images of a size: LPIPS needs some pixels."""
  least = lambda name: lpips.SMALLEST.get(name.removeprefix('lpips_'), 0)
  nets = {n: net for n, net in evaluators.nets.items() if side >= least(n)}
  border = border if side > 2 * border else 0
  return Scorer(border=border, nets=nets, classifier=evaluators.classifier)


@functools.lru_cache(maxsize=4)
def truths(model: SR3, sides: tuple[int, ...]) -> Callable[..., dict[int, jax.Array]]:
  """Compiled: stored images -> side -> [D, b, side, side, C], by area, 256 levels."""

  def reduce(stored):
    hr = model.to_float(stored)
    whole = hr.shape[1]
    smaller = {s: degradations.area(hr, whole // s) for s in sides}
    return {s: image_metrics.quantize(image) for s, image in smaller.items()}

  return devices.pmap(reduce)


@functools.lru_cache(maxsize=8)
def _smaller(factor: int) -> Callable[[jax.Array], jax.Array]:
  return devices.pmap(
    lambda image: degradations.area(image_metrics.quantize(image), factor)
  )


def powers(image: jax.Array, truth: jax.Array, mask: np.ndarray) -> dict[str, Any]:
  """Spectra of a batch's drawn and true images; none of images of an odd side."""
  if image.shape[2] % 2:
    return {}
  found = {'power': _power()(image), 'power_truth': _power()(truth)}
  return {name: value[mask] for name, value in devices.gather(found).items()}


@functools.cache
def _power() -> Callable[[jax.Array], jax.Array]:
  return devices.pmap(image_metrics.radial_power)


def table(
  cascade: Cascade, records: Records, evaluators: Evaluators
) -> dict[str, summary.Row]:
  """All rows, stage by stage; FID and KID with true images of the stage's size.

  The given statistics, which are of one size, serve the last stage.
  """
  inception = evaluators.nets.get('inception')
  rows = {}
  for stage in cascade.stages:
    truth = truth_name(cascade, stage.side)
    against = evaluators.reference if stage.side == cascade.side else None
    if inception and against is None:
      features = summary.gather_features(records, truth)
      against = reference_statistics.of_features(
        features, {'images': 'the true images'}
      )
    names = [alone_name(cascade, stage)] if stage.place else []
    methods = {n: [n] for n in (*names, drawn_name(cascade, stage))}
    if 'top1_error' in next(records.stream(truth), {}):
      methods[f'{stage.side} true'] = [truth]
    scale = stage.model.scale if stage.place else None
    rows |= summary.table(
      records,
      methods,
      scale=scale,
      reference=against,
      probabilities=inception.probabilities if inception else None,
    )
  return rows


def _made_by(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  held: HeldOut,
) -> dict[str, Any]:
  """All that a recorded value depends on."""
  whole = as_json(config)
  return {
    'cascade': cascade.about,
    'classes': whole['cascade']['classes'],
    'data': whole['data'],
    'eval': {key: whole['eval'][key] for key in ('final_images', 'border')},
    'pictures': whole['sample']['num_images'],
    'images': sources.fingerprint(held[0]),
    **evaluators.fingerprints(),
    'sr3_jax': __version__,
  }
