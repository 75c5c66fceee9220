"""Where an evaluation is written: the workdir only for the run's own settings."""

import json

import pytest

from sr3_jax.config import as_json
from sr3_jax.evaluation.places import place
from tests.support import runs


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(as_json(runs.get_config())))
  return tmp_path


def name(workdir, **changes) -> str:
  """Return the place, relative to the workdir, of a configuration with changes."""
  config = runs.get_config()
  for key, value in changes.items():
    part, _, last = key.rpartition('__')
    (config[part] if part else config)[last] = value
  return str(place(config, workdir).relative_to(workdir))


def test_the_settings_of_the_run_and_what_changes_no_number(workdir):
  assert name(workdir) == '.'
  same = {'train__num_steps': 99, 'eval__batch_size': 4, 'eval__weights': '/x'}
  same |= {'eval__save_images': True}  # docs/human_study.md says where they are
  assert name(workdir, **same, checkpoint__keep=7, data__workers=2) == '.'


def test_names_say_what_differs(workdir):
  both = {'sampler__num_steps': 2, 'sampler__name': 'ddim'}
  named = 'evaluations/sampler.name=ddim,sampler.num_steps=2'
  assert name(workdir, **both) == named
  assert name(workdir, seed=5) == 'evaluations/seed=5'
  paths = [
    name(workdir, data__eval_path=p) for p in ('/a/b', '/a_b', '/../' + 'c' * 99)
  ]
  assert len({*paths}) == 3
  for path in paths:
    assert path.startswith('evaluations/data.eval_path=')
    assert path.count('/') == 1 and len(path) <= 92


@pytest.mark.parametrize('content', [None, '{', '[]', '{"format": 1, "config": {}}'])
def test_without_the_settings_of_a_run_the_place_is_the_workdir(tmp_path, content):
  if content is not None:
    (tmp_path / 'config.json').write_text(content)
  assert name(tmp_path, seed=5) == '.'


def test_a_setting_that_the_run_did_not_know_yet_is_no_difference(workdir):
  older = as_json(runs.get_config())
  del older['eval']['border'], older['sampler']
  (workdir / 'config.json').write_text(json.dumps(older))
  assert name(workdir) == '.'
