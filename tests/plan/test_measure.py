"""sr3_jax.plan.measure: what is at hand is compiled and run, and nothing else."""

import dataclasses
import json
import types

import jax
import pytest

from sr3_jax.config import ConfigDict
from sr3_jax.core.sr3 import SR3
from sr3_jax.plan import machines, roofline
from sr3_jax.plan import measure as plan_measure
from sr3_jax.plan import run as plan_run
from sr3_jax.runtime import devices
from tests.support import runs


@pytest.fixture
def config() -> ConfigDict:
  c = runs.get_config()
  c.plan.topology = 'cpu'
  c.plan.search_batch = False
  return c


def test_a_plan_of_this_machine_is_run(config, tmp_path, capsys, monkeypatch):
  results = []

  def six_seconds(call):
    results.extend(call() for _ in range(20))  # the state goes from one to the next
    return 6.0

  ceilings = iter([1e9, 2e9])
  monkeypatch.setattr(plan_measure, 'time_call', six_seconds)
  monkeypatch.setattr(
    plan_measure, 'matrix_product_flops', lambda dtype: next(ceilings)
  )
  with runs.compilations() as names:
    plan_run.plan_run(config, tmp_path)
  shown = capsys.readouterr().out
  made = json.loads((tmp_path / 'plan.json').read_text())
  # One device: both strategies are the same program.
  assert names.count('jit(train_step)') == 1
  for one in made['plans']:
    assert one['measured'] and one['fits'] is True
    assert one['step_seconds'] == 6
    assert one['hours'] == pytest.approx(6 * config.train.num_steps / 3600)
    assert one['images_per_second'] == pytest.approx(config.train.batch_size / 6)
    peak = made['machines']['cpu']['flops']
    assert one['mfu'] == one['mfu_serial'] == one['model_flops'] / peak / 6
    # Weights, their average and two moments, and eight images.
    state = 4 * 4 * made['parameters'] + 8 * 16 * 16 * 3
    assert one['memory']['arguments'] == pytest.approx(state, abs=64)
    assert one['memory']['temporaries'] > 0
    assert one['compile_seconds'] > 0
    assert one['share_of_ceiling'] == one['hardware_flops'] / 6 / 2e9
  assert made['ceiling_flops'] == 2e9
  training, samplings = results[:20], results[20:]
  assert len({float(metrics['loss']) for metrics in training}) == 20
  (sampler,) = made['samplers']
  assert sampler['measured'] and sampler['fits'] is True
  assert sampler['seconds_per_step'] == 6 / plan_measure.SAMPLING_STEPS
  assert sampler['images'] == config.eval.batch_size
  step = sampler['seconds_per_step']
  assert sampler['share_of_ceiling'] == sampler['hardware_flops'] / step / 2e9
  assert sampler['compile_seconds'] > 0
  assert {leaf.shape[:2] for leaf in jax.tree.leaves(samplings[-1])} == {(1, 8)}
  assert 'Run on this machine: cpu' in shown and 'Estimates' not in shown
  assert '6000 ms' in shown and 'measured here: 6000 ms' in shown
  assert shown.count('of a matrix product; compiled in') == 3


@pytest.mark.slow
def test_a_step_takes_as_long_as_the_clock_says(config):
  """Of two batches the larger takes longer; of both, no less than half a bound."""
  machine, seconds = machines.parse('cpu'), []
  for size in (1, 64):
    config.train.batch_size = size
    model = SR3.from_config(config)
    made = plan_measure.measure_training(config, model, machine)
    bound = roofline.estimate(made.operations, machine).seconds
    assert bound / 2 < made.step_seconds < 10
    seconds.append(made.step_seconds)
  assert seconds[1] > seconds[0]


def test_the_ceiling_is_that_of_a_large_matrix_product(monkeypatch):
  """2 n^3 FLOP of float32 in the time that the clock says, of the asked precision."""
  shapes = []

  def two_seconds(call, steps):
    product = call()
    shapes.append((product.shape, product.dtype, steps, float(product[0, 0])))
    return 2.0

  monkeypatch.setattr(plan_measure, 'time_call', two_seconds)
  assert plan_measure.matrix_product_flops('float32') == 2048**3
  assert shapes == [((2048, 2048), 'float32', 5, 2048.0)]


