"""Measures methods on a held-out set: restored on all devices, recorded as it streams.

Every method sees the same inputs, made by the model's own task from the same crops.
Outputs are rounded before they are measured, as files of the true images' type would
be. Sample i of image j is a function of (seed, i, j) alone.
"""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from sr3_jax.core.sr3 import SR3
from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.records import PHOTOGRAPH, Parts, Records
from sr3_jax.evaluation.scoring import Scorer, quantize, stored_as
from sr3_jax.images.pixels import to_picture
from sr3_jax.restoration import restorer
from sr3_jax.restoration.restorer import TRUTH, OnSteps, Restorer
from sr3_jax.runtime import devices

NONE_READ = 'no held-out image could be read: nothing to measure'
OnOutput = Callable[[str, np.ndarray, np.ndarray], None]


@dataclasses.dataclass
class Evaluation:
  """Holds what was measured on a held-out set."""

  records: Records  # per-image values; part 'truth' has what belongs to true images
  methods: Parts
  scale: int | None  # magnification; None where outputs are as large as inputs
  # The first batch's real images, uint8 [n, H, W, 3] by name: 'input', methods,
  # 'truth'; empty if they had been measured before.
  first: dict[str, np.ndarray]

  def table(self) -> summary.Means:
    """Return method -> metric -> mean, with the count 'images'.

    Distances of sets are not in it.
    """
    rows = summary.table(self.records, self.methods, scale=self.scale, intervals=False)
    images = {'images': self.count()}
    return {name: row | images for name, row in summary.values(rows).items()}

  def count(self) -> int:
    """Return how many images were measured."""
    return len(self.records.scalars(TRUTH)['index'])

  def photographs(self) -> int:
    """Return how many photographs the images are crops of."""
    return len(np.unique(self.records.photographs(TRUTH)))


def evaluate(
  model: SR3,
  methods: dict[str, Restorer],
  batches: Iterable[dict[str, np.ndarray]],
  *,
  seed: int,
  scorer: Scorer | None = None,
  records: Records | None = None,
  num_seeds: int = 1,
  beside: Iterable[str] | None = None,
  max_seconds: float = float('inf'),
  on_steps: OnSteps = lambda steps: None,
  on_output: OnOutput | None = None,
  name_of: Callable[[int], str] | None = None,
) -> Evaluation:
  """Measure methods, and what needs no network, on the same images.

  Args:
    model: whose task makes the inputs.
    methods: name -> restorer.
    batches: from `data.eval_batches`.
    seed: of inputs with something random in them.
    scorer: measures; None measures by formulas only.
    records: where values go; images that are there already are passed over.
    num_seeds: samples of every image by methods that are random.
    beside: names of baselines that need no network, such as bicubic; None means all
      that `restorer.baselines` has.
    max_seconds: no further batch is begun after this time.
    on_steps: called with the number of sampling steps just done (or passed over).
    on_output: called with a name, images uint8 [n, H, W, 3] and their numbers [n]
      before these are recorded: 'input', 'truth', and each method's first sample.
    name_of: returns the name of an image by its number. With it an output that is not
      finite is an error; without, its measures are not finite either.

  Raises:
    errors.NotFiniteError: a network gave NaN or infinity for an image.
    sources.DataError: not one image could be read.
  """
  beside = restorer.baselines(model) if beside is None else beside
  parts = parts_of(methods, beside, num_seeds)
  scorer, records = scorer or Scorer(), records or Records()
  measurement = _Measurement(
    model, methods, parts, scorer, records, seed, on_steps, on_output, name_of
  )
  seen, began = 0, time.monotonic()
  for number, host in enumerate(batches):
    seen += int(host['mask'].sum())
    measurement.measure(number, host)
    if devices.agree(time.monotonic() - began > max_seconds):
      break
  if all(devices.everywhere([seen == 0])):
    raise sources.DataError(NONE_READ)
  scale = model.scale if model.scale > 1 else None
  return Evaluation(records, parts, scale, measurement.first)


def parts_of(
  methods: Mapping[str, Restorer], beside: Iterable[str], num_seeds: int
) -> Parts:
  """Return name -> parts of the records: one, or one a seed for what is sampled."""
  parts = {name: [name] for name in beside}
  for name, method in methods.items():
    count = num_seeds if method.is_random else 1
    parts[name] = [f'{name}/{sample}' for sample in range(count)]
  return parts


