"""Compiles the run's training step and sampler for machines that are not here.

Programs for TPUs are compiled by their own compiler, which comes with libtpu and needs
no TPU. Other machines have no compiler that runs without them: `estimate` counts their
programs without compiling, and `measure` runs them if the machine is here.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import TypedDict, TypeVar

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.config import ConfigDict
from sr3_jax.core import samplers
from sr3_jax.core.check import shape_of_inputs
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import hlo, hlo_costs, hlo_flops
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.machines import Chip, Machine
from sr3_jax.restoration import restorer
from sr3_jax.runtime import (
  activity,
  atomic_files,
  devices,
  errors,
  foreign_files,
)
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import train_step
from sr3_jax.training.strategies import get_strategy

# These keep libtpu from searching the network for a TPU and from writing logs, and
# allow it to be loaded while another process has it loaded.
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_STDERR_LOG_LEVEL': '3',
  'TPU_MIN_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# Positions among the sampler's arguments: the array that it updates and returns, and
# the number of the step before which it ends.
CARRY, LAST = 2, 5
T = TypeVar('T')


class PlanError(UserError):
  """A plan that cannot be made."""


@dataclasses.dataclass(frozen=True)
class ProgramCost:
  """Holds what is known about one run of a program on one chip."""

  operations: tuple[Operation, ...]  # all operations that cost something
  arguments: int  # bytes of the arrays that the program is given
  outputs: int  # bytes of the arrays that it returns
  # Bytes of intermediate results; None where no compiler has said so.
  temporaries: int | None
  aliased: int  # bytes of the outputs that take the place of arguments
  code: int = 0  # bytes of the program itself
  needed: int = 0  # bytes of a program that the compiler refused as too large, else 0
  # The compiler's own estimate of the time, if it has one.
  optimal_seconds: float | None = None
  compile_seconds: float = 0.0  # how long the compiler took
  # Whether the operations are those of a program that is not compiled.
  counted: bool = False
  step_seconds: float | None = None  # how long a step took, if it was run

  @property
  def memory(self) -> int:
    """Bytes that a chip must have; without temporaries where these are not known."""
    parts = self.arguments + self.outputs - self.aliased + self.code
    return self.needed or parts + (self.temporaries or 0)

  def fits(self, chip: Chip) -> bool | None:
    """Return whether a chip has the memory; None where the temporaries decide it."""
    if self.needed or self.memory > chip.memory:
      return False
    return None if self.temporaries is None else True


def tpu_devices(machine: Machine) -> tuple[jax.Device, ...]:
  """Return descriptions of a TPU slice's chips, which programs are compiled for.

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

  # A host has 2 x 2 chips, or fewer if the slice is smaller.
  host = [min(side, 2) for side in machine.sides[:2]] + [1]
  try:
    described = topologies.get_topology_desc(
      platform='tpu',
      topology_name=machine.name,
      chips_per_host_bounds=tuple(host),
      **dict(machine.chip.options),
    )
  except jax.errors.JaxRuntimeError as error:
    text = errors.first_line(error)[:200]
    raise PlanError(f'plan.topology: {machine.name}: {text}') from error
  return tuple(described.devices)


