"""Answers whether a run fits a machine, how long it takes and what it costs.

This is `--mode=plan`. The run's own training step and sampler are compiled for each
machine that is named and each way to spread them over chips. Their times are rooflines,
bounds that the machine does not beat. Only where the machine is this one are a few
steps run.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from etils import epath

from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import (
  estimate,
  hlo_costs,
  machines,
  measure,
  programs,
  roofline,
  table,
)
from sr3_jax.plan.machines import Machine
from sr3_jax.plan.programs import PlanError, ProgramCost
from sr3_jax.runtime import activity, atomic_files, devices

SIZES = (4, 16, 64, 256)  # numbers of chips that weak scaling is given for


def plan_run(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Print a table of plans and write WORKDIR/plan.json.

  Results of compilers are cached in a folder in JAX's own cache of programs, if there
  is one.

  Args:
    config: of the run; `config.plan` names machines and strategies.
    workdir: folder of plan.json.

  Raises:
    PlanError: a machine or strategy is unknown, a batch does not split over the chips,
      a compiler is missing, or the run does not fit anywhere as it is configured.
  """
  plan = make_plan(config, devices.cache_folder('plans'))
  workdir = epath.Path(workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  atomic_files.write_json(workdir / 'plan.json', plan)
  print(table.format_plan(plan))
  print(f'all figures: {workdir / "plan.json"}')
  refuse_misfit(plan['plans'], config.parallel.strategy)


def make_plan(config: ConfigDict, cache: epath.Path | None = None) -> dict[str, Any]:
  """Return all figures, as plan.json holds them.

  Args:
    config: of the run; `config.plan` names machines and strategies.
    cache: folder of earlier results of compilers; None caches nothing.

  Returns:
    'plans' has a `training_figures` for each machine and strategy, 'samplers' a
    `plan_sampler` for each machine, 'machines' the `machines.Chip` of each kind.
    'ceiling_flops' is the FLOP/s of a matrix product, if steps were run here;
    'share_of_ceiling' of the plans that were run is how much of it they reach.

  Raises:
    PlanError: see `plan_run`.
  """
  chosen = check(config)
  with activity.doing('counting operations'):
    per_image = estimate.model_flops(config)
  params = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  plans, samplers = [], []
  for machine in chosen:
    model = SR3.from_config(config, machine.platform)
    # On the one device of this machine all strategies are the same program.
    here, names = is_run(config, machine), config.plan.strategies
    for name in names[:1] if here else names:
      with activity.doing(f'{machine.name} {name}: planning the training step'):
        plans.append(plan_one(config, model, machine, name, per_image, cache))
    if here:
      plans += [plans[-1] | {'strategy': name} for name in names[1:]]
    with activity.doing(f'{machine.name}: planning the sampler'):
      samplers.append(plan_sampler(config, model, machine, cache))
  ceiling = None
  if any(one['measured'] for one in [*plans, *samplers]):
    # Other programs slow the machine at times: the better of two counts.
    with activity.doing('measuring matrix products'):
      ceiling = max(measure.matrix_product_flops(config.model.dtype) for _ in range(2))
    for key, made in (('step_seconds', plans), ('seconds_per_step', samplers)):
      for one in made:
        if one['measured']:
          one['share_of_ceiling'] = one['hardware_flops'] / one[key] / ceiling
  return {
    'batch_size': config.train.batch_size,
    'num_steps': config.train.num_steps,
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(params)),
    'flops_per_image': per_image,
    'price': config.plan.price,
    'effort': config.plan.effort,
    'plans': plans,
    'samplers': samplers,
    'cheapest': cheapest(plans),
    'ceiling_flops': ceiling,
    'machines': {m.kind: dataclasses.asdict(m.chip) for m in chosen},
    'versions': programs.versions(),
    'config': as_json(config),
  }


def check(config: ConfigDict) -> list[Machine]:
  """Return the machines that a configuration names.

  Raises:
    PlanError: a machine is unknown, or the batch does not split over the chips.
  """
  names = [name.strip() for name in config.plan.topology.split(',')]
  try:
    chosen = [machines.parse(name) for name in names]
  except ValueError as error:
    raise PlanError(error) from error
  for machine in chosen:
    check_batch(config, machine)
  return chosen


