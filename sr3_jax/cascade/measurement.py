"""Measures images of a cascade's stages, for `evaluate` and `search`.

Sampled images are compared as sets with true images of the same size and in the same
number. Values of single images go to records, which remember what was measured.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from etils import epath

from sr3_jax.cascade.cascade import Cascade, Stage, job
from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.batches import Batches
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.records import VERSION, Records, Values, open_records
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.metrics import image_metrics, reference_statistics
from sr3_jax.restoration.restorer import TRUTH, OnSteps
from sr3_jax.runtime import devices
from sr3_jax.runtime.version import __version__


class HeldBatch(NamedTuple):
  """A batch of held-out images."""

  number: int  # of the batch
  host: Mapping[str, np.ndarray]  # the batch as it was read
  sharded: dict[str, jax.Array]  # the same over all devices, [D, b, ...] each
  # Side -> true images of that size, [D, b, side, side, C] in [-1, 1].
  truth: Mapping[int, jax.Array]


def with_size(config: ConfigDict, cascade: Cascade) -> ConfigDict:
  """Return a configuration whose held-out images are as large as the last stage's."""
  config = config.copy_and_resolve_references()
  config.data.image_size, config.eval.image_size = cascade.side, 0
  config.data.channels = cascade.stages[0].model.channels
  return config


