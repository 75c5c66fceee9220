"""Evaluation by two real processes on loopback against one."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import tiny

# Two devices each; the program is that of --mode=eval.
PROGRAM = """
import sys
import jax
rank, count, port, workdir = sys.argv[1:]
if int(count) > 1:
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', int(count), int(rank))
import tiny
from sr3_jax import modes
config = tiny.get_config()
config.eval.num_seeds = 2
modes.evaluate_run(config, workdir)
"""


def free_port() -> int:
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def evaluate(workdir, count: int) -> dict:
  environment = tiny.with_devices(2) | {
    'PYTHONPATH': os.pathsep.join(['tests', os.environ.get('PYTHONPATH', '')]),
  }
  port = str(free_port())
  started = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM, str(rank), str(count), port, str(workdir)],
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(count)
  ]
  for process in started:
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-2000:]
  return json.loads((workdir / 'report' / 'report.json').read_text())


@pytest.mark.slow
def test_two_processes_measure_what_one_does(trained, tmp_path):
  reports = []
  for count in (1, 2):
    workdir = tmp_path / str(count)
    shutil.copytree(trained.workdir / 'checkpoints', workdir / 'checkpoints')
    reports.append(evaluate(workdir, count))
  one, two = reports
  assert one['images'] == two['images'] == 13
  assert one['protocol']['image list'] == two['protocol']['image list']
  assert list(one['table']) == list(two['table']) == ['bicubic', 'lanczos', 'sr3']
  for name, row in one['table'].items():
    for key, entry in row.items():
      other = two['table'][name][key]
      for edge in ('value', 'low', 'high'):
        # The same programs on the same images: rounding only.
        assert other[edge] == pytest.approx(entry[edge], rel=1e-4), (name, key, edge)
  assert len(one['table']['sr3']['psnr']['seeds']) == 2
  files = lambda folder: sorted(p.name for p in (folder / 'pictures').iterdir())
  assert files(tmp_path / '1' / 'report') == files(tmp_path / '2' / 'report')
