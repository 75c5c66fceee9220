"""Checkpoints that former releases wrote, and those of later ones."""

import json
import pathlib
import zipfile

import jax
import pytest

from sr3_jax.core.sr3 import SR3
from sr3_jax.training import train
from sr3_jax.weights import checkpoint
from tests.support import make_checkpoint
from tests.support.checkpoints import make_batches, make_state, one_line, save, steps_in

ARCHIVES = sorted(
  (pathlib.Path(__file__).parents[1] / 'support' / 'data').glob('checkpoint_*.zip')
)


# The step after those of checkpoint_1, since the keys of training have one more fold:
# without it the step gives the figures in the archive.
NEXT_STEP = {
  'loss of that step': 0.7836473,
  'norms after a step': {
    'params': 8.559757166831183,
    'ema': 8.559552594891468,
    'optimizer': 0.016761950103887126,
  },
}


@pytest.mark.parametrize('archive', ARCHIVES, ids=lambda path: path.stem)
def test_a_run_of_a_former_release_goes_on(archive, tmp_path, compile_cache):
  """State, average and place in the data: the next step is the one that it would be."""
  with zipfile.ZipFile(archive) as files:
    files.extractall(tmp_path)
  expected = json.loads((tmp_path / 'expected.json').read_text()) | NEXT_STEP
  config = make_checkpoint.get_config()
  model = SR3.from_config(config)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
  step, ema = checkpoint.load_ema(tmp_path, shapes)
  assert step == make_checkpoint.STEPS
  norm = make_checkpoint.norm(ema)
  assert norm == pytest.approx(expected['norms']['ema'], rel=1e-6)
  config.train.num_steps = step + 1
  state = train.train(config, tmp_path)
  assert steps_in(tmp_path) == [step, step + 1]
  position = tmp_path / 'checkpoints' / str(step + 1) / 'data' / 'metadata'
  examples = json.loads(position.read_text())['examples']
  assert examples == (step + 1) * config.train.batch_size
  assert (tmp_path / 'metrics.jsonl').read_text().count('\n') == 1
  loss = make_checkpoint.last_loss(tmp_path)
  assert loss == pytest.approx(expected['loss of that step'], rel=1e-4)
  for name, value in make_checkpoint.norms(state).items():
    assert value == pytest.approx(expected['norms after a step'][name], rel=1e-4)


def test_one_is_kept_of_every_version():
  names = {f'checkpoint_{v}' for v in range(1, checkpoint.VERSION + 1)}
  assert {path.stem for path in ARCHIVES} == names


def test_a_checkpoint_of_a_later_release_says_what_to_do_and_stays(tmp_path):
  save(tmp_path, 1, 2)
  folder = tmp_path / 'checkpoints' / '2'
  sums = folder / 'sums' / 'metadata'
  content = json.loads(sums.read_text())
  assert content['version'] == checkpoint.VERSION
  sums.write_text(json.dumps(content | {'version': checkpoint.VERSION + 1}))
  (folder / 'ema').rename(folder / 'average')  # whatever it will look like
  (tmp_path / 'checkpoints.json').unlink()  # nor does it know of this record
  batches = make_batches()
  said = r'later sr3_jax \(version 2 of .* up to 1\): update sr3_jax'
  with checkpoint.open_manager(tmp_path, keep=3) as manager:
    with pytest.raises(checkpoint.CheckpointError, match=said) as error:
      checkpoint.restore(manager, make_state(0), batches)
    assert str(folder) in one_line(error)
  batches.close()
  with pytest.raises(checkpoint.CheckpointError, match=said):
    checkpoint.load_ema(tmp_path, make_state(0)['params'])
  assert steps_in(tmp_path) == [1, 2]
