"""`--mode=plan`: will it fit, how long will it take, what will it cost?

The run's own training step and sampler are compiled for each machine that is named and
each way to spread them. Times are rooflines (`roofline`): a bound that the machine does
not beat. Only where the machine is this one, a few steps are run.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import logging
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import estimate as plan_estimate
from sr3_jax.plan import machines, roofline
from sr3_jax.plan import measure as plan_measure
from sr3_jax.plan import programs as plan_programs
from sr3_jax.plan import table as plan_table
from sr3_jax.plan.machines import Machine
from sr3_jax.plan.programs import Measured, PlanError
from sr3_jax.runtime import atomic_files
from sr3_jax.training import train_step
from sr3_jax.training.strategies import STRATEGIES

SIZES = (4, 16, 64, 256)  # chips, of weak scaling


def plan_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """--mode=plan: prints a table and writes WORKDIR/plan.json.

  Results of the compilers are kept beside JAX's own cache of programs, if there is one.

  Raises:
    PlanError: a machine or strategy that nobody knows, a batch that does not split, no
      compiler; or the run does not fit anywhere as it is configured.
  """
  folder = jax.config.jax_compilation_cache_dir
  cache = epath.Path(folder) / 'plans' if folder else None
  made = make_plan(config, cache)
  workdir = epath.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(workdir / 'plan.json', made)
  print(plan_table.format_plan(made))
  print(f'all figures: {workdir / "plan.json"}')
  refuse_misfit(made['plans'], config.parallel.strategy)


def make_plan(
  config: ml_collections.ConfigDict, cache: epath.Path | None = None
) -> dict[str, Any]:
  """All figures, as plan.json holds them.

  Args:
    config: of the run; `config.plan` names machines and strategies.
    cache: folder of what compilers found out; None keeps nothing.

  Raises:
    PlanError: see `plan_run`.
  """
  names = [name.strip() for name in config.plan.topology.split(',')]
  try:
    chosen = [machines.parse(name) for name in names]
  except ValueError as error:
    raise PlanError(error) from error
  if not -1 <= config.plan.effort <= 0:
    raise PlanError(f'plan.effort={config.plan.effort} must be from -1 to 0')
  for strategy in config.plan.strategies:
    if strategy not in STRATEGIES:
      raise PlanError(
        f'plan.strategies: no {strategy!r}; known: {", ".join(STRATEGIES)}'
      )
  for machine in chosen:
    check_batch(config, machine)
  model = SR3.from_config(config)
  per_image = plan_estimate.model_flops(config)
  state = jax.eval_shape(functools.partial(train_step.create_state, config, model))
  plans, samplers = [], []
  for machine in chosen:
    one = lambda strategy, machine=machine: plan_one(
      config, model, machine, strategy, per_image, cache
    )
    strategies = config.plan.strategies
    if is_run(config, machine):  # one device: the same program in all of them
      made = one(strategies[0])
      plans += [made | {'strategy': strategy} for strategy in strategies]
    else:
      plans += map(one, strategies)
    samplers.append(plan_sampler(config, model, machine, cache))
  return {
    'batch_size': config.train.batch_size,
    'num_steps': config.train.num_steps,
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    'flops_per_image': per_image,
    'price': config.plan.price,
    'effort': config.plan.effort,
    'plans': plans,
    'samplers': samplers,
    'cheapest': cheapest(plans),
    'machines': {m.kind: dataclasses.asdict(m.chip) for m in chosen},
    'versions': plan_programs.versions(),
    'config': as_json(config),
  }


def check_batch(config: ml_collections.ConfigDict, machine: Machine) -> None:
  """Refuses a batch that does not split over the chips.

  Raises:
    PlanError: it does not.
  """
  parts = machine.count * config.train.accumulate
  if config.train.batch_size % parts:
    accumulated = f' x {config.train.accumulate} parts' * (config.train.accumulate > 1)
    raise PlanError(
      f'train.batch_size={config.train.batch_size} does not split over the '
      f'{machine.count} chips{accumulated} of {machine.name}: make it a multiple of '
      f'{parts}'
    )


def plan_one(
  config: ml_collections.ConfigDict,
  model: SR3,
  machine: Machine,
  strategy: str,
  per_image: float,
  cache: epath.Path | None,
) -> dict[str, Any]:
  """The training on one machine.

  Args:
    config: of the run.
    model: of it.
    machine: to train on.
    strategy: 'pmap' or 'fsdp'.
    per_image: FLOPs of the loss of an image and its gradient.
    cache: see `make_plan`.
  """
  here = is_run(config, machine)
  if not (here or is_compiled(config, machine)):
    measured = estimate_step(config, model, machine, strategy)
    return figures(config, machine, strategy, measured, per_image)
  chips = () if here else plan_programs.devices(machine)

  @functools.cache
  def measure(batch_size: int) -> Measured:
    at = config.copy_and_resolve_references()
    at.train.batch_size = batch_size
    if here:
      run = batch_size == config.train.batch_size
      return plan_measure.training(at, model, machine, run)
    lowered = plan_programs.training(at, model, strategy, chips)
    name = f'{machine.name} {strategy}, batch {batch_size}'
    return plan_programs.compiled(lowered, machine, name, cache, config.plan.effort)

  measured = measure(config.train.batch_size)
  made = figures(config, machine, strategy, measured, per_image)
  if config.plan.search_batch and measured.complete:
    unit = config.train.accumulate
    fits = lambda n: fits_in(measure(n * unit * machine.count), machine)
    start = config.train.batch_size // machine.count // unit
    made['largest_batch_per_chip'] = unit * plan_programs.largest(fits, start)
  return made


def is_run(config: ml_collections.ConfigDict, machine: Machine) -> bool:
  """Whether steps are run, as the machine is here."""
  return config.plan.compile and plan_measure.is_here(machine)


def is_compiled(config: ml_collections.ConfigDict, machine: Machine) -> bool:
  """Whether programs are compiled for a machine that is not here."""
  return config.plan.compile and machine.is_tpu


def fits_in(measured: Measured, machine: Machine) -> bool:
  """Whether a program has the memory that it needs."""
  return not measured.needed and measured.memory <= machine.chip.memory


def estimate_step(
  config: ml_collections.ConfigDict, model: SR3, machine: Machine, strategy: str
) -> Measured:
  """A training step that is not compiled, see `plan_counts`."""
  part = config.copy_and_resolve_references()
  part.train.batch_size = config.train.batch_size // machine.count
  logging.info('%s %s: counting the lowered program', machine.name, strategy)
  lowered = plan_programs.training(part, model, strategy, None)
  state = jax.eval_shape(functools.partial(train_step.create_state, config, model))
  return plan_estimate.estimated(lowered, strategy, machine.count, state)


def figures(
  config: ml_collections.ConfigDict,
  machine: Machine,
  strategy: str,
  measured: Measured,
  per_image: float,
) -> dict[str, Any]:
  """What a measured step says of a run: one entry of plan.json's `plans`.

  Bytes, FLOPs and seconds are of one step on one chip, but for `model_flops`, of a step
  on all. What follows from a time is missing of a program that doesn't fit.
  """
  batch = config.train.batch_size
  fits = fits_in(measured, machine)
  available = machine.chip.memory
  known = math.isfinite(available)
  made: dict[str, Any] = {
    'topology': machine.name,
    'chips': machine.count,
    'strategy': strategy,
    'batch_size': batch,
    'compiled': not measured.counted,
    'measured': measured.step_seconds is not None,
    'fits': None if fits and not measured.complete else fits,
    'memory': {
      'arguments': measured.arguments,
      'temporaries': measured.temporaries,
      'outputs': measured.outputs - measured.aliased,
      'code': measured.code,
      'total': measured.memory,
      'available': round(available) if known else None,
      'headroom': round(available - measured.memory) if known else None,
    },
    'model_flops': per_image * batch,
  }
  if not measured.operations:
    return made
  time = roofline.estimate(measured.operations, machine, measured.optimal_seconds)
  peak = machine.chip.flops * machine.count
  seconds = measured.step_seconds or time.seconds
  hours = seconds * config.train.num_steps / 3600
  total = lambda value: sum(o.times * value(o) for o in measured.operations)
  made |= {
    'hardware_flops': total(lambda o: o.flops),
    'bytes': total(lambda o: o.bytes),
    'sent': total(lambda o: o.sent),
    'time': dataclasses.asdict(time),
    'step_seconds': seconds,
    'mfu': made['model_flops'] / peak / seconds,
    'mfu_serial': made['model_flops'] / peak / (measured.step_seconds or time.serial),
    'images_per_second': batch / seconds,
    'hours': hours,
    'chip_hours': hours * machine.count,
    'money': hours * machine.count * config.plan.price,
    'heaviest': roofline.heaviest(measured.operations, machine),
  }
  if made['compiled'] and machine.count > 1:
    made['weak_scaling'] = roofline.weak_scaling(measured.operations, machine, SIZES)
  return made


def plan_sampler(
  config: ml_collections.ConfigDict,
  model: SR3,
  machine: Machine,
  cache: epath.Path | None,
) -> dict[str, Any]:
  """The configured sampler: every chip has all weights, and some images."""
  each = -(-config.eval.batch_size // machine.count)
  if is_run(config, machine):
    measured = plan_measure.sampling(config, model, machine)
  elif is_compiled(config, machine):
    chips = plan_programs.devices(machine)
    lowered = plan_programs.sampling(config, model, each, chips)
    name = f'{machine.name} sampler, batch {each * machine.count}'
    effort = config.plan.effort
    measured = plan_programs.compiled(lowered, machine, name, cache, effort)
  else:
    lowered = plan_programs.sampling(config, model, each, jax.devices()[:1])
    measured = plan_estimate.estimated_sampling(lowered)
  fits = fits_in(measured, machine)
  made: dict[str, Any] = {
    'topology': machine.name,
    'images': each * machine.count,
    'steps': 1 if model.method == 'regression' else len(model.trajectory.coefficients),
    'fits': None if fits and not measured.complete else fits,
    'memory': measured.memory,
    'measured': measured.step_seconds is not None,
  }
  if measured.operations:
    time = roofline.estimate(measured.operations, machine, measured.optimal_seconds)
    made['seconds_per_step'] = measured.step_seconds or time.seconds
    made['images_per_second'] = (
      made['images'] / made['steps'] / made['seconds_per_step']
    )
  return made


def cheapest(plans: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
  """Of the machines that hold the run, the one with the fewest chip-hours.

  All chips are taken to cost the same. Those of which the memory is not known to be
  enough are left out.
  """
  holding = [plan for plan in plans if plan['fits'] and 'chip_hours' in plan]
  best = min(holding, key=lambda plan: plan['chip_hours'], default=None)
  keys = ('topology', 'strategy', 'chip_hours', 'money')
  return {key: best[key] for key in keys} if best else None


def refuse_misfit(plans: Sequence[dict[str, Any]], strategy: str) -> None:
  """Ends in an error where the configured strategy was planned and fits nowhere.

  Raises:
    PlanError: that, and what to do.
  """
  planned = [plan for plan in plans if plan['strategy'] == strategy]
  if not planned or any(plan['fits'] is not False for plan in planned):
    return
  others = [plan for plan in plans if plan['fits'] and plan['strategy'] != strategy]
  advice = 'more or larger chips, a smaller train.batch_size, train.accumulate, '
  advice += 'model.remat or parallel.strategy=fsdp need less'
  if others:
    advice = (
      f'parallel.strategy={others[0]["strategy"]} does on {others[0]["topology"]}'
    )
  where = ', '.join(plan['topology'] for plan in planned)
  raise PlanError(f'parallel.strategy={strategy} does not fit on {where}; {advice}')
