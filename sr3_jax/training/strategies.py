"""Spreads a training step over devices: by `pmap` or `fsdp`.

Both split the batch. `pmap` has a copy of the whole state on every device; `fsdp`
(stage 3 of ZeRO, arXiv:1910.02054) has a part of the parameters, of their average and
of the optimizer's moments on each. A step gathers whole weights for its arithmetic,
sums and scatters gradients, and every device updates its part. The same seed and
batches give the same numbers with both, up to rounding.

`devices` are those to compile for, not to run on; None stands for all there are.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.training.train_step import Gradients, TrainState

# Smaller arrays (biases, scales of normalisation) are whole on every device: gathering
# one would be nothing but waiting.
SMALL = 2**13  # elements

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]
Tree = TypeVar('Tree')  # a nest of arrays


class Strategy(Protocol):
  """Says what training asks of a way to spread its step over devices."""

  # Whether arrays of `saved` have an axis of length 1, one device's, in front.
  stacked: bool

  def create(self, make: Callable[[], TrainState]) -> TrainState:
    """Make a state by a function without arguments, on all devices."""
    ...

  def abstract(self, state: Tree) -> Tree:
    """Return what a checkpoint of a state is restored to."""
    ...

  def place(self, state: Tree) -> Tree:
    """Put a state, whole or restored as `abstract` says, on all devices."""
    ...

  def shard(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's part of a batch, [B, ...], on its devices."""
    ...

  def fetch(self, tree: Tree) -> Tree:
    """Return whole arrays of a state, on one device; every process must call it."""
    ...

  def metrics(self, tree: Tree) -> Tree:
    """Return the metrics of a step, which are the same on all devices, from one."""
    ...

  def saved(self, state: Tree) -> Tree:
    """Return what this process writes of a checkpoint of a state."""
    ...

  def compile(self, step: Step) -> Step:
    """Compile `train_step` over all devices; it takes over the state's buffers."""
    ...

  def lower(self, step: Step, state: TrainState, batch: Tree) -> jax.stages.Lowered:
    """Lower a step for the shapes of a state and of a whole batch."""
    ...


