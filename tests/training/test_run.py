"""Tests of what is checked and decided before a training starts."""

import pytest

from sr3_jax import main
from sr3_jax.config import load_config
from sr3_jax.runtime.errors import UserError
from sr3_jax.training import run as training_run
from tests.support import runs


@pytest.mark.parametrize(
  ('method', 'trained'),
  [('sr3', ['work/regression', 'work']), ('regression', ['work'])],
)
def test_a_regression_run_trains_no_baseline(tmp_path, monkeypatch, method, trained):
  config, workdirs = runs.get_config(), []
  config.method, config.regression_steps = method, 2

  def record(config, workdir):
    workdirs.append(str(workdir.relative_to(tmp_path)))

  monkeypatch.setattr(training_run.train, 'train', record)
  monkeypatch.setattr(training_run, 'evaluate_run', lambda config, workdir: None)
  main.run(config, tmp_path / 'work', 'train')
  assert workdirs == trained


def test_a_learned_variance_is_not_trained():
  config = load_config('quickstart')
  config.diffusion.learned_variance = True
  config.model.network = 'guided'
  config.model.channels, config.model.patch = 32, 1
  with pytest.raises(UserError, match=r'diffusion\.learned_variance=True: .*trained'):
    training_run.check_training(config)
