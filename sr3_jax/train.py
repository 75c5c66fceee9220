"""Training: the state, the step, and a loop that reads top to bottom."""

import functools
import json
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import logging
from etils import epath

from sr3_jax import (
  checkpoint,
  data,
  drawings,
  evaluation,
  hub,
  images,
  logs,
  parallel,
  sources,
  summary,
)
from sr3_jax.config import as_json
from sr3_jax.restorer import Restorer
from sr3_jax.sr3 import SR3


class TrainingError(ValueError):
  """One line: why training stopped, and what to do."""


class TrainState(flax.struct.PyTreeNode):
  """Everything that changes in training, and what is needed to change it.

  Nothing random is in it: the key of a step is a function of (seed, step).
  """

  step: jax.Array  # int32, updates done
  params: Any
  ema: Any  # running average of params: what sampling and evaluation use
  opt_state: Any
  model: SR3 = flax.struct.field(pytree_node=False)
  tx: optax.GradientTransformation = flax.struct.field(pytree_node=False)
  seed: int = flax.struct.field(pytree_node=False)
  ema_decay: float = flax.struct.field(pytree_node=False)
  accumulate: int = flax.struct.field(pytree_node=False)

  def saved(self) -> dict[str, Any]:
    """The parts that a checkpoint holds."""
    return {'params': self.params, 'ema': self.ema, 'optimizer': self.opt_state}


def make_optimizer(c: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam with warm-up, then constant; optionally clipping and a decay at the end."""
  warmup = max(c.warmup_steps, 1)  # the first step already moves
  rate = optax.linear_schedule(c.learning_rate / warmup, c.learning_rate, warmup - 1)
  if c.decay_steps:
    decay = optax.cosine_decay_schedule(c.learning_rate, c.decay_steps)
    rate = optax.join_schedules([rate, decay], [c.num_steps - c.decay_steps])
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  return optax.chain(clip, optax.adam(rate))


def create_state(config: ml_collections.ConfigDict, model: SR3) -> TrainState:
  """The state before the first step."""
  params = model.init(jax.random.key(config.seed))
  tx = make_optimizer(config.train)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema=jax.tree.map(jnp.copy, params),  # its own buffers: the state is donated
    opt_state=tx.init(params),
    model=model,
    tx=tx,
    seed=config.seed,
    ema_decay=config.train.ema_decay,
    accumulate=config.train.accumulate,
  )


def train_step(
  state: TrainState, batch: dict[str, jax.Array], *, axis_name: str | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update: a pure function.

  Args:
    state: before the step.
    batch: 'image', [B, H, W, C] as stored (this device's part), and 'label' if any.
    axis_name: mapped axis of the devices, whose gradients are averaged; None for one.

  Returns:
    The state after the step; 'loss' and 'grad_norm' (before clipping), scalars.
  """
  size = batch['image'].shape[0]
  first = jax.lax.axis_index(axis_name) * size if axis_name else 0
  key = jax.random.fold_in(jax.random.key(state.seed), state.step)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))

  gradient = jax.value_and_grad(state.model.loss)
  if state.accumulate > 1:
    gradient = optax.microbatch(
      gradient,
      argnums=(1, 2),
      microbatch_size=size // state.accumulate,
      accumulator=optax.microbatching.AccumulationType.MEAN,
    )
  loss, grads = gradient(state.params, keys, batch)
  if axis_name:
    loss, grads = jax.lax.pmean((loss, grads), axis_name)

  updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  # At most a ninth of the training so far is averaged: the first step copies, so that
  # the random initial weights leave no trace, and short runs are not all beginning.
  decay = jnp.minimum(state.ema_decay, state.step / (state.step + 9))
  ema = optax.incremental_update(params, state.ema, 1.0 - decay)
  state = state.replace(
    step=state.step + 1, params=params, ema=ema, opt_state=opt_state
  )
  return state, {'loss': loss, 'grad_norm': optax.tree.norm(grads)}


