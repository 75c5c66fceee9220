"""Training by several real processes on loopback, through the real entry point."""

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
DEVICES = 2  # of each process
TIMEOUT = 20  # seconds without a sign of life: a process is dead
ENDLESS = '--config.train.num_steps=100000'


def start(workdir, processes: int, *arguments: str, apart=()) -> list[subprocess.Popen]:
  """The processes of one run; `apart`: further arguments of some of them."""
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
        *dict(apart).get(rank, []),
      ],
      cwd=ROOT,
      env=runs.with_devices(DEVICES),
      stderr=subprocess.PIPE,
      text=True,
    )
    for rank in range(processes)
  ]


def wait_for(ready: Callable[[], bool], processes: list[subprocess.Popen]) -> None:
  """Until something is there, while all go on."""
  deadline = time.monotonic() + 400
  while not ready():
    codes = [process.poll() for process in processes]
    if time.monotonic() > deadline or codes != [None] * len(codes):
      for process in processes:
        process.kill()
      pytest.fail(f'{codes}: {[process.communicate()[1] for process in processes]}')
    time.sleep(0.05)


def ends(processes: list[subprocess.Popen], seconds: float) -> list[str]:
  """What each says until all have ended, within so many seconds."""
  deadline = time.monotonic() + seconds
  try:
    return [p.communicate(timeout=deadline - time.monotonic())[1] for p in processes]
  finally:
    for process in processes:
      process.kill()


def finish(processes: list[subprocess.Popen]) -> list[str]:
  """What each said of a run that goes well."""
  said = ends(processes, 550)
  assert [process.returncode for process in processes] == [0] * len(processes), said
  return said


def losses(workdir) -> dict[int, float]:
  path = workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines(keepends=True) if path.exists() else []
  lines = [json.loads(line) for line in lines if line.endswith('\n')]
  return {line['step']: line['loss'] for line in lines if 'loss' in line}


def saved(workdir) -> list[int]:
  """Steps of complete checkpoints."""
  folder = workdir / 'checkpoints'
  names = os.listdir(folder) if folder.exists() else []
  return sorted(int(name) for name in names if name.isdigit())


