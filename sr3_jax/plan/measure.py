"""The program's own training step and sampler, compiled for this machine and run.

What is here need not be estimated: a few steps tell more than a roofline of a
processor, of whose peak a training step reaches a fifth.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import estimate as plan_estimate
from sr3_jax.plan import programs as plan_programs
from sr3_jax.plan import roofline
from sr3_jax.plan.machines import Machine
from sr3_jax.plan.programs import Measured
from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.runtime import progress
from sr3_jax.training import train_step

LONGEST = 60.0  # seconds of a step, at best, beyond which nothing is run
STEPS, ENOUGH = 10, 10.0  # so many steps are timed, or seconds of them
SAMPLING_STEPS = 3  # in one run


def is_here(machine: Machine) -> bool:
  """Whether a machine of one CPU or one GPU is what JAX runs on."""
  kind = jax.devices()[0].device_kind.lower()
  return machine.count == 1 and not machine.is_tpu and machine.kind in kind


def training(
  config: ml_collections.ConfigDict, model: SR3, machine: Machine, run: bool = True
) -> Measured:
  """A training step.

  Args:
    config: of the run.
    model: of it.
    machine: that is here.
    run: or only compile.

  Returns:
    Operations as `plan_counts.estimated` has them, memory as the compiler, and
    seconds as the clock; the estimate alone where a step is too long or too large.
  """
  make = functools.partial(train_step.create_state, config, model)
  batch = plan_programs.image_batch(config, config.train.batch_size)
  lowered = plan_programs.training(config, model, 'pmap', None)
  known = plan_estimate.estimated(lowered, 'pmap', 1, jax.eval_shape(make))

  def ready(program: Any) -> Callable[[], Any]:
    # Of the program's own kind: an optimizer is equal to itself only.
    kind = jax.tree.structure(lowered.args_info[0][0])
    state = jax.tree.unflatten(kind, jax.tree.leaves(jax.jit(make)()))
    images = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), batch)

    def once() -> Any:
      nonlocal state
      state, metrics = program(state, images)
      return metrics

    return once

  what = f'{machine.name}: training, batch {config.train.batch_size}'
  return _measured(what, lowered, known, machine, ready if run else None)


def sampling(
  config: ml_collections.ConfigDict, model: SR3, machine: Machine
) -> Measured:
  """A step of the sampler, as `training`."""
  devices = jax.devices()[:1]
  lowered = plan_programs.sampling(config, model, config.eval.batch_size, devices)
  known = plan_estimate.estimated_sampling(lowered)

  def ready(program: Any) -> Callable[[], Any]:
    mesh = Mesh(np.array(devices), (runtime_devices.AXIS,))
    there = NamedSharding(mesh, PartitionSpec(runtime_devices.AXIS))
    (shapes, _) = lowered.args_info
    arguments = [jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), s) for s in shapes]
    arguments[plan_programs.LAST] += SAMPLING_STEPS
    arguments = jax.device_put(arguments, there)

    def once() -> Any:
      arguments[plan_programs.CARRY] = program(*arguments)
      return arguments[plan_programs.CARRY]

    return once

  return _measured(
    f'{machine.name}: sampler', lowered, known, machine, ready, SAMPLING_STEPS
  )


def _measured(
  what: str,
  lowered: Any,
  known: Measured,
  machine: Machine,
  ready: Callable[[Any], Callable[[], Any]] | None,
  steps: int = 1,
) -> Measured:
  """Compiles and runs a program.

  Args:
    what: for the lines that say what goes on.
    lowered: the program.
    known: what was found in it without compiling.
    machine: that is here.
    ready: makes of the compiled program a function that runs `steps` steps of it; None
      runs nothing.
    steps: see there.
  """
  if ready and roofline.estimate(known.operations, machine).seconds > LONGEST:
    logging.info('%s: too long a step to be run here; estimated', what)
    return known
  if known.memory > machine.chip.memory:
    return known
  began = time.monotonic()
  with plan_programs.alive(f'{what}: compiling'):
    program = lowered.compile(compiler_options=runtime_devices.compiler_options())
  logging.info('%s: compiled in %s', what, progress.duration(time.monotonic() - began))
  known = dataclasses.replace(known, **plan_programs.memory_of(program))
  if ready is None:
    return known
  free = runtime_devices.free_memory()
  if free is not None and known.memory > free:
    logging.info('%s: not enough memory is free to run it; estimated', what)
    return known
  with plan_programs.alive(f'{what}: running'):
    seconds = timed(ready(program)) / steps
  return dataclasses.replace(known, step_seconds=seconds)


def timed(run: Callable[[], Any]) -> float:
  """Median seconds of a call, after one that does not count."""
  times: list[float] = []
  while len(times) < 2 or (len(times) <= STEPS and sum(times) < ENOUGH):
    began = time.perf_counter()
    jax.block_until_ready(run())
    times.append(time.perf_counter() - began)
  return float(np.median(times[1:]))