def image_batch(config: ConfigDict, count: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Return the shapes of a training batch of `count` images.

  Returns:
    'image': uint8 [count, side, side, channels]; 'label': int32 [count] for models with
    classes; 'condition': the same of pairs' inputs.
  """
  d, shape = config.data, jax.ShapeDtypeStruct
  batch = {'image': shape((count, d.image_size, d.image_size, d.channels), np.uint8)}
  if config.model.num_classes:
    batch['label'] = shape((count,), np.int32)
  if given := shape_of_inputs(SR3.from_config(config), d.image_size):
    batch['condition'] = shape((count, *given.shape[1:]), given.dtype)
  return batch


def lower_training(
  config: ConfigDict, model: SR3, strategy: str, chips: Sequence[jax.Device] | None
) -> jax.stages.Lowered:
  """Lower the training step.

  Args:
    config: of the run; train.batch_size is over all chips.
    model: of the run.
    strategy: 'pmap' or 'fsdp'.
    chips: see `tpu_devices`; None lowers a step of one device for the machine at hand.
  """
  state = jax.eval_shape(functools.partial(train_step.create_state, config, model))
  batch = image_batch(config, config.train.batch_size)
  if chips is None:
    return jax.jit(train_step.train_step, donate_argnums=0).lower(state, batch)
  return get_strategy(strategy, chips).lower(train_step.train_step, state, batch)


def lower_sampling(
  config: ConfigDict, model: SR3, each: int, chips: Sequence[jax.Device]
) -> jax.stages.Lowered:
  """Lower the sampler for `each` images on each chip (see `tpu_devices`).

  Each round of the program's loop is one sampling step.
  """
  count, side = len(chips), config.eval.image_size or config.data.image_size
  shape = jax.ShapeDtypeStruct
  keys = functools.partial(restorer.keys, config.seed)
  index, number = shape((each,), np.int32), shape((1,), np.int32)
  hr = shape((each, side, side, config.data.channels), np.float32)
  given = shape_of_inputs(model, side)
  if given is not None:
    given = shape((each, *given.shape[1:]), given.dtype)
  condition = jax.eval_shape(
    lambda i, *images: model.degrade(keys(i, 0), *images), index, hr, given
  )

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
  arguments = (params, x, carry, steps, limit, limit, index, number)
  arguments += (label, guidance, observed)
  _, advance, _ = restorer.programs(model, config.seed, tuple(chips))
  return advance.lower(
    *jax.tree.map(lambda leaf: shape((count, *leaf.shape), leaf.dtype), arguments)
  )


def compile_for_tpu(
  lowered: jax.stages.Lowered,
  machine: Machine,
  name: str,
  cache: epath.Path | None,
  effort: float = 0.0,
) -> ProgramCost:
  """Compile for a TPU, or read the result of an earlier compilation.

  Args:
    lowered: result of `lower_training` or `lower_sampling`.
    machine: that the program was lowered for.
    name: names the program in log messages.
    cache: folder of earlier results; None caches nothing. A result belongs to a
      program, a machine, a version of the compiler and its effort.
    effort: of the compiler, from -1 to 0. With less it is quicker: arithmetic,
      arguments and collectives stay the same, but fewer operations are fused, so that
      more bytes are moved, and temporaries are up to an eighth smaller or larger.

  Raises:
    PlanError: the compiler refuses the program for another reason than its size.
  """
  path = cache / _file_name(lowered, machine, effort) if cache else None
  if path and (known := _known(path)):
    logging.info('%s: known from an earlier plan', name)
    return known
  made, seconds = log_compiling(name, lambda: _compile(lowered, effort))
  made = dataclasses.replace(made, compile_seconds=seconds)
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, dataclasses.asdict(made))
  return made


def _known(path: epath.Path) -> ProgramCost | None:
  """Return the result in a file of the cache; None if there is none, or damaged."""
  try:
    found = foreign_files.read_json(path, {'operations': list})
    found['operations'] = tuple(Operation(**o) for o in found['operations'])
    return ProgramCost(**found)
  except (UserError, TypeError):  # TypeError: other keys
    return None


def _compile(lowered: jax.stages.Lowered, effort: float) -> ProgramCost:
  """Compile for a TPU and read what the program costs from its text."""
  options = {'exec_time_optimization_effort': effort} if effort else None
  try:
    # JAX's annotation leaves out the options that are numbers.
    program = lowered.compile(compiler_options=options)  # pyrefly: ignore[bad-argument-type]
  except jax.errors.JaxRuntimeError as error:
    if not errors.out_of_memory(error):
      raise PlanError(f'the compiler: {errors.first_line(error)[:200]}') from error
    return ProgramCost((), 0, 0, None, 0, needed=_needed(str(error)))
  text = program.as_text()
  if text is None:
    raise PlanError('the compiler does not show the programs that it makes')
  return ProgramCost(
    operations=tuple(hlo_costs.operations(hlo.parse(text))),
    optimal_seconds=(program.cost_analysis() or {}).get('optimal_seconds'),
    **memory_of(program),
  )


class MemoryUse(TypedDict):
  """The bytes that a compiled program takes, by the names of `ProgramCost`."""

  arguments: int
  outputs: int
  temporaries: int
  aliased: int
  code: int


def memory_of(program: jax.stages.Compiled) -> MemoryUse:
  """Return the bytes that a compiled program takes."""
  memory = devices.memory_analysis(program)
  return {
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'temporaries': memory.temp_size_in_bytes,
    'aliased': memory.alias_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
  }


def _needed(message: str) -> int:
  """Return the bytes that a program needs, from the compiler's refusal.

  A message without a number gives 1: more than 0, which means "not refused".
  """
  found = re.search(r'([\d.]+)([KMGT]?)\W+(?:of|exceeds|\d)', message)
  return round(float(found[1]) * _UNITS[found[2]]) if found else 1


def _file_name(lowered: jax.stages.Lowered, machine: Machine, effort: float) -> str:
  """Return a name with a hash of all that a cached result depends on, code included."""
  parts = [lowered.as_text(), machine.name, *map(str, versions().values())]
  if effort:  # files of full effort keep the name from before there was a choice
    parts.append(str(effort))
  parts += [pathlib.Path(m.__file__).read_text() for m in (hlo, hlo_flops, hlo_costs)]
  digest = hashlib.sha256('\0'.join(parts).encode()).hexdigest()
  return f'plan-{digest[:24]}.json'


def versions() -> dict[str, str | None]:
  """Return the versions of JAX and of the compiler; None for what is missing."""
  found: dict[str, str | None] = dict.fromkeys(('jax', 'jaxlib', 'libtpu'))
  for name in found:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def log_compiling(name: str, compile_program: Callable[[], T]) -> tuple[T, float]:
  """Return what a compilation returns, and its seconds; log these."""
  began = time.monotonic()
  with activity.doing(f'{name}: compiling'):
    made = compile_program()
  seconds = time.monotonic() - began
  logging.info('%s: compiled in %s', name, activity.duration(seconds))
  return made, round(seconds, 1)


def largest_fitting(fits: Callable[[int], bool], start: int, limit: int = 1024) -> int:
  """Return the largest number up to `limit` that fits, up to an eighth too small.

  `start` is doubled (or halved) until it fits no longer (or at last); then the gap is
  halved. What is larger than a misfit must not fit either. 0 where not even 1 fits.
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
