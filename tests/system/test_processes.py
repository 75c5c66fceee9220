"""Tests of evaluation and cascades by two processes, compared with one."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from sr3_jax.images import image_files
from tests.support import cascades, runs

ROOT = pathlib.Path(__file__).parents[2]
START = """
import sys
import jax
rank, count, port, folder, workdir = sys.argv[1:]
if int(count) > 1:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', int(count), int(rank))
"""
# The program of --mode=eval.
EVALUATE = """
from tests.support import runs
from sr3_jax.evaluation.run import evaluate_run
config = runs.get_config()
config.eval.num_seeds = 2
evaluate_run(config, workdir)
"""
# The programs of --mode=sample, eval and sweep of a cascade. Neither 9 nor 7 images
# divide into whole batches.
CASCADE = """
from etils import epath
from sr3_jax.cascade.run import run
from sr3_jax.core import model_fields
from tests.support import cascades
model_fields.make_network = cascades.make_network
stages = [f'{folder}/{name}' for name in ('base', 'up')]
config = cascades.cascade_config(*stages, **{'cascade.images_per_class': 3})
cascades.with_data(config, f'{folder}/data.npz')
config.eval.final_images, config.eval.batch_size = 7, 4
config.sweep.num_images = 7
config.cascade.search_noise = (0.0, 0.4)
for mode in ('sample', 'eval', 'sweep'):
  run(config, epath.Path(workdir), mode)
"""


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def run(program: str, count: int, folder: pathlib.Path, workdir: pathlib.Path) -> None:
  """Run a program in `count` processes with two devices each."""
  environment = runs.with_devices(2) | {
    'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
  }
  command = [sys.executable, '-c', START + program]
  rest = [str(count), str(free_port()), str(folder), str(workdir)]
  started = [
    subprocess.Popen(
      [*command, str(rank), *rest],
      env=environment,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(count)
  ]
  for process in started:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-2000:]


def read(path: pathlib.Path):
  return json.loads(path.read_text())


@pytest.mark.slow
def test_two_processes_measure_the_same_as_one(trained, tmp_path):
  reports = []
  for count in (1, 2):
    workdir = tmp_path / str(count)
    shutil.copytree(trained.workdir / 'checkpoints', workdir / 'checkpoints')
    run(EVALUATE, count, tmp_path, workdir)
    reports.append(read(workdir / 'report' / 'report.json'))
  one, two = reports
  assert one['images'] == two['images'] == 13
  assert one['protocol']['image list'] == two['protocol']['image list']
  assert list(one['table']) == list(two['table']) == ['bicubic', 'lanczos', 'sr3']
  for name, row in one['table'].items():
    for key, entry in row.items():
      other = two['table'][name][key]
      # Crops of two photographs have no intervals.
      assert entry.keys() == other.keys()
      for edge in {'value', 'low', 'high'} & entry.keys():
        # The programs and images are equal, so only rounding differs.
        assert other[edge] == pytest.approx(entry[edge], rel=1e-4), (name, key, edge)
  assert len(one['table']['sr3']['psnr']['seeds']) == 2
  assert pictures_of(tmp_path / '1') == pictures_of(tmp_path / '2')


def pictures_of(run: pathlib.Path) -> list[str]:
  return sorted(path.name for path in (run / 'report' / 'pictures').iterdir())


@pytest.mark.slow
def test_two_processes_sample_and_measure_a_cascade_as_one_does(tmp_path):
  with cascades.stages(tmp_path):
    pass
  one, two = tmp_path / '1', tmp_path / '2'
  run(CASCADE, 1, tmp_path, one)
  run(CASCADE, 2, tmp_path, two)
  pictures = sorted(path.relative_to(one) for path in one.rglob('*.png'))
  assert pictures == sorted(path.relative_to(two) for path in two.rglob('*.png'))
  samples = [path for path in pictures if path.stem.isdigit()]
  assert len(samples) == 2 * 9  # nine of each stage
  for path in samples:
    # The programs and the noise are equal, so images differ only by rounding.
    difference = image_files.read(one / path).astype(int) - image_files.read(two / path)
    assert abs(difference).max() <= 1, path
  assert read(two / 'results.json') == approximately(read(one / 'results.json'))
  expected = approximately(read(one / 'search.json')['rows'])
  assert read(two / 'search.json')['rows'] == expected


def approximately(tree):
  """Return a JSON value that equals others whose numbers are nearly the same."""
  if isinstance(tree, dict):
    return {key: approximately(value) for key, value in tree.items()}
  if isinstance(tree, list):
    return [approximately(value) for value in tree]
  return pytest.approx(tree, rel=1e-4) if isinstance(tree, float) else tree
