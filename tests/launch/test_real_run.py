"""Test of a launcher with a real run of two processes, one of which is killed."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import runs
from tests.support.launchers import OPTIONS, Stage
from tests.system.test_process_training import losses, saved
from tests.system.test_processes import free_port

# The Python of a worker. It installs nothing, replaces the bucket by a folder, and adds
# the flags of processes, which JAX knows by itself on a TPU.
WORKER_PYTHON = """#!{python}
import os, sys
arguments = [x.replace('gs://bucket', {bucket!r}) for x in sys.argv[1:]]
if 'pip' in arguments:
  sys.exit()
arguments += ['--coordinator=localhost:{port}', '--num_processes=2']
arguments += ['--process_id=' + os.environ['WORKER'], '--process_timeout=20']
os.execv({python!r}, [{python!r}, *arguments])
"""


def make_worker_python(stage: Stage, rank: int, **values: str) -> None:
  """Write the Python of one worker."""
  folder = stage.fake / f'w{rank}' / 'sr3_jax' / 'sr3' / 'venv' / 'bin'
  folder.mkdir(parents=True)
  (folder / 'python').write_text(WORKER_PYTHON.format(python=sys.executable, **values))
  (folder / 'python').chmod(0o755)


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_restarted_and_continues(tmp_path):
  stage = Stage(tmp_path, workers=2)
  stage.environment |= {
    'SR3_POLL': '1',
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': runs.with_devices(2)['XLA_FLAGS'],
  }
  stage.make_endless()
  workdir = tmp_path / 'bucket' / 'run'
  options = [*OPTIONS['tpu_slice'], '--config=tests/support/runs.py']
  flags = ['--', '--config.train.num_steps=60', '--config.eval.every_steps=0']
  assert stage.run('tpu_slice', 'create', options=options).code == 0
  port = free_port()
  for rank in range(2):
    make_worker_python(stage, rank, bucket=os.fspath(workdir.parent), port=port)
  try:
    for verb in ('setup', 'run'):
      done = stage.run('tpu_slice', verb, *flags, options=options)
      assert done.code == 0, done.error
    watch = subprocess.Popen(
      [stage.launch / 'tpu_slice.sh', 'watch', *options, *flags],
      env=stage.environment,
      cwd=stage.fake,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    deadline = time.monotonic() + 400
    while 5 not in saved(workdir):
      assert watch.poll() is None, watch.communicate()[0]
      assert time.monotonic() < deadline
      time.sleep(0.02)
    log = workdir / 'logs' / 'process_00001.log'
    victim = re.search(r'\[(\d+)\] started on ', log.read_text())[1]
    os.kill(int(victim), signal.SIGKILL)
    output, _ = watch.communicate(timeout=500)
  finally:
    for file in stage.fake.glob('w*/sr3_jax/sr3/run.pid'):
      subprocess.run(['kill', '-KILL', '--', f'-{file.read_text().strip()}'])
  assert watch.returncode == 0, output
  assert output.count('starting again') == 1 and 'the run is finished' in output
  assert 'worker w1 done 137' in output
  for rank in range(2):
    text = (workdir / 'logs' / f'process_{rank:05d}.log').read_text()
    assert text.count('] started on ') == 2
    assert 'resuming from step' in text and 'ended: finished' in text
  assert f'process [{victim}] has no end' in log.read_text()
  steps = list(losses(workdir))
  assert steps[-1] == 60 and steps == sorted(set(steps))
  assert (workdir / 'results.json').exists()
