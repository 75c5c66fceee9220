"""sr3_jax.plan.run, programs and table: figures, search, mistakes, cache."""

import dataclasses
import functools
import json

import jax
import pytest
from etils import epath

from sr3_jax.config import ConfigDict
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import estimate as plan_estimate
from sr3_jax.plan import hlo_costs, machines
from sr3_jax.plan import programs as plan_programs
from sr3_jax.plan import run as plan_run
from sr3_jax.plan import table as plan_table
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.programs import ProgramCost
from sr3_jax.training import strategies, train_step
from tests.support import runs
from tests.support.plans import machine, operation

GIB = 2**30


@pytest.fixture
def config() -> ConfigDict:
  c = runs.get_config()
  c.plan.price = 1.2
  c.plan.search_batch = False
  return c


def measured(*operations: Operation, **values) -> ProgramCost:
  plain = {'arguments': 50, 'outputs': 40, 'temporaries': 20, 'aliased': 35}
  return ProgramCost(operations, **plain | values)


# -------------------------------------------------------------------------- the figures


def test_memory_counts_outputs_in_the_place_of_arguments_once():
  assert measured().memory == 50 + 40 + 20 - 35
  assert measured().fits(machine(1, 1).chip) is True
  assert measured(temporaries=46).fits(machine(1, 1).chip) is False
  refused = measured(temporaries=None, needed=120)
  assert refused.memory == 120
  assert refused.fits(machine(1, 1, memory=1000.0).chip) is False


def test_time_and_money_of_a_run(config):
  config.train.num_steps, config.train.batch_size = 7200, 16
  made = plan_run.training_figures(
    config,
    machine(2, 4),
    'pmap',
    measured(operation(flops=20.0, bytes=1)),
    per_image=5.0,
  )
  assert made['fits'] is True
  assert made['memory']['headroom'] == 25
  assert made['time']['seconds'] == 2
  # 5 FLOP x 16 images in 2 s of 8 chips of 10 FLOP/s.
  assert made['mfu'] == made['mfu_serial'] == 80 / 160
  assert made['images_per_second'] == 8
  assert (made['hours'], made['chip_hours']) == (4, 32)
  assert made['money'] == pytest.approx(32 * 1.2)


def test_a_refused_program_has_no_time(config):
  refused = ProgramCost((), 0, 0, None, 0, needed=20 * GIB)
  made = plan_run.training_figures(
    config, machines.parse('v5e:2x4'), 'pmap', refused, 1.0
  )
  assert made['fits'] is False
  assert made['compiled'] and made['fits'] is False
  assert 'time' not in made
  text = plan_table.row(made, 1.2)
  assert text[:5] == ('v5e:2x4', 'pmap', '20.00 GiB', '15.75 GiB', 'NO')


@pytest.mark.parametrize(
  ('message', 'needed'),
  [
    (
      'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
      'temporaries (2.00T) exceeds available HBM (15.75G).',
      2 * 2**40,
    ),
    ('Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.', 20.5 * GIB),
    ('RESOURCE_EXHAUSTED: too much', 1),
  ],
)
def test_how_much_a_refused_program_needs(message, needed):
  assert plan_programs._needed(message) == needed


@pytest.mark.parametrize('best', [0, 1, 2, 7, 24, 63, 500, 1024, 5000])
@pytest.mark.parametrize('start', [1, 3, 16, 3000])
def test_the_largest_batch_is_found_to_an_eighth(best, start):
  tried = []

  def fits(size):
    assert 1 <= size <= 1024
    tried.append(size)
    return size <= best

  found = plan_programs.largest_fitting(fits, start)
  assert len(set(tried)) == len(tried) <= 18  # each costs minutes
  assert found <= best < found + max(1, found / 8) + (best > 1024) * best