def training_data(config: ml_collections.ConfigDict) -> data.Batches:
  """This process's share of the training batches."""
  d = config.data
  cut = data.Cut(d.image_size, d.crop, reduce=tuple(d.reduce))
  source = sources.make_source(
    d.source,
    path=d.path,
    split=d.split,
    data_dir=d.data_dir or None,
    min_size=cut.min_size,
    channels=d.channels,
    ranged=len(d.low) > 0,
  )
  logging.info('training images: %d (%s)', len(source), d.path or d.source)
  sources.check_classes(source, config.model.num_classes)
  return data.train_batches(
    source,
    batch_size=parallel.per_process(config.train.batch_size),
    image_size=d.image_size,
    crop=d.crop,
    flip=d.flip,
    rotate=d.rotate,
    reduce=tuple(d.reduce),
    seed=config.seed,
    workers=d.workers,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def regression_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The paper's baseline for this experiment: same network, one step, squared error."""
  baseline = config.copy_and_resolve_references()
  baseline.method = 'regression'
  baseline.train.num_steps = config.regression_steps
  baseline.train.decay_steps = min(
    config.train.decay_steps, config.regression_steps // 2
  )
  baseline.train.init_from = ''  # weights of another task
  baseline.eval.every_steps = 0
  return baseline


def train(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> TrainState:
  """Trains from the newest checkpoint in `workdir`, or from the start, to the end.

  The start is random weights or those of `train.init_from`.

  Writes config.json, checkpoints/, metrics.jsonl and, at evaluations, pictures. A run
  that was stopped at any moment and started again gives the same parameters, bit for
  bit, as one that was not.

  Returns:
    The final state, unreplicated.

  Raises:
    TrainingError: the loss is not finite, or the finished run can't go on.
    sources.DataError, checkpoint.CheckpointError, hub.HubError: as they say.
  """
  c = config.train
  workdir = epath.Path(workdir)
  model = SR3.from_config(config)
  batches = training_data(config)
  state = create_state(config, model)
  num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  main_process = jax.process_index() == 0

  with checkpoint.open_manager(workdir, keep=config.checkpoint.keep) as manager:
    step = 0
    if manager.latest_step() is not None:
      step, saved = checkpoint.restore(manager, state.saved(), batches)
      state = state.replace(
        step=jnp.asarray(step, jnp.int32),
        params=saved['params'],
        ema=saved['ema'],
        opt_state=saved['optimizer'],
      )
      if step >= c.num_steps:
        batches.close()
        logging.info('%s: already trained for %d steps', workdir, step)
        return state
      logging.info('resuming from step %d', step)
    elif c.init_from:
      _, params = hub.load_weights(c.init_from, model)
      state = state.replace(params=params, ema=params)
      logging.info('starting from the weights of %s', c.init_from)
    write_config(config, workdir)
    logging.info(
      '%s, %.2fM parameters, %d device(s); compiling, the first step takes a while',
      model.method,
      num_params / 1e6,
      jax.device_count(),
    )
    last_saved = step
    state = parallel.replicate(state)
    run_step = parallel.pmap(
      functools.partial(train_step, axis_name=parallel.AXIS), donate_argnums=(0,)
    )
    with (
      logs.MetricsWriter(
        workdir, resume_step=step, tensorboard=c.tensorboard, enabled=main_process
      ) as writer,
      logs.Progress(
        c.num_steps,
        start=step,
        images_per_step=c.batch_size,
        enabled=main_process,
      ) as progress,
    ):
      window: list[dict[str, jax.Array]] = []
      waited = 0.0
      while step < c.num_steps:
        began = time.monotonic()
        batch = parallel.shard(next(batches))
        waited += time.monotonic() - began
        if len(window) > 1:
          jax.block_until_ready(window[-2])  # one step runs, the next one waits
        state, metrics = run_step(state, batch)
        window.append(metrics)
        step += 1
        progress.update(step, loss=parallel.unreplicate(window[-2:][0]['loss']))

        saving_due = step % config.checkpoint.every_steps == 0 or step == c.num_steps
        # At every checkpoint too: a resumed run then means over the same steps.
        if step % c.log_every == 0 or saving_due:
          losses, norms = _fetch(window)
          _check_finite(losses, norms, step, last_saved, manager)
          writer.write(
            step,
            loss=losses.mean(),
            grad_norm=norms.mean(),
            images_per_second=progress.images_per_second,
            input_wait_seconds=waited / len(window),
          )
          window, waited = [], 0.0
        every = config.eval.every_steps
        if every and step % every == 0 and step < c.num_steps:
          with progress.pause():
            during_training(config, model, state, step, workdir, writer)
        if saving_due:  # last: what a checkpoint lies behind is never done again
          writer.flush()
          checkpoint.save(manager, step, parallel.unreplicate(state.saved()), batches)
          last_saved = step
    batches.close()
  return parallel.unreplicate(state)


def during_training(
  config: ml_collections.ConfigDict,
  model: SR3,
  state: TrainState,
  step: int,
  workdir: epath.Path,
  writer: logs.MetricsWriter,
) -> None:
  """A quick look at the averaged weights on a few fixed held-out images."""
  ema = parallel.unreplicate(state.ema)
  batches = evaluation.evaluation_data(config, config.eval.num_images)
  result = evaluation.evaluate(
    model,
    {model.method: Restorer(model, ema, config.seed)},
    batches,
    seed=config.seed,
    max_seconds=config.eval.max_seconds,
  )
  batches.close()
  table = result.table()
  scores = table[model.method]
  writer.write(step, **{f'eval_{name}': value for name, value in scores.items()})
  if jax.process_index() == 0:
    columns = [c[: config.sample.num_images] for c in result.first.values()]
    sheet = drawings.sheet(list(zip(*columns, strict=True)), list(result.first))
    images.write(workdir / 'progress' / f'{step:08d}.png', sheet)
    writer.write_image(step, 'samples', sheet)
    logging.info('step %d on held-out images:\n%s', step, summary.format_table(table))


def _fetch(window: list[dict[str, jax.Array]]) -> tuple[np.ndarray, np.ndarray]:
  """Losses and gradient norms of the last steps, as float64 arrays."""
  values = jax.device_get([parallel.unreplicate(m) for m in window])
  return tuple(np.array([v[k] for v in values], float) for k in ('loss', 'grad_norm'))


def _check_finite(losses, norms, step, last_saved, manager) -> None:
  """Stops before a broken state is saved: what isn't finite stays so."""
  bad = ~(np.isfinite(losses) & np.isfinite(norms))
  if not bad.any():
    return
  manager.wait_until_finished()
  at = step - len(losses) + 1 + int(np.argmax(bad))
  kept = (
    f'the checkpoint of step {last_saved} is good' if last_saved else 'nothing saved'
  )
  raise TrainingError(
    f'loss or gradient is not finite at step {at}; {kept}. Likely causes: a learning '
    'rate too high or a warm-up too short (train.learning_rate, train.warmup_steps), '
    'clipping switched off (train.clip_norm), or bfloat16 (model.dtype=float32)'
  )


def write_config(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
  """Writes config.json; names what changed since the run was started."""
  if jax.process_index():
    return
  path = workdir / 'config.json'
  new = as_json(config)
  if path.exists():
    old, now = _flatten(json.loads(path.read_text())), _flatten(new)
    for name in sorted(old.keys() | now.keys()):
      if old.get(name) != now.get(name):
        logging.warning(
          'config.%s was %s, is now %s', name, old.get(name), now.get(name)
        )
  workdir.mkdir(parents=True, exist_ok=True)
  logs.write_json(path, new)


def _flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat |= _flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat
