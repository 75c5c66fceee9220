"""The program's own training step and sampler, compiled for machines that are not here.

TPUs: by their own compiler, which libtpu brings and which needs no TPU. Other machines
have none that runs without them: see `plan_counts`, or `plan_here` for those that are.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import hlo, hlo_costs, hlo_flops
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.machines import Machine
from sr3_jax.restoration import restorer
from sr3_jax.runtime import atomic_files, errors, progress
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import train_step
from sr3_jax.training.strategies import get_strategy

# Where libtpu looks for a machine before it believes that there is none, how much it
# says, and that another process may have it loaded.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_STDERR_LOG_LEVEL': '3',
  'TPU_MIN_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
CARRY, LAST = 2, 5  # of the arguments of the sampler: what it returns, where it ends
BEAT = 30.0  # seconds between two signs of life of a compiler


class PlanError(UserError):
  """A plan that can't be made; the message says what to do, in a line."""


@dataclasses.dataclass(frozen=True)
class Measured:
  """What is known of a program on one chip.

  Attributes:
    operations: everything that costs something.
    arguments, outputs, temporaries, aliased, code: bytes; `aliased` are outputs that
      lie where arguments did. None where no compiler has said so.
    needed: bytes of a program that the compiler refused as too large, else 0.
    optimal_seconds: of the compiler's cost analysis, if it has any.
    compile_seconds: that it took.
    counted: whether the operations are those of a program that is not compiled.
    step_seconds: that a step took when it was run, if it was.
  """

  operations: tuple[Operation, ...]
  arguments: int
  outputs: int
  temporaries: int | None
  aliased: int
  code: int = 0
  needed: int = 0
  optimal_seconds: float | None = None
  compile_seconds: float = 0.0
  counted: bool = False
  step_seconds: float | None = None

  @property
  def complete(self) -> bool:
    """Whether all of its memory is known; temporaries decide what fits."""
    return bool(self.needed) or self.temporaries is not None

  @property
  def memory(self) -> int:
    """Bytes that a chip must have for it; without temporaries where none are known."""
    parts = self.arguments + self.outputs - self.aliased + self.code
    return self.needed or parts + (self.temporaries or 0)


def devices(machine: Machine) -> tuple[Any, ...]:
  """The chips of a TPU slice that is not here.

  Raises:
    PlanError: libtpu is not installed or knows no such slice.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise PlanError(
      f"a plan for {machine.name} needs the TPU's compiler: "
      "pip install 'sr3_jax[tpu-plan]'"
    )
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  # A host has 2 x 2 chips, or less of the smallest slices.
  host = [min(side, 2) for side in machine.sides[:2]] + [1]
  try:
    described = topologies.get_topology_desc(
      platform='tpu',
      topology_name=machine.name,
      chips_per_host_bounds=tuple(host),
      **dict(machine.chip.options),
    )
  except jax.errors.JaxRuntimeError as error:
    raise PlanError(
      f'plan.topology: {machine.name}: {errors.first_line(error)[:200]}'
    ) from error
  return tuple(described.devices)


def image_batch(config: ml_collections.ConfigDict, count: int) -> dict[str, Any]:
  """Shapes of a training batch of `count` images."""
  d = config.data
  shape = jax.ShapeDtypeStruct
  batch = {'image': shape((count, d.image_size, d.image_size, d.channels), np.uint8)}
  if config.model.num_classes:
    batch['label'] = shape((count,), np.int32)
  return batch


def training(
  config: ml_collections.ConfigDict,
  model: SR3,
  strategy: str,
  chips: Sequence[Any] | None,
) -> Any:
  """The lowered training step.

  Args:
    config: train.batch_size is over all chips.
    model: of it.
    strategy: 'pmap' or 'fsdp'.
    chips: of `devices`; None lowers a step of one device for the machine at hand.
  """
  state = jax.eval_shape(functools.partial(train_step.create_state, config, model))
  batch = image_batch(config, config.train.batch_size)
  if chips is None:
    return jax.jit(train_step.train_step, donate_argnums=0).lower(state, batch)
  return get_strategy(strategy, chips).lower(train_step.train_step, state, batch)


def sampling(
  config: ml_collections.ConfigDict, model: SR3, each: int, chips: Sequence[Any]
) -> Any:
  """The lowered sampler; every run of its loop is one step.

  Args:
    config: of the run.
    model: of it.
    each: images on each chip.
    chips: of `devices`.
  """
  count, side = len(chips), config.eval.image_size or config.data.image_size
  shape = jax.ShapeDtypeStruct
  keys = functools.partial(restorer.keys, config.seed)
  index, number = shape((each,), np.int32), shape((1,), np.int32)
  hr = shape((each, side, side, config.data.channels), np.float32)
  condition = jax.eval_shape(lambda i, hr: model.degrade(keys(i, 0), hr), index, hr)

  def begin(condition, index):
    x = model.upsample(condition)
    return x, model.begin(model.noise(keys(index, 0), x), x)

  x, carry = jax.eval_shape(begin, condition, index)
  params = jax.eval_shape(model.init, jax.random.key(0))
  steps = samplers.steps(*model.trajectory)
  limit = shape((), np.int32)
  label = index if config.model.num_classes else None
  guided = config.model.num_classes and config.sampler.guidance != 1
  guidance = shape((), np.float32) if guided else None
  observed = condition if model.consistency else None
  arguments = (params, x, carry, steps, limit, limit, index, number, label, guidance)
  arguments += (observed,)
  _, advance, _ = restorer.programs(model, config.seed, tuple(chips))
  on_all = lambda leaf: shape((count, *leaf.shape), leaf.dtype)
  return advance.lower(*jax.tree.map(on_all, arguments))


def compiled(
  lowered: Any,
  machine: Machine,
  name: str,
  cache: epath.Path | None,
  effort: float = 0.0,
) -> Measured:
  """Compiles for a TPU, or reads what was found out before.

  Args:
    lowered: by `training` or `sampling`.
    machine: it was lowered for.
    name: for the lines that say what goes on.
    cache: folder of results; None keeps none. A result belongs to a program, whatever
      configuration it is of, a machine, a version of the compiler and its effort.
    effort: of the compiler, from -1 to 0. Less is quicker: the same arithmetic,
      arguments and collectives, but fewer operations are fused, so that more bytes
      are moved, and temporaries are up to an eighth smaller or larger.
  """
  path = (
    cache / f'plan-{_fingerprint(lowered, machine, effort)}.json' if cache else None
  )
  if path and path.exists():
    logging.info('%s: known from an earlier plan', name)
    return read(path)
  began = time.monotonic()
  with alive(f'{name}: compiling'):
    made = _compile(lowered, effort)
  seconds = time.monotonic() - began
  logging.info('%s: compiled in %s', name, progress.duration(seconds))
  made = dataclasses.replace(made, compile_seconds=round(seconds, 1))
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, dataclasses.asdict(made))
  return made


def _compile(lowered: Any, effort: float) -> Measured:
  options = {'exec_time_optimization_effort': effort} if effort else None
  try:
    program = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise PlanError(f'the compiler: {errors.first_line(error)[:200]}') from error
    return Measured((), 0, 0, None, 0, needed=_needed(str(error)))
  analysis = program.cost_analysis()
  analysis = analysis[0] if isinstance(analysis, list) else analysis or {}
  return Measured(
    operations=tuple(hlo_costs.operations(hlo.parse(program.as_text()))),
    optimal_seconds=analysis.get('optimal_seconds'),
    **memory_of(program),
  )


def memory_of(program: Any) -> dict[str, int]:
  """What a compiled program says of its memory, as `Measured` has it."""
  memory = program.memory_analysis()
  return {
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'temporaries': memory.temp_size_in_bytes,
    'aliased': memory.alias_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
  }


def _needed(message: str) -> int:
  """Bytes that a program needs, from the words with which the compiler refuses it."""
  found = re.search(r'([\d.]+)([KMGT]?)\W+(?:of|exceeds|\d)', message)
  return round(float(found[1]) * _UNITS[found[2]]) if found else 1


def read(path: epath.Path) -> Measured:
  """A result that `compiled` wrote."""
  found = json.loads(path.read_text())
  found['operations'] = tuple(Operation(**o) for o in found['operations'])
  return Measured(**found)


def _fingerprint(lowered: Any, machine: Machine, effort: float) -> str:
  parts = [lowered.as_text(), machine.name, *map(str, versions().values())]
  if effort:  # full effort has the name it had before there was a choice
    parts.append(str(effort))
  for module in (hlo, hlo_flops, hlo_costs):
    parts.append(pathlib.Path(module.__file__).read_text())
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:24]


def versions() -> dict[str, str | None]:
  """Of what a compiled program depends on."""

  def of(name: str) -> str | None:
    try:
      return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      return None

  return {name: of(name) for name in ('jax', 'jaxlib', 'libtpu')}


@contextlib.contextmanager
def alive(what: str, every: float | None = None) -> Iterator[None]:
  """Says every half minute that something still goes on, and for how long."""
  done, began = threading.Event(), time.monotonic()

  def say() -> None:
    while not done.wait(every or BEAT):
      logging.info('%s, %s so far', what, progress.duration(time.monotonic() - began))

  thread = threading.Thread(target=say, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def largest(fits: Callable[[int], bool], start: int, limit: int = 1024) -> int:
  """The largest number that fits, to an eighth: by doubling, then by halving the gap.

  Args:
    fits: whether one does; none does that is larger than one that doesn't.
    start: the first to try.
    limit: no more than this is tried.

  Returns:
    0 where not even 1 fits.
  """
  low, high = 0, limit + 1
  size = min(start, limit)
  while low < size < high:
    if fits(size):
      low, size = size, min(2 * size, limit)
    else:
      high, size = size, size // 2
  while low and high - low > max(1, low // 8):
    middle = (low + high) // 2
    low, high = (middle, high) if fits(middle) else (low, middle)
  return low
