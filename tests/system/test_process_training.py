"""Tests of training by several processes on this machine, by the real program."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.support import runs
from tests.system.test_processes import free_port

ROOT = pathlib.Path(__file__).parents[2]
DEVICES = 2  # devices of each process
TIMEOUT = 20  # seconds of silence after which a process counts as dead
ENDLESS = '--config.train.num_steps=100000'


def start(workdir, processes: int, *arguments: str, extra=()) -> list[subprocess.Popen]:
  """Start the processes of one run; `extra` has more arguments of single processes."""
  command = [sys.executable, '-m', 'sr3_jax.main', '--config=tests/support/runs.py']
  command += ['--config.eval.every_steps=0', f'--workdir={workdir}']
  command += [f'--cache={workdir}_programs']
  command += arguments
  if processes > 1:
    command += ['--multihost', f'--coordinator=localhost:{free_port()}']
    command += [f'--num_processes={processes}', f'--process_timeout={TIMEOUT}']
  return [
    subprocess.Popen(
      [
        *command,
        *[f'--process_id={rank}'] * (processes > 1),
        *dict(extra).get(rank, []),
      ],
      cwd=ROOT,
      env=runs.with_devices(DEVICES),
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(processes)
  ]


def wait_for(ready: Callable[[], bool], processes: list[subprocess.Popen]) -> None:
  """Wait until `ready` is true; fail if a process ends before."""
  deadline = time.monotonic() + 400
  while not ready():
    codes = [process.poll() for process in processes]
    if time.monotonic() > deadline or codes != [None] * len(codes):
      for process in processes:
        process.kill()
      pytest.fail(f'{codes}: {[process.communicate()[1] for process in processes]}')
    time.sleep(0.05)


def outputs(processes: list[subprocess.Popen], seconds: float) -> list[str]:
  """Wait until all processes have ended, and return stderr of each.

  Raises:
    subprocess.TimeoutExpired: one has not ended after so many seconds.
  """
  deadline = time.monotonic() + seconds
  try:
    return [p.communicate(timeout=deadline - time.monotonic())[1] for p in processes]
  finally:
    for process in processes:
      process.kill()


def finish(processes: list[subprocess.Popen]) -> list[str]:
  """Return stderr of each process of a run that has to succeed."""
  errors = outputs(processes, 550)
  assert [process.returncode for process in processes] == [0] * len(processes), errors
  return errors


def losses(workdir) -> dict[int, float]:
  """Return the losses in metrics.jsonl by step."""
  path = workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  lines = [json.loads(line) for line in lines if line.endswith('\n')]
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


def saved(workdir) -> list[int]:
  """Return the steps of complete checkpoints."""
  folder = workdir / 'checkpoints'
  names = os.listdir(folder) if folder.exists() else []
  return sorted(int(name) for name in names if name.isdigit())


class InterruptedRun:
  """A run of two processes of which one is killed; restarted, one gets SIGTERM.

  Attributes:
    first_errors: stderr of the process that was not killed.
    seconds: time from the kill until that process ended.
    first_codes: exit codes of both processes.
    saved_step: the newest checkpoint then.
    second_errors: stderr of both processes after the restart.
    second_codes: their exit codes.
  """

  def __init__(self, workdir):
    self.workdir = workdir
    command = (ENDLESS, '--config.parallel.strategy=fsdp')
    first = start(workdir, 2, *command)
    wait_for(lambda: 5 in saved(workdir), first)
    first[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    self.first_errors = outputs(first[:1], 6 * TIMEOUT)[0]
    self.seconds = time.monotonic() - began
    first[1].communicate()
    self.first_codes = [process.returncode for process in first]
    self.saved_step = saved(workdir)[-1]
    second = start(workdir, 2, *command)
    wait_for(lambda: max(losses(workdir), default=0) >= self.saved_step + 5, second)
    second[1].send_signal(signal.SIGTERM)
    self.second_errors = outputs(second, 200)
    self.second_codes = [process.returncode for process in second]


@pytest.fixture(scope='module')
def interrupted(tmp_path_factory):
  return InterruptedRun(tmp_path_factory.mktemp('interrupted'))


def test_when_a_process_is_killed_the_other_ends_with_a_message(interrupted):
  """The program writes it if a collective operation fails, else JAX after a timeout."""
  assert interrupted.first_codes[1] == -signal.SIGKILL
  assert interrupted.first_codes[0] not in (0, None)
  assert interrupted.seconds < 3 * TIMEOUT
  assert 'Traceback' not in interrupted.first_errors
  assert re.search('another (process ended|task died)', interrupted.first_errors)


def test_the_next_start_resumes_from_the_newest_checkpoint(interrupted):
  for errors in interrupted.second_errors:
    assert f'resuming from step {interrupted.saved_step}' in errors
  beat = json.loads((interrupted.workdir / 'heartbeat/process_00001.json').read_text())
  assert beat['step'] == saved(interrupted.workdir)[-1]


def test_two_interrupted_processes_have_the_losses_of_one(interrupted, trained):
  """The one process has eight devices and a replicated state."""
  one, two = losses(trained.workdir), losses(interrupted.workdir)
  assert list(one)[:4] == list(two)[:4] == [4, 5, 8, 10]
  for step in (4, 5, 8, 10):
    assert two[step] == pytest.approx(one[step], rel=1e-5)


def test_sigterm_to_one_process_saves_and_ends_all(interrupted):
  assert interrupted.second_codes == [143, 143]
  step = saved(interrupted.workdir)[-1]
  assert step > interrupted.saved_step
  for errors in interrupted.second_errors:
    assert f'stopped by SIGTERM, saved at step {step}' in errors.splitlines()[-1]
    assert 'Traceback' not in errors


def test_each_process_has_its_own_log(interrupted):
  for rank in range(2):
    text = (interrupted.workdir / 'logs' / f'process_{rank:05d}.log').read_text()
    assert text.count(f', process {rank} of 2: ') == 2
    assert text.count(' has no end') == 1
    assert 'ended: stopped by SIGTERM' in text.splitlines()[-1]


def test_an_error_of_one_process_ends_all_of_them(tmp_path):
  """The process that fails does not wait for the others, which wait for it."""
  images = tmp_path / 'images'
  one, other = start(
    tmp_path / 'run',
    2,
    ENDLESS,
    extra={1: ['--config.data.source=folder', f'--config.data.path={images}']},
  )
  try:
    _, errors = other.communicate(timeout=200)
    assert other.returncode == 1
    assert errors.splitlines()[-1].startswith(f'error: {images}')
    outputs([one], 3 * TIMEOUT)
    assert one.returncode not in (0, None)
  finally:
    one.kill()
  log = (tmp_path / 'run' / 'logs' / 'process_00001.log').read_text()
  assert f'ended: error: {images}' in log


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['pmap', 'fsdp'])
def test_a_save_that_fails_ends_all_processes(tmp_path, strategy):
  """They end at once: not at the next save, and not after a timeout."""
  run = tmp_path / 'run'
  processes = start(run, 2, ENDLESS, f'--config.parallel.strategy={strategy}')
  wait_for(lambda: 5 in saved(run), processes)
  (run / 'checkpoints').rename(tmp_path / 'moved')
  (run / 'checkpoints').touch()
  errors = outputs(processes, 3 * TIMEOUT)
  assert processes[0].returncode == 1
  assert processes[1].returncode not in (0, None)
  line = next(x for x in errors[0].splitlines() if x.startswith('error: '))
  assert 'a checkpoint could not be written; that of step' in line
  assert 'Traceback' not in errors[0]


@pytest.mark.slow
def test_a_frozen_process_ends_the_run(tmp_path):
  """Its sockets stay open, so that only its silence shows that it is dead."""
  processes = start(tmp_path, 2, ENDLESS, '--config.parallel.strategy=fsdp')
  wait_for(lambda: losses(tmp_path), processes)
  processes[1].send_signal(signal.SIGSTOP)
  (errors,) = outputs(processes[:1], 3 * TIMEOUT)
  processes[1].kill()
  processes[1].communicate()
  assert processes[0].returncode not in (0, None)
  assert re.search('another (process ended|task died)', errors)


def table(workdir) -> dict[str, dict[str, float]]:
  """Return the values of the evaluation by method and metric."""
  rows = json.loads((workdir / 'report' / 'report.json').read_text())['table']
  return {
    method: {name: entry['value'] for name, entry in row.items()}
    for method, row in rows.items()
  }


@pytest.mark.slow
@pytest.mark.parametrize(
  ('processes', 'strategy', 'then', 'other'),
  [(4, 'fsdp', 2, 'pmap'), (2, 'pmap', 1, 'fsdp'), (1, 'fsdp', 4, 'pmap')],
)
def test_a_run_continues_with_another_number_of_processes_and_strategy(
  trained, tmp_path, processes, strategy, then, other
):
  """Ten steps each; losses and evaluation are those of one process."""
  run, copy = tmp_path / 'run', tmp_path / 'copy'
  first = ['--config.train.num_steps=10', f'--config.parallel.strategy={strategy}']
  finish(start(run, processes, *first))
  errors = finish(start(run, then, f'--config.parallel.strategy={other}'))
  assert all('resuming from step 10' in x for x in errors)
  one, many = losses(trained.workdir), losses(run)
  assert list(one) == list(many)
  for step, value in one.items():
    # Adam turns rounding errors into whole steps, so differences grow after step 10.
    assert many[step] == pytest.approx(value, rel=1e-5 if step <= 10 else 1e-3)
  shutil.copytree(run / 'checkpoints', copy / 'checkpoints')
  finish(start(copy, 1, '--mode=eval'))
  alone, together = table(copy), table(run)
  assert alone.keys() == together.keys() == {'bicubic', 'lanczos', 'sr3'}
  for method, row in alone.items():
    assert together[method] == pytest.approx(row, rel=1e-4)
