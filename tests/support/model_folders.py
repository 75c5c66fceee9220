"""A run with random weights and its model folder."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util

from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.training import train
from sr3_jax.weights import checkpoint, hub, model_writer
from tests.support import runs

PRESETS = {
  'fast': {'name': 'dpmpp_2m', 'num_steps': 4, 'spacing': 'log_snr', 'eta': 0.0},
  'best': {
    'name': 'ddpm',
    'num_steps': 5,
    'spacing': 'linear',
    'start': 1e-2,
    'end': 0.9,
    'eta': 0.0,
  },
}
RESULTS = {
  'step': 20,
  'table': {
    'bicubic': {'psnr': 25.4678, 'ssim': 0.7, 'detail': 0.05, 'images': 64},
    'sr3': {'psnr': 24.6, 'ssim': 0.6, 'detail': 0.73, 'images': 64},
  },
  'config': {'sampler': {'name': 'ddim', 'num_steps': 7, 'spacing': 'cosine'}},
}


@dataclasses.dataclass(frozen=True)
class Models:
  """A run and its model folder. Read only.

  Attributes:
    state: random weights of the smallest network, and others as their average.
    run: a workdir like that of a run that was trained, evaluated and swept.
    loaded: the model, loaded from the run.
    exported: the model folder of the run.
  """

  state: dict[str, dict]
  run: pathlib.Path
  loaded: hub.Loaded
  exported: pathlib.Path


def make(run: pathlib.Path, exported: pathlib.Path) -> Models:
  """Write a run and its model folder to these folders."""
  state = make_state()
  make_run(run, state)
  model_writer.export(run, exported, license='Apache-2.0')
  return Models(state, run, hub.load(run), exported)


def make_state() -> dict[str, dict]:
  """Return random weights, others as their average, and an optimizer's count."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(SR3.from_config(runs.get_config()).init, jax.random.key(0))

  def random_weights(leaf):
    return rng.normal(0, 0.1, leaf.shape).astype(np.float32)

  params, ema = (jax.tree.map(random_weights, shapes) for _ in range(2))
  return {'params': params, 'ema': ema, 'optimizer': {'count': np.zeros(1)}}


def make_run(folder: pathlib.Path, state) -> None:
  """Write configuration, checkpoint, results and presets of a run."""
  config = runs.get_config()
  train.write_config(config, hub.epath.Path(folder))
  batches = input_pipeline.training_data(config)
  with checkpoint.open_manager(folder, keep=1) as manager:
    checkpoint.save(manager, 20, jax.tree.map(jax.numpy.asarray, state), batches)
  batches.close()
  (folder / 'results.json').write_text(json.dumps(RESULTS))
  (folder / 'presets.json').write_text(json.dumps(PRESETS))


@pytest.fixture
def state(hub_models) -> dict[str, dict]:
  return hub_models.state


@pytest.fixture
def run(hub_models) -> pathlib.Path:
  return hub_models.run


@pytest.fixture
def loaded(hub_models) -> hub.Loaded:
  return hub_models.loaded


@pytest.fixture
def exported(hub_models) -> pathlib.Path:
  return hub_models.exported


@pytest.fixture
def model(exported, tmp_path) -> pathlib.Path:
  """Copy the model folder, for tests that change it."""
  return shutil.copytree(exported, tmp_path / 'model')


def flat(params) -> dict[str, np.ndarray]:
  """Return the arrays of a tree by their paths."""
  return traverse_util.flatten_dict(params, sep='/')


def assert_equal(one, other) -> None:
  """Check that two trees have the same paths and equal arrays."""
  one, other = flat(one), flat(other)
  assert one.keys() == other.keys()
  for name, value in one.items():
    np.testing.assert_array_equal(value, other[name], err_msg=name, strict=True)


def refused(path, *words: str) -> None:
  """Check that loading `path` raises an error of one line that holds `words`."""
  with pytest.raises(hub.HubError) as error:
    hub.load(path)
  line = str(error.value)
  assert '\n' not in line
  assert len(line) < 700, line
  for word in words:
    assert word in line, line


def rewrite(path: pathlib.Path, change) -> None:
  """Change a JSON file in place."""
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))
