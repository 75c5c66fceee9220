"""Evaluates a run: `--mode=eval` and `--mode=reference`."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.core import degradations
from sr3_jax.core.check import check_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.data.input_pipeline import HeldOut, evaluation_data, held_out
from sr3_jax.evaluation import places, records, report_writer, summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.measure import NONE_READ, Evaluation, evaluate, restored
from sr3_jax.evaluation.records import open_records
from sr3_jax.images import image_files, pair_grid
from sr3_jax.metrics import bootstrap, classifier, feature_nets, reference_statistics
from sr3_jax.metrics.feature_nets import LeftOut
from sr3_jax.reports.data import Sheet
from sr3_jax.restoration import restorer
from sr3_jax.restoration.restorer import TRUTH, Restorer, load_methods, progress
from sr3_jax.runtime import activity, atomic_files, devices
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub


class Run(NamedTuple):
  """A run that is measured."""

  workdir: epath.Path
  place: epath.Path  # where the evaluation is written
  step: int  # of its weights
  methods: dict[str, Restorer]  # the run's model, its regression baseline if any
  hashes: dict[str, str]  # of the weights of each method
  held: HeldOut  # the held-out images
  evaluators: Evaluators


def evaluate_run(config: ConfigDict, workdir: epath.PathLike) -> summary.Means:
  """Do --mode=eval: write report/, results.json and samples.png; return the table.

  They are in the workdir for the run's own settings, else in `places.place`. A model
  of several tasks has a report for each, report/TASK/, and a row of the table
  for each task and method.

  Raises:
    UserError: images, weights, statistics or a classifier that cannot be used.
  """
  check_config(config)
  workdir = epath.Path(workdir)
  with activity.doing('reading the weights'):
    loaded = load_methods(config, workdir)
  evaluators = load_evaluators(config)
  with activity.doing('looking for the held-out images'):
    held = held_out(config)
  place = places.place(config, workdir)
  run = Run(workdir, place, *loaded, held, evaluators)
  if config.task.name != degradations.MIXTURE:
    table = _evaluate(config, run, place / 'report')
  else:
    table = {}
    for task in dict.fromkeys(config.task.mixture):
      single = config.copy_and_resolve_references()
      single.task.mixture = (task,)
      rows = _evaluate(single, run, place / 'report' / task)
      table |= {f'{task} {name}': row for name, row in rows.items()}
    if jax.process_index() == 0:
      print(summary.format_table(table))
  if jax.process_index() == 0:
    results = {'step': run.step, 'table': table, 'config': as_json(config)}
    atomic_files.write_json(place / 'results.json', results)
  return table


def check_evaluation(config: ConfigDict) -> None:
  """Read what the evaluation at the end of a training needs, before it begins.

  Raises:
    UserError: statistics, a classifier, a baseline or images that cannot be used.
  """
  e = config.eval
  if e.reference:
    reference_statistics.load(e.reference)
  if e.classifier:
    classifier.load(e.classifier)
  if e.regression and config.method != 'regression':
    baseline = config.copy_and_resolve_references()
    baseline.method = 'regression'
    hub.load_weights(e.regression, SR3.from_config(baseline))
  # Which of several processes has an image that can be read is known later.
  if jax.process_count() == 1:
    batches = evaluation_data(config, min(e.final_images, e.batch_size))
    if not any(batch['mask'].any() for batch in batches):
      raise sources.DataError(NONE_READ)
    batches.close()


def _evaluate(config: ConfigDict, run: Run, folder: epath.Path) -> summary.Means:
  """Evaluate one task: write `folder` and a sheet of samples; return the table."""
  # The programs are those of the run's model, whatever the task is.
  task = degradations.make(config.task.name, config.task)
  model = dataclasses.replace(run.methods[config.method].model, task=task)
  result = _measure(config, model, run, folder)
  devices.barrier('measured')
  with activity.doing('computing distances of sets and intervals'):
    rows = report_writer.table(
      result.records, result.methods, result.scale, run.evaluators
    )
  several = config.task.name == degradations.MIXTURE
  name = config.task.mixture[0] if several else config.task.name
  sheet = run.place / (f'samples_{name}.png' if several else 'samples.png')
  with activity.doing('restoring the pictures of the report'):
    sheets = _sheets(config, model, result, run, folder, sheet)
  devices.barrier('pictures')
  if config.eval.save_images and jax.process_index() == 0:
    truth = result.records.scalars(TRUTH)['index'], result.records.photographs(TRUTH)
    lines = ''.join(f'{i:05d} {photo}\n' for i, photo in zip(*truth, strict=True))
    atomic_files.write_text(folder / 'images' / 'photographs.txt', lines)
  counts = {'images': result.count(), 'photographs': result.photographs()}
  table = {n: row | counts for n, row in summary.values(rows).items()}
  if jax.process_index() == 0:
    report_writer.write(
      folder,
      title=f'{run.workdir.name}, {name}, step {run.step}',
      records=result.records,
      methods=result.methods,
      scale=result.scale,
      rows=rows,
      sheets=sheets,
      left_out=[*run.evaluators.left_out, *_not_known(model)],
      protocol=_protocol(config, name, model, result, run),
      abouts={n: _about(n, m, config) for n, m in run.methods.items()},
      curves=report_writer.curves(run.workdir),
      image_size=None if model.task.paired else _side(config),
    )
    logging.info(
      '%s, %s, step %d:', name, bootstrap.counted(*counts.values()), run.step
    )
    print(summary.format_table(table))
    print(bootstrap.about(*counts.values()))
    print(f'report: {folder / "report.html"}, pictures: {sheet}')
  return table


def _side(config: ConfigDict) -> int:
  """Return the side of the held-out crops in pixels."""
  return config.eval.image_size or config.data.image_size


def _not_known(model: SR3) -> list[LeftOut]:
  """Return the metrics that are missing because the inputs come from files."""
  if not model.task.paired:
    return []
  why = 'Inputs come from files: what made them is not known, so outputs have none.'
  found: list[LeftOut] = [{'metrics': ['consistency', 'colour_drift'], 'why': why}]
  if not restorer.baselines(model):
    channels = f'{model.input_channels} and {model.channels} channels'
    why = f'Inputs and outputs, of {channels}, cannot be compared.'
    found.append({'metrics': ['inputs as a baseline'], 'why': why})
  return found


def _measure(
  config: ConfigDict, model: SR3, run: Run, folder: epath.Path
) -> Evaluation:
  """Measure all held-out images, or what earlier starts have left of them."""
  e, methods = config.eval, run.methods
  batches = evaluation_data(config, e.final_images, run.held)
  steps = sum(
    m.num_steps * (e.num_seeds if m.is_random else 1) for m in methods.values()
  )
  save = functools.partial(save_images, folder / 'images')
  with progress(batches.num_batches * steps) as on_steps:
    result = evaluate(
      model,
      methods,
      batches,
      seed=config.seed,
      scorer=run.evaluators.scorer(e.border),
      records=open_records(folder / 'records', _made_by(config, run)),
      num_seeds=e.num_seeds,
      on_steps=on_steps,
      on_output=save if e.save_images else None,
      name_of=batches.image_name,
    )
  batches.close()
  return result


def save_images(
  folder: epath.Path, name: str, shown: np.ndarray, index: np.ndarray
) -> None:
  """Write uint8 [n, H, W, 3] as FOLDER/NAME/00012.png and so on, for sr3-study."""
  for image, number in zip(shown, index.tolist(), strict=True):
    image_files.write(folder / name / f'{number:05d}.png', image)


def _sheets(
  config: ConfigDict,
  model: SR3,
  result: Evaluation,
  run: Run,
  folder: epath.Path,
  sheet: epath.Path,
) -> list[Sheet]:
  """Restore and write the pictures of the report, and the first as one `sheet`."""
  main, methods = config.method, run.methods
  whole = result.records.scalars(f'{main}/0')
  first = whole['index'][: config.sample.num_images].tolist()
  samples = config.sample.num_samples if methods[main].is_random else 1
  ranked = report_writer.ranked(whole)
  others = sorted({i for picks in ranked.values() for i in picks.values()} - set(first))
  for numbers, count in ((first, samples), (others, 1)):
    for number, named in restored(config, model, methods, run.held, numbers, count):
      if count > 1:
        named = report_writer.with_spread(named, main)
      for name, image in named.items():
        image_files.write(folder / 'pictures' / f'{number:05d}_{name}.png', image)
  devices.barrier('restored')
  names, conditional = list(result.methods), model.task.conditional
  there = {'inputs': conditional, 'truth': conditional}
  sheets = report_writer.sheets(first, ranked, names, main, samples, whole, **there)
  if jax.process_index() == 0:
    image_files.write(sheet, report_writer.contact_sheet(folder, sheets[0]))
  return sheets


def _made_by(config: ConfigDict, run: Run) -> dict[str, object]:
  """Return all that a recorded value depends on."""
  whole = as_json(config)
  parts = {key: whole[key] for key in ('seed', 'task', 'data', 'sampler')}
  # Pictures are written while images are measured, so those that are asked for later
  # have to be measured again.
  keys = ('image_size', 'final_images', 'order', 'border', 'save_images')
  return parts | {
    'eval': {key: whole['eval'][key] for key in keys},
    'images': sources.fingerprint(run.held.source),
    'weights': run.hashes,
    **run.evaluators.fingerprints(),
    'records': records.VERSION,
    'sr3_jax': __version__,
  }


def _protocol(
  config: ConfigDict, task: str, model: SR3, result: Evaluation, run: Run
) -> dict[str, object]:
  """Return what somebody needs to measure the same again."""
  d = config.data
  size = _side(config)
  given = size // model.scale
  local = sources.is_local(d.source, d.eval_path or d.path)
  name = epath.Path(d.eval_path or d.path).name if local else d.source
  if model.task.paired:
    given = pair_grid.input_side(size, model.task.ratio)
    folder = epath.Path(d.eval_input_path or d.input_path).name
    name += f', inputs {d.input_column or folder}'
  settings = as_json(config.sampler)
  sampled = {n: m for n, m in run.methods.items() if m.is_random}
  samples = ', '.join(map(str, range(config.eval.num_seeds)))
  images = bootstrap.counted(result.count(), result.photographs())
  return {
    'task': f'{task}, {given} to {size}',
    'degradation': degradations.describe(task, config.task),
    'images': f'{images} of {name} ({config.eval.order}), {size} x {size}, '
    f'crop {d.crop!r}, area by {d.area}',
    'image list': report_writer.list_hash(result.records),
    **report_writer.conventions(d.channels, raw=d.channels != 3 or bool(d.low)),
    'border': f'{config.eval.border} pixels left out by PSNR and SSIM',
    'weights': run.hashes,
    'sampler': {n: settings | {'num_steps': m.num_steps} for n, m in sampled.items()},
    'seeds': f'{config.seed}, samples {samples}',
    **run.evaluators.protocol(),
    'machine': report_writer.machine(),
    'configuration': as_json(hub.publishable(config)),
  }


def _about(name: str, method: Restorer, config: ConfigDict) -> str:
  """Return a sentence about a method."""
  if name == 'regression':
    return 'The same network as a one-step predictor of the mean.'
  s = config.sampler
  about = f'{s.name}, {method.num_steps} steps, levels spaced by {s.spacing}'
  if method.model.consistency:
    about += ', predictions consistent with the input'
  return f'{about}.'


def reference_run(config: ConfigDict, workdir: epath.PathLike) -> None:
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
  local = sources.is_local(d.source, d.path)
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
