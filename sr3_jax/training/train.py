"""Trains a model: one loop, from the newest checkpoint to the last step."""

import contextlib
import functools
import signal

import flax.traverse_util
import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core.perceptual import Distance
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import summary
from sr3_jax.images import contact_sheets, image_files
from sr3_jax.metrics import feature_nets
from sr3_jax.restoration.restorer import Restorer
from sr3_jax.runtime import (
  activity,
  atomic_files,
  errors,
  foreign_files,
  interruption,
  loggers,
  metrics_log,
)
from sr3_jax.runtime.progress import Progress
from sr3_jax.runtime.types import Params
from sr3_jax.training import monitor, preemption, strategies, teacher
from sr3_jax.training.train_step import TrainState, create_state, train_step
from sr3_jax.weights import checkpoint, hub


class TrainingError(errors.UserError):
  """Training can't go on."""


def regression_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Return the configuration of the paper's regression baseline for an experiment.

  It trains the same network to predict the image in one step, with squared error.
  """
  baseline = config.copy_and_resolve_references()
  baseline.method = 'regression'
  baseline.train.num_steps = config.regression_steps
  longest = config.regression_steps // 2
  baseline.train.decay_steps = min(config.train.decay_steps, longest)
  baseline.train.init_from = baseline.train.distill_from = ''  # of another task
  baseline.eval.every_steps = 0
  baseline.checkpoint.keep_best = ''  # there are no evaluations
  if config.log.name:
    baseline.log.name = f'{config.log.name} regression'
  return baseline


def train(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> TrainState:
  """Train from the newest checkpoint or from the start; return the last whole state.

  A run starts from random weights, or from those of `train.init_from` or
  `train.distill_from`. It writes config.json, checkpoints/, metrics.jsonl and, at
  evaluations, pictures. A run that was stopped at any moment and started again gives
  the same parameters, bit for bit, as one that was not.

  Raises:
    errors.UserError: the data, a checkpoint or the weights to start from can't be used.
    TrainingError: the loss is not finite.
    errors.Preempted: a signal came; everything is saved.
  """
  c = config.train
  workdir = epath.Path(workdir)
  model = SR3.from_config(config)
  with activity.doing('looking for the training images'):
    batches = input_pipeline.training_data(config)
  strategy = strategies.get_strategy(config.parallel.strategy)
  create = functools.partial(create_state, config, model, _perceptual(config, model))
  shapes = jax.eval_shape(create)
  main_process = jax.process_index() == 0

  with _manager(config, workdir) as manager:
    step = 0
    if manager.latest_step() is not None:
      wanted = strategy.abstract(shapes.saved())
      with activity.doing('reading the newest checkpoint'):
        step, saved = checkpoint.restore(manager, wanted, batches)
      state = shapes.replace(params=saved['params'], ema=saved['ema'])
      state = state.replace(step=np.int32(step), opt_state=saved['optimizer'])
      state = state.replace(teacher=None)
      if step >= c.num_steps:
        batches.close()
        logging.info('%s: already trained for %d steps', workdir, step)
        return strategy.fetch(strategy.place(state))
      logging.info('resuming from step %d', step)
      taught = teacher.weights(config, model, workdir, resumed=True)
      state = strategy.place(state.replace(teacher=taught))
    elif c.distill_from:
      params = teacher.weights(config, model, workdir)
      state = create().replace(params=params, ema=params, teacher=params)
      state = strategy.place(state)
      logging.info('starting from the teacher, the weights of %s', c.distill_from)
    elif c.init_from:
      with activity.doing(f'reading the weights of {c.init_from}'):
        _, params = hub.load_weights(c.init_from, model)
      state = strategy.place(create().replace(params=params, ema=params))
      logging.info('starting from the weights of %s', c.init_from)
    else:
      with activity.doing('making the first weights'):
        state = strategy.create(create)
    write_config(config, workdir)
    millions = sum(leaf.size for leaf in jax.tree.leaves(shapes.params)) / 1e6
    size = f'{millions:.2f}M parameters, {jax.device_count()} device(s)'
    first = 'compiling, the first step takes a while'
    logging.info('%s, %s; %s', model.method, size, first)
    if c.accumulate > 1 and jax.default_backend() == 'cpu':
      # XLA makes them into its fast convolutions only where they are not in a loop.
      logging.warning(
        'train.accumulate=%d: on a CPU, gradients of convolutions take ten times as '
        'long in parts; a smaller train.batch_size saves memory without that',
        c.accumulate,
      )
    last_saved, leaving = step, False
    compiled = strategy.compile(train_step)
    run_step = activity.first_call('compiling the training step', compiled)
    with (
      metrics_log.MetricsWriter(
        workdir,
        resume_step=step,
        settings=log_settings(config),
        enabled=main_process,
      ) as writer,
      Progress(
        c.num_steps, start=step, images_per_step=c.batch_size, enabled=main_process
      ) as progress,
      preemption.notices() as asked_to_go,
    ):
      watch = monitor.Monitor(workdir, c.profile)
      window: list[dict[str, jax.Array]] = []
      while step < c.num_steps:
        with watch.doing('input'):
          batch = strategy.shard(next(batches))
        if len(window) > 1:
          jax.block_until_ready(window[-2])  # one step runs, the next one waits
        state, metrics = run_step(state, batch)
        window.append(metrics)
        step += 1
        progress.update(step, loss=strategy.metrics(window[-2:][0]['loss']))
        watch.step(step)
        checkpoint.check(manager)

        leaving = asked_to_go(step)
        saving_due = step % config.checkpoint.every_steps == 0 or step == c.num_steps
        saving_due |= leaving
        # Also at every checkpoint, so that a resumed run averages over the same steps.
        if step % c.log_every == 0 or saving_due:
          values = jax.device_get(strategy.metrics(window))
          losses = np.array([v['loss'] for v in values], float)
          norms = np.array([v['grad_norm'] for v in values], float)
          _check_finite(losses, norms, step, last_saved, manager)
          writer.write(
            step,
            loss=losses.mean(),
            grad_norm=norms.mean(),
            images_per_second=progress.images_per_second,
            input_wait_seconds=watch.waited() / len(window),
          )
          window = []
        every, scores = config.eval.every_steps, None
        if every and step % every == 0 and step < c.num_steps and not leaving:
          with progress.pause(), watch.doing('evaluation'):
            ema = strategy.fetch(state.ema)
            scores = during_training(config, model, ema, step, workdir, writer)
        if saving_due:  # last, as nothing before a checkpoint is ever done again
          writer.flush()
          with watch.doing('save'):
            parts = strategy.saved(state.saved())
            checkpoint.save(manager, step, parts, batches, scores, strategy.stacked)
          last_saved = step
        if leaving:
          break
      watch.close(step)
    batches.close()
  # A signal may also have come after the last step.
  noted = interruption.noted()
  if leaving or (noted is not None and jax.process_count() == 1):
    number = signal.Signals(noted or signal.SIGTERM)
    raise errors.Preempted(
      f'stopped by {number.name}, saved at step {step}; the same command goes on from '
      'there',
      number,
    )
  return strategy.fetch(state.replace(teacher=None))


def _perceptual(config: ml_collections.ConfigDict, model: SR3) -> Distance | None:
  """Return the distance of images in the loss, if there is one: LPIPS with AlexNet.

  Raises:
    errors.UserError: its weights are not at hand.
  """
  if not model.perceptual or model.method == 'regression':
    return None
  net = feature_nets.load('lpips_alex', config.eval.weights)
  return functools.partial(net.apply, net.params)


def during_training(
  config: ml_collections.ConfigDict,
  model: SR3,
  ema: Params,
  step: int,
  workdir: epath.Path,
  writer: metrics_log.MetricsWriter,
) -> dict[str, float]:
  """Measure the averaged weights, `ema`, on a few fixed held-out images.

  A sheet of samples goes to WORKDIR/progress. Return each score's mean over the images.
  """
  batches = input_pipeline.evaluation_data(config, config.eval.num_images)
  methods = {model.method: Restorer(model, ema, config.seed)}
  result = evaluation_measure.evaluate(
    model, methods, batches, seed=config.seed, max_seconds=config.eval.max_seconds
  )
  batches.close()
  table = result.table()
  scores = table[model.method]
  writer.write(step, **{f'eval_{name}': value for name, value in scores.items()})
  if jax.process_index() == 0:
    columns = [c[: config.sample.num_images] for c in result.first.values()]
    sheet = contact_sheets.sheet(list(zip(*columns, strict=True)), list(result.first))
    image_files.write(workdir / 'progress' / f'{step:08d}.png', sheet)
    writer.write_image(step, 'samples', sheet)
    logging.info('step %d on held-out images:\n%s', step, summary.format_table(table))
  return {name: float(value) for name, value in scores.items()}


def _manager(
  config: ml_collections.ConfigDict, workdir: epath.Path
) -> contextlib.AbstractContextManager[checkpoint.Manager]:
  """Open the run's checkpoints with the retention that the configuration asks for."""
  c = config.checkpoint
  lower = bool(c.keep_best) and summary.METRICS[c.keep_best].better == 'lower'
  options = {'keep': c.keep, 'keep_every': c.keep_every, 'best': c.keep_best}
  return checkpoint.open_manager(workdir, **options, lower_is_better=lower)