@dataclasses.dataclass
class _Measurement:
  """Holds what the batches of one evaluation share: where outputs come from and go.

  Generated images have no truth of their own: only what sets are compared by is
  recorded for them.
  """

  model: SR3
  methods: Mapping[str, Restorer]
  parts: Mapping[str, list[str]]
  scorer: Scorer
  records: Records
  seed: int
  on_steps: OnSteps
  on_output: OnOutput | None
  name_of: Callable[[int], str] | None
  first: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  def measure(self, number: int, host: dict[str, np.ndarray]) -> None:
    """Record those values of a batch, numbered `number`, that are missing."""
    outputs = [(n, i, part) for n, p in self.parts.items() for i, part in enumerate(p)]
    parts = [TRUTH, *(part for *_, part in outputs)]
    index = host['index'][host['mask']]
    # What some process has yet to measure is measured by all.
    there = devices.everywhere([self.records.has(part, index) for part in parts])
    missing = {part for part, done in zip(parts, there, strict=True) if not done}
    if not missing:
      for name, *_ in outputs:
        self._pass_over(name)
      return
    batch = devices.shard(host)
    stored = stored_as(self.model, host['image'].dtype)
    hr, condition, upsampled = restorer.degrader(self.model, self.seed)(batch)
    observed = self.model.observed(condition)
    # Generated images are of no photograph.
    photographs = photographs_of(host) if self.model.task.conditional else {}
    if TRUTH in missing and self.model.task.conditional:
      self._show(number, 'input', observed, host)
    for name, sample, part in outputs:
      if part not in missing:
        self._pass_over(name)
        continue
      if name in self.methods:
        output = self.methods[name](condition, batch, sample, self.on_steps)
        self._check(output, host, name)
      else:
        output = upsampled[name]
      if sample == 0:
        self._show(number, name, output, host)
      if self.model.task.paired:  # nothing makes the input of an output
        values = self.scorer(output, hr, None, None, batch, stored)
      elif self.model.task.conditional:
        degrade = restorer.output_degrader(self.model, self.seed)
        low = degrade(quantize(output, stored), batch['index'])
        values = self.scorer(output, hr, low, observed, batch, stored)
      else:
        values = self.scorer.of_set(output, batch, stored)
      self.records.add(part, number, values | photographs)
    if TRUTH in missing:
      self._show(number, TRUTH, hr, host)
      values = self.scorer.of_set(hr, batch, stored)
      values |= hashes(host['image'][host['mask']]) | photographs_of(host)
      self.records.add(TRUTH, number, values)

  def _check(self, output: jax.Array, host: dict[str, np.ndarray], method: str) -> None:
    """Raise NotFiniteError, if it is asked for, and name the images."""
    if (name_of := self.name_of) is not None:
      index = host['index'].tolist()
      restorer.check_finite(
        output, host['mask'], lambda row: name_of(index[row]), method
      )

  def _pass_over(self, name: str) -> None:
    """Count the steps of an output that was measured before."""
    self.on_steps(self.methods[name].num_steps if name in self.methods else 0)

  def _show(
    self, number: int, name: str, image: jax.Array, host: dict[str, np.ndarray]
  ) -> None:
    """Hand over the real images of a batch, and keep those of the first."""
    if number and not self.on_output:
      return
    shown = to_picture(devices.gather(image)[host['mask']])
    if number == 0:
      self.first[name] = shown
    if self.on_output:
      self.on_output(name, shown, host['index'][host['mask']])


def photographs_of(host: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Return PHOTOGRAPH of each image of a batch, [n], if the batch says it."""
  return {key: host[key][host['mask']] for key in (PHOTOGRAPH,) if key in host}


def hashes(images: np.ndarray) -> dict[str, np.ndarray]:
  """Return 'hash': 64 bits of the content of each image [n, ...], uint64 [n]."""
  digests = [hashlib.blake2b(i.tobytes(), digest_size=8).digest() for i in images]
  return {'hash': np.array([int.from_bytes(d) for d in digests], np.uint64)}


def restored(
  config: ConfigDict,
  model: SR3,
  methods: dict[str, Restorer],
  held: HeldOut,
  numbers: list[int],
  samples: int,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Restore single held-out images again; yield (number, pictures by name).

  Each process yields its own images. Names are 'input', the baselines, the methods
  ('sr3' is sample 0, 'sr3 2' and so on the others) and 'truth'; pictures uint8
  [H, W, 3].
  """
  size, seed = config.eval.batch_size, config.seed
  mine = devices.per_process(size)
  for start in range(0, len(numbers), size):
    chosen = (numbers[start : start + size] + [-1] * size)[:size]
    chosen = chosen[jax.process_index() * mine :][:mine]
    host = data_batches.eval_images(
      held.source,
      held.cut,
      chosen,
      limit=config.eval.final_images,
      order=config.eval.order,
      seed=seed,
    )
    batch = devices.shard(host)
    hr, condition, upsampled = restorer.degrader(model, seed)(batch)
    outputs = dict(upsampled)
    if model.task.conditional:
      outputs = {'input': model.observed(condition), **upsampled}
    for name, method in methods.items():
      for i in range(samples if method.is_random else 1):
        outputs[f'{name} {i + 1}' if i else name] = method(condition, batch, i)
    gathered = devices.gather(outputs | {TRUTH: hr})
    shown = {name: to_picture(image) for name, image in gathered.items()}
    for row, number in enumerate(chosen):
      if number >= 0 and host['mask'][row]:
        yield number, {name: pictures[row] for name, pictures in shown.items()}
