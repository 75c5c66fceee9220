"""What --mode=eval, sample and reference do with a run."""

import dataclasses
from typing import Any

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
from sr3_jax.evaluation.scoring import Scorer
from sr3_jax.images import image_files
from sr3_jax.metrics import feature_nets, reference_statistics
from sr3_jax.restoration.restorer import (
  Restorer,
  load_methods,
  progress,
)
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub


def evaluate_run(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, dict[str, float]]:
  """--mode=eval: writes report/, results.json and samples.png; returns the table.

  A model of several tasks has a report for each, report/TASK/, and a row of the table
  for each task and method.

  Raises:
    sources.DataError, checkpoint.CheckpointError, reference.StatisticsError,
    classifier.ClassifierError: as they say.
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


@dataclasses.dataclass(frozen=True)
class Run:
  """What is measured."""

  workdir: epath.Path
  step: int
  methods: dict[str, Restorer]
  hashes: dict[str, str]  # of weights
  held: HeldOut


def _evaluate(
  config: ml_collections.ConfigDict,
  run: Run,
  evaluators: Evaluators,
  folder: epath.Path,
) -> dict[str, dict[str, float]]:
  """One task: writes `folder` and a sheet of samples; returns its table."""
  e, methods, workdir = config.eval, run.methods, run.workdir
  # The programs are those of the run's model, whatever the task is.
  task = degradations.make(config.task.name, config.task)
  model = dataclasses.replace(methods[config.method].model, task=task)
  batches = evaluation_data(config, e.final_images, run.held)
  made_by = _made_by(config, run, evaluators)
  records = open_records(folder / 'records', made_by)
  total = batches.num_batches * sum(
    m.num_steps * (e.num_seeds if m.is_random else 1) for m in methods.values()
  )
  write = None
  if e.save_images:
    write = lambda name, shown, index: save_images(
      folder / 'images', name, shown, index
    )
  with progress(total) as on_steps:
    result = evaluate(
      model,
      methods,
      batches,
      seed=config.seed,
      scorer=Scorer(
        border=e.border, nets=evaluators.nets, classifier=evaluators.classifier
      ),
      records=records,
      num_seeds=e.num_seeds,
      on_steps=on_steps,
      on_output=write,
    )
  batches.close()
  devices.barrier('measured')
  rows = report_writer.table(result.records, result.methods, result.scale, evaluators)
  several = config.task.name == degradations.MIXTURE
  name = config.task.mixture[0] if several else config.task.name
  sheet = workdir / (f'samples_{name}.png' if several else 'samples.png')
  sheets = _sheets(config, model, result, methods, run.held, folder, sheet)
  devices.barrier('pictures')
  count = result.count()
  table = {n: row | {'images': count} for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    report_writer.write(
      folder,
      title=f'{workdir.name}, {name}, step {run.step}',
      records=result.records,
      methods=result.methods,
      scale=result.scale,
      rows=rows,
      sheets=sheets,
      left_out=evaluators.left_out,
      protocol=_protocol(config, model, result, methods, made_by, evaluators),
      abouts={n: _about(n, m, config) for n, m in methods.items()},
      curves=report_writer.curves(workdir),
      image_size=e.image_size or config.data.image_size,
    )
    logging.info('%s, %d held-out images, step %d:', name, count, run.step)
    print(summary.format_table(table))
    print(f'report: {folder / "report.html"}, pictures: {sheet}')
  return table


def save_images(
  folder: epath.Path, name: str, shown: np.ndarray, index: np.ndarray
) -> None:
  """Writes folder/NAME/00012.png and so on: what sr3_jax.human_study.command takes."""
  for image, number in zip(shown, index.tolist(), strict=True):
    image_files.write(folder / name / f'{number:05d}.png', image)


def _sheets(
  config: ml_collections.ConfigDict,
  model: SR3,
  result: Evaluation,
  methods: dict[str, Restorer],
  held: HeldOut,
  folder: epath.Path,
  sheet: epath.Path,
) -> list[dict[str, Any]]:
  """Restores and writes the pictures of the report, and the first as one `sheet`."""
  whole = result.records.scalars(f'{config.method}/0')
  first = whole['index'][: config.sample.num_images].tolist()
  samples = config.sample.num_samples if methods[config.method].is_random else 1
  ranked = report_writer.ranked(whole)
  others = sorted({i for picks in ranked.values() for i in picks.values()} - set(first))
  pictures = folder / 'pictures'
  restore = lambda *what: restored(config, model, methods, held, *what)
  for numbers, count in ((first, samples), (others, 1)):
    for number, named in restore(numbers, count):
      if count > 1:
        named = report_writer.with_spread(named, config.method)
      for name, image in named.items():
        image_files.write(pictures / f'{number:05d}_{name}.png', image)
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
) -> dict[str, Any]:
  """All that a recorded value depends on."""
  whole = as_json(config)
  parts = {key: whole[key] for key in ('seed', 'task', 'data', 'sampler')}
  # Pictures are written as they are measured: asked for later, it is done again.
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
  made_by: dict[str, Any],
  evaluators: Evaluators,
) -> dict[str, Any]:
  """What somebody needs to measure the same again."""
  d = config.data
  size = config.eval.image_size or d.image_size
  local = d.source in sources.LOCAL
  name = epath.Path(d.eval_path or d.path).name if local else d.source
  settings = as_json(config.sampler)
  sampled = {n: m for n, m in methods.items() if m.is_random}
  samples = ', '.join(map(str, range(config.eval.num_seeds)))
  several = config.task.name == degradations.MIXTURE
  task = config.task.mixture[0] if several else config.task.name
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
  if name == 'regression':
    return 'The same network as a one-step predictor of the mean.'
  s = config.sampler
  kept = ', predictions consistent with the input' * method.model.consistency
  return f'{s.name}, {method.num_steps} steps, levels spaced by {s.spacing}{kept}.'


def reference_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """--mode=reference: statistics of the training images, in WORKDIR/reference.npz.

  Raises:
    sources.DataError, net_weights.WeightsMissing, reference.StatisticsError.
  """
  net = feature_nets.load('inception', config.eval.weights)
  whole = config.copy_and_resolve_references()
  whole.data.eval_path, whole.data.eval_split = config.data.path, config.data.split
  source, cut = held = held_out(whole)
  count = config.eval.reference_images or len(source)
  batches = evaluation_data(whole, count, held)
  size = cut['image_size']
  d = whole.data
  local = d.source in sources.LOCAL
  name = epath.Path(d.path).name if local else d.path or d.source
  about = {
    'source': f'{name} {d.split}',
    'size': f'{size} x {size}',
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
