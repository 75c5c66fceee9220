r"""Makes the tables of docs/scaling.md: plans of the paper's networks on TPU slices.

  JAX_PLATFORMS=cpu python benchmarks/plans.py --cache=plans
  JAX_PLATFORMS=cpu python benchmarks/plans.py --cache=plans --networks=faces_16_128 \
    --slices=v5e:4x4,v5e:8x8 --strategies=fsdp
  JAX_PLATFORMS=cpu python benchmarks/plans.py --cache=plans \
    --weak=v5e:2x2,v5e:4x4,v5e:8x8,v5e:16x16 --strategies=fsdp
  JAX_PLATFORMS=cpu python benchmarks/plans.py \
    --state=v5e:1x1,v5e:2x2,v5e:4x4,v5e:8x8,v5e:16x16
  JAX_PLATFORMS=cpu python benchmarks/plans.py --cache=plans --samplers
  JAX_PLATFORMS=cpu python benchmarks/plans.py --estimate
  JAX_PLATFORMS=cpu python benchmarks/plans.py --cache=plans --before=model.fold=1

It prints Markdown. Every combination compiles for minutes; results are cached in
--cache, so the command continues where it was interrupted. --set=key=value changes
every configuration: --set=model.remat=True, or --set=plan.effort=-1 to see what fits.
--before=key=value plans every combination with this value, too, and prints its row
before the other.
"""

import ast
import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from etils import epath

from sr3_jax.config import ConfigDict, load_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import estimate, machines
from sr3_jax.plan import programs as plan_programs
from sr3_jax.plan import run as plan_run
from sr3_jax.training import strategies, train_step

FLAGS = flags.FLAGS
flags.DEFINE_list(
  'networks',
  ['faces_16_128', 'faces_64_512', 'imagenet_64_256', 'faces_256_1024'],
  'Configurations by name, as in configs/.',
)
flags.DEFINE_list(
  'slices',
  ['v4:2x2x4', 'v5e:4x4', 'v5e:8x8', 'v5p:2x2x4', 'v6e:4x4'],
  'Machines, as of --config.plan.topology.',
)
flags.DEFINE_list('strategies', ['pmap', 'fsdp'], 'Of parallel.strategy.')
flags.DEFINE_list(
  'weak', [], 'Compile for each of these slices, batches growing with them, instead.'
)
flags.DEFINE_list(
  'state', [], 'Only what the state takes on a chip of each of these slices, instead.'
)
flags.DEFINE_bool('samplers', False, 'Compile the samplers instead of the training.')
flags.DEFINE_integer('share', 4, 'Images on each chip of --weak.')
flags.DEFINE_multi_string('set', [], 'key=value of every configuration.')
flags.DEFINE_multi_string(
  'before', [], 'key=value: a row with it before each row without it.'
)
flags.DEFINE_bool(
  'estimate', False, 'Count the lowered programs instead of compiling; a minute each.'
)
flags.DEFINE_string('cache', 'plans', 'Folder of results.')
HEAD = (
  '| network | slice | strategy | GiB a chip | fits | step | MFU | images/s | days '
  '| chip-hours |\n|---|---|---|---|---|---|---|---|---|---|'
)

SAMPLER_HEAD = (
  '| network | slice | images | steps | GiB a chip | fits | step | images/s |\n'
  '|---|---|---|---|---|---|---|---|'
)
FITS = {True: 'yes', False: 'no', None: '?'}

# Configuration, slice, strategy -> the plan, or None where there is none.
MakePlan = Callable[[ConfigDict, str, str], dict | None]


def configuration(name: str) -> ConfigDict:
  """Return the configuration of this name, with what the flags change."""
  config = load_config(name)
  config.plan.update({'compile': not FLAGS.estimate, 'search_batch': False})
  return changed(config, FLAGS.set)


def changed(config: ConfigDict, changes: list[str]) -> ConfigDict:
  """Return a copy of a configuration with changes like 'model.fold=1' in it."""
  config = config.copy_and_resolve_references()
  for change in changes:
    key, _, value = change.partition('=')
    *sections, last = key.split('.')
    section = config
    for part in sections:
      section = section[part]
    section[last] = ast.literal_eval(value)
  return config


def cells(name: str, made: dict) -> str:
  """Return a row of the table of trainings."""
  memory = made['memory']
  row = [name, made['topology'], made['strategy']]
  available = memory['available'] or math.inf
  held = f'{memory["total"] / 2**30:.1f} of {available / 2**30:.1f}'
  row += [held if memory['temporaries'] is not None else f'> {held}']
  row += [FITS[made['fits']]]
  if 'time' in made:
    row += [f'{made["step_seconds"] * 1e3:.0f} ms']
    row += [f'{made["mfu_serial"]:.0%} to {made["mfu"]:.0%}']
    row += [f'{made["images_per_second"]:.0f}', f'{made["hours"] / 24:.1f}']
    row += [f'{made["chip_hours"]:,.0f}']
  else:
    row += ['-'] * 5
  return f'| {" | ".join(row)} |'