def check_batch(config: ConfigDict, machine: Machine) -> None:
  """Raise PlanError for a batch that does not split over the chips."""
  accumulate = config.train.accumulate
  parts = machine.count * accumulate
  if config.train.batch_size % parts:
    accumulated = f' x {accumulate} parts' if accumulate > 1 else ''
    raise PlanError(
      f'train.batch_size={config.train.batch_size} does not split over the '
      f'{machine.count} chips{accumulated} of {machine.name}: make it a multiple of '
      f'{parts}'
    )


def plan_one(
  config: ConfigDict,
  model: SR3,
  machine: Machine,
  strategy: str,
  per_image: float,
  cache: epath.Path | None,
) -> dict[str, Any]:
  """Plan the training on one machine with one strategy.

  Args:
    config: of the run.
    model: of the run.
    machine: to train on.
    strategy: 'pmap' or 'fsdp'.
    per_image: FLOPs of one image's loss and gradient.
    cache: see `make_plan`.

  Returns:
    `training_figures`, and 'largest_batch_per_chip' if `config.plan.search_batch`.

  Raises:
    PlanError: a compiler is missing or refuses the program.
  """
  here = is_run(config, machine)
  compiled = not here and config.plan.compile and machine.is_tpu
  chips = programs.tpu_devices(machine) if compiled else ()

  @functools.cache
  def cost_of(batch_size: int) -> ProgramCost:
    at = config.copy_and_resolve_references()
    at.train.batch_size = batch_size
    if here:
      run = batch_size == config.train.batch_size
      return measure.measure_training(at, model, machine, run)
    if not compiled:
      logging.info('%s %s: counting the lowered program', machine.name, strategy)
      at.train.batch_size //= machine.count
      lowered = programs.lower_training(at, model, strategy, None)
      return estimate.estimate_training(lowered, strategy, machine.count)
    lowered = programs.lower_training(at, model, strategy, chips)
    name = f'{machine.name} {strategy}, batch {batch_size}'
    return programs.compile_for_tpu(lowered, machine, name, cache, config.plan.effort)

  cost = cost_of(config.train.batch_size)
  plan = training_figures(config, machine, strategy, cost, per_image)
  if config.plan.search_batch and (cost.needed or cost.temporaries is not None):
    unit = config.train.accumulate
    plan['largest_batch_per_chip'] = unit * programs.largest_fitting(
      lambda parts: bool(cost_of(parts * unit * machine.count).fits(machine.chip)),
      start=config.train.batch_size // machine.count // unit,
    )
  return plan


def is_run(config: ConfigDict, machine: Machine) -> bool:
  """Return whether steps are run, because the machine is here."""
  return config.plan.compile and measure.is_here(machine)


def training_figures(
  config: ConfigDict,
  machine: Machine,
  strategy: str,
  cost: ProgramCost,
  per_image: float,
) -> dict[str, Any]:
  """Return what the cost of a training step means for a run.

  Args:
    config: of the run.
    machine: to train on.
    strategy: 'pmap' or 'fsdp'.
    cost: of a step on one chip.
    per_image: FLOPs of one image's loss and gradient.

  Returns:
    A plan of plan.json. FLOPs, bytes and seconds are those of a step on one chip, but
    'batch_size', 'images_per_second' and 'model_flops' (without what is computed
    twice) of all chips. 'mfu' is model_flops over what the chips' peaks allow.
    'measured' is whether a few steps were run; then 'compile_seconds' and
    'step_seconds' are measured. 'fits' is None where it is not known. What follows from
    the time of a step is missing where a program does not fit.
  """
  batch = config.train.batch_size
  plan = {
    'topology': machine.name,
    'chips': machine.count,
    'strategy': strategy,
    'batch_size': batch,
    'compiled': not cost.counted,
    'measured': cost.step_seconds is not None,
    'compile_seconds': cost.compile_seconds,
    'fits': cost.fits(machine.chip),
    'memory': _memory_figures(cost, machine.chip.memory),
    'model_flops': per_image * batch,
  }
  if not cost.operations:
    return plan
  time = roofline.estimate(cost.operations, machine, cost.optimal_seconds)
  peak = machine.chip.flops * machine.count
  seconds = cost.step_seconds or time.seconds
  hours = seconds * config.train.num_steps / 3600
  plan |= {
    'hardware_flops': hlo_costs.total_flops(cost.operations),
    'bytes': sum(o.times * o.bytes for o in cost.operations),
    'sent': sum(o.times * o.sent for o in cost.operations),
    'time': dataclasses.asdict(time),
    'step_seconds': seconds,
    'mfu': plan['model_flops'] / peak / seconds,
    'mfu_serial': plan['model_flops'] / peak / (cost.step_seconds or time.serial),
    'images_per_second': batch / seconds,
    'hours': hours,
    'chip_hours': hours * machine.count,
    'money': hours * machine.count * config.plan.price,
    'heaviest': roofline.heaviest(cost.operations, machine),
  }
  if plan['compiled'] and machine.count > 1:
    plan['weak_scaling'] = roofline.weak_scaling(cost.operations, machine, SIZES)
  return plan


