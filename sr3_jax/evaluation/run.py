"""Evaluates a run: `--mode=eval` and `--mode=reference`."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core import degradations
from sr3_jax.core.check import check_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data, held_out
from sr3_jax.evaluation import report_writer, summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.measure import Evaluation, evaluate, restored
from sr3_jax.evaluation.records import open_records
from sr3_jax.images import image_files
from sr3_jax.metrics import feature_nets, reference_statistics
from sr3_jax.reports.data import Sheet
from sr3_jax.restoration.restorer import Restorer, load_methods, progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub


@dataclasses.dataclass(frozen=True)
class Run:
  """A run that is measured.

  Attributes:
    workdir: its folder.
    step: of its weights.
    methods: name -> restorer: the run's model, and its regression baseline if any.
    hashes: name -> hash of the weights.
    held: the held-out images.
  """

  workdir: epath.Path
  step: int
  methods: dict[str, Restorer]
  hashes: dict[str, str]
  held: HeldOut


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """Do --mode=eval: write report/, results.json and samples.png; return the table.

  A model of several tasks has a report for each, report/TASK/, and a row of the table
  for each task and method.

  Raises:
    UserError: images, weights, statistics or a classifier that cannot be used.
  """
  check_config(config)
  workdir = epath.Path(workdir)
  step, methods, hashes = load_methods(config, workdir)
  evaluators = load_evaluators(config)
  run = Run(workdir, step, methods, hashes, held_out(config))
  if config.task.name != degradations.MIXTURE:
    table = _evaluate(config, run, evaluators, workdir / 'report')
  else:
    table = {}
    for task in dict.fromkeys(config.task.mixture):
      single = config.copy_and_resolve_references()
      single.task.mixture = (task,)
      rows = _evaluate(single, run, evaluators, workdir / 'report' / task)
      table |= {f'{task} {name}': row for name, row in rows.items()}
    if jax.process_index() == 0:
      print(summary.format_table(table))
  if jax.process_index() == 0:
    results = {'step': step, 'table': table, 'config': as_json(config)}
    atomic_files.write_json(workdir / 'results.json', results)
  return table


def _evaluate(
  config: ml_collections.ConfigDict,
  run: Run,
  evaluators: Evaluators,
  folder: epath.Path,
) -> dict[str, dict[str, float]]:
  """Evaluate one task: write `folder` and a sheet of samples; return the table."""
  # The programs are those of the run's model, whatever the task is.
  task = degradations.make(config.task.name, config.task)
  model = dataclasses.replace(run.methods[config.method].model, task=task)
  made_by = _made_by(config, run, evaluators)
  result = _measure(config, model, run, evaluators, folder, made_by)
  devices.barrier('measured')
  rows = report_writer.table(result.records, result.methods, result.scale, evaluators)
  name = _task_name(config)
  several = config.task.name == degradations.MIXTURE
  sheet = run.workdir / (f'samples_{name}.png' if several else 'samples.png')
  sheets = _sheets(config, model, result, run, folder, sheet)
  devices.barrier('pictures')
  count = result.count()
  table = {n: row | {'images': count} for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    report_writer.write(
      folder,
      title=f'{run.workdir.name}, {name}, step {run.step}',
      records=result.records,
      methods=result.methods,
      scale=result.scale,
      rows=rows,
      sheets=sheets,
      left_out=evaluators.left_out,
      protocol=_protocol(config, model, result, run.methods, made_by, evaluators),
      abouts={n: _about(n, m, config) for n, m in run.methods.items()},
      curves=report_writer.curves(run.workdir),
      image_size=config.eval.image_size or config.data.image_size,
    )
    logging.info('%s, %d held-out images, step %d:', name, count, run.step)
    print(summary.format_table(table))
    print(f'report: {folder / "report.html"}, pictures: {sheet}')
  return table


def _task_name(config: ml_collections.ConfigDict) -> str:
  """Return the name of the task; of a mixture the first of its tasks."""
  several = config.task.name == degradations.MIXTURE
  return config.task.mixture[0] if several else config.task.name


def _measure(
  config: ml_collections.ConfigDict,
  model: SR3,
  run: Run,
  evaluators: Evaluators,
  folder: epath.Path,
  made_by: Mapping[str, object],
) -> Evaluation:
  """Measure all held-out images, or what earlier starts have left of them."""
  e, methods = config.eval, run.methods
  records = open_records(folder / 'records', made_by)
  on_output = None
  if e.save_images:
    on_output = functools.partial(save_images, folder / 'images')
  batches = evaluation_data(config, e.final_images, run.held)
  steps = sum(
    m.num_steps * (e.num_seeds if m.is_random else 1) for m in methods.values()
  )
  with progress(batches.num_batches * steps) as on_steps:
    result = evaluate(
      model,
      methods,
      batches,
      seed=config.seed,
      scorer=evaluators.scorer(e.border),
      records=records,
      num_seeds=e.num_seeds,
      on_steps=on_steps,
      on_output=on_output,
    )
  batches.close()
  return result


def save_images(
  folder: epath.Path, name: str, shown: np.ndarray, index: np.ndarray
) -> None:
  """Write images as folder/NAME/00012.png and so on, which sr3-study takes.

  Args:
    folder: of all methods.
    name: of the method.
    shown: images, uint8 [n, H, W, 3].
    index: their numbers, int [n].
  """
  for image, number in zip(shown, index.tolist(), strict=True):
    image_files.write(folder / name / f'{number:05d}.png', image)


def _sheets(
  config: ml_collections.ConfigDict,
  model: SR3,
  result: Evaluation,
  run: Run,
  folder: epath.Path,
  sheet: epath.Path,
) -> list[Sheet]:
  """Restore and write the pictures of the report, and the first as one `sheet`."""
  whole = result.records.scalars(f'{config.method}/0')
  first = whole['index'][: config.sample.num_images].tolist()
  samples = config.sample.num_samples if run.methods[config.method].is_random else 1
  ranked = report_writer.ranked(whole)
  others = sorted({i for picks in ranked.values() for i in picks.values()} - set(first))
  for numbers, count in ((first, samples), (others, 1)):
    for number, named in restored(config, model, run.methods, run.held, numbers, count):
      if count > 1:
        named = report_writer.with_spread(named, config.method)
      for name, image in named.items():
        image_files.write(folder / 'pictures' / f'{number:05d}_{name}.png', image)
  devices.barrier('restored')
  sheets = report_writer.sheets(
    first,
    ranked,
    list(result.methods),
    config.method,
    samples,
    whole,
    inputs=model.task.conditional,
    truth=model.task.conditional,
  )
  if jax.process_index() == 0:
    image_files.write(sheet, report_writer.contact_sheet(folder, sheets[0]))
  return sheets


def _made_by(
  config: ml_collections.ConfigDict, run: Run, evaluators: Evaluators
) -> dict[str, object]:
  """Return all that a recorded value depends on."""
  whole = as_json(config)
  parts = {key: whole[key] for key in ('seed', 'task', 'data', 'sampler')}
  # Pictures are written while images are measured, so those that are asked for later
  # have to be measured again.
  keys = ('image_size', 'final_images', 'border', 'save_images')
  return parts | {
    'eval': {key: whole['eval'][key] for key in keys},
    'images': sources.fingerprint(run.held[0]),
    'weights': run.hashes,
    **evaluators.fingerprints(),
    'sr3_jax': __version__,
  }


def _protocol(
  config: ml_collections.ConfigDict,
  model: SR3,
  result: Evaluation,
  methods: dict[str, Restorer],
  made_by: dict[str, object],
  evaluators: Evaluators,
) -> dict[str, object]:
  """Return what somebody needs to measure the same again."""
  d = config.data
  size = config.eval.image_size or d.image_size
  local = d.source in sources.LOCAL
  name = epath.Path(d.eval_path or d.path).name if local else d.source
  settings = as_json(config.sampler)
  sampled = {n: m for n, m in methods.items() if m.is_random}
  samples = ', '.join(map(str, range(config.eval.num_seeds)))
  task = _task_name(config)
  return {
    'task': f'{task}, {size // model.scale} to {size}',
    'degradation': degradations.describe(task, config.task),
    'images': f'{result.count()} of {name}, {size} x {size}, crop {d.crop!r}',
    'image list': report_writer.list_hash(result.records),
    **report_writer.conventions(d.channels, raw=d.channels != 3 or bool(d.low)),
    'border': f'{config.eval.border} pixels left out by PSNR and SSIM',
    'weights': made_by['weights'],
    'sampler': {n: settings | {'num_steps': m.num_steps} for n, m in sampled.items()},
    'seeds': f'{config.seed}, samples {samples}',
    **evaluators.protocol(),
    'machine': report_writer.machine(),
    'configuration': as_json(hub.publishable(config)),
  }


def _about(name: str, method: Restorer, config: ml_collections.ConfigDict) -> str:
  """Return a sentence about a method."""
  if name == 'regression':
    return 'The same network as a one-step predictor of the mean.'
  s = config.sampler
  about = f'{s.name}, {method.num_steps} steps, levels spaced by {s.spacing}'
  if method.model.consistency:
    about += ', predictions consistent with the input'
  return f'{about}.'


def reference_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """Do --mode=reference: write statistics of the training images.

  They are in WORKDIR/reference.npz, for FID and KID of later evaluations.

  Raises:
    UserError: no images, or no weights of Inception.
  """
  net = feature_nets.load('inception', config.eval.weights)
  whole = config.copy_and_resolve_references()
  whole.data.eval_path, whole.data.eval_split = config.data.path, config.data.split
  source, cut = held = held_out(whole)
  count = config.eval.reference_images or len(source)
  batches = evaluation_data(whole, count, held)
  d = whole.data
  local = d.source in sources.LOCAL
  name = epath.Path(d.path).name if local else d.path or d.source
  about = {
    'source': f'{name} {d.split}',
    'size': f'{cut.image_size} x {cut.image_size}',
    'network': net.about,
    'fingerprint': net.fingerprint,
  }
  with progress(batches.num_batches * config.eval.batch_size, 'image') as on_images:
    made = reference_statistics.of_batches(net, batches, about, on_images)
  batches.close()
  if jax.process_index() == 0:
    path = epath.Path(workdir) / 'reference.npz'
    reference_statistics.save(path, made)
    print(f'statistics of {made.moments.count} images: {path}')
