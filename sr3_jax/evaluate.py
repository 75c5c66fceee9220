"""Measures methods on a held-out set: restored on all devices, summed as it streams.

Every method sees the same inputs, made by the model's own task from the same crops.
Outputs are rounded to 8 bits before they are measured, as files would be. Sample i of
image j is a function of (seed, i, j) alone.
"""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax import checkpoint, data, images, logs, metrics, parallel, samplers, sources
from sr3_jax.config import as_json
from sr3_jax.sr3 import SR3

# A walk is cut into stretches of this many steps, to show progress in between.
STRETCH = 25
# What the table shows: key, title, digits, and which way is better.
COLUMNS = (
  ('psnr', 'PSNR dB', 2, 'higher'),
  ('ssim', 'SSIM', 3, 'higher'),
  ('consistency', 'consistency 1e-5', 2, 'lower'),
  ('detail', 'detail', 2, '1 is right'),
  ('spectrum_db', 'spectrum dB', 2, 'lower'),
  ('colour_drift', 'colour drift', 2, 'lower'),
)


def keys(seed: int, index: jax.Array, sample: int | jax.Array) -> jax.Array:
  """One key per image, a function of (seed, sample, index): [B] -> [B] keys."""
  key = jax.random.fold_in(jax.random.key(seed), sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


class Restorer:
  """A model's restoration, compiled for all devices; parameters stay on them.

  Args:
    model: the model.
    params: its weights, on the host or one device.
    seed: of all noise.
  """

  def __init__(self, model: SR3, params: Any, seed: int):
    self._params = parallel.replicate(params)
    self.model, gammas, table = model, *model.walk
    steps = samplers.steps(gammas, table)
    count = 1 if model.method == 'regression' else len(table)
    self.num_steps = count
    # Equal stretches and one shorter: at most two programs, whatever the step count.
    self._stretches = [
      parallel.replicate(jax.tree.map(lambda s, i=i: s[i : i + STRETCH], steps))
      for i in range(0, count, STRETCH)
    ]
    self._begin, self._advance, self._finish = _walk_programs(model, seed)

  def __call__(
    self,
    condition: jax.Array,
    batch: dict[str, jax.Array],
    sample: int = 0,
    on_steps: Callable[[int], None] = lambda steps: None,
  ) -> jax.Array:
    """Draws one image per condition.

    Args:
      condition: [D, b, h, w, C] over all devices.
      batch: holds 'index', int32 [D, b], and 'label' for models with classes.
      sample: number of the sample of each image.
      on_steps: called with the number of sampling steps just done.

    Returns:
      [D, b, H, W, C] in [-1, 1].
    """
    index = batch['index']
    number = parallel.shard(np.full(jax.local_device_count(), sample, np.int32))
    x, carry = self._begin(condition, index, number)
    for steps in self._stretches:
      carry = self._advance(
        self._params, x, carry, steps, index, number, batch.get('label')
      )
      jax.block_until_ready(carry)
      on_steps(min(STRETCH, steps['index'].shape[1], self.num_steps))
    return self._finish(x, carry)


@functools.lru_cache(maxsize=4)
def _walk_programs(model: SR3, seed: int) -> tuple[Callable[..., Any], ...]:
  """`begin`, `advance` and `finish` for all devices.

  Kept by model, like the programs below, so that a training run compiles them once and
  not at every evaluation.
  """
  stochastic = samplers.is_stochastic(model.walk[1])

  def begin(condition, index, sample):
    x = model.upsample(condition)
    return x, model.begin(model.noise(keys(seed, index, sample[0]), x), x)

  def advance(params, x, carry, steps, index, sample, label):
    noise = model.noise(keys(seed, index, sample[0]), x) if stochastic else None
    return model.advance(params, noise, x, carry, steps, label)

  return (
    parallel.pmap(begin),
    parallel.pmap(advance, donate_argnums=(2,)),
    parallel.pmap(model.finish),
  )


@functools.lru_cache(maxsize=4)
def degrader(model: SR3, seed: int) -> Callable[[dict[str, jax.Array]], Any]:
  """Compiled: batch [D, b, ...] -> (truth, condition, bicubic upsampling) in float."""

  def degrade(image, index):
    hr = images.to_float(image)
    condition = model.degrade(keys(seed, index, 0), hr)
    return hr, condition, jnp.clip(model.upsample(condition), -1, 1)

  degrade = parallel.pmap(degrade)
  return lambda batch: degrade(batch['image'], batch['index'])


@functools.lru_cache(maxsize=4)
def _measurer(model: SR3, seed: int) -> Callable[..., Any]:
  """Compiled: sums of every metric over the images of all devices."""

  def measure(hr, condition, output, index, mask):
    output = metrics.quantize(output)
    low = model.degrade(keys(seed, index, 0), output)
    each = {
      # Identical images have no PSNR; 100 dB is far above what 8 bits can differ by.
      'psnr': jnp.minimum(metrics.psnr(output, hr), 100.0),
      'ssim': metrics.ssim(output, hr),
      'consistency': metrics.consistency(low, condition),
      'colour_drift': metrics.colour_drift(low, condition),
      'power': metrics.radial_power(output),
      'power_truth': metrics.radial_power(hr),
      'images': jnp.ones(mask.shape),
    }
    keep = lambda v: jnp.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v, 0).sum(0)
    return jax.lax.psum(jax.tree.map(keep, each), parallel.AXIS)

  return parallel.pmap(measure)


