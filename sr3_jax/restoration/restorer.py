"""A model's restoration of batches, on all devices: compiled once for all samplers.

Sample i of image j is a function of (seed, i, j) alone: neither the batch nor the
number of devices changes it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from sr3_jax.core import degradations, samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.runtime import progress as runtime_progress
from sr3_jax.weights import checkpoint, hub, model_files

# Sampling is cut into stretches of this many steps, to show progress in between.
STRETCH = 25
# Enlargements by kernels alone, at no cost: in every table of super-resolution.
BASELINES = ('bicubic', 'lanczos')
# Where outputs are as large as inputs: the input as it is.
DEGRADED = 'degraded'
OnSteps = Callable[[int], None]


def keys(seed: int, index: jax.Array, sample: int | jax.Array) -> jax.Array:
  """One key per image, a function of (seed, sample, index): [B] -> [B] keys."""
  key = jax.random.fold_in(jax.random.key(seed), sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def baselines(model: SR3) -> tuple[str, ...]:
  """What can be had without a network: names of the images that `degrader` adds."""
  if not model.task.conditional:
    return ()
  return BASELINES if model.scale > 1 else (DEGRADED,)


class Restorer:
  """A model's restoration, compiled for all devices; parameters stay on them.

  Args:
    model: the model.
    params: its weights, on the host or one device.
    seed: of all noise.
    capacity: steps of the longest trajectory that will be chosen; None is that of the
      model's own, which is chosen at first.
    guidance: how much classes count; 1 for as much as they do by themselves.
  """

  def __init__(
    self,
    model: SR3,
    params: Any,
    seed: int,
    capacity: int | None = None,
    guidance: float = 1.0,
  ):
    self._params = runtime_devices.replicate(params)
    self.model, self._capacity = model, capacity
    self.guide(guidance)
    self._begin, self._advance, self._finish = programs(model, seed)
    if capacity is None:
      self.choose(*model.trajectory)

  def choose(self, gammas: np.ndarray, coefficients: np.ndarray) -> None:
    """Set the trajectory of the calls to come, the parts of a `samplers.Trajectory`."""
    self.num_steps = 1 if self.model.method == 'regression' else len(coefficients)
    steps = samplers.steps(gammas, coefficients, self._capacity)
    self._steps = runtime_devices.replicate(steps)

  def guide(self, guidance: float) -> None:
    """Sets how much classes count in the calls to come."""
    guided = self.model.num_classes and guidance != 1
    self._guidance = runtime_devices.replicate(np.float32(guidance)) if guided else None

  @property
  def is_random(self) -> bool:
    """Whether samples of one image differ."""
    return self.model.method != 'regression'

  def __call__(
    self,
    condition: jax.Array,
    batch: dict[str, jax.Array],
    sample: int = 0,
    on_steps: OnSteps = lambda steps: None,
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
    return self._restore(condition, batch, sample, on_steps, self.num_steps)

  def prepare(self, condition: jax.Array, batch: dict[str, jax.Array]) -> None:
    """Compiles what calls with arguments of these shapes need, by no steps."""
    self._restore(condition, batch, 0, lambda steps: None, 0)

  def _restore(self, condition, batch, sample, on_steps, num_steps) -> jax.Array:
    index, label = batch['index'], batch.get('label')
    number = runtime_devices.shard(np.full(jax.local_device_count(), sample, np.int32))
    x, carry = self._begin(condition, index, number)
    for first in range(0, max(num_steps, 1), STRETCH):
      last = min(first + STRETCH, num_steps)
      limits = runtime_devices.replicate((np.int32(first), np.int32(last)))
      carry = self._advance(
        self._params,
        x,
        carry,
        self._steps,
        *limits,
        index,
        number,
        label,
        self._guidance,
        condition if self.model.consistency else None,
      )
      jax.block_until_ready(carry)
      on_steps(last - first)
    return self._finish(x, carry)


@functools.lru_cache(maxsize=4)
def programs(
  model: SR3, seed: int, devices: tuple[Any, ...] | None = None
) -> tuple[Callable[..., Any], ...]:
  """`begin`, `advance` and `finish` for all devices, or others to compile for.

  Kept by model, so that a training run compiles them once and not at every evaluation.
  """

  def begin(condition, index, sample):
    x = model.upsample(condition)
    return x, model.begin(model.noise(keys(seed, index, sample[0]), x), x)

  def advance(
    params, x, carry, steps, first, last, index, sample, label, guidance, condition
  ):
    # Deterministic samplers draw noise, too, and multiply it by zero.
    noise = model.noise(keys(seed, index, sample[0]), x)
    if guidance is not None:
      guidance = jnp.full(x.shape[:1], guidance)

    def one(i, carry):
      step = jax.tree.map(lambda s: jax.lax.dynamic_slice_in_dim(s, i, 1), steps)
      return model.advance(params, noise, x, carry, step, label, guidance, condition)

    return jax.lax.fori_loop(first, last, one, carry)

  return (
    runtime_devices.pmap(begin, devices=devices),
    runtime_devices.pmap(advance, donate_argnums=(2,), devices=devices),
    runtime_devices.pmap(model.finish, devices=devices),
  )


@functools.lru_cache(maxsize=4)
def degrader(model: SR3, seed: int) -> Callable[[dict[str, jax.Array]], Any]:
  """Compiled: batch [D, b, ...] -> truth, condition, and the images of `baselines`."""
  names = baselines(model)

  def degrade(image, index):
    hr = model.to_float(image)
    condition = model.degrade(keys(seed, index, 0), hr)
    observed = condition[..., : model.channels]
    enlarge = lambda kernel: degradations.resize(observed, *hr.shape[1:3], kernel)
    made = {n: observed if n == DEGRADED else enlarge(n) for n in names}
    return hr, condition, {n: jnp.clip(image, -1, 1) for n, image in made.items()}

  degrade = runtime_devices.pmap(degrade)
  return lambda batch: degrade(batch['image'], batch['index'])


@functools.lru_cache(maxsize=4)
def reducer(model: SR3, seed: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Compiled: output [D, b, H, W, C], index -> degraded as the truth was."""

  def reduce(output, index):
    return model.degrade(keys(seed, index, 0), output)[..., : model.channels]

  return runtime_devices.pmap(reduce)


