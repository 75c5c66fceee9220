"""Every command says soon what it does, and says it again while nothing comes back."""

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from sr3_jax.runtime import activity, devices

# It runs a command in which importing one module takes three seconds and then ends the
# process, with lines every second instead of every eight.
DRIVER = """
import sys, time
command, slow = sys.argv[1:3]
sys.argv = [command, *sys.argv[3:]]

class Slow:
  def find_spec(self, name, path=None, target=None):
    if name == slow:
      time.sleep(3.5)
      sys.stderr.flush()
      raise SystemExit(3)

sys.meta_path.insert(0, Slow())
from sr3_jax.runtime import activity, start
activity.EVERY = 1.0
sys.exit(getattr(start, command)())
"""
TRAIN = ('--config=quickstart', '--workdir=run')
# Command, the module that is slow, and arguments.
COMMANDS = {
  **{f'train {m}': ('train', 'jax', *TRAIN, f'--mode={m}') for m in ('train', 'plan')},
  'train, late': ('train', 'sr3_jax.check_data.run', *TRAIN, '--mode=check-data'),
  'upscale': ('upscale', 'jax', 'in', '--output=out'),
  'evaluate': ('evaluate', 'jax', '--truth=in', '--outputs', 'a=in'),
  'convert': ('convert', 'jax', 'in/a.pth', '--output=out'),
  'export': ('export', 'jax', 'in'),
  'report': ('report', 'sr3_jax.reports.data', 'in'),
  'channels': ('channels', 'sr3_jax.data.channel_ranges', 'in'),
  'study': (
    *('study', 'sr3_jax.human_study.run', 'build'),
    *('--truth=in', '--outputs', 'a=in', '--out=out'),
  ),
}


def timed(command: list[str], folder) -> tuple[int, list[tuple[float, str]]]:
  """Run a process; return its exit code, and its lines with seconds since it began."""
  began, lines = time.monotonic(), []
  root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
  environment = os.environ | {'PYTHONPATH': root, 'JAX_PLATFORMS': 'cpu'}
  pipes = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE, 'text': True}
  with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
    for line in process.stderr:
      lines.append((time.monotonic() - began, line.rstrip()))
  return process.returncode, lines


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_says_what_it_does_before_and_while_something_is_slow(name, tmp_path):
  (tmp_path / 'in').mkdir()
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'in/a.png')
  (tmp_path / 'in/a.pth').write_bytes(b'')
  began = time.monotonic()
  subprocess.run([sys.executable, '-c', 'import absl.app, ml_collections'], check=True)
  bare = time.monotonic() - began  # how slow this machine is at the moment
  command = [sys.executable, '-c', DRIVER, *COMMANDS[name]]
  code, lines = timed(command, tmp_path)
  assert code == 3, lines
  command = COMMANDS[name][0]
  first, words = lines[0]
  assert words.startswith(f'sr3-{command}') and first < 2 + 3 * bare, lines
  times = [seconds for seconds, _ in lines]
  assert max(np.diff(times)) < 2 + 2 * bare, lines
  assert len(lines) >= 3 and 's so far' in lines[-1][1]


def test_a_compiler_that_takes_long_is_no_silence(monkeypatch, capsys):
  compile_program = jax.stages.Lowered.compile

  def slow(self, *args, **options):
    time.sleep(0.5)
    return compile_program(self, *args, **options)

  monkeypatch.setattr(jax.stages.Lowered, 'compile', slow)
  for name, seconds in (('_TICK', 0.01), ('_FIRST', 0.02), ('EVERY', 0.1)):
    monkeypatch.setattr(activity, name, seconds)
  count = jax.local_device_count()
  with activity.shown('it'):
    devices.pmap(lambda x: x + 1)(np.zeros((count, 2), np.float32))
  lines = capsys.readouterr().err.splitlines()
  assert lines.count('compiling') >= 2 and lines[0].startswith('it: ')
