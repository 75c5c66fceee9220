"""Spreads arrays over devices, and knows how many there are.

Data parallelism by `jax.pmap`: the state is replicated, the batch split. The mapped
function sees one device's part and the axis name 'batch'. `[D, ...]` below means a
leading axis over all devices; each process holds the part of its own devices.
"""

import contextlib
import functools
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, overload

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sr3_jax.runtime import activity, atomic_files, errors, memory
from sr3_jax.runtime.printing import one_line

AXIS = 'batch'
# A nest of arrays: a function of it returns the same nest, of other arrays.
Tree = TypeVar('Tree')

# jaxlib's default CPU convolutions are slow at these sizes, most of all in the gradient
# of the weights. This option keeps its fast matrix products and uses Eigen otherwise.
_CPU_OPTIONS = {
  'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'
}


@functools.cache
def compiler_options(platform: str | None = None) -> dict[str, str | bool]:
  """Return the XLA options that pay on 'cpu', 'gpu' or 'tpu'; None: on this platform.

  They are empty where the compiler lacks them.
  """
  if (platform or jax.default_backend()) != 'cpu':
    return {}
  try:
    probe = jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS)
    jax.block_until_ready(probe(np.float32(0)))
  except Exception:  # the option is experimental: it may go or change its values
    logging.info('This jaxlib has no faster CPU convolutions to switch on.')
    return {}
  return dict(_CPU_OPTIONS)


def start(cache: str) -> None:
  """Find the devices, and cache compiled programs in `cache` as `cache_programs` does.

  Raises:
    UserError: JAX finds no device to work on.
  """
  try:
    jax.devices()
  except Exception as error:  # RuntimeError or AssertionError, by what is missing
    wanted = os.environ.get('JAX_PLATFORMS', '')
    asked = f'JAX_PLATFORMS={wanted}' if wanted else 'JAX'
    said = str(error) and errors.first_line(error)[:150]
    raise errors.UserError(
      f'{asked}: no device can be used: {said or "is JAX for it installed?"}; '
      'JAX_PLATFORMS=cpu works on the processor'
    ) from None
  cache_programs(cache)


def cache_programs(folder: str) -> None:
  """Cache compiled programs in `folder` for a fast next start; '' caches none.

  Several processes on CPUs cache none: JAX writes the programs of the first process
  only, under names that the others don't find, and the first would then wait for them
  longer than Gloo allows (30 s).
  """
  several_cpus = jax.distributed.is_initialized() and jax.default_backend() == 'cpu'
  if folder and not several_cpus:
    _write_programs_whole()
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


@functools.cache
def _write_programs_whole() -> None:
  """Make JAX write each cached program whole or not at all.

  It would leave a part of one where it is killed meanwhile, never replace it, and warn
  of it at every start.
  """
  try:
    from jax._src.lru_cache import LRUCache

    write = LRUCache.put
  except (ImportError, AttributeError):  # not an interface that JAX promises
    return

  def put(self: Any, key: str, value: bytes) -> None:
    path = self.path / f'{key}-cache'
    if self.eviction_enabled:  # it has locks, and files beside
      write(self, key, value)
    elif not path.exists():
      atomic_files.write_bytes(path, value)

  LRUCache.put = put


def cache_folder(name: str) -> epath.Path | None:
  """Return a cache folder beside that of compiled programs; None without one."""
  # JAX makes this attribute when it is imported.
  folder = jax.config.jax_compilation_cache_dir  # pyrefly: ignore[missing-attribute]
  return epath.Path(folder) / name if folder else None


class Mapped:
  """A function of `[D, ...]` arrays over all devices, compiled once per shapes."""

  def __init__(self, mapped: jax.stages.Wrapped, platform: str | None = None):
    self._mapped, self._platform = mapped, platform
    self._programs: dict[Hashable, jax.stages.Compiled] = {}

  def __call__(self, *args: Any) -> Any:
    """Run the program for the shapes of the arguments."""
    return self.compiled(*args)(*args)

  def lower(self, *args: Any) -> jax.stages.Lowered:
    """Return the lowered program for the shapes of the arguments."""
    return self._mapped.lower(*args)

  def compiled(self, *args: Any) -> jax.stages.Compiled:
    """Return the compiled program for the shapes of the arguments."""
    leaves, structure = jax.tree.flatten(args)
    shapes = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    if shapes not in self._programs:
      options = compiler_options(self._platform)
      with activity.doing('compiling'):
        made = self.lower(*args).compile(compiler_options=options)
      self._programs[shapes] = made
    return self._programs[shapes]

  def memory(self, *args: Any) -> int:
    """Return the bytes that the program takes on a device.

    Arguments and results are included, buffers that they share once.
    """
    m = memory_analysis(self.compiled(*args))
    whole = m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes
    return whole - m.alias_size_in_bytes


def pmap(
  function: Callable[..., Any],
  donate_argnums: Sequence[int] = (),
  devices: Sequence[jax.Device] | None = None,
) -> Mapped:
  """Map a function over all devices by `jax.pmap`, with our compiler options.

  Its collectives go over AXIS; the results may take over the buffers of the arguments
  `donate_argnums`. With `devices` it is compiled for these and not to be run.
  """
  mapped = jax.pmap(
    function, axis_name=AXIS, donate_argnums=tuple(donate_argnums), devices=devices
  )
  return Mapped(mapped, devices[0].platform if devices else None)


