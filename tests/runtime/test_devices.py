"""Tests of arrays on eight virtual devices, and of what `pmap` compiles."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.runtime import devices
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[2]


def test_replicate_puts_a_copy_on_every_device_and_unreplicate_takes_one():
  tree = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': [np.int32(7)]}
  spread = devices.replicate(tree)
  assert spread['a'].shape == (8, 2, 3)
  assert spread['b'][0].shape == (8,)
  assert {s.device for s in spread['a'].addressable_shards} == set(jax.devices())
  for shard in spread['a'].addressable_shards:
    np.testing.assert_array_equal(shard.data[0], tree['a'])
  one = devices.unreplicate(spread)
  np.testing.assert_array_equal(one['a'], tree['a'])
  assert one['a'].dtype == jnp.float32
  assert one['b'][0] == 7
  assert one['b'][0].shape == ()
  assert one['b'][0].dtype == jnp.int32


def test_shard_and_gather_keep_the_order_of_examples():
  batch = {
    'image': np.random.default_rng(0).integers(0, 256, (24, 5, 4, 3), np.uint8),
    'mask': np.arange(24) < 21,
  }
  spread = devices.shard(batch)
  assert spread['image'].shape == (8, 3, 5, 4, 3)
  place = {s.device: s.index[0].start for s in spread['image'].addressable_shards}
  assert [place[device] for device in jax.devices()] == list(range(8))
  back = devices.gather(spread)
  assert isinstance(back['image'], np.ndarray)
  assert back['image'].dtype == np.uint8
  np.testing.assert_array_equal(back['image'], batch['image'])
  np.testing.assert_array_equal(back['mask'], batch['mask'])


def test_a_batch_that_does_not_fit_the_devices_is_refused():
  assert devices.per_process(16) == 16
  assert devices.per_process(48, parts=2) == 48
  for size, parts, multiple in [(12, 1, 8), (24, 2, 16)]:
    with pytest.raises(
      ValueError, match=f'batch_size={size} .* multiple of {multiple}'
    ):
      devices.per_process(size, parts)


def test_pmap_gives_every_device_its_part_and_the_axis_name():
  def function(x):
    return x + jax.lax.axis_index(devices.AXIS), jax.lax.psum(x, devices.AXIS)

  x = np.arange(16, dtype=np.float32)
  own, total = devices.pmap(function)(devices.shard(x))
  np.testing.assert_array_equal(devices.gather(own), x + np.repeat(np.arange(8), 2))
  np.testing.assert_array_equal(devices.unreplicate(total), x.reshape(8, 2).sum(axis=0))


def test_pmap_compiles_once_for_each_shape_and_dtype():
  call = devices.pmap(lambda x: x * 3)
  small = [devices.shard(np.full((8,), i, np.float32)) for i in range(3)]
  large = devices.shard(np.zeros((16,), np.float32))
  other = devices.shard(np.zeros((8,), np.int32))
  devices.compiler_options()  # compiles a small program, once
  with runs.compilations() as names:
    results = [call(x) for x in small]
    assert len(names) == 1
    for x in [large, other, *small]:
      call(x)
    assert len(names) == 3
  for i, result in enumerate(results):
    np.testing.assert_array_equal(devices.gather(result), 3 * i)


def test_pmap_donates_the_arguments_that_it_is_given():
  call = devices.pmap(lambda x, y: x + y, donate_argnums=(0,))
  x, y = (devices.shard(np.zeros((8, 4), np.float32)) for _ in range(2))
  call(x, y)
  assert x.is_deleted()
  assert not y.is_deleted()


@pytest.mark.parametrize(
  'options',
  [
    {'xla_cpu_no_such_option': 'x'},
    {next(iter(devices._CPU_OPTIONS)): 'NO_SUCH'},
  ],
  ids=['option', 'value'],
)
def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch, options):
  monkeypatch.setattr(devices, '_CPU_OPTIONS', options)
  devices.compiler_options.cache_clear()
  try:
    assert devices.compiler_options() == {}
    doubled = devices.pmap(lambda x: 2 * x)(devices.shard(np.ones(8, np.float32)))
    np.testing.assert_array_equal(devices.gather(doubled), 2)
  finally:
    devices.compiler_options.cache_clear()


def test_one_process_agrees_with_itself():
  assert devices.agree(True) is True
  assert devices.agree(False) is False


CACHING = """
import os, signal, sys
from sr3_jax.runtime import devices
devices.cache_programs(sys.argv[1])
import jax

def kill(event, arguments):
  if event == 'os.rename':
    os.kill(os.getpid(), signal.SIGKILL)

if len(sys.argv) > 2:
  sys.addaudithook(kill)
print(jax.jit(lambda x: x * 3 + 1)(2))
"""


def test_a_kill_while_a_program_is_cached_leaves_no_part_of_one(tmp_path):
  command = [sys.executable, '-c', CACHING, str(tmp_path)]
  environment = os.environ | {'PYTHONPATH': str(ROOT)}
  killed = subprocess.run([*command, 'kill'], env=environment, capture_output=True)
  assert killed.returncode == -9
  assert [path.suffix for path in tmp_path.iterdir()] == ['.tmp']
  for _ in range(2):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '7\n', '')
  assert {path.name[-6:] for path in tmp_path.iterdir()} == {'-cache'}
