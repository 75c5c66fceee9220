"""Tests that a traced training says where its time went."""

import gzip
import json
import pathlib
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from sr3_jax.training.monitor import Monitor

PROGRAM = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'trace.py'
TRACE = runpy.run_path(str(PROGRAM))


def run(*arguments):
  command = [sys.executable, PROGRAM, *arguments]
  return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_a_trace_of_some_steps_has_their_operations_and_no_others(tmp_path):
  product = jax.jit(lambda a: jnp.sin(a) @ a)
  matrix = product(jnp.eye(300))
  monitor = Monitor(epath.Path(tmp_path), profile=(3, 4))
  for step in range(1, 7):
    matrix = jax.block_until_ready(product(matrix))
    monitor.step(step)
  monitor.close(6)
  path = TRACE['newest'](tmp_path)
  events = list(TRACE['operations'](path))
  assert len([event for event in events if event.name.startswith('sin')]) == 2
  assert b'"$' not in gzip.decompress(path.read_bytes())  # a call of Python, traced
  found = run(tmp_path / 'profile')
  assert not found.returncode, found.stderr
  assert '| sin | 2 |' in found.stdout


def test_time_is_that_of_any_operation_and_the_rest_is_waiting(tmp_path):
  def event(name, began, microseconds, **known):
    return {'ph': 'X', 'pid': 7, 'ts': began, 'dur': microseconds, 'name': name} | {
      'args': known
    }

  events = [
    {'ph': 'M', 'pid': 7, 'name': 'process_name', 'args': {'name': '/device:GPU:0'}},
    event('fusion.1', 0, 1e6, hlo_op='fusion.1'),
    event('fusion.22', 5e5, 1e6, hlo_op='fusion.22'),  # half of it beside the first
    event('copy', 3e6, 1e6, hlo_category='data formatting'),
    event('a call of Python', 0, 9e6),
  ]
  path = tmp_path / 'plugins' / 'host.trace.json.gz'
  path.parent.mkdir()
  path.write_bytes(gzip.compress(json.dumps({'traceEvents': events}).encode()))
  found = list(TRACE['operations'](TRACE['newest'](tmp_path)))
  assert TRACE['busy'](found) == pytest.approx(2.5)
  assert TRACE['table'](found, rows=9).splitlines()[2:] == [
    '| fusion | 2 | 2.0000 | 50.0% |',
    '| copy | 1 | 1.0000 | 25.0% |',
    '| waiting | | 1.5000 | 37.5% |',
    '| from first to last | 3 | 4.0000 | |',
  ]
  assert run(tmp_path).stdout.startswith('/device:GPU:0\n')


def test_a_folder_without_a_trace_is_named(tmp_path):
  found = run(tmp_path)
  assert found.returncode == 2
  assert found.stderr == f'{tmp_path}: no trace (*.trace.json.gz) in this folder\n'
