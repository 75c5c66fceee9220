"""Trains a run and measures it: `--mode=train`."""

import contextlib
import math
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.core import distillation
from sr3_jax.core.check import check_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.run import check_evaluation, evaluate_run
from sr3_jax.images import image_files
from sr3_jax.runtime import activity, devices, foreign_files, loggers
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.training import teacher, train
from sr3_jax.weights import hub


def train_run(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Train, or resume, the baseline and the model of a configuration; then evaluate.

  With `regression_steps` the regression baseline is trained first, in
  WORKDIR/regression. A run that is finished prints its table and does nothing else.

  Raises:
    UserError: the configuration, the data or a checkpoint can't be used.
    errors.Preempted: a signal came; everything is saved.
  """
  workdir = epath.Path(workdir)
  check_training(config)
  if results := finished(config, workdir):
    print(f'{workdir}: finished, {results["step"]} steps; nothing left to do')
    print(summary.format_table(results['table']))
    return
  # A mistake there must not come to light when the training is over.
  with activity.doing('reading what the evaluation needs'):
    check_evaluation(config)
  if config.regression_steps and config.method != 'regression':
    # The same for the weights that the second training starts from.
    model = SR3.from_config(config)
    if config.train.distill_from and not hub.is_run(workdir):
      teacher.load(config, model)
    elif config.train.init_from and not hub.is_run(workdir):
      hub.load_weights(config.train.init_from, model)
    train.train(train.regression_config(config), workdir / 'regression')
  train.train(config, workdir)
  log_results(config, workdir, evaluate_run(config, workdir))


def check_training(config: ConfigDict) -> None:
  """Raise UserError for what can't be trained, before anything expensive begins."""
  check_config(config)
  if config.diffusion.learned_variance:
    raise UserError(
      'diffusion.learned_variance=True: a network that gives its own variance can '
      'upscale and be evaluated, but not be trained here; train one with '
      'diffusion.learned_variance=False'
    )
  if config.train.distill_from:
    distillation.halving(config, SR3.from_config(config).gammas)
  loggers.check(train.log_settings(config).writers)
  parts = config.train.accumulate
  devices.per_process(config.train.batch_size, parts, key='train.batch_size')


def log_results(config: ConfigDict, workdir: epath.Path, table: summary.Means) -> None:
  """Hand the figures and samples of the final evaluation to the loggers."""
  settings = train.log_settings(config)
  if jax.process_index() or not settings.writers:
    return
  step = config.train.num_steps
  found = table.get(config.method, {}).items()
  values = {f'final_{k}': float(v) for k, v in found if v is not None}
  with contextlib.closing(loggers.Loggers(workdir, settings, step)) as writers:
    # Weights & Biases takes no step twice, and it has the last one from training.
    writers.scalars(step + 1, {k: v for k, v in values.items() if math.isfinite(v)})
    if (sheet := workdir / 'samples.png').exists():
      writers.image(step + 1, 'final_samples', image_files.read(sheet))


def finished(config: ConfigDict, workdir: epath.PathLike) -> dict[str, Any] | None:
  """Return results.json if it is of this configuration's whole run; else None."""
  path = epath.Path(workdir) / 'results.json'
  if not foreign_files.exists(path):
    return None
  wanted, what = {'step': int, 'config': dict, 'table': dict}, 'the results of a run'
  try:
    with foreign_files.explained(path, what):
      results = foreign_files.read_json(path, wanted, what=what)
      foreign_files.check_numbers(results['table'])
  except UserError as error:
    logging.warning('%s; the run is measured again', line(error))
    return None
  whole = results['step'] == config.train.num_steps
  return results if whole and results['config'] == as_json(config) else None