@dataclasses.dataclass
class Measurement:
  """A cascade, the held-out images, and what measures both."""

  config: ConfigDict  # of the cascade, with the size of the last stage's images
  cascade: Cascade
  evaluators: Evaluators  # the networks that measure
  batches: Batches  # of the held-out images
  records: Records  # where values go; images that are there already are passed over
  made_by: dict[str, Any]  # all that recorded values depend on, as JSON
  # Called with the number of sampling steps just done (or passed over).
  on_steps: OnSteps = lambda steps: None

  def __post_init__(self):
    self.labels = self.cascade.labels(self.config.cascade.classes)
    stages = self.cascade.stages
    self.scorers = {stage.side: self._scorer(stage.side) for stage in stages}

  @classmethod
  def open(
    cls,
    config: ConfigDict,
    cascade: Cascade,
    held: HeldOut,
    folder: epath.Path,
    count: int,
    made_by: Mapping[str, object],
  ) -> Self:
    """Load the networks, and open the records of earlier values.

    Args:
      config: result of `with_size`.
      cascade: the models.
      held: the held-out images.
      folder: of the records; those that depend on something else are removed.
      count: number of held-out images to measure, at most.
      made_by: what else the values depend on, as JSON.

    Raises:
      UserError: eval.batch_size does not split over the devices, or the images,
        statistics or a network cannot be read.
    """
    evaluators, whole = load_evaluators(config), as_json(config)
    batches = evaluation_data(config, count, held)
    depends_on: dict[str, Any] = {
      'cascade': cascade.made_by,
      'classes': whole['cascade']['classes'],
      'data': whole['data'],
      'images': sources.fingerprint(held.source),
      **evaluators.fingerprints(),
      'sr3_jax': __version__,
      **made_by,
      'records': VERSION,
    }
    records = open_records(folder, depends_on)
    return cls(config, cascade, evaluators, batches, records, depends_on)

  def _scorer(self, side: int) -> Scorer:
    """Return what measures images of a size, without networks that need larger ones."""
    nets = {
      name: net for name, net in self.evaluators.nets.items() if side >= net.smallest
    }
    border = self.config.eval.border
    border = border if side > 2 * border else 0
    return Scorer(border=border, nets=nets, classifier=self.evaluators.classifier)

  def batch(self, number: int, host: Mapping[str, np.ndarray]) -> HeldBatch:
    """Return one of `batches` on the devices, with true images of all sizes."""
    sharded = devices.shard(host)
    truth = _truths(self.cascade.stages[0].model, tuple(self.scorers))
    return HeldBatch(number, host, sharded, truth(sharded['image']))

  def is_done(self, parts: Iterable[str], host: Mapping[str, np.ndarray]) -> bool:
    """Return whether all processes have these values of all their images of a batch."""
    index = host['index'][host['mask']]
    return all(devices.everywhere([self.records.has(part, index) for part in parts]))

  def wanted(self, host: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Return what to sample for a batch of held-out images, for `Stage.__call__`.

    Held-out image i goes with image i of the order of sampling. Rows that only fill up
    the batch are image 0, whose values are left out later.
    """
    places = np.where(host['mask'], host['index'], 0).tolist()
    jobs = [job(place, self.labels) for place in places]
    return self.cascade.batch(jobs, len(places))

  def add_sampled(
    self, part: str, stage: Stage, image: jax.Array, batch: HeldBatch
  ) -> None:
    """Measure a batch of sampled images, and record the values.

    Power spectra are measured of sampled and true images unless their side is odd.

    Args:
      part: of the records.
      stage: that sampled the images.
      image: [D, b, H, W, C] in [-1, 1], for what `wanted` says.
      batch: the held-out images that belong to them.
    """
    about = {name: batch.sharded[name] for name in ('mask', 'index')}
    if self.cascade.num_classes:
      about['label'] = self.wanted(batch.host)['label']
    values: Values = self.scorers[stage.side].of_set(image, about)
    if stage.side % 2 == 0:
      truth = batch.truth[stage.side]
      spectra = {'power': _power()(image), 'power_truth': _power()(truth)}
      for name, value in devices.gather(spectra).items():
        values[name] = value[batch.host['mask']]
    self.records.add(part, batch.number, values)

  def rows(
    self,
    stage: Stage,
    methods: dict[str, list[str]],
    *,
    scale: float | None = None,
    intervals: bool = True,
  ) -> dict[str, summary.Row]:
    """Return rows of images of one stage.

    FID and KID compare with the evaluators' reference, whose images have one size, only
    for the last stage. Other stages are compared with the true images of their size.

    Args:
      stage: whose images were measured.
      methods: row -> its parts of the records.
      scale: magnification, for the metric `detail`; None leaves it out.
      intervals: False for values only.
    """
    inception = self.evaluators.nets.get('inception')
    against = self.evaluators.reference if stage.side == self.cascade.side else None
    if inception and against is None:
      part = truth_part(self.cascade, stage.side)
      features = summary.gather_features(self.records, part)
      if features is not None:
        about = {'images': 'the true images'}
        against = reference_statistics.of_features(features, about)
    return summary.table(
      self.records,
      methods,
      scale=scale,
      reference=against,
      probabilities=inception.probabilities if inception else None,
      intervals=intervals,
    )


@functools.lru_cache(maxsize=4)
def _truths(
  model: SR3, sides: tuple[int, ...]
) -> Callable[[jax.Array], dict[int, jax.Array]]:
  """Compile stored images [D, b, H, W, C] -> side -> [D, b, side, side, C].

  Images are downsampled by area and have 256 levels in [-1, 1].
  """

  def area(hr: jax.Array, side: int) -> jax.Array:
    return image_metrics.quantize(degradations.area(hr, hr.shape[1] // side))

  def downsample(stored):
    hr = model.to_float(stored)
    return {side: area(hr, side) for side in sides}

  return devices.pmap(downsample)


@functools.cache
def _power() -> Callable[[jax.Array], jax.Array]:
  """Compile images [D, b, H, W, C] -> their radial power spectra."""
  return devices.pmap(image_metrics.radial_power)


def truth_part(cascade: Cascade, side: int) -> str:
  """Return the part of the records that holds true images of a size."""
  return TRUTH if side == cascade.side else f'{TRUTH} {side}'


def row_name(stage: Stage, inputs: str) -> str:
  """Return the name of a stage's row: '8 sampled', '16 from sampled 8'.

  Args:
    stage: whose images are measured.
    inputs: what they are made of, 'sampled' or 'true'. Records and pictures of sampled
      ones say 'drawn', as rows did when the first of them were written.
  """
  if not stage.place:
    return f'{stage.side} {inputs}'
  return f'{stage.side} from {inputs} {stage.side // stage.model.scale}'