def _check_finite(
  losses: np.ndarray,
  norms: np.ndarray,
  step: int,
  last_saved: int,
  manager: checkpoint.Manager,
) -> None:
  """Raise TrainingError if a loss or gradient is not finite: it would stay so."""
  bad = ~(np.isfinite(losses) & np.isfinite(norms))
  if not bad.any():
    return
  manager.wait_until_finished()
  at = step - len(losses) + 1 + int(np.argmax(bad))
  good = f'the checkpoint of step {last_saved} is good'
  saved = good if last_saved else 'nothing saved'
  raise TrainingError(
    f'loss or gradient is not finite at step {at}; {saved}. Likely causes: a learning '
    'rate too high or a warm-up too short (train.learning_rate, train.warmup_steps), '
    'clipping switched off (train.clip_norm), or bfloat16 (model.dtype=float32)'
  )


def log_settings(config: ml_collections.ConfigDict) -> loggers.Settings:
  """Return what a configuration says of the loggers of a run."""
  c = config.log
  writers = set(c.writers) | ({'tensorboard'} if config.train.tensorboard else set())
  ordered = tuple(sorted(writers))
  return loggers.Settings(ordered, c.project, c.entity, c.name, as_json(config))


def write_config(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
  """Write config.json; log what changed since the run was started."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  new = as_json(config)
  written = {}
  if foreign_files.exists(path):
    try:
      written = foreign_files.read_json(path)
    except errors.UserError as error:
      logging.warning('%s; it is written anew', error)
  if written:
    old, now = (flax.traverse_util.flatten_dict(c, sep='.') for c in (written, new))
    for name in sorted(old.keys() | now.keys()):
      before, after = old.get(name), now.get(name)
      if before != after:
        logging.warning('config.%s was %s, is now %s', name, before, after)
  workdir.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(path, new)