def test_the_cheapest_machine_is_one_that_holds_it():
  one = {'topology': 'a', 'strategy': 'pmap', 'fits': True, 'chip_hours': 9, 'money': 9}
  small = one | {'topology': 'b', 'fits': False, 'chip_hours': 1}
  unknown = one | {'topology': 'c', 'fits': None, 'chip_hours': 2}
  other = one | {'topology': 'd', 'chip_hours': 7}
  assert plan_run.cheapest([one, small, unknown, other])['topology'] == 'd'
  assert plan_run.cheapest([small, unknown]) is None


def test_a_plan_that_fits_nowhere_ends_in_an_error():
  no = {'topology': 'v5e:2x4', 'strategy': 'pmap', 'fits': False}
  yes = no | {'strategy': 'fsdp', 'fits': True}
  plan_run.refuse_misfit([no, yes], 'fsdp')
  plan_run.refuse_misfit([no | {'fits': None}], 'pmap')
  plan_run.refuse_misfit([yes], 'pmap')  # was not asked for
  with pytest.raises(plan_run.PlanError, match='strategy=fsdp does on v5e:2x4'):
    plan_run.refuse_misfit([no, yes], 'pmap')
  with pytest.raises(
    plan_run.PlanError, match='does not fit on v5e:2x4; more or larger'
  ):
    plan_run.refuse_misfit([no], 'pmap')


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('plan.topology', 'v5e:4x4,v7:2x2', r"no machine 'v7:2x2'; known are"),
    ('train.batch_size', 20, r'20 does not split over the 8 chips .*multiple of 8'),
    ('train.accumulate', 2, r'8 chips x 2 parts of v5e:2x4: make it a multiple of 16'),
  ],
)
def test_mistakes_are_one_line(config, key, value, message):
  section, name = key.split('.')
  config[section][name] = value
  with pytest.raises(plan_run.PlanError, match=message) as error:
    plan_run.make_plan(config)
  assert '\n' not in str(error.value)