class Replicated:
  """The strategy `pmap`: every device has the whole state and a part of the batch."""

  stacked = True

  def __init__(self, devices: Sequence[jax.Device] | None = None):
    self._devices = devices

  def create(self, make: Callable[[], TrainState]) -> TrainState:
    """Make a state by a function without arguments, on all devices."""
    return self.place(make())

  def abstract(self, state: Tree) -> Tree:
    """Return what a checkpoint of a state is restored to."""
    return runtime_devices.restore_targets(state)

  def place(self, state: Tree) -> Tree:
    """Put a state that was restored as `abstract` says on all devices."""
    return runtime_devices.replicate(state)

  def shard(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's part of a batch, [B, ...], on its devices."""
    return runtime_devices.shard(batch)

  def fetch(self, tree: Tree) -> Tree:
    """Return whole arrays of a state, on one device of this process."""
    return runtime_devices.unreplicate(tree)

  metrics = fetch  # metrics of a step are the same on all devices, as the state is

  def saved(self, state: Tree) -> Tree:
    """Return what a checkpoint is written of: one device's copy, [1, ...]."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), state)

  def compile(self, step: Step) -> runtime_devices.Mapped:
    """Compile `train_step` over all devices; it takes over the state's buffers."""
    step = functools.partial(step, axis_name=runtime_devices.AXIS)
    return runtime_devices.pmap(step, donate_argnums=(0,), devices=self._devices)

  def lower(self, step: Step, state: TrainState, batch: Tree) -> jax.stages.Lowered:
    """Lower a step for the shapes of a state and of a whole batch."""
    count = len(jax.devices() if self._devices is None else self._devices)

    def copies(leaf):
      return jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype)

    def parts(leaf):
      shape = (count, leaf.shape[0] // count, *leaf.shape[1:])
      return jax.ShapeDtypeStruct(shape, leaf.dtype)

    states, batches = jax.tree.map(copies, state), jax.tree.map(parts, batch)
    return self.compile(step).lower(states, batches)


class Sharded:
  """The strategy `fsdp`: every device has a part of the state and of the batch."""

  stacked = False

  def __init__(self, devices: Sequence[jax.Device] | None = None):
    devices = jax.devices() if devices is None else devices
    # The mesh has an axis for each prime factor of the number of devices. So an array
    # with no side that all devices divide can still be split, along several sides.
    factors = _prime_factors(len(devices))
    self._axes = tuple(f'split{i}' for i in range(len(factors)))
    self._mesh = Mesh(np.array(devices).reshape(factors), self._axes)

  def _specs(self, tree: Tree) -> Tree:
    """Return how the arrays of a state are split."""
    axes = dict(self._mesh.shape)
    return jax.tree.map(lambda leaf: split(leaf.shape, axes), tree)

  def _shardings(self, tree: Tree) -> Tree:
    return jax.tree.map(self._sharding, self._specs(tree))

  def _sharding(self, spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(self._mesh, spec)

  def create(self, make: Callable[[], TrainState]) -> TrainState:
    """Make a state by a function without arguments; no device ever has all of it."""
    shardings = self._shardings(jax.eval_shape(make))
    return jax.jit(make, out_shardings=shardings)()

  def abstract(self, state: Tree) -> Tree:
    """Return what a checkpoint of a state is restored to: a part on every device."""
    return jax.tree.map(_placed, state, self._shardings(state))

  def place(self, state: Tree) -> Tree:
    """Put a state, whole or as `abstract` says, on all devices: a part on each."""

    def one(leaf, sharding):
      if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
      whole = np.asarray(leaf)
      return jax.make_array_from_callback(whole.shape, sharding, lambda i: whole[i])

    return jax.tree.map(one, state, self._shardings(state))

  def shard(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Put this process's part of a batch, [B, ...], on its devices."""
    sharding = self._sharding(PartitionSpec(self._axes))
    put = functools.partial(jax.make_array_from_process_local_data, sharding)
    return {name: put(leaf) for name, leaf in batch.items()}

  def fetch(self, tree: Tree) -> Tree:
    """Return whole arrays of a state, on one device; every process must call it."""
    whole = self._sharding(PartitionSpec())
    gathered = jax.jit(lambda tree: tree, out_shardings=whole)(tree)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), gathered)

  def metrics(self, tree: Tree) -> Tree:
    """Return the metrics of a step, which are the same on all devices, from one."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)

  def saved(self, state: Tree) -> Tree:
    """Return what a checkpoint is written of: every process writes its part."""
    return state

  def compile(self, step: Step) -> jax.stages.Wrapped:
    """Compile `train_step` over all devices; it takes over the state's buffers."""
    step = functools.partial(step, spread=self._spread)
    platform = self._mesh.devices.flat[0].platform
    options = runtime_devices.compiler_options(platform)
    return jax.jit(step, donate_argnums=(0,), compiler_options=options)

  def lower(self, step: Step, state: TrainState, batch: Tree) -> jax.stages.Lowered:
    """Lower a step for the shapes of a state and of a whole batch."""
    over_all = self._sharding(PartitionSpec(self._axes))
    parts = jax.tree.map(functools.partial(_placed, sharding=over_all), batch)
    return self.compile(step).lower(self.abstract(state), parts)

  def _spread(self, gradients: Gradients) -> Gradients:
    """Turn gradients of one device's examples into their mean over all devices."""

    def spread(params, step, batch, teacher):
      specs = self._specs(params)

      def gather(params):
        return jax.tree.map(_gather, params, specs)

      def local(*args):
        loss, grads = gradients(*args, axis_name=self._axes, gather=gather)
        mean = functools.partial(_mean, axes=self._axes)
        return jax.lax.pmean(loss, self._axes), jax.tree.map(mean, grads, specs)

      return jax.shard_map(
        local,
        mesh=self._mesh,
        in_specs=(
          *(specs, PartitionSpec(), PartitionSpec(self._axes)),
          self._specs(teacher),
        ),
        out_specs=(PartitionSpec(), specs),
        check_vma=False,  # else JAX would sum gradients where it finds it right
      )(params, step, batch, teacher)

    return spread


STRATEGIES = {'pmap': Replicated, 'fsdp': Sharded}


def get_strategy(name: str, devices: Sequence[jax.Device] | None = None) -> Strategy:
  """Return a strategy by its name in `config.parallel.strategy`."""
  return STRATEGIES[name](devices)


def split(shape: Sequence[int], axes: Mapping[str, int]) -> PartitionSpec:
  """Return which axes of a mesh, given by name and size, split an array's.

  The longest axis that all devices divide is split by all of them. Where there is none,
  each axis of the mesh splits the longest axis that it divides. Small arrays are whole.
  """
  if math.prod(shape) < SMALL:
    return PartitionSpec()
  left = list(shape)
  taken: list[tuple[str, ...]] = [()] * len(shape)
  for names in (tuple(axes), *((name,) for name in axes)):
    size = math.prod(axes[name] for name in names)
    free = not any(name in used for used in taken for name in names)
    longest_first = sorted(range(len(shape)), key=lambda i: -left[i])
    place = next((i for i in longest_first if left[i] % size == 0), None)
    if free and place is not None:
      taken[place] += names
      left[place] //= size
  return PartitionSpec(*(names or None for names in taken))


def _placed(leaf: jax.Array, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
  """Return the shape and type of an array, with its place."""
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _gather(leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
  """Gather a whole array from the parts; its gradient is summed and scattered."""
  for axis, names in enumerate(spec):
    if names is not None:
      leaf = jax.lax.all_gather(leaf, names, axis=axis, tiled=True)
  return leaf


def _mean(grad: jax.Array, spec: PartitionSpec, axes: Sequence[str]) -> jax.Array:
  """Return the mean over devices of a gradient that some axes have summed already."""
  # In a PartitionSpec a single name has no tuple around it.
  summed = {
    n for names in spec for n in ((names,) if isinstance(names, str) else names or ())
  }
  rest = tuple(name for name in axes if name not in summed)
  return (jax.lax.psum(grad, rest) if rest else grad) / jax.lax.axis_size(axes)


def _prime_factors(number: int) -> list[int]:
  """Return the prime factors of a number, the smallest first; [1] for 1."""
  for prime in range(2, number):
    if number % prime == 0:
      return [prime, *_prime_factors(number // prime)]
  return [number]