def _memory_figures(cost: ProgramCost, available: float) -> dict[str, int | None]:
  """Return bytes on one chip; None where they are not known."""
  known = math.isfinite(available)
  return {
    'arguments': cost.arguments,
    'temporaries': cost.temporaries,
    'outputs': cost.outputs - cost.aliased,
    'code': cost.code,
    'total': cost.memory,
    'available': round(available) if known else None,
    'headroom': round(available - cost.memory) if known else None,
  }


def plan_sampler(
  config: ConfigDict, model: SR3, machine: Machine, cache: epath.Path | None
) -> dict[str, Any]:
  """Plan the configured sampler, with all weights and a part of the images on a chip.

  Args:
    config: of the run; eval.batch_size is over all chips, rounded up to their multiple.
    model: of the run.
    machine: to sample on.
    cache: see `make_plan`.

  Returns:
    'images' and 'images_per_second' of all chips, the rest as in `training_figures`.
  """
  each = -(-config.eval.batch_size // machine.count)
  if is_run(config, machine):
    cost = measure.measure_sampling(config, model, machine)
  elif config.plan.compile and machine.is_tpu:
    chips = programs.tpu_devices(machine)
    lowered = programs.lower_sampling(config, model, each, chips)
    name = f'{machine.name} sampler, batch {each * machine.count}'
    cost = programs.compile_for_tpu(lowered, machine, name, cache, config.plan.effort)
  else:
    lowered = programs.lower_sampling(config, model, each, jax.devices()[:1])
    cost = estimate.estimate_sampling(lowered)
  plan = {
    'topology': machine.name,
    'images': each * machine.count,
    'steps': 1 if model.method == 'regression' else len(model.trajectory.coefficients),
    'fits': cost.fits(machine.chip),
    'memory': cost.memory,
    'measured': cost.step_seconds is not None,
    'compile_seconds': cost.compile_seconds,
  }
  if cost.operations:
    time = roofline.estimate(cost.operations, machine, cost.optimal_seconds)
    seconds = cost.step_seconds or time.seconds
    plan['hardware_flops'] = hlo_costs.total_flops(cost.operations)
    plan['seconds_per_step'] = seconds
    plan['images_per_second'] = plan['images'] / plan['steps'] / seconds
  return plan


def cheapest(plans: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
  """Return the plan with the fewest chip-hours, as if all chips cost the same.

  None where no plan is known to fit.
  """
  fitting = [plan for plan in plans if plan['fits'] and 'chip_hours' in plan]
  if not fitting:
    return None
  best = min(fitting, key=lambda plan: plan['chip_hours'])
  return {key: best[key] for key in ('topology', 'strategy', 'chip_hours', 'money')}


def refuse_misfit(plans: Sequence[dict[str, Any]], strategy: str) -> None:
  """Raise PlanError, with advice, where the strategy was planned and fits nowhere."""
  planned = [plan for plan in plans if plan['strategy'] == strategy]
  if not planned or any(plan['fits'] is not False for plan in planned):
    return
  others = [plan for plan in plans if plan['fits'] and plan['strategy'] != strategy]
  if others:
    other = others[0]
    advice = f'parallel.strategy={other["strategy"]} does on {other["topology"]}'
  else:
    advice = (
      'more or larger chips, a smaller train.batch_size, train.accumulate, '
      'model.remat or parallel.strategy=fsdp need less'
    )
  where = ', '.join(plan['topology'] for plan in planned)
  raise PlanError(f'parallel.strategy={strategy} does not fit on {where}; {advice}')
