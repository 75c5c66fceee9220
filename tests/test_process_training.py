"""Training by several real processes on loopback, through the real entry point."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from checkpoint_kit import steps_in
from test_processes import free_port

ROOT = pathlib.Path(__file__).parents[1]
DEVICES = 4  # of all processes together
pytestmark = pytest.mark.slow


def start(workdir, processes: int, *arguments: str) -> list[subprocess.Popen]:
  """The processes of one run."""
  environment = os.environ | {
    'XLA_FLAGS': '--xla_backend_optimization_level=0 '
    f'--xla_force_host_platform_device_count={DEVICES // processes}',
  }
  command = [sys.executable, '-m', 'sr3_jax.main', '--config=tests/tiny.py']
  command += ['--config.eval.every_steps=0', '--config.train.log_every=1', '--cache=']
  command += ['--config.train.learning_rate=1e-3', f'--workdir={workdir}', *arguments]
  if processes > 1:
    command += ['--multihost', f'--coordinator=localhost:{free_port()}']
    command += [f'--num_processes={processes}', '--process_timeout=20']
  return [
    subprocess.Popen(
      command + [f'--process_id={rank}'] * (processes > 1),
      cwd=ROOT,
      env=environment,
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(processes)
  ]


def run(workdir, processes: int, *arguments: str) -> list[str]:
  """Waits for a run; what each process said."""
  said = []
  for process in start(workdir, processes, *arguments):
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors[-3000:]
    said.append(errors)
  return said


def losses(workdir) -> dict[int, float]:
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """One process, the state replicated."""
  workdir = tmp_path_factory.mktemp('alone')
  run(workdir, 1)
  return workdir


@pytest.mark.parametrize(
  ('processes', 'strategy', 'then'),
  [
    (2, 'pmap', (1, 'fsdp')),
    (2, 'fsdp', (4, 'pmap')),
    (4, 'fsdp', (2, 'fsdp')),
  ],
)
def test_processes_train_as_one_and_others_go_on(
  alone, tmp_path, processes, strategy, then
):
  """Ten steps by some, the rest by another number of processes in another way."""
  first = ['--config.train.num_steps=10', f'--config.parallel.strategy={strategy}']
  run(tmp_path, processes, *first)
  count, other = then
  said = run(tmp_path, count, f'--config.parallel.strategy={other}')
  assert 'resuming from step 10' in said[0]
  one, many = losses(alone), losses(tmp_path)
  assert list(one) == list(many) == list(range(1, 21))
  for step, value in one.items():
    # Adam makes whole steps of rounding errors, which grow from then on.
    assert many[step] == pytest.approx(value, rel=1e-5 if step <= 10 else 1e-3)
  table = lambda w: json.loads((w / 'report' / 'report.json').read_text())['table']
  for name in ('psnr', 'consistency'):
    values = [table(w)['sr3'][name]['value'] for w in (alone, tmp_path)]
    assert values[0] == pytest.approx(values[1], rel=1e-2)


def test_when_a_process_dies_the_others_end_and_the_next_start_goes_on(tmp_path):
  endless = ['--config.train.num_steps=100000', '--config.checkpoint.every_steps=5']
  processes = start(tmp_path, 2, *endless)
  deadline = time.monotonic() + 300
  while (
    not (tmp_path / 'checkpoints').exists() or max(steps_in(tmp_path), default=0) < 5
  ):
    assert time.monotonic() < deadline
    assert all(process.poll() is None for process in processes)
    time.sleep(0.2)
  processes[1].send_signal(signal.SIGKILL)
  began = time.monotonic()
  _, errors = processes[0].communicate(timeout=120)
  assert time.monotonic() - began < 90
  processes[1].communicate()
  assert processes[0].returncode != 0
  saved = max(steps_in(tmp_path))
  said = run(tmp_path, 2, f'--config.train.num_steps={saved + 2}')
  assert f'resuming from step {saved}' in said[0]
  assert 'another process ended' in errors or 'distributed service' in errors


def test_sigterm_to_one_process_saves_all(tmp_path):
  endless = [
    '--config.train.num_steps=100000',
    '--config.checkpoint.every_steps=100000',
  ]
  processes = start(tmp_path, 2, *endless)
  metrics = tmp_path / 'metrics.jsonl'
  deadline = time.monotonic() + 300
  while not (metrics.exists() and metrics.read_text().count('\n') > 2):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  processes[1].send_signal(signal.SIGTERM)
  said = [process.communicate(timeout=200)[1] for process in processes]
  assert [process.returncode for process in processes] == [143, 143], said
  (step,) = steps_in(tmp_path)
  for errors in said:
    assert f'saved at step {step}' in errors