def sampler_cells(name: str, made: dict) -> str:
  """Return a row of the table of samplers."""
  memory, time = made['memory'], made.get('seconds_per_step')
  row = [name, made['topology'], str(made['images']), str(made['steps'])]
  row += [f'{memory / 2**30:.1f}', FITS[made['fits']]]
  row += (
    [f'{time * 1e3:.1f} ms', f'{made["images_per_second"]:.3g}'] if time else ['-', '-']
  )
  return f'| {" | ".join(row)} |'


def main(argv: list[str]) -> None:
  """Run the command."""
  del argv
  logging.set_verbosity(logging.INFO)
  cache = epath.Path(FLAGS.cache)
  if FLAGS.state:
    table_of_states()
    return
  if not FLAGS.weak:
    print(SAMPLER_HEAD if FLAGS.samplers else HEAD, flush=True)
  for name in FLAGS.networks:
    config = configuration(name)
    if FLAGS.samplers:
      for topology in FLAGS.slices:
        machine = machines.parse(topology)
        model = SR3.from_config(config, machine.platform)
        made = plan_run.plan_sampler(config, model, machine, cache)
        print(sampler_cells(name, made), flush=True)
      continue
    per_image = estimate.model_flops(config)
    plan = functools.partial(attempt, name, per_image, cache)
    for strategy in FLAGS.strategies:
      if FLAGS.weak:
        table_of_weak_scaling(config, name, strategy, plan)
      else:
        table_of_plans(config, name, strategy, plan)


def table_of_plans(
  config: ConfigDict, name: str, strategy: str, plan: MakePlan
) -> None:
  """Print the plans of the training on all slices."""
  rows = [(name, config)]
  if FLAGS.before:
    was = ', '.join(f'`{change}`' for change in FLAGS.before)
    rows.insert(0, (f'{name}, {was}', changed(config, FLAGS.before)))
  for topology, (label, at) in itertools.product(FLAGS.slices, rows):
    made = plan(at, topology, strategy)
    if made is None:
      continue
    print(cells(label, made), flush=True)
    for place in made.get('heaviest', [])[:8]:
      logging.info(
        '  %.1f%% %s %s', 100 * place['share'], place['bound'], place['source']
      )


def table_of_states() -> None:
  """Print the bytes of a state on a chip, from a program that only returns it."""
  print(f'| network | strategy | {" | ".join(FLAGS.state)} |')
  print('|---' * (2 + len(FLAGS.state)) + '|', flush=True)

  def return_state(state, _, **spread):
    # Without the barrier the compiler would drop an argument that only is returned.
    return jax.lax.optimization_barrier(state), {}

  for name in FLAGS.networks:
    config = configuration(name)
    make = functools.partial(train_step.create_state, config, SR3.from_config(config))
    state = jax.eval_shape(make)
    for strategy in FLAGS.strategies:
      sizes = []
      for topology in FLAGS.state:
        chips = plan_programs.tpu_devices(machines.parse(topology))
        batch = jax.ShapeDtypeStruct((len(chips),), jnp.float32)
        spread = strategies.get_strategy(strategy, chips)
        lowered = spread.lower(return_state, state, batch)
        held = lowered.compile().memory_analysis().argument_size_in_bytes
        sizes.append(f'{held / 2**30:.3f} GiB')
      print(f'| {name} | {strategy} | {" | ".join(sizes)} |', flush=True)


def attempt(
  name: str,
  per_image: float,
  cache: epath.Path,
  config: ConfigDict,
  topology: str,
  strategy: str,
) -> dict | None:
  """Return a plan, or None where the batch does not split over the slice."""
  machine = machines.parse(topology)
  model = SR3.from_config(config, machine.platform)
  try:
    plan_run.check_batch(config, machine)
    return plan_run.plan_one(config, model, machine, strategy, per_image, cache)
  except plan_run.PlanError as error:
    logging.warning('%s: %s', name, error)
    return None


def table_of_weak_scaling(
  config: ConfigDict, name: str, strategy: str, plan: MakePlan
) -> None:
  """Print steps of slices that grow with the batch, each compiled."""
  print('| network | slice | strategy | batch | step | efficiency |')
  print('|---|---|---|---|---|---|', flush=True)
  first = None
  for topology in FLAGS.weak:
    at = config.copy_and_resolve_references()
    at.train.batch_size = FLAGS.share * machines.parse(topology).count
    made = plan(at, topology, strategy)
    if made is None or 'time' not in made:
      continue
    seconds = made['time']['seconds']
    first = first or seconds
    print(
      f'| {name} | {topology} | {strategy} | {at.train.batch_size} | '
      f'{seconds * 1e3:.1f} ms | {first / seconds:.0%} |',
      flush=True,
    )


if __name__ == '__main__':
  app.run(main)