@dataclasses.dataclass
class Evaluation:
  """What `evaluate` returns.

  Attributes:
    table: method -> metric -> value; 'images' is how many were measured.
    rows: the first images for a sheet: uint8 [H, W, C] per column.
    titles: of the columns.
  """

  table: dict[str, dict[str, float]]
  rows: list[list[np.ndarray]]
  titles: list[str]


def evaluate(
  model: SR3,
  methods: dict[str, Restorer],
  batches: Iterable[dict[str, np.ndarray]],
  *,
  seed: int,
  num_rows: int = 0,
  num_samples: int = 1,
  max_seconds: float = float('inf'),
  on_steps: Callable[[int], None] = lambda steps: None,
) -> Evaluation:
  """Measures bicubic upsampling and `methods` on the same images.

  Args:
    model: whose task makes the inputs.
    methods: name -> restorer.
    batches: from `data.eval_batches`.
    seed: of inputs with something random in them.
    num_rows: images of the first batch to show.
    num_samples: samples of each shown image by methods that are random.
    max_seconds: no further batch is begun after this time.
    on_steps: called with the number of sampling steps just done.

  Raises:
    sources.DataError: not one image could be read.
  """
  degrade, measure = degrader(model, seed), _measurer(model, seed)
  sums: dict[str, Any] = {}
  rows: list[list[np.ndarray]] = []
  titles = ['input', 'bicubic']
  began = time.monotonic()
  for batch in batches:
    batch = parallel.shard(batch)
    hr, condition, bicubic = degrade(batch)
    show = not rows and num_rows > 0
    shown = [condition, bicubic]
    for name in ['bicubic', *methods]:
      if name == 'bicubic':
        output = bicubic
      else:
        output = methods[name](condition, batch, 0, on_steps)
        if show:
          random = methods[name].model.method != 'regression'
          more = range(1, num_samples if random else 1)
          shown += [output] + [
            methods[name](condition, batch, i, on_steps) for i in more
          ]
          titles += [f'{name} {i + 1}' if more else name for i in (0, *more)]
      parts = measure(hr, condition, output, batch['index'], batch['mask'])
      parts = jax.tree.map(lambda a: np.float64(a), parallel.unreplicate(parts))
      sums[name] = jax.tree.map(np.add, sums[name], parts) if name in sums else parts
    if show:
      columns = [images.to_uint8(c) for c in parallel.gather([*shown, hr])]
      real = np.flatnonzero(parallel.gather(batch['mask']))[:num_rows]
      rows = [[column[i] for column in columns] for i in real]
    if parallel.agree(time.monotonic() - began > max_seconds):
      break
  if not sums or not sums['bicubic']['images']:
    raise sources.DataError('no held-out image could be read: nothing to measure')
  table = {name: _means(s, model.scale) for name, s in sums.items()}
  return Evaluation(table, rows, [*titles, 'truth'])


