"""One step of training, a pure function of the state and a batch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from sr3_jax.core.sr3 import SR3

# (params, step, batch) -> (loss, their gradient)
Gradients = Callable[..., tuple[jax.Array, Any]]


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
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  axis_name: str | None = None,
  spread: Callable[[Gradients], Gradients] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One update: a pure function.

  Args:
    state: before the step.
    batch: 'image', [B, H, W, C] as stored (this device's part), and 'label' if any.
    axis_name: mapped axis of the devices, whose gradients are averaged; None for one.
    spread: where nothing is mapped, turns the gradients of one device's part of a batch
      into those of all of it (`strategies.Sharded`).

  Returns:
    The state after the step; 'loss' and 'grad_norm' (before clipping), scalars.
  """
  of_part = functools.partial(gradients, state.model, state.seed, state.accumulate)
  if spread:
    loss, grads = spread(of_part)(state.params, state.step, batch)
  else:
    loss, grads = of_part(state.params, state.step, batch, axis_name=axis_name)
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


def gradients(
  model: SR3,
  seed: int,
  accumulate: int,
  params: Any,
  step: jax.Array,
  batch: dict[str, jax.Array],
  *,
  axis_name: str | Sequence[str] | None = None,
  gather: Callable[[Any], Any] = lambda params: params,
) -> tuple[jax.Array, Any]:
  """Loss of a part of a batch, and its gradient.

  Args:
    model: the model.
    seed: fixes, with the step and the place in the batch, all that is random.
    accumulate: parts that are done one after the other, to save memory.
    params: as the device has them.
    step: updates done.
    batch: as of `train_step`.
    axis_name: axes of the devices, which tell the place of this part.
    gather: makes whole parameters of what the device has.
  """
  size = batch['image'].shape[0]
  first = jax.lax.axis_index(axis_name) * size if axis_name else 0
  key = jax.random.fold_in(jax.random.key(seed), step)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))
  loss = lambda params, keys, batch: model.loss(gather(params), keys, batch)
  gradient = jax.value_and_grad(loss)
  if accumulate > 1:
    gradient = optax.microbatch(
      gradient,
      argnums=(1, 2),
      microbatch_size=size // accumulate,
      accumulator=optax.microbatching.AccumulationType.MEAN,
    )
  return gradient(params, keys, batch)
