"""Speed of a configuration on this machine: training step, sampling, input pipeline.

  python benchmarks/step.py --config=configs/quickstart.py
  python benchmarks/step.py --config=configs/imagenet_64_256.py \\
    --config.train.batch_size=16 --config.data.source=photos

Prints compile time, step time, images/s, FLOPs (the compiler's count), achieved FLOP/s,
its share of a matrix-multiplication ceiling measured in the same run, and memory. Times
are medians; the ceiling is measured before and after, and the better one counts.
"""

import json
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline as data_input_pipeline
from sr3_jax.runtime import devices
from sr3_jax.training import train_step

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'Experiment.', lock_config=True)
flags.DEFINE_integer('repeats', 10, 'Timed repetitions.')
flags.DEFINE_integer('sampling_steps', 5, 'Steps of the sampling loop that is timed.')
flags.DEFINE_bool('input', True, 'Also time the input pipeline alone.')
flags.DEFINE_string('json', '', 'Also write the figures to this file.')
flags.mark_flag_as_required('config')


def timed(function, *args, repeats: int) -> float:
  """Median seconds of a call, after one that does not count."""
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(repeats):
    began = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - began)
  return float(np.median(times))


def ceiling(dtype: str) -> float:
  """FLOP/s of a large matrix product over all local devices."""
  size = 2048 if jax.default_backend() == 'cpu' else 8192
  matrix = devices.replicate(np.ones((size, size), dtype))
  product = devices.pmap(lambda a: a @ a)
  seconds = timed(product, matrix, repeats=5)
  return 2 * size**3 * jax.local_device_count() / seconds


def compiled(lowered) -> tuple[object, float]:
  """The program and the seconds that compiling took."""
  began = time.perf_counter()
  program = lowered.compile(compiler_options=devices.compiler_options())
  return program, time.perf_counter() - began


def flops(program) -> float:
  """FLOPs of one call on one device, by the compiler's count."""
  analysis = program.cost_analysis()
  analysis = analysis[0] if isinstance(analysis, list) else analysis
  return float(analysis.get('flops', float('nan')))


def peak_bytes(program) -> float:
  """Arguments, results and temporaries of one device."""
  m = program.memory_analysis()
  return (
    m.argument_size_in_bytes
    + m.output_size_in_bytes
    + m.temp_size_in_bytes
    - m.alias_size_in_bytes
  )


def figures(program, compile_seconds, seconds, images) -> dict[str, float]:
  count = flops(program)
  return {
    'compile_s': compile_seconds,
    'step_ms': seconds * 1e3,
    'images_per_s': images / seconds,
    'gflop': count * jax.local_device_count() / 1e9,
    'gflop_per_s': count * jax.local_device_count() / seconds / 1e9,
    'memory_mib': peak_bytes(program) / 2**20,
  }


def training(config, model: SR3) -> dict[str, float]:
  """The training step as the program runs it."""
  c = config.train
  state = devices.replicate(train_step.create_state(config, model))
  side = config.data.image_size
  local = devices.per_process(c.batch_size)
  image = np.random.default_rng(0).integers(0, 256, (local, side, side, 3), np.uint8)
  batch = {'image': image}
  if config.model.num_classes:
    batch['label'] = np.zeros(local, np.int32)
  batch = devices.shard(batch)
  step = jax.pmap(
    partial(train_step.train_step, axis_name=devices.AXIS),
    axis_name=devices.AXIS,
    donate_argnums=(0,),
  )
  program, compile_seconds = compiled(step.lower(state, batch))

  def run():
    nonlocal state  # donated: every call takes the state of the one before
    state, metrics = program(state, batch)
    return metrics

  seconds = timed(run, repeats=FLAGS.repeats)
  return figures(program, compile_seconds, seconds, c.batch_size)


def sampling(config, model: SR3) -> dict[str, float]:
  """A stretch of the sampling scan; times and images/s are those of all steps."""
  gammas, coefficients = model.trajectory
  whole = 1 if model.method == 'regression' else len(coefficients)
  count = min(FLAGS.sampling_steps, whole)
  steps = jax.tree.map(lambda s: s[:count], samplers.steps(gammas, coefficients))
  stochastic = samplers.is_stochastic(coefficients)
  params = model.init(jax.random.key(0))
  local = devices.per_process(config.eval.batch_size) // jax.local_device_count()
  side = config.data.image_size

  def advance(params, x, carry, steps):
    noise = model.noise(jax.random.key(0), x) if stochastic else None
    return model.advance(params, noise, x, carry, steps)

  image = np.zeros((jax.local_device_count(), local, side, side, 3), np.float32)
  args = devices.replicate(params), image, (image, image), devices.replicate(steps)
  program, compile_seconds = compiled(jax.pmap(advance).lower(*args))
  args = jax.tree.map(jnp.asarray, args)
  seconds = timed(program, *args, repeats=max(3, FLAGS.repeats // 3))
  row = figures(program, compile_seconds, seconds, config.eval.batch_size)
  row['step_ms'] /= count
  row['gflop'] /= 1  # XLA counts the body of a loop once: this is one step
  row['gflop_per_s'] *= count
  row['images_per_s'] *= count / whole
  return row


def input_pipeline(config) -> float:
  """Images/s of the input pipeline with nothing else running."""
  batches = data_input_pipeline.training_data(config)
  next(batches)
  began, count = time.perf_counter(), 0
  while time.perf_counter() - began < 5:
    next(batches)
    count += 1
  rate = count * config.train.batch_size / (time.perf_counter() - began)
  batches.close()
  return rate


def main(_) -> None:
  config = FLAGS.config
  model = SR3.from_config(config)
  before = ceiling(config.model.dtype)
  rows = {'training': training(config, model), 'sampling': sampling(config, model)}
  top = max(before, ceiling(config.model.dtype))
  device = jax.devices()[0].device_kind
  print(f'{jax.device_count()} x {device}, {config.model.dtype}')
  print(f'matrix product: {top / 1e9:.0f} GFLOP/s')
  for name, row in rows.items():
    row['share_of_ceiling'] = row['gflop_per_s'] * 1e9 / top
    print(f'{name}:')
    for key, value in row.items():
      print(f'  {key:18} {value:.4g}')
  if FLAGS.input:
    rows['input_images_per_s'] = input_pipeline(config)
    print(f'input pipeline: {rows["input_images_per_s"]:.0f} images/s')
  if FLAGS.json:
    with open(FLAGS.json, 'w') as file:
      json.dump({'device': device, 'ceiling_flops': top, **rows}, file, indent=2)


if __name__ == '__main__':
  app.run(main)
