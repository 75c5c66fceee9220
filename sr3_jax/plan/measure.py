"""Compiles the run's training step and sampler for this machine, and times them.

A few steps on the clock say more about a machine at hand than a roofline of it: a
training step reaches about a fifth of a processor's peak.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sr3_jax.config import ConfigDict
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import estimate, programs, roofline
from sr3_jax.plan.machines import Machine
from sr3_jax.plan.programs import ProgramCost
from sr3_jax.runtime import activity, devices
from sr3_jax.training import train_step

# A step is not run if it takes longer than this at best.
LONGEST = 60.0  # seconds
# As many steps are timed, or fewer if these take as many seconds in all.
STEPS, ENOUGH = 10, 10.0
SAMPLING_STEPS = 3  # steps of the sampler in one call

Call = Callable[[], object]  # runs a program once


def is_here(machine: Machine) -> bool:
  """Return whether JAX runs on this machine, which must be one CPU or one GPU."""
  kind = jax.devices()[0].device_kind.lower()
  return machine.count == 1 and not machine.is_tpu and machine.kind in kind


def matrix_product_flops(dtype: str) -> float:
  """Return the FLOP/s of a large matrix product on one device, measured.

  Programs of many layers stay below it, so it is a practical ceiling of the machine.
  The matrices are of `dtype`, as model.dtype has it.
  """
  side = 2048 if jax.default_backend() == 'cpu' else 8192
  matrix = jnp.ones((side, side), dtype)
  product = jax.jit(lambda a: a @ a)
  return 2 * side**3 / time_call(lambda: product(matrix), steps=5)


def measure_training(
  config: ConfigDict, model: SR3, machine: Machine, run: bool = True
) -> ProgramCost:
  """Compile a training step for this machine, and time it if `run`.

  Returns:
    Operations as `estimate.estimate_training` counts them, memory as the compiler
    reports it, and seconds by the clock. Only the estimate where a step would take too
    long or too much memory.
  """
  make = functools.partial(train_step.create_state, config, model)
  batch = programs.image_batch(config, config.train.batch_size)
  lowered = programs.lower_training(config, model, 'pmap', None)
  known = estimate.estimate_training(lowered, 'pmap', 1)

  def prepare(program: jax.stages.Compiled) -> Call:
    # An optimizer is equal to itself only, so the state must have the very optimizer
    # that the program was lowered with.
    structure = jax.tree.structure(lowered.args_info[0][0])
    state = jax.tree.unflatten(structure, jax.tree.leaves(jax.jit(make)()))
    images = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), batch)

    def call() -> object:
      nonlocal state
      state, metrics = program(state, images)
      return metrics

    return call

  name = f'{machine.name}: training, batch {config.train.batch_size}'
  return _measure(name, lowered, known, machine, prepare if run else None)


def measure_sampling(config: ConfigDict, model: SR3, machine: Machine) -> ProgramCost:
  """Compile the sampler for this machine, and time a step; see `measure_training`."""
  here = jax.devices()[:1]
  lowered = programs.lower_sampling(config, model, config.eval.batch_size, here)
  known = estimate.estimate_sampling(lowered)

  def prepare(program: jax.stages.Compiled) -> Call:
    mesh = Mesh(np.array(here), (devices.AXIS,))
    sharding = NamedSharding(mesh, PartitionSpec(devices.AXIS))
    (shapes, _) = lowered.args_info
    arguments = [jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), s) for s in shapes]
    arguments[programs.LAST] += SAMPLING_STEPS
    arguments = jax.device_put(arguments, sharding)

    def call() -> object:
      arguments[programs.CARRY] = program(*arguments)
      return arguments[programs.CARRY]

    return call

  name = f'{machine.name}: sampler'
  return _measure(name, lowered, known, machine, prepare, SAMPLING_STEPS)


def _measure(
  name: str,
  lowered: jax.stages.Lowered,
  known: ProgramCost,
  machine: Machine,
  prepare: Callable[[jax.stages.Compiled], Call] | None,
  steps: int = 1,
) -> ProgramCost:
  """Compile a program, and time a step of it.

  `known` is what was found in it without compiling. `prepare` makes a function that
  runs `steps` steps of the compiled program; None only compiles.
  """
  if prepare and roofline.estimate(known.operations, machine).seconds > LONGEST:
    logging.info('%s: a step takes too long to be run here; estimated', name)
    return known
  if known.memory > machine.chip.memory:
    return known
  compiling = functools.partial(lowered.compile, devices.compiler_options())
  program, seconds = programs.log_compiling(name, compiling)
  known = dataclasses.replace(
    known, compile_seconds=seconds, **programs.memory_of(program)
  )
  if prepare is None:
    return known
  free = devices.free_memory()
  if free is not None and known.memory > free:
    logging.info('%s: not enough memory is free to run it; estimated', name)
    return known
  with activity.doing(f'{name}: running'):
    seconds = time_call(prepare(program)) / steps
  return dataclasses.replace(known, step_seconds=seconds)


def time_call(call: Call, steps: int | None = None) -> float:
  """Return the median seconds of a call, after a first one that does not count.

  At most `steps` calls count (None is STEPS); the result of each is waited for.
  """
  steps = STEPS if steps is None else steps
  times: list[float] = []
  while len(times) < 2 or (len(times) <= steps and sum(times) < ENOUGH):
    began = time.perf_counter()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - began)
  return float(np.median(times[1:]))