def test_a_missing_compiler_is_named(monkeypatch):
  monkeypatch.setattr(plan_programs.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(plan_run.PlanError, match=r"pip install 'sr3_jax\[tpu-plan\]'"):
    plan_programs.tpu_devices(machines.parse('v5e:2x4'))


# ------------------------------------------------------------------ a plan without TPUs


def test_a_plan_of_gpus_is_counted_and_says_so(config, tmp_path, capsys):
  config.plan.topology = 'h100:4'
  plan_run.plan_run(config, tmp_path)
  shown = capsys.readouterr().out
  assert 'Estimates, not compiled: h100:4' in shown
  made = json.loads((tmp_path / 'plan.json').read_text())
  replicated, split = made['plans']
  assert replicated['fits'] is split['fits'] is None
  # A step is the loss and its gradient of all images, nothing else.
  assert replicated['model_flops'] == made['flops_per_image'] * 8
  assert replicated['hardware_flops'] == made['flops_per_image'] * 8 / 4
  weights = 4 * made['parameters']
  # Weights, their average and two moments; and three counters.
  state = replicated['memory']['arguments']
  assert 4 * weights <= state < 4 * weights + 20
  assert split['memory']['arguments'] == state // 4
  # Sums of gradients; weights twice and gradients once.
  assert replicated['sent'] == 2 * 3 / 4 * weights
  assert split['sent'] == 3 * 3 / 4 * weights
  (sampler,) = made['samplers']
  assert sampler['fits'] is None and sampler['images'] == config.eval.batch_size
  assert weights < sampler['memory'] < weights + 2**18  # and some small images
  assert 'h100:4 sampler: 8 images in 3 steps, > 0.00 GiB a chip' in shown


def test_a_plan_of_tpus_can_be_counted_too(config, tmp_path, capsys, monkeypatch):
  """Count where the compiler takes too long, or is not installed."""
  monkeypatch.setattr(plan_programs.importlib.util, 'find_spec', lambda name: None)
  config.plan.topology = 'v5e:2x2,v6e:2x2'
  config.plan.compile, config.plan.effort = False, -1.0
  plan_run.plan_run(config, tmp_path)
  shown = capsys.readouterr().out
  assert 'Estimates, not compiled: v5e:2x2, v6e:2x2' in shown
  assert 'less of an effort' not in shown  # there was no compiler
  made = json.loads((tmp_path / 'plan.json').read_text())
  assert [one['fits'] for one in made['plans']] == [None] * 4
  slow, fast = made['samplers']
  assert slow['seconds_per_step'] > fast['seconds_per_step'] > 0
  slow, fast = made['plans'][0], made['plans'][2]
  assert slow['hardware_flops'] == fast['hardware_flops']
  assert slow['time']['seconds'] > fast['time']['seconds'] > 0


def test_model_flops_are_those_of_the_plain_network(config):
  """The arithmetic that folding adds is the machine's, not the model's."""
  config.model.multipliers, config.train.batch_size = (1, 2), 1
  plain = plan_estimate.model_flops(config)
  config.model.fold = 2
  assert plan_estimate.model_flops(config) == plain
  model = SR3.from_config(config, machines.parse('v5e:2x2').platform)
  lowered = plan_programs.lower_training(config, model, 'pmap', None)
  counted = sum(o.flops for o in plan_estimate.count_operations(lowered))
  assert counted > 1.2 * plain


def test_the_table_says_that_the_compiler_tried_less():
  made = {
    'effort': -0.5,
    'plans': [{'topology': 'v5e:2x2', 'compiled': True, 'measured': False}],
  }
  assert 'less of an effort (-0.5)' in ' '.join(plan_table.notes(made))
  assert 'effort' not in ' '.join(plan_table.notes(made | {'effort': 0.0}))


@pytest.mark.parametrize(
  ('keep', 'least', 'most'),
  [
    ('inputs', 1.05, 4 / 3),  # the blocks' share of the forward third once more
    ('convolutions', 1.0, 1.01),  # nothing that counts
  ],
)
def test_recomputation_is_hardware_flops_only(config, keep, least, most):
  config.model.update({'remat': True, 'keep': keep})
  model = plan_run.SR3.from_config(config)
  per_image = plan_estimate.model_flops(config)
  config.train.batch_size = 1
  step = plan_estimate.count_operations(
    plan_programs.lower_training(config, model, 'pmap', None)
  )
  again = sum(o.times * o.flops for o in step) / per_image
  assert least <= again < most


@pytest.mark.parametrize('strategy', ['pmap', 'fsdp'])
def test_a_chip_does_its_share_of_the_step(config, strategy):
  model = plan_run.SR3.from_config(config)
  lowered = plan_programs.lower_training(config, model, strategy, jax.devices())
  share = sum(o.times * o.flops for o in plan_estimate.count_operations(lowered))
  assert share == plan_estimate.model_flops(config) * config.train.batch_size / 8


def test_a_run_of_the_samplers_loop_is_one_step(config):
  model = plan_run.SR3.from_config(config)
  lowered = plan_programs.lower_sampling(config, model, 2, jax.devices())
  step = sum(o.times * o.flops for o in plan_estimate.count_operations(lowered))
  params = jax.eval_shape(model.init, jax.random.key(0))
  image = jax.ShapeDtypeStruct((2, 16, 16, 3), 'float32')
  level = jax.ShapeDtypeStruct((2,), 'float32')
  network = jax.jit(model.predict).lower(params, image, image, level)
  assert step == sum(o.flops for o in plan_estimate.count_operations(network)) > 0


def test_results_of_the_compiler_are_cached(tmp_path, monkeypatch, config):
  lowered = jax.jit(lambda x: x + 1).lower(1.0)
  other = jax.jit(lambda x: x + 2).lower(1.0)
  found = measured(operation(flops=3.0), optimal_seconds=0.5)
  compiled = []

  def compile_it(program, effort):
    compiled.append((program, effort))
    return found

  monkeypatch.setattr(plan_programs, '_compile', compile_it)

  def get(program, name, effort=0.0):
    machine, cache = machines.parse(name), epath.Path(tmp_path / 'plans')
    return plan_programs.compile_for_tpu(program, machine, 'step', cache, effort)

  first = get(lowered, 'v5e:2x4')
  assert get(lowered, 'v5e:2x4') == first
  assert dataclasses.replace(first, compile_seconds=0.0) == found
  assert compiled == [(lowered, 0.0)]
  get(other, 'v5e:2x4')
  get(lowered, 'v5e:4x4')
  monkeypatch.setattr(plan_programs, 'versions', lambda: {'libtpu': '9'})
  get(lowered, 'v5e:2x4')
  get(lowered, 'v5e:2x4', -1.0)
  get(lowered, 'v5e:2x4', -1.0)
  programs, efforts = zip(*compiled, strict=True)
  assert programs == (lowered, other, lowered, lowered, lowered)
  assert efforts == (0.0, 0.0, 0.0, 0.0, -1.0)
  assert not list((tmp_path / 'plans').glob('*.part'))


# ----------------------------------------------------------------------- the real thing


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'strategy'),
  [('v5e:1x1', 'fsdp'), ('v5e:2x2', 'fsdp'), ('v5e:2x4', 'fsdp'), ('v5e:2x4', 'pmap')],
)
def test_a_tpus_own_compiler_agrees(config, monkeypatch, name, strategy):
  pytest.importorskip('libtpu', reason='the TPU compiler comes with sr3_jax[tpu-plan]')
  monkeypatch.setattr(strategies, 'SMALL', 2**10)
  # With one image on a chip some products of matrices are none any more.
  config.train.batch_size, config.model.channels = 16, 128
  model, machine = plan_run.SR3.from_config(config), machines.parse(name)
  chips = plan_programs.tpu_devices(machine)
  assert len(chips) == machine.count
  lowered = plan_programs.lower_training(config, model, strategy, chips)
  made = plan_programs.compile_for_tpu(lowered, machine, name, None)
  assert made.fits(machine.chip)
  # Arguments are the state and some kilobytes of images: all of it, or a part.
  state = jax.eval_shape(functools.partial(train_step.create_state, config, model))
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  parts = machine.count if strategy == 'fsdp' else 1
  assert made.arguments == pytest.approx(size / parts, rel=0.15)
  assert made.aliased == pytest.approx(made.outputs, rel=0.01)
  # Nothing is computed twice, and nothing is missed.
  counted = sum(o.times * o.flops for o in made.operations) * machine.count
  assert counted == pytest.approx(16 * plan_estimate.model_flops(config), rel=0.02)
  # Gradients are summed once, or weights gathered and gradients scattered.
  weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
  sent = sum(o.times * o.sent for o in made.operations)
  passes = {'pmap': (1.9, 2.1), 'fsdp': (1.4, 3.1)}[strategy]
  low, high = (n * weights * (1 - 1 / machine.count) for n in passes)
  assert low <= sent <= high


@pytest.mark.slow
def test_less_effort_of_the_compiler_is_the_same_arithmetic(config):
  pytest.importorskip('libtpu', reason='the TPU compiler comes with sr3_jax[tpu-plan]')
  config.train.batch_size, config.model.channels = 16, 128
  model, machine = plan_run.SR3.from_config(config), machines.parse('v5e:1x1')
  chips = plan_programs.tpu_devices(machine)
  lowered = plan_programs.lower_training(config, model, 'pmap', chips)
  full, less = (
    plan_programs.compile_for_tpu(lowered, machine, 'step', None, effort)
    for effort in (0.0, -1.0)
  )
  flops = [hlo_costs.total_flops(made.operations) for made in (full, less)]
  assert flops[1] == pytest.approx(flops[0], rel=0.01)
  assert less.arguments == full.arguments
  assert less.temporaries >= full.temporaries  # what fits with less, fits