class Story:
  """Two processes: one is killed. Two again: one is asked to go."""

  def __init__(self, workdir):
    self.workdir = workdir
    command = (ENDLESS, '--config.parallel.strategy=fsdp')
    first = start(workdir, 2, *command)
    wait_for(lambda: 5 in saved(workdir), first)
    first[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    self.last_words = ends(first[:1], 6 * TIMEOUT)[0]
    self.seconds = time.monotonic() - began
    first[1].communicate()
    self.first_codes = [process.returncode for process in first]
    self.kept = saved(workdir)[-1]
    second = start(workdir, 2, *command)
    wait_for(lambda: max(losses(workdir), default=0) >= self.kept + 5, second)
    second[1].send_signal(signal.SIGTERM)
    self.said = ends(second, 200)
    self.second_codes = [process.returncode for process in second]


@pytest.fixture(scope='module')
def story(tmp_path_factory):
  return Story(tmp_path_factory.mktemp('story'))


def test_when_a_process_dies_the_other_ends_with_a_message(story):
  """Said by this program where a collective breaks, or by JAX when it is given up."""
  assert story.first_codes[1] == -signal.SIGKILL
  assert story.first_codes[0] not in (0, None)
  assert story.seconds < 3 * TIMEOUT
  assert 'Traceback' not in story.last_words
  assert re.search('another (process ended|task died)', story.last_words)


def test_the_next_start_goes_on_from_the_newest_checkpoint(story):
  for said in story.said:
    assert f'resuming from step {story.kept}' in said
  beat = json.loads((story.workdir / 'heartbeat/process_00001.json').read_text())
  assert beat['step'] == saved(story.workdir)[-1]


def test_two_processes_train_as_one_across_a_death(story, trained):
  """As eight devices of one process, with copies of the state."""
  one, two = losses(trained.workdir), losses(story.workdir)
  assert list(one)[:4] == list(two)[:4] == [4, 5, 8, 10]
  for step in (4, 5, 8, 10):
    assert two[step] == pytest.approx(one[step], rel=1e-5)


def test_sigterm_to_one_process_saves_and_ends_all(story):
  assert story.second_codes == [143, 143]
  step = saved(story.workdir)[-1]
  assert step > story.kept
  for said in story.said:
    assert f'stopped by SIGTERM, saved at step {step}' in said.splitlines()[-1]
    assert 'Traceback' not in said


def test_each_process_keeps_its_own_log(story):
  for rank in range(2):
    text = (story.workdir / 'logs' / f'process_{rank:05d}.log').read_text()
    assert text.count(f', process {rank} of 2: ') == 2
    assert text.count(' has no end') == 1
    assert 'ended: stopped by SIGTERM' in text.splitlines()[-1]


def test_an_error_of_one_process_ends_all_of_them(tmp_path):
  """It is said at once; nobody waits for the others, who wait for it."""
  images = tmp_path / 'images'
  one, other = start(
    tmp_path / 'run',
    2,
    ENDLESS,
    apart={1: ['--config.data.source=folder', f'--config.data.path={images}']},
  )
  try:
    _, errors = other.communicate(timeout=200)
    assert other.returncode == 1
    assert errors.splitlines()[-1].startswith(f'error: {images}')
    ends([one], 3 * TIMEOUT)
    assert one.returncode not in (0, None)
  finally:
    one.kill()
  log = (tmp_path / 'run' / 'logs' / 'process_00001.log').read_text()
  assert f'ended: error: {images}' in log


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['pmap', 'fsdp'])
def test_a_save_that_fails_ends_all_processes(tmp_path, strategy):
  """At once, and not when the next one is due or the others are tired of waiting."""
  run = tmp_path / 'run'
  processes = start(run, 2, ENDLESS, f'--config.parallel.strategy={strategy}')
  wait_for(lambda: 5 in saved(run), processes)
  (run / 'checkpoints').rename(tmp_path / 'kept')
  (run / 'checkpoints').touch()
  said = ends(processes, 3 * TIMEOUT)
  assert processes[0].returncode == 1
  assert processes[1].returncode not in (0, None)
  line = next(x for x in said[0].splitlines() if x.startswith('error: '))
  assert 'a checkpoint could not be written; that of step' in line
  assert 'Traceback' not in said[0]


@pytest.mark.slow
def test_a_frozen_process_is_given_up(tmp_path):
  """Its sockets stay open: only its silence tells."""
  processes = start(tmp_path, 2, ENDLESS, '--config.parallel.strategy=fsdp')
  wait_for(lambda: losses(tmp_path), processes)
  processes[1].send_signal(signal.SIGSTOP)
  (said,) = ends(processes[:1], 3 * TIMEOUT)
  processes[1].kill()
  processes[1].communicate()
  assert processes[0].returncode not in (0, None)
  assert re.search('another (process ended|task died)', said)


def table(workdir) -> dict[str, dict[str, float]]:
  """The evaluation: method -> metric -> value."""
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
def test_another_number_of_processes_goes_on_in_another_way(
  trained, tmp_path, processes, strategy, then, other
):
  """Ten steps by some, ten by others: losses and evaluation of one process."""
  run, copy = tmp_path / 'run', tmp_path / 'copy'
  first = ['--config.train.num_steps=10', f'--config.parallel.strategy={strategy}']
  finish(start(run, processes, *first))
  said = finish(start(run, then, f'--config.parallel.strategy={other}'))
  assert all('resuming from step 10' in x for x in said)
  one, many = losses(trained.workdir), losses(run)
  assert list(one) == list(many)
  for step, value in one.items():
    # Adam makes whole steps of rounding errors, which grow from then on.
    assert many[step] == pytest.approx(value, rel=1e-5 if step <= 10 else 1e-3)
  shutil.copytree(run / 'checkpoints', copy / 'checkpoints')
  finish(start(copy, 1, '--mode=eval'))
  alone, together = table(copy), table(run)
  assert alone.keys() == together.keys() == {'bicubic', 'lanczos', 'sr3'}
  for method, row in alone.items():
    assert together[method] == pytest.approx(row, rel=1e-4)
