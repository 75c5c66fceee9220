"""How much memory this process has, and what limits leave it."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sr3_jax.runtime import memory


def test_resident_is_what_the_process_has():
  before, _ = memory.resident()
  block = np.ones(200 * 10**6, np.uint8)
  now, peak = memory.resident()
  assert 170e6 < now - before < 230e6 and peak >= now
  del block
  assert memory.resident()[1] > peak - 10**6


@pytest.fixture
def machine(tmp_path, monkeypatch):
  """A machine with 8 GB; write its control groups as files."""

  def write(name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

  write('proc/meminfo', 'MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n')
  write('proc/self/status', 'VmRSS: 100 kB\nVmSize: 1000 kB\n')
  monkeypatch.setattr(memory, '_PROC', tmp_path / 'proc')
  monkeypatch.setattr(memory, '_CGROUPS', tmp_path / 'groups')
  return write


def test_the_container_counts_and_not_the_machine(machine):
  assert memory.free() == 8_000_000 * 1024
  machine('proc/self/cgroup', '0::/job/step\n')
  machine('groups/job/step/memory.max', 'max\n')
  machine('groups/job/step/memory.current', '500\n')
  assert memory.free() == 8_000_000 * 1024
  # The limit is that of the parent. Cached files can be dropped.
  machine('groups/job/memory.max', '3000000\n')
  machine('groups/job/memory.current', '1000000\n')
  machine('groups/job/memory.stat', 'anon 5\ninactive_file 400000\n')
  assert memory.free() == 3_000_000 - 600_000


def test_control_groups_of_version_1(machine):
  machine('proc/self/cgroup', '4:memory:/not/visible\n3:cpu,cpuacct:/x\n0::/\n')
  machine('groups/memory/memory.limit_in_bytes', '2000000\n')
  machine('groups/memory/memory.usage_in_bytes', '500000\n')
  assert memory.free() == 1_500_000
  machine('groups/memory/memory.limit_in_bytes', f'{2**63 - 4096}\n')
  assert memory.free() == 8_000_000 * 1024
  machine('groups/memory/memory.usage_in_bytes', '3000000\n')
  machine('groups/memory/memory.limit_in_bytes', '2000000\n')
  assert memory.free() == 0


@pytest.mark.skipif(not pathlib.Path('/proc/self/status').exists(), reason='no Linux')
def test_the_limit_of_the_address_space_counts():
  code = 'from sr3_jax.runtime import memory; print(memory.free())'
  limited = ['sh', '-c', 'ulimit -v 2000000; exec "$@"', 'sh', sys.executable]
  ran = subprocess.run([*limited, '-c', code], capture_output=True, check=True)
  assert 1.5e9 < int(ran.stdout) < 2048e6


def test_a_system_without_proc(monkeypatch, tmp_path):
  monkeypatch.setattr(memory, '_PROC', tmp_path)
  monkeypatch.setattr(memory, '_CGROUPS', tmp_path)
  assert memory.free() is None and memory.resident()[0] > 10**6
