"""Measures methods on a held-out set: restored on all devices, recorded as it streams.

Every method sees the same inputs, made by the model's own task from the same crops.
Outputs are rounded before they are measured, as files of the true images' type would
be. Sample i of image j is a function of (seed, i, j) alone.
"""

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import ml_collections
import numpy as np

from sr3_jax.core.sr3 import SR3
from sr3_jax.data import batches as data_batches
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.records import Records
from sr3_jax.evaluation.scoring import Scorer, quantize, stored_as
from sr3_jax.images import pixels as images_pixels
from sr3_jax.restoration.restorer import (
  TRUTH,
  OnSteps,
  Restorer,
  baselines,
  degrader,
  reducer,
)
from sr3_jax.runtime import devices


@dataclasses.dataclass
class Evaluation:
  """What `evaluate` returns.

  Attributes:
    records: per-image values; part 'truth' holds what belongs to the true images.
    methods: name -> its parts, one for each seed.
    scale: magnification; None where outputs are as large as inputs.
    first: the first batch's real images, uint8 [n, H, W, 3] by name: 'input', methods,
      'truth'; empty if they had been measured before.
  """

  records: Records
  methods: dict[str, list[str]]
  scale: int | None
  first: dict[str, np.ndarray]

  def table(self) -> dict[str, dict[str, float]]:
    """Method -> metric -> mean, without distances of sets, and the count 'images'."""
    rows = summary.table(self.records, self.methods, scale=self.scale, intervals=False)
    count = self.count()
    return {name: row | {'images': count} for name, row in summary.values(rows).items()}

  def count(self) -> int:
    """Images that were measured."""
    return len(self.records.scalars(TRUTH)['index'])


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
  on_output: Callable[[str, np.ndarray, np.ndarray], None] | None = None,
) -> Evaluation:
  """Measures what needs no network and `methods` on the same images.

  Generated images have no truth of their own: of them only what sets are compared by is
  recorded.

  Args:
    model: whose task makes the inputs.
    methods: name -> restorer.
    batches: from `data.eval_batches`.
    seed: of inputs with something random in them.
    scorer: what is measured; None is formulas only.
    records: where values go; images that are there already are passed over.
    num_seeds: samples of every image by methods that are random.
    beside: what needs no network; None is all that `restorer.baselines` has.
    max_seconds: no further batch is begun after this time.
    on_steps: called with the number of sampling steps just done (or passed over).
    on_output: called with a name, images uint8 [n, H, W, 3] and their numbers [n]
      before these are recorded: 'input', 'truth', and each method's first sample.

  Raises:
    sources.DataError: not one image could be read.
  """
  scorer = scorer or Scorer()
  records = records or Records()
  degrade, reduce = degrader(model, seed), reducer(model, seed)
  samples = {n: num_seeds if m.is_random else 1 for n, m in methods.items()}
  beside = baselines(model) if beside is None else beside
  parts = {name: [name] for name in beside}
  parts |= {n: [f'{n}/{i}' for i in range(count)] for n, count in samples.items()}
  first: dict[str, np.ndarray] = {}
  every = [TRUTH, *itertools.chain(*parts.values())]
  seen = 0
  began = time.monotonic()
  for number, host in enumerate(batches):
    mask = host['mask']
    index = host['index'][mask]
    seen += len(index)
    there = devices.everywhere([records.has(part, index) for part in every])
    todo = {part for part, done in zip(every, there, strict=True) if not done}
    if todo:
      batch = devices.shard(host)
      stored = stored_as(model, host['image'].dtype)
      hr, condition, enlarged = degrade(batch)
      observed = condition[..., : model.channels]

    def show(name, image, number=number, index=index, mask=mask):
      if number == 0 or on_output:
        shown = images_pixels.to_picture(devices.gather(image)[mask])
        if number == 0:
          first[name] = shown
        if on_output:
          on_output(name, shown, index)

    if TRUTH in todo and model.task.conditional:
      show('input', observed)
    for name, names in parts.items():
      for sample, part in enumerate(names):
        if part not in todo:
          on_steps(methods[name].num_steps if name in methods else 0)
          continue
        if name in methods:
          output = methods[name](condition, batch, sample, on_steps)
        else:
          output = enlarged[name]
        if sample == 0:
          show(name, output)
        if model.task.conditional:
          low = reduce(quantize(output, stored), batch['index'])
          values = scorer(output, hr, low, observed, batch, stored)
        else:
          values = scorer.of_set(output, batch, stored)
        records.add(part, number, values)
    if TRUTH in todo:
      show(TRUTH, hr)
      values = scorer.of_set(hr, batch, stored)
      hashes = [fingerprint(image) for image in host['image'][mask]]
      records.add(TRUTH, number, values | {'hash': np.array(hashes, np.uint64)})
    if devices.agree(time.monotonic() - began > max_seconds):
      break
  if all(devices.everywhere([seen == 0])):
    raise sources.DataError('no held-out image could be read: nothing to measure')
  return Evaluation(records, parts, model.scale if model.scale > 1 else None, first)


def fingerprint(image: np.ndarray) -> int:
  """64 bits of the content of an image."""
  return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=8).digest())


def restored(
  config: ml_collections.ConfigDict,
  model: SR3,
  methods: dict[str, Restorer],
  held: HeldOut,
  numbers: list[int],
  samples: int,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
  """Restores single held-out images again: (number, pictures by name) of this process.

  Names are 'input', the baselines, the methods ('sr3' is sample 0, 'sr3 2' and so on
  the others) and 'truth'; pictures uint8 [H, W, 3].
  """
  source, cut = held
  size = config.eval.batch_size
  mine = devices.per_process(size)
  for start in range(0, len(numbers), size):
    chosen = (numbers[start : start + size] + [-1] * size)[:size]
    chosen = chosen[jax.process_index() * mine :][:mine]
    host = data_batches.eval_images(
      source, chosen, limit=config.eval.final_images, **cut
    )
    batch = devices.shard(host)
    hr, condition, enlarged = degrader(model, config.seed)(batch)
    observed = {'input': condition[..., : model.channels]}
    shown = (observed if model.task.conditional else {}) | enlarged
    for name, method in methods.items():
      for i in range(samples if method.is_random else 1):
        shown[f'{name} {i + 1}' if i else name] = method(condition, batch, i)
    shown = {
      k: images_pixels.to_picture(v)
      for k, v in devices.gather(shown | {TRUTH: hr}).items()
    }
    for row, number in enumerate(chosen):
      if number >= 0 and host['mask'][row]:
        yield number, {name: pixels[row] for name, pixels in shown.items()}
