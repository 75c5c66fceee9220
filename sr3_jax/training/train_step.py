"""Computes one step of training, a pure function of the state and a batch."""

import functools
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import optax

from sr3_jax.core import distillation
from sr3_jax.core.perceptual import Distance
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime.types import Params

# (params, step, batch, teacher) -> (loss, its gradient)
Gradients = Callable[..., tuple[jax.Array, Params]]
# Folded into the seed first. `restorer.keys` folds the number of a sample there, which
# is small: without this, step 0 would train on the noise that evaluation samples with.
_TRAINING = 2**31 - 1


class TrainState(flax.struct.PyTreeNode):
  """Holds all that training changes, and what it needs to change it.

  There is no random key in it: the key of a step is a function of (seed, step).
  """

  step: jax.Array  # int32, number of updates done
  params: Params
  ema: Params  # running average of params: what sampling and evaluation use
  opt_state: optax.OptState
  model: SR3 = flax.struct.field(pytree_node=False)
  tx: optax.GradientTransformation = flax.struct.field(pytree_node=False)
  seed: int = flax.struct.field(pytree_node=False)
  ema_decay: float = flax.struct.field(pytree_node=False)
  accumulate: int = flax.struct.field(pytree_node=False)
  perceptual: Distance | None = flax.struct.field(pytree_node=False, default=None)
  # Weights of `train.distill_from`: they never change, and no checkpoint has them.
  teacher: 'Params | None' = None
  halving: distillation.Halving | None = flax.struct.field(
    pytree_node=False, default=None
  )

  def saved(self) -> dict[str, Params | optax.OptState]:
    """Return the parts that a checkpoint holds."""
    return {'params': self.params, 'ema': self.ema, 'optimizer': self.opt_state}


def make_optimizer(c: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Make the optimizer of `config.train`: a warm-up, then a constant rate.

  It is Adam (section 2.4), or Muon (https://kellerjordan.github.io/posts/muon) for
  kernels of convolutions and matrices, with updates as large as Adam's
  (arXiv:2502.16982), and Adam for the rest. `clip_norm` adds clipping, `decay_steps` a
  cosine decay at the end.
  """
  warmup = max(c.warmup_steps, 1)  # the first step already moves
  rate = optax.linear_schedule(c.learning_rate / warmup, c.learning_rate, warmup - 1)
  if c.decay_steps:
    decay = optax.cosine_decay_schedule(c.learning_rate, c.decay_steps)
    rate = optax.join_schedules([rate, decay], [c.num_steps - c.decay_steps])
  clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
  return optax.chain(clip, OPTIMIZERS[c.optimizer](rate))


def _muon(rate: optax.Schedule) -> optax.GradientTransformation:
  """Return Muon for arrays of two axes and more, Adam for the rest."""
  from optax import contrib  # few trainings use it

  def dimensions(params: Params) -> Params:
    def of(leaf: jax.Array) -> contrib.MuonDimensionNumbers | None:
      if leaf.ndim < 2:
        return None
      return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,))

    return jax.tree.map(of, params)

  return contrib.muon(
    rate,
    # Optax's annotation knows no function that returns a tree of them.
    muon_weight_dimension_numbers=dimensions,  # pyrefly: ignore[bad-argument-type]
    consistent_rms=0.2,  # the usual root mean square of Adam's updates
  )


OPTIMIZERS = {'adam': optax.adam, 'muon': _muon}


def create_state(
  config: ml_collections.ConfigDict, model: SR3, perceptual: Distance | None = None
) -> TrainState:
  """Make the state before the first step: random weights, and their average equal.

  `perceptual` is the distance of images that `SR3.loss` takes. A teacher has weights of
  its shapes, random as well.
  """
  params = model.init(jax.random.key(config.seed))
  teacher = halving = None
  if config.train.distill_from:
    halving = distillation.halving(config, model.gammas)
    teacher = jax.tree.map(jnp.copy, params)
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
    perceptual=perceptual,
    teacher=teacher,
    halving=halving,
  )


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  axis_name: str | None = None,
  spread: Callable[[Gradients], Gradients] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Update the parameters, their average and the optimizer once.

  Args:
    state: before the step.
    batch: this device's part: 'image' [B, H, W, C] as stored, and 'label' [B] if any.
    axis_name: mapped axis of the devices over which gradients are averaged; None for
      one device.
    spread: where nothing is mapped, turns the gradients of one device's part of a batch
      into those of the whole batch (`strategies.Sharded`).

  Returns:
    The state after the step; 'loss' and 'grad_norm' (before clipping), scalars.
  """
  options = {'perceptual': state.perceptual, 'halving': state.halving}
  part_gradients = functools.partial(
    gradients, state.model, state.seed, state.accumulate, **options
  )
  arguments = state.params, state.step, batch, state.teacher
  if spread:
    loss, grads = spread(part_gradients)(*arguments)
  else:
    loss, grads = part_gradients(*arguments, axis_name=axis_name)
  if axis_name:
    loss, grads = jax.lax.pmean((loss, grads), axis_name)

  updates, opt_state = state.tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  # The average reaches back over at most a ninth of the steps so far. So the first step
  # copies, random initial weights leave no trace, and short runs are averaged over
  # their end and not their beginning.
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
  params: Params,
  step: jax.Array,
  batch: dict[str, jax.Array],
  teacher: 'Params | None' = None,
  *,
  axis_name: str | Sequence[str] | None = None,
  gather: Callable[[Params], Params] = lambda params: params,
  perceptual: Distance | None = None,
  halving: distillation.Halving | None = None,
) -> tuple[jax.Array, Params]:
  """Return the loss of this device's part of a batch, and its gradient.

  All noise is a function of `seed`, `step` and the place in the batch, which the axes
  of the devices, `axis_name`, give. To save memory, `accumulate` parts are done one
  after the other. `gather` makes whole parameters of those that the device has.
  `teacher` are parameters, too, from which the steps `halving` are learned.
  """
  size = batch['image'].shape[0]
  first = jax.lax.axis_index(axis_name) * size if axis_name else 0
  keys = example_keys(seed, step, first + jnp.arange(size))
  taught: dict[str, distillation.Teacher] = {}
  if teacher is not None and halving is not None:
    taught['teacher'] = distillation.Teacher(gather(teacher), halving)

  def loss(params, keys, batch):
    return model.loss(gather(params), keys, batch, perceptual, **taught)

  gradient = jax.value_and_grad(loss)
  if accumulate > 1:
    gradient = optax.microbatch(
      gradient,
      argnums=(1, 2),
      microbatch_size=size // accumulate,
      accumulator=optax.microbatching.AccumulationType.MEAN,
    )
  return gradient(params, keys, batch)


def example_keys(seed: int, step: int | jax.Array, place: jax.Array) -> jax.Array:
  """Return the keys [B] of the examples at `place` [B] in the batch of a step."""
  key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _TRAINING), step)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, place)