def memory_analysis(program: jax.stages.Compiled) -> Any:
  """Return XLA's CompiledMemoryStats of a program: bytes on each device, by use.

  Raises:
    UserError: the compiler of this platform doesn't say.
  """
  stats = program.memory_analysis()
  if stats is None:
    raise errors.UserError('this compiler does not say what memory a program takes')
  return stats


def free_memory() -> int | None:
  """Return the bytes free on this process's fullest device; None if not known."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  if all(stats):
    return min(s['bytes_limit'] - s['bytes_in_use'] for s in stats)
  free = memory.free()
  return None if free is None else free // jax.local_device_count()


def total_memory() -> float:
  """Return the bytes of this process's machine: the host's, and its devices' own."""
  stats = [device.memory_stats() for device in jax.local_devices()]
  try:
    host = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (ValueError, OSError):
    return math.inf
  return host + sum(s['bytes_limit'] for s in stats if s)


def per_process(batch_size: int, parts: int = 1, key: str = 'batch_size') -> int:
  """Return this process's share of a global batch.

  Raises:
    UserError: devices, or the equal `parts` of each one's share, don't divide it; it
      names the option `key`.
  """
  multiple = jax.device_count() * parts
  if batch_size % multiple:
    in_parts = f' x {parts} parts' if parts > 1 else ''
    raise errors.UserError(
      f'{key}={batch_size} cannot be split over {jax.device_count()} devices'
      f'{in_parts}: make it a multiple of {multiple}'
    )
  return batch_size // jax.process_count()


def round_up(batch_size: int) -> int:
  """Return the next batch size that splits over this process's devices."""
  count = jax.local_device_count()
  return -(-batch_size // count) * count


@overload
def put(tree: np.ndarray) -> jax.Array: ...


@overload
def put(tree: Tree) -> Tree: ...


def put(tree: Tree) -> Tree | jax.Array:
  """Put host arrays [local D, ...] on the devices, as arrays [D, ...]."""
  sharding = NamedSharding(Mesh(np.array(jax.devices()), (AXIS,)), PartitionSpec(AXIS))
  put = functools.partial(jax.make_array_from_process_local_data, sharding)
  return jax.tree.map(put, tree)


def replicate(tree: Tree) -> Tree:
  """Copy every leaf to every device: [...] -> [D, ...]."""
  count = jax.local_device_count()
  return put(jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), tree))


@overload
def shard(batch: np.ndarray) -> jax.Array: ...


@overload
def shard(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]: ...


def shard(
  batch: np.ndarray | Mapping[str, np.ndarray],
) -> jax.Array | dict[str, jax.Array]:
  """Split this process's part of a batch over its devices: [B, ...] -> [D, b, ...]."""
  count = jax.local_device_count()
  return put(jax.tree.map(lambda x: np.reshape(x, (count, -1, *x.shape[1:])), batch))


def restore_targets(tree: Tree) -> Tree:
  """Return the shapes and dtypes of whole arrays, as a checkpoint is restored to.

  With one process they are on its first device, with several they are NumPy arrays.
  """
  if jax.process_count() > 1:
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)
  place = {'sharding': jax.sharding.SingleDeviceSharding(jax.local_devices()[0])}
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, **place), tree)


def unreplicate(tree: Tree) -> Tree:
  """Return one device's copy of every leaf: [D, ...] -> [...]."""
  return jax.tree.map(lambda leaf: leaf.addressable_data(0)[0], tree)


@overload
def gather(tree: jax.Array) -> np.ndarray: ...


@overload
def gather(tree: Sequence[jax.Array]) -> Sequence[np.ndarray]: ...


@overload
def gather(tree: Mapping[str, jax.Array]) -> dict[str, np.ndarray]: ...


def gather(
  tree: jax.Array | Sequence[jax.Array] | Mapping[str, jax.Array],
) -> np.ndarray | Sequence[np.ndarray] | dict[str, np.ndarray]:
  """Return all examples of this process as NumPy arrays: [D, b, ...] -> [B, ...]."""

  def one(leaf):
    shards = sorted(leaf.addressable_shards, key=lambda s: s.index[0].start or 0)
    return np.concatenate([np.asarray(s.data)[0] for s in shards])

  return jax.tree.map(one, tree)


def agree(value: bool) -> bool:
  """Return process 0's value, for decisions that depend on a clock."""
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def everywhere(values: Sequence[bool]) -> list[bool]:
  """Return, for each value, whether it is true in every process."""
  return multihost_utils.process_allgather(np.asarray(values)).all(0).tolist()


@contextlib.contextmanager
def all_end_together() -> Iterator[None]:
  """End all processes of a run when this one fails; with one process, do nothing.

  Of several processes one may fail before there is a workdir, where nobody sees why: so
  this one says it first.
  """
  try:
    yield
  except BaseException as error:
    # Processes that are preempted have agreed on the step, and end by themselves.
    preempted = isinstance(error.__context__, errors.Preempted)
    if jax.process_count() == 1 or preempted:
      raise
    if isinstance(error, SystemExit):
      print(one_line(error.code), file=sys.stderr)
    else:
      traceback.print_exception(error)
    _give_up(1)


def _give_up(code: int, seconds: float = 10.0) -> NoReturn:
  """End this process of several after an error.

  Python's own way would wait five minutes for the others, who wait for this one. When
  it is gone they end too: JAX tells them. Those that fail alike get some seconds to say
  so.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  goodbye = threading.Thread(target=jax.distributed.shutdown, daemon=True)
  goodbye.start()
  goodbye.join(seconds)
  os._exit(code)


def barrier(name: str) -> None:
  """Wait until every process has come here, with the same `name`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)
