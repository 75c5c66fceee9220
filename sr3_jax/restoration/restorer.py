"""Restores batches of one size on all devices, with one program for all samplers.

Sample i of image j is a function of (seed, i, j) alone: neither the batch nor the
number of devices changes it.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.core import degradations, samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.runtime import errors
from sr3_jax.runtime.devices import Mapped
from sr3_jax.runtime.progress import Progress
from sr3_jax.runtime.types import Params
from sr3_jax.weights import checkpoint, hub, model_files

# Sampling is cut into stretches of this many steps, to show progress in between.
STRETCH = 25
# Names, in results, pages and files, of the images that need no network: inputs
# upsampled by a kernel, inputs as they are (of models that don't upsample), the truth.
BASELINES = ('bicubic', 'lanczos')
DEGRADED = 'degraded'
TRUTH = 'truth'

OnSteps = Callable[[int], None]
Batch = Mapping[str, jax.Array]


def load_methods(
  config: ConfigDict, workdir: epath.PathLike
) -> tuple[int, dict[str, 'Restorer'], dict[str, str]]:
  """Load the newest averaged weights of a run, and of its regression baseline if any.

  Returns:
    The step of the run's weights; restorers by the name of their method, the baseline
    first; and fingerprints of the weights by the same names.

  Raises:
    CheckpointError: there are no weights, or they belong to another network.
  """
  methods = {}
  baseline = epath.Path(config.eval.regression or epath.Path(workdir) / 'regression')
  there = config.eval.regression or model_files.checkpoint_folder(baseline).exists()
  if there and config.method != 'regression':
    regression = config.copy_and_resolve_references()
    regression.method = 'regression'
    methods['regression'] = load_method(regression, baseline)
  methods[config.method] = load_method(config, workdir)
  restorers = {name: restorer for name, (_, restorer, _) in methods.items()}
  fingerprints = {name: fingerprint for name, (*_, fingerprint) in methods.items()}
  return methods[config.method][0], restorers, fingerprints


def load_method(
  config: ConfigDict, place: epath.PathLike
) -> tuple[int, 'Restorer', str]:
  """Load the averaged weights of a run's workdir or a model folder.

  Returns:
    The step of the weights, a restorer, and the fingerprint of the weights.

  Raises:
    CheckpointError: there are no weights, or they belong to another network.
    HubError: the model folder is damaged or of another network.
  """
  model = SR3.from_config(config)
  if (epath.Path(place) / model_files.WEIGHTS).exists():
    step, ema = hub.load_weights(place, model)
  else:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    step, ema = checkpoint.load_ema(place, shapes)
  restorer = Restorer(model, ema, config.seed, guidance=config.sampler.guidance)
  return step, restorer, hub.fingerprint(ema)


class Restorer:
  """A model that restores batches on all devices; its parameters stay on them.

  Args:
    model: the model.
    params: its weights, on the host or one device.
    seed: of all noise.
    capacity: number of steps of the longest trajectory that will be chosen; None for
      the model's own trajectory, which is then chosen.
    guidance: how much the class counts; 1 for as much as the network alone gives it.
  """

  def __init__(
    self,
    model: SR3,
    params: Params,
    seed: int,
    capacity: int | None = None,
    guidance: float = 1.0,
  ):
    self._params = runtime_devices.replicate(params)
    self.model, self._capacity = model, capacity
    guided = model.num_classes and guidance != 1  # 1 changes nothing
    self._guidance = runtime_devices.replicate(np.float32(guidance)) if guided else None
    self._begin, self._advance, self._finish = programs(model, seed)
    if capacity is None:
      self.choose(*model.trajectory)

  def choose(self, gammas: np.ndarray, coefficients: np.ndarray) -> None:
    """Set the trajectory, as in `samplers.Trajectory`, of the calls to come."""
    self.num_steps = 1 if self.model.method == 'regression' else len(coefficients)
    steps = samplers.steps(gammas, coefficients, self._capacity)
    self._steps = runtime_devices.replicate(steps)

  @property
  def is_random(self) -> bool:
    """Whether samples of one image differ."""
    return self.model.method != 'regression'

  def __call__(
    self,
    condition: jax.Array,
    batch: Batch,
    sample: int = 0,
    on_steps: OnSteps = lambda steps: None,
  ) -> jax.Array:
    """Sample one image for each condition.

    Args:
      condition: [D, b, h, w, K] over all devices.
      batch: holds 'index', int32 [D, b], and 'label' for models with classes.
      sample: number of the sample of each image.
      on_steps: called with the number of sampling steps just done.

    Returns:
      [D, b, H, W, C] in [-1, 1].
    """
    return self._restore(condition, batch, sample, on_steps, self.num_steps)

  def prepare(self, condition: jax.Array, batch: Batch) -> None:
    """Compile the programs for calls with arguments of these shapes."""
    self._restore(condition, batch, 0, lambda steps: None, 0)

  def _restore(
    self,
    condition: jax.Array,
    batch: Batch,
    sample: int,
    on_steps: OnSteps,
    num_steps: int,
  ) -> jax.Array:
    """Take the first `num_steps` steps of the trajectory; return what is there then."""
    index, label = batch['index'], batch.get('label')
    number = runtime_devices.shard(np.full(jax.local_device_count(), sample, np.int32))
    x, carry = self._begin(condition, index, number)
    corrections = self._guidance, condition if self.model.consistency else None
    for first in range(0, max(num_steps, 1), STRETCH):
      last = min(first + STRETCH, num_steps)
      limits = runtime_devices.replicate((np.int32(first), np.int32(last)))
      state = self._params, x, carry, self._steps
      carry = self._advance(*state, *limits, index, number, label, *corrections)
      jax.block_until_ready(carry)
      on_steps(last - first)
    return self._finish(x, carry)


def keys(seed: int, index: jax.Array, sample: int | jax.Array) -> jax.Array:
  """Return keys [B], a function of seed, sample and each image's number in the data.

  `index` [B], int32, are these numbers.
  """
  key = jax.random.fold_in(jax.random.key(seed), sample)
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


@functools.lru_cache(maxsize=4)
def programs(
  model: SR3, seed: int, devices: tuple[jax.Device, ...] | None = None
) -> tuple[Mapped, Mapped, Mapped]:
  """Return the three programs of a `Restorer`: begin, advance and finish.

  They are cached by model, so that a training run compiles them once and not at every
  evaluation. `devices` are those to compile for, not to run on; None for all there are.
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