@contextlib.contextmanager
def progress(total: int, unit: str = 'sampling step') -> Iterator[OnSteps]:
  """Shows progress over `total` units; gives what to call with each few."""
  done = 0
  enabled = jax.process_index() == 0
  with runtime_progress.Progress(total, unit=unit, enabled=enabled) as shown:

    def on_steps(steps: int) -> None:
      nonlocal done
      done += steps
      shown.update(done)

    yield on_steps


TRUTH = 'truth'


def load_methods(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> tuple[int, dict[str, Restorer], dict[str, str]]:
  """The newest averaged weights of a run, and of its regression baseline if any.

  Returns:
    The step of the run's weights; name -> restorer, the baseline first; name -> hash
    of the weights.

  Raises:
    checkpoint.CheckpointError: there are none, or they belong to another network.
  """
  methods, hashes = {}, {}
  baseline = epath.Path(config.eval.regression or epath.Path(workdir) / 'regression')
  there = config.eval.regression or model_files.checkpoint_folder(baseline).exists()
  if there and config.method != 'regression':
    regression = config.copy_and_resolve_references()
    regression.method = 'regression'
    _, methods['regression'], hashes['regression'] = load_method(regression, baseline)
  step, method, weights = load_method(config, workdir)
  return step, methods | {config.method: method}, hashes | {config.method: weights}


def load_method(
  config: ml_collections.ConfigDict, place: epath.PathLike
) -> tuple[int, Restorer, str]:
  """Step, restorer and hash of the averaged weights of a run or model folder."""
  model = SR3.from_config(config)
  if (epath.Path(place) / model_files.WEIGHTS).exists():
    step, ema = hub.load_weights(place, model)
  else:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    step, ema = checkpoint.load_ema(place, shapes)
  restorer = Restorer(model, ema, config.seed, guidance=config.sampler.guidance)
  return step, restorer, hub.fingerprint(ema)
