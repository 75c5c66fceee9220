"""Tests of runs with damaged checkpoints, failing saves, a full disk, and SIGTERM."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import devices
from sr3_jax.training import strategies
from sr3_jax.weights import checkpoint, checksums
from tests.support import runs
from tests.support.checkpoints import (
  assert_equal_trees,
  make_batches,
  make_state,
  one_line,
  save,
  steps_in,
)

ROOT = pathlib.Path(__file__).parents[2]


def largest(folder):
  """Return the largest file, which holds the arrays."""
  return max(
    (p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size
  )


def delete(folder):
  largest(folder / 'params').unlink()


def truncate(folder):
  path = largest(folder / 'ema')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_written(folder):
  shutil.rmtree(folder / 'ema')
  (folder / 'sums' / 'metadata').unlink()


def without_position(folder):
  (folder / 'data' / 'metadata').write_text('{"exam')


def another_checksum(folder):
  """Change a checksum, as if the arrays had changed on the disk."""
  path = folder / 'sums' / 'metadata'
  sums = json.loads(path.read_text())
  path.write_text(json.dumps(sums | {'optimizer': sums['optimizer'] ^ 1}))


def without_checksums(folder):
  shutil.rmtree(folder / 'sums')


DAMAGES = [delete, truncate, half_written, without_position, another_checksum]
DAMAGES += [without_checksums]


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
  tmp_path, damage, caplog
):
  save(tmp_path, 2, 5)
  damage(tmp_path / 'checkpoints' / '5')
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    step, state = checkpoint.restore(manager, make_state(0), batches)
    assert step == 2
    assert_equal_trees(state, make_state(2))
    assert batches.get_state()['examples'] == 2 * 2
    # The run continues and saves a good checkpoint of the same step.
    checkpoint.save(manager, 5, make_state(5), batches)
  batches.close()
  assert steps_in(tmp_path) == [2, 5]
  assert (tmp_path / 'damaged' / '5').is_dir()
  (line,) = [r.getMessage() for r in caplog.records if 'damaged' in r.getMessage()]
  assert str(tmp_path / 'checkpoints' / '5') in line
  assert '\n' not in line
  step, ema = checkpoint.load_ema(tmp_path, make_state(0)['params'])
  assert step == 5
  assert_equal_trees(ema, make_state(5)['ema'])


@pytest.mark.parametrize('damage', [truncate, half_written])
def test_a_reader_takes_the_checkpoint_before_a_damaged_one_and_moves_nothing(
  tmp_path, damage
):
  save(tmp_path, 2, 5)
  damage(tmp_path / 'checkpoints' / '5')
  step, ema = checkpoint.load_ema(tmp_path, make_state(0)['params'])
  assert step == 2
  assert_equal_trees(ema, make_state(2)['ema'])
  assert steps_in(tmp_path) == [2, 5]
  damage(tmp_path / 'checkpoints' / '2')
  with pytest.raises(checkpoint.CheckpointError, match='no checkpoint here is good'):
    checkpoint.load_ema(tmp_path, make_state(0)['params'])


def test_only_damaged_checkpoints_are_an_error_of_one_line(tmp_path):
  save(tmp_path, 1, 2)
  for step in '12':
    truncate(tmp_path / 'checkpoints' / step)
  batches = make_batches()
  for known in (True, False):  # by their record; by the checksums of arrays
    with (
      pytest.raises(checkpoint.CheckpointError, match='no checkpoint here is good'),
      checkpoint.open_manager(tmp_path, keep=3) as manager,
    ):
      checkpoint.restore(manager, make_state(0), batches)
    if known:
      (tmp_path / 'checkpoints.json').unlink()
  batches.close()
  # They are not moved, because a start without any checkpoint begins at step 0.
  assert steps_in(tmp_path) == [1, 2]
  assert not (tmp_path / 'damaged').exists()


def test_a_run_of_an_earlier_version_is_read_but_not_continued(tmp_path):
  """Its checkpoints have another file for the iterator, and no checksums."""
  save(tmp_path, 1)
  folder = tmp_path / 'checkpoints' / '1'
  shutil.rmtree(folder / 'sums')
  (folder / 'data' / 'process_0-of-1.json').write_text('{}')
  (tmp_path / 'checkpoints.json').unlink()
  _, ema = checkpoint.load_ema(tmp_path, make_state(0)['params'])
  assert_equal_trees(ema, make_state(1)['ema'])
  batches = make_batches()
  with (
    checkpoint.open_manager(tmp_path, keep=3) as manager,
    pytest.raises(checkpoint.CheckpointError, match=r'earlier version.*init_from'),
  ):
    checkpoint.restore(manager, make_state(0), batches)
  batches.close()
  assert steps_in(tmp_path) == [1]


def test_flipped_bits_never_reach_a_run(tmp_path):
  """At any place in the files, they are found or change nothing."""
  state = make_state(1, width=5000)
  noise = np.random.default_rng(0).standard_normal((3, 5000)).astype(np.float32)
  state['params']['conv']['kernel'] = jnp.asarray(noise)
  batches = make_batches()
  with checkpoint.open_manager(tmp_path / 'run', keep=1) as manager:
    checkpoint.save(manager, 1, state, batches)
  (tmp_path / 'run' / 'checkpoints.json').unlink()  # which knows of every byte
  files = [p for p in (tmp_path / 'run').rglob('params/**/*') if p.is_file()]
  data = largest(tmp_path / 'run' / 'checkpoints' / '1' / 'params')
  assert data.stat().st_size > noise.nbytes / 2
  places = [(data, place) for place in np.linspace(0, 1, 9)[1:-1]]
  places += [(path, 0.5) for path in files if path != data]
  found = 0
  for path, place in places:
    good = path.read_bytes()
    content = bytearray(good)
    content[int(place * len(good))] ^= 16
    path.write_bytes(content)
    try:
      with checkpoint.open_manager(tmp_path / 'run', keep=1) as manager:
        _, read = checkpoint.restore(manager, state, batches)
        assert_equal_trees(read, state)
    except checkpoint.CheckpointError:
      found += 1
    path.write_bytes(good)
  batches.close()
  assert found >= 7  # all flips in the values of arrays


def test_every_changed_bit_changes_the_checksums():
  rng = np.random.default_rng(0)
  values = rng.standard_normal((4, 5)).astype(np.float32)

  def checksum(array):
    return checksums.of_state({'params': {'a': array}})['params']

  good = checksum(values)
  for bit in range(32):
    for place in ((0, 0), (3, 2)):
      bits = values.view(np.uint32).copy()
      bits[place] ^= np.uint32(1) << np.uint32(bit)
      assert checksum(bits.view(np.float32)) != good
  swapped = values.copy()
  swapped[0, 1], swapped[2, 3] = values[2, 3], values[0, 1]
  assert checksum(swapped) != good
  assert checksum(values) == good == checksum(jnp.asarray(values))


def test_checksums_do_not_depend_on_sharding():
  values = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32)
  mesh = jax.make_mesh((8,), ('x',))
  spec = jax.sharding.PartitionSpec('x')
  split = jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))
  one, other = (checksums.of_state({'a': {'b': array}}) for array in (values, split))
  assert one == other


def test_the_next_step_may_reuse_the_buffers_of_the_state_that_is_saved(tmp_path):
  """One of the copies on eight devices is written, with its values before the step."""
  spread = devices.replicate(make_state(1))
  overwrite = jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=1) as manager:
    strategy = strategies.get_strategy('pmap')
    saved = strategy.saved(spread)
    checkpoint.save(manager, 1, saved, batches, None, strategy.stacked)
    del saved
    jax.block_until_ready(overwrite(spread))
    manager.wait_until_finished()
    _, state = checkpoint.restore(manager, make_state(0), batches)
  batches.close()
  assert_equal_trees(state, make_state(1))


def test_save_returns_before_writing_begins(tmp_path, monkeypatch):
  begin, saved = threading.Event(), ocp.CheckpointManager.save

  def slow(*args, **options):
    assert begin.wait(60)
    return saved(*args, **options)

  monkeypatch.setattr(ocp.CheckpointManager, 'save', slow)
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    checkpoint.save(manager, 1, make_state(1), batches)
    assert manager.all_steps() == []
    begin.set()
    manager.wait_until_finished()
    assert manager.all_steps() == [1]
    checkpoint.save(manager, 2, make_state(2), batches)
  batches.close()
  assert steps_in(tmp_path) == [1, 2]


def save_again(manager, batches):
  checkpoint.save(manager, 3, make_state(3), batches)


def check_until_it_raises(manager, batches):
  del batches
  deadline = time.monotonic() + 60
  while time.monotonic() < deadline:
    checkpoint.check(manager)


@pytest.mark.parametrize('call', [save_again, check_until_it_raises])
def test_an_error_of_a_save_in_the_background_is_raised_later(
  tmp_path, monkeypatch, call
):
  def broken(*args, **options):
    raise OSError(28, 'No space left on device')

  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    checkpoint.save(manager, 1, make_state(1), batches)
    manager.wait_until_finished()
    monkeypatch.setattr(ocp.CheckpointManager, 'save', broken)
    checkpoint.check(manager)
    checkpoint.save(manager, 2, make_state(2), batches)
    with pytest.raises(checkpoint.CheckpointError, match='that of step 1 is good') as e:
      call(manager, batches)
    assert 'No space left' in one_line(e)
  batches.close()
  assert steps_in(tmp_path) == [1]


def test_the_newest_every_fifth_and_the_best_checkpoint_are_kept(tmp_path):
  batches = make_batches()
  scores = {2: 30.0, 4: 35.0, 6: 31.0, 8: 32.0}
  with checkpoint.open_manager(tmp_path, keep=1, keep_every=5, best='psnr') as manager:
    for step in range(1, 10):
      metrics = {'psnr': scores[step]} if step in scores else None
      checkpoint.save(manager, step, make_state(step), batches, metrics)
  batches.close()
  # Step 9 is the newest, 5 a multiple of five, and 4 the best.
  assert steps_in(tmp_path) == [4, 5, 9]


def test_the_best_checkpoint_can_be_that_of_the_lowest_score(tmp_path):
  batches = make_batches()
  options = {'best': 'fid', 'lower_is_better': True}
  with checkpoint.open_manager(tmp_path, keep=1, **options) as manager:
    for step, fid in ((1, 9.0), (2, 4.0), (3, 7.0), (4, 8.0)):
      checkpoint.save(manager, step, make_state(step), batches, {'fid': fid})
  batches.close()
  assert steps_in(tmp_path) == [2, 4]


# ------------------------------------------------------------------ the real program


def program(workdir, cache, *arguments: str) -> list[str]:
  command = [sys.executable, '-m', 'sr3_jax.main', '--config=tests/support/runs.py']
  command += ['--config.eval.every_steps=0', '--config.train.log_every=1', *arguments]
  return [*command, f'--workdir={workdir}', f'--cache={cache}']


def test_sigterm_saves_and_the_next_start_resumes(tmp_path, compile_cache):
  """The run would otherwise save only at its end."""
  endless = [
    '--config.train.num_steps=100000',
    '--config.checkpoint.every_steps=100000',
  ]
  with subprocess.Popen(
    program(tmp_path / 'run', compile_cache, *endless),
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    metrics = tmp_path / 'run' / 'metrics.jsonl'
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count('\n') > 2):
      assert time.monotonic() < deadline and process.poll() is None
      time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
  assert process.returncode == 128 + signal.SIGTERM
  assert 'Traceback' not in errors
  last = errors.strip().splitlines()[-1]
  (step,) = steps_in(tmp_path / 'run')
  assert last == (
    f'stopped by SIGTERM, saved at step {step}; the same command goes on from there'
  )
  beat = json.loads((tmp_path / 'run/heartbeat/process_00000.json').read_text())
  assert (beat['step'], beat['doing']) == (step, 'ended')
  done = subprocess.run(
    program(tmp_path / 'run', compile_cache, f'--config.train.num_steps={step + 2}'),
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert f'resuming from step {step}' in done.stderr
  lines = [json.loads(line) for line in metrics.read_text().splitlines()]
  losses = [line['step'] for line in lines if 'loss' in line]
  assert losses == list(range(1, step + 3))


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from absl import app
from sr3_jax import main
from sr3_jax.weights import checkpoint
save, count = checkpoint.save, 0

def full_at_the_second(*args):
  global count
  count += 1
  if count == 2:
    args[0].wait_until_finished()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
  save(*args)

checkpoint.save = full_at_the_second
app.run(main.main, flags_parser=main.parse_flags)
"""


def test_a_full_disk_is_an_error_of_one_line_and_the_last_checkpoint_stays(
  tmp_path, compile_cache
):
  """From the second checkpoint on, no file can grow beyond 20,000 bytes."""
  command = program(tmp_path / 'run', compile_cache)
  done = subprocess.run(
    [sys.executable, '-c', FULL_DISK, *command[3:]],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  (line,) = [x for x in done.stderr.splitlines() if x.startswith('error: ')]
  assert 'that of step 5 is good. Is the disk full? Make room' in line
  step, _ = checkpoint.load_ema(tmp_path / 'run', tiny_params())
  assert step == 5


def tiny_params():
  model = SR3.from_config(runs.get_config())
  return jax.eval_shape(lambda: model.init(jax.random.key(0)))