def check_finite(
  image: jax.Array, mask: np.ndarray, name: Callable[[int], str], method: str
) -> None:
  """Raise NotFiniteError for images that a method left with NaN.

  Args:
    image: [D, b, H, W, C], what the method made.
    mask: bool [B], which of this process's images are real.
    name: returns what messages call the image of a row.
    method: the name of the method.
  """
  good = runtime_devices.gather(_finite()(image))
  if bad := np.flatnonzero(mask & ~good).tolist():
    raise errors.NotFiniteError(map(name, bad), method)


@functools.cache
def _finite() -> Mapped:
  """Compile images [D, b, H, W, C] -> whether each is finite, [D, b]."""
  return runtime_devices.pmap(lambda x: jnp.isfinite(x).all(axis=(1, 2, 3)))


def baselines(model: SR3) -> tuple[str, ...]:
  """Return the names of the images that `degrader` makes without a network."""
  if not model.task.conditional or model.input_channels != model.channels:
    return ()
  return BASELINES if model.scale > 1 else (DEGRADED,)


@functools.lru_cache(maxsize=4)
def degrader(
  model: SR3, seed: int
) -> Callable[[Batch], tuple[jax.Array, jax.Array, dict[str, jax.Array]]]:
  """Return a compiled function that degrades batches as the model's task does.

  From 'image' [D, b, H, W, C] and 'index' [D, b] of a batch, and 'condition' of pairs,
  it makes the truth [D, b, H, W, C] in [-1, 1], the condition [D, b, h, w, K], and the
  images [D, b, H, W, C] of `baselines` by name. What is random follows from `seed`.
  """
  names = baselines(model)

  def degrade(image, index, given):
    hr = model.to_float(image)
    condition = model.degrade(keys(seed, index, 0), hr, given)
    observed = model.observed(condition)
    height, width = hr.shape[1:3]
    made = {
      name: observed
      if name == DEGRADED
      else degradations.resize(observed, height, width, name)
      for name in names
    }
    return hr, condition, {n: jnp.clip(image, -1, 1) for n, image in made.items()}

  program = runtime_devices.pmap(degrade)
  return lambda batch: program(batch['image'], batch['index'], batch.get('condition'))


@functools.lru_cache(maxsize=4)
def output_degrader(model: SR3, seed: int) -> Mapped:
  """Return a compiled function that degrades outputs exactly as the truth was.

  It takes outputs [D, b, H, W, C] and 'index' [D, b] of the batch, and returns what is
  observed of them, [D, b, h, w, C]. `seed` is the one of the truth's degradation.
  """

  def degrade(output, index):
    return model.observed(model.degrade(keys(seed, index, 0), output))

  return runtime_devices.pmap(degrade)


@contextlib.contextmanager
def progress(total: int, unit: str = 'sampling step') -> Iterator[OnSteps]:
  """Show progress; yield what is to be called with each number of units done."""
  done = 0
  with Progress(total, unit=unit, enabled=jax.process_index() == 0) as shown:

    def on_steps(steps: int) -> None:
      nonlocal done
      done += steps
      shown.update(done)

    yield on_steps