def evaluation_data(config: ml_collections.ConfigDict, limit: int) -> data.Batches:
  """This process's share of the first `limit` held-out images, always the same."""
  d = config.data
  size = config.eval.image_size or d.image_size
  cut = data.Cut(size, d.crop, reduce=tuple(d.reduce))
  source = sources.make_source(
    d.source,
    path=d.eval_path or d.path,
    split=d.eval_split,
    data_dir=d.data_dir or None,
    min_size=cut.min_size,
  )
  if d.source == 'folder' and not d.eval_path:
    logging.warning('no data.eval_path: evaluating on the training images')
  return data.eval_batches(
    source,
    batch_size=parallel.per_process(config.eval.batch_size),
    image_size=size,
    crop=d.crop,
    reduce=tuple(d.reduce),
    limit=limit,
    seed=config.seed,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def load_methods(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> tuple[int, dict[str, Restorer]]:
  """The newest averaged weights of a run, and of its regression baseline if any.

  Returns:
    The step of the run's weights; name -> restorer, the baseline first.

  Raises:
    checkpoint.CheckpointError: there are none, or they belong to another network.
  """
  methods = {}
  baseline = checkpoint.folder(epath.Path(workdir) / 'regression')
  if config.method != 'regression' and baseline.exists():
    regression = config.copy_and_resolve_references()
    regression.method = 'regression'
    methods['regression'] = _load(regression, baseline.parent)[1]
  step, method = _load(config, workdir)
  return step, methods | {config.method: method}


def _load(config, workdir) -> tuple[int, Restorer]:
  model = SR3.from_config(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  step, ema = checkpoint.load_ema(workdir, shapes)
  return step, Restorer(model, ema, config.seed)


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """--mode=eval: writes results.json and samples.png; returns the table.

  Raises:
    sources.DataError, checkpoint.CheckpointError: as they say.
  """
  workdir = epath.Path(workdir)
  batches = evaluation_data(config, config.eval.final_images)
  step, methods = load_methods(config, workdir)
  main_process = jax.process_index() == 0
  samples = config.sample.num_samples if config.method == 'sr3' else 1
  total = sum(m.num_steps for m in methods.values()) * batches.num_batches
  total += methods[config.method].num_steps * (samples - 1)
  with _sampling_progress(total) as on_steps:
    result = evaluate(
      methods[config.method].model,
      methods,
      batches,
      seed=config.seed,
      num_rows=config.sample.num_images,
      num_samples=samples,
      on_steps=on_steps,
    )
  batches.close()
  if main_process:
    images.write(workdir / 'samples.png', images.sheet(result.rows, result.titles))
    results = {'step': step, 'table': result.table, 'config': as_json(config)}
    logs.write_json(workdir / 'results.json', results)
    count = result.table['bicubic']['images']
    logging.info('%d held-out images, step %d:', count, step)
    print(format_table(result.table))
    print(f'pictures: {workdir / "samples.png"}')
  return result.table


def sample_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """--mode=sample: writes samples/IMAGE_{input,truth,SAMPLE}.png and samples.png.

  Raises:
    sources.DataError, checkpoint.CheckpointError: as they say.
  """
  workdir = epath.Path(workdir)
  count, samples = config.sample.num_images, config.sample.num_samples
  batches = evaluation_data(config, count)
  step, method = _load(config, workdir)
  degrade = degrader(method.model, config.seed)
  titles = ['input', *(f'sample {i + 1}' for i in range(samples)), 'truth']
  rows = []
  total = method.num_steps * batches.num_batches * samples
  with _sampling_progress(total) as on_steps:
    for batch in batches:
      real = np.flatnonzero(batch['mask'])
      numbers = batch['index'][real]
      batch = parallel.shard(batch)
      hr, condition, _ = degrade(batch)
      outputs = [method(condition, batch, i, on_steps) for i in range(samples)]
      columns = [images.to_uint8(c) for c in parallel.gather([condition, *outputs, hr])]
      names = ['input', *map(str, range(samples)), 'truth']
      for i, number in zip(real, numbers, strict=True):
        rows.append([column[i] for column in columns])
        for name, column in zip(names, columns, strict=True):
          images.write(workdir / 'samples' / f'{number:05d}_{name}.png', column[i])
  batches.close()
  if jax.process_index() == 0:
    images.write(workdir / 'samples.png', images.sheet(rows[:16], titles))
    logging.info('step %d: %d samples of each of %d images', step, samples, count)
    print(f'pictures: {workdir / "samples"}, sheet: {workdir / "samples.png"}')


@contextlib.contextmanager
def _sampling_progress(total: int) -> Iterator[Callable[[int], None]]:
  """Shows progress over `total` sampling steps; gives what to call with each few."""
  done = 0
  enabled = jax.process_index() == 0
  with logs.Progress(total, unit='sampling step', enabled=enabled) as progress:

    def on_steps(steps: int) -> None:
      nonlocal done
      done += steps
      progress.update(done)

    yield on_steps


def finished(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, Any] | None:
  """results.json, if it is that of this configuration's whole run; else None."""
  path = epath.Path(workdir) / 'results.json'
  if not path.exists():
    return None
  results = json.loads(path.read_text())
  whole = results['step'] == config.train.num_steps
  return results if whole and results['config'] == as_json(config) else None


def _means(sums: dict[str, Any], scale: int) -> dict[str, float]:
  power, truth = sums['power'], sums['power_truth']
  count = sums['images']
  means = {
    k: v / count for k, v in sums.items() if k not in ('power', 'power_truth', 'images')
  }
  means['detail'] = metrics.detail(power, truth, scale)
  means['spectrum_db'] = metrics.spectrum_distance(power, truth)
  return {k: float(v) for k, v in means.items()} | {'images': int(count)}


def format_table(table: dict[str, dict[str, float]]) -> str:
  """The table as aligned text, one method a line."""
  head = ['', *(title for _, title, _, _ in COLUMNS)]
  lines = [head, ['', *(f'({better})' for *_, better in COLUMNS)]]
  for name, row in table.items():
    lines.append([name, *(f'{row[key]:.{digits}f}' for key, _, digits, _ in COLUMNS)])
  widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
  return '\n'.join(
    '  '.join(
      [line[0].ljust(widths[0])]
      + [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
    )
    for line in lines
  )
