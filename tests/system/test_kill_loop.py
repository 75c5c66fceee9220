"""Run the kill loop of a training on a few kills."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_a_run_that_is_killed_five_times_ends_as_an_undisturbed_one():
  command = [sys.executable, 'tests/system/kill_loop.py', '--kills=5', '--seed=1']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'bit for bit' in done.stdout