def test_the_first_run_does_not_count(monkeypatch):
  ends = iter([90.0, 2.0, 1.0, 5.0, *[3.0] * 100])
  clock, began = [0.0], [True]

  def now():
    if not began[0]:
      clock[0] += next(ends)
    began[0] = not began[0]
    return clock[0]

  monkeypatch.setattr(plan_measure, 'time', types.SimpleNamespace(perf_counter=now))
  calls = []
  assert (
    plan_measure.time_call(lambda: calls.append(0)) == 2.0
  )  # slow ones: twice is enough
  assert len(calls) == 2
  monkeypatch.setattr(plan_measure, 'ENOUGH', 1e9)
  began[0], calls[:] = True, []
  ends = iter([1.0, 2.0, 1.0, 5.0, *[3.0] * 100])
  assert plan_measure.time_call(lambda: calls.append(0)) == 3.0
  assert len(calls) == 1 + plan_measure.STEPS


def test_a_step_that_takes_too_long_is_estimated(config, tmp_path, capsys, monkeypatch):
  config.plan.search_batch = True
  monkeypatch.setattr(plan_measure, 'LONGEST', 0.0)
  monkeypatch.setattr(plan_measure, 'time_call', None)
  plan_run.plan_run(config, tmp_path)
  assert 'Estimates, not compiled: cpu' in capsys.readouterr().out
  made = json.loads((tmp_path / 'plan.json').read_text())
  assert {one['measured'] for one in made['plans'] + made['samplers']} == {False}
  assert {one['fits'] for one in made['plans'] + made['samplers']} == {None}
  assert not any('largest_batch_per_chip' in one for one in made['plans'])


def test_a_program_larger_than_the_free_memory_is_not_run(
  config, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(devices, 'free_memory', lambda: 1000)
  monkeypatch.setattr(plan_measure, 'time_call', None)
  plan_run.plan_run(config, tmp_path)
  made = json.loads((tmp_path / 'plan.json').read_text())
  for one in made['plans']:
    assert one['fits'] is True  # when others have left
    assert not one['measured'] and one['memory']['temporaries'] > 0
  assert 'Estimates, not compiled: cpu' in capsys.readouterr().out


@pytest.mark.slow
def test_the_largest_batch_is_compiled_for_and_not_run(config, tmp_path, monkeypatch):
  config.plan.search_batch = True
  run, compiled = [], []
  monkeypatch.setattr(plan_measure, 'time_call', lambda call: run.append(call()) or 1.0)
  monkeypatch.setattr(plan_measure, 'matrix_product_flops', lambda dtype: 1e9)
  one = machines.parse('cpu')
  model = SR3.from_config(config)
  config.train.batch_size = 12
  twelve = plan_measure.measure_training(config, model, one, run=False)
  config.train.batch_size = 8
  assert run == []
  chip = dataclasses.replace(one.chip, memory=twelve.memory)
  monkeypatch.setattr(machines, 'cpu', lambda: chip)
  training = plan_measure.measure_training

  def noted(at, *args):
    compiled.append(at.train.batch_size)
    return training(at, *args)

  monkeypatch.setattr(plan_measure, 'measure_training', noted)
  plan_run.plan_run(config, tmp_path)
  made = json.loads((tmp_path / 'plan.json').read_text())
  for plan_ in made['plans']:
    assert plan_['largest_batch_per_chip'] == 12
  assert len(run) == 2  # the training of the configured batch, and the sampler
  assert len(compiled) == len(set(compiled)) >= 4


def test_nothing_is_run_without_compiling(config, tmp_path, monkeypatch):
  config.plan.compile = False
  monkeypatch.setattr(plan_measure, 'is_here', None)
  plan_run.plan_run(config, tmp_path)
  made = json.loads((tmp_path / 'plan.json').read_text())
  assert {one['fits'] for one in made['plans']} == {None}


@pytest.mark.parametrize(
  ('name', 'kind', 'found'),
  [
    ('cpu', 'cpu', True),
    ('cpu', 'NVIDIA H200', False),
    ('h200:1', 'cpu', False),
    ('h200:1', 'NVIDIA H200', True),
    ('h100:1', 'NVIDIA H100 80GB HBM3', True),
    ('a100:1', 'NVIDIA A100-SXM4-80GB', True),
    ('h100:1', 'NVIDIA H200', False),
    ('h200:2', 'NVIDIA H200', False),
    ('v5e:1x1', 'TPU v5 lite', False),
  ],
)
def test_which_machines_are_here(monkeypatch, name, kind, found):
  monkeypatch.setattr(jax, 'devices', lambda: [types.SimpleNamespace(device_kind=kind)])
  assert plan_measure.is_here(machines.parse(name)) == found
