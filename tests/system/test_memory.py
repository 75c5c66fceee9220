"""The memory that `sr3-upscale` announces is what its process takes, and no more."""

import pathlib
import runpy
import subprocess
import sys

import jax
import numpy as np
import pytest

from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import model_writer
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]
BENCHMARK = runpy.run_path(str(ROOT / 'benchmarks' / 'memory.py'))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A small model with random weights that upscales four times."""
  config = runs.get_config()
  network = SR3.from_config(config)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: 0.1 * rng.standard_normal(p.shape).astype(np.float32), shapes
  )
  folder = tmp_path_factory.mktemp('models') / 'random'
  model_writer.save(folder, params, config, step=1)
  return folder


@pytest.mark.parametrize(
  'size, options',
  [
    ((1, 1), []),
    ((4000, 2), ['--consistency']),
    ((300, 200), ['--num_samples=3', '--spread', '--ext=tif']),
  ],
)
def test_the_peak_of_the_process_is_announced(
  model, size, options, tmp_path, monkeypatch, compile_cache
):
  monkeypatch.delenv('XLA_FLAGS', raising=False)  # one device, as users have
  picture = BENCHMARK['draw'](tmp_path / 'a.png', *size)
  given = f'--model={model}', f'--cache={compile_cache}', *options
  said, peak = BENCHMARK['measure'](picture, *given)
  assert 0.8 * peak < said < 1.25 * peak
  if size[1] == 2:  # whole matrices and square tiles took 3.7 GB
    assert peak < 0.65


def test_what_does_not_fit_is_refused_before_memory_is_taken(
  model, tmp_path, monkeypatch, compile_cache
):
  """Under `ulimit -v`; the small picture beside it is done."""
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  (tmp_path / 'in').mkdir()
  BENCHMARK['draw'](tmp_path / 'in' / 'large.png', 2600, 2600)
  BENCHMARK['draw'](tmp_path / 'in' / 'small.png', 8, 8)
  limited = ['sh', '-c', 'ulimit -v 6000000; exec "$@"', 'sh', sys.executable, '-m']
  command = [*limited, 'sr3_jax.upscale', str(tmp_path / 'in')]
  options = '-o', str(tmp_path / 'out'), f'--model={model}', '--steps=1'
  done = subprocess.run(
    [*command, *options, f'--cache={compile_cache}'],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert '1 done, 0 skipped, 1 failed' in done.stdout
  line = next(x for x in done.stderr.splitlines() if x.startswith('failed'))
  assert 'large.png: 2600 x 2600 pixels need more memory than there is' in line
  assert 'Traceback' not in done.stderr
