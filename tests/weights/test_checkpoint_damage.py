"""Every damage to every file of a checkpoint sets it aside; the one before is taken."""

import pathlib
import shutil

import jax
import pytest
from etils import epath

from sr3_jax.runtime import foreign_files
from sr3_jax.weights import checkpoint, checkpoint_files
from tests.support import file_damage
from tests.support.checkpoints import (
  assert_equal_trees,
  make_batches,
  make_state,
  one_line,
  save,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Return a workdir with checkpoints of steps 2 and 5."""
  workdir = tmp_path_factory.mktemp('run')
  save(workdir, 2, 5)
  return workdir


def places(step: pathlib.Path) -> list[pathlib.Path]:
  """Return the paths of all files and folders of a checkpoint, and '.'."""
  return [pathlib.Path(), *sorted(path.relative_to(step) for path in step.rglob('*'))]


def test_every_damage_to_every_file_is_found(run, tmp_path):
  good = run / 'checkpoints' / '5'
  assert checkpoint_files.damage(epath.Path(good)) == ''
  (tmp_path / 'checkpoints').mkdir()
  shutil.copy(run / checkpoint_files.RECORD, tmp_path)
  step, count = tmp_path / 'checkpoints' / '5', 0
  shutil.copytree(good, step)
  for name in places(good):
    is_folder = (good / name).is_dir()
    for damage in file_damage.OF_FOLDERS if is_folder else file_damage.OF_FILES:
      damage(step / name)
      reason = checkpoint_files.damage(epath.Path(step))
      # A checkpoint that is gone as a whole is none.
      assert reason or not foreign_files.exists(step), (name, damage)
      assert '\n' not in reason and len(reason) < 400
      if foreign_files.exists(step / name):
        file_damage.delete(step / name)
      (shutil.copytree if is_folder else shutil.copy)(good / name, step / name)
      count += 1
  assert checkpoint_files.damage(epath.Path(step)) == ''
  assert count > 300


FILES = sorted({
  '_CHECKPOINT_METADATA', 'commit_success.txt', 'data/metadata', 'sums/metadata',
  'params/manifest.ocdbt', 'params/_METADATA', 'ema/ocdbt.process_0/manifest.ocdbt',
  'optimizer/_METADATA',
})  # fmt: skip
# Each damage once, each of the files at least once.
CASES = [(d, FILES[i % len(FILES)]) for i, d in enumerate(file_damage.OF_FILES)]
CASES += [(file_damage.pipe, 'ema'), (file_damage.text_file, '.')]
CASES += [(file_damage.own_link, 'params/d'), (file_damage.pipe, '.')]


@pytest.mark.parametrize(
  ('damage', 'name'), CASES, ids=lambda x: getattr(x, '__name__', x)
)
def test_the_one_before_is_taken_and_one_line_says_so(
  run, tmp_path, caplog, damage, name
):
  shutil.copytree(run, tmp_path, dirs_exist_ok=True)
  damage(tmp_path / 'checkpoints' / '5' / name)
  params = jax.eval_shape(lambda: make_state(0)['params'])
  step, ema = checkpoint.load_ema(tmp_path, params)
  assert step == 2
  assert_equal_trees(ema, make_state(2)['ema'])
  assert foreign_files.exists(tmp_path / 'checkpoints' / '5')  # a reader moves nothing
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    step, state = checkpoint.restore(manager, make_state(0), batches)
    assert step == 2
    assert_equal_trees(state, make_state(2))
    assert batches.get_state()['examples'] == 2 * 2
    checkpoint.save(manager, 5, make_state(5), batches)
  batches.close()
  found = [r.getMessage() for r in caplog.records if r.levelname == 'WARNING']
  reader, trainer = found
  assert 'the checkpoint before it is taken' in reader
  assert f'moved to {tmp_path / "damaged" / "5"}, the one before it is taken' in trainer
  step, ema = checkpoint.load_ema(tmp_path, params)
  assert step == 5
  assert_equal_trees(ema, make_state(5)['ema'])


def test_without_a_record_positions_and_arrays_still_have_checksums(run, tmp_path):
  """A kill between a checkpoint and its record leaves a checkpoint that is good."""
  shutil.copytree(run, tmp_path, dirs_exist_ok=True)
  (tmp_path / checkpoint_files.RECORD).write_text('[')
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    assert checkpoint.restore(manager, make_state(0), batches)[0] == 5
  position = tmp_path / 'checkpoints' / '5' / 'data' / 'metadata'
  position.write_text(position.read_text().replace('10', '12'))
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    assert checkpoint.restore(manager, make_state(0), batches)[0] == 2
  batches.close()


def test_the_copy_of_another_checkpoint_is_taken_as_it_is(run, tmp_path):
  """What is recorded of a step is not about the same step of another run."""
  shutil.copytree(run, tmp_path / 'run')
  save(tmp_path / 'other', 3, 5)
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '5')
  theirs = tmp_path / 'other' / 'checkpoints' / '3'
  shutil.copytree(theirs, tmp_path / 'run' / 'checkpoints' / '5')
  params = jax.eval_shape(lambda: make_state(0)['params'])
  step, ema = checkpoint.load_ema(tmp_path / 'run', params)
  assert step == 5
  assert_equal_trees(ema, make_state(3)['ema'])


def test_averaged_weights_that_are_not_finite_are_refused(tmp_path):
  batches = make_batches()
  with checkpoint.open_manager(tmp_path, keep=1) as manager:
    checkpoint.save(manager, 1, make_state(float('nan')), batches)
  batches.close()
  params = jax.eval_shape(lambda: make_state(0)['params'])
  with pytest.raises(checkpoint.CheckpointError, match='not finite') as error:
    checkpoint.load_ema(tmp_path, params)
  assert 'conv/bias of ema' in one_line(error)
