"""Model folders against the safetensors library and themselves; the hub."""

import json
import os
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core import diffusion, samplers
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.weights import checkpoint, hub, model_files, model_writer
from tests.support import model_folders, runs
from tests.support.model_folders import PRESETS, assert_equal, refused

state, run, loaded = model_folders.state, model_folders.run, model_folders.loaded
exported, model = model_folders.exported, model_folders.model

# --------------------------------------------------------------------- round trip


def test_the_absence_of_a_newer_key_means_what_was_done_before():
  """Area means were of whole pixels before `data.area`: old models keep them."""
  stored = as_json(runs.get_config())
  assert stored['data']['area'] == 'shares'
  assert model_files.read_config(stored, 'a', '1').data.area == 'shares'
  del stored['data']['area']
  assert model_files.read_config(stored, 'a', '1').data.area == 'pixels'
  del stored['data']
  assert model_files.read_config(stored, 'a', '1').data.area == 'pixels'


@pytest.mark.parametrize('stored', [None, '{', '[]', '{"data": 3}'])
def test_a_run_keeps_the_way_it_began_with(tmp_path, stored):
  config, workdir = runs.get_config(), epath.Path(tmp_path)
  old = as_json(config)
  for area in ('shares', 'pixels', None):
    begun = {**old, 'data': {k: v for k, v in old['data'].items() if k != 'area'}}
    begun['data'] |= {'area': area} if area else {}
    (workdir / 'config.json').write_text(json.dumps(begun))
    changed = runs.get_config()
    model_files.keep_ways(changed, workdir)
    assert changed.data.area == (area or 'pixels')
  (workdir / 'config.json').unlink()
  if stored is not None:
    (workdir / 'config.json').write_text(stored)
  model_files.keep_ways(config, workdir)
  assert config.data.area == 'shares'


def test_a_run_gives_its_averaged_weights(state, loaded):
  assert_equal(loaded.params, state['ema'])
  assert (loaded.step, loaded.name, loaded.presets) == (20, 'run', PRESETS)
  assert loaded.source == 'trained on photos'
  assert as_json(loaded.config) == as_json(runs.get_config())


def test_the_round_trip_is_exact(loaded, exported):
  again = hub.load(exported)
  assert_equal(again.params, loaded.params)
  assert as_json(again.config) == as_json(loaded.config)
  assert again.fingerprint == loaded.fingerprint
  assert len(again.fingerprint) == 16
  assert (again.step, again.name, again.presets) == (20, 'photos4x', PRESETS)
  assert again.source == 'trained on photos'
  assert sorted(path.name for path in exported.iterdir()) == sorted(model_files.FILES)
  assert [p.name for p in exported.parent.iterdir()] == ['photos4x']


def test_the_round_trip_restores_the_same_pictures(loaded, exported):
  """The program, too, is the same: compiled once from both configurations."""
  condition = jax.random.uniform(jax.random.key(1), (2, 4, 4, 3), minval=-1)
  outputs = []
  for one in (loaded, hub.load(exported)):
    restore = jax.jit(one.model.restore)
    outputs.append(np.asarray(restore(one.params, jax.random.key(0), condition)))
  np.testing.assert_array_equal(*outputs)
  assert np.std(outputs[0]) > 0.01


def test_the_file_is_what_the_library_reads(loaded, exported):
  """Names and float32 arrays, for any program that reads safetensors."""
  stored = safetensors.numpy.load_file(exported / 'model.safetensors')
  assert_equal(stored, loaded.params)
  assert 'conv_in/kernel' in stored
  mode = os.stat(exported / 'config.json').st_mode
  assert os.stat(exported / 'model.safetensors').st_mode == mode


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_half_the_size_and_the_nearest_numbers(loaded, exported, tmp_path, dtype):
  model_writer.save(tmp_path / 'm', loaded.params, loaded.config, step=3, dtype=dtype)
  half = hub.load(tmp_path / 'm')
  kind = {'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16}[dtype]
  assert_equal(
    half.params, jax.tree.map(lambda a: a.astype(kind).astype('f4'), loaded.params)
  )
  assert half.fingerprint != loaded.fingerprint
  assert half.fingerprint in (tmp_path / 'm' / 'README.md').read_text()

  def size(folder):
    return (folder / 'model.safetensors').stat().st_size

  assert size(tmp_path / 'm') < 0.6 * size(exported)


def test_float16_does_not_hold_every_number(loaded, tmp_path):
  params = jax.tree.map(np.array, loaded.params)
  params['conv_in']['bias'][0] = 1e6
  with pytest.raises(hub.HubError, match=r'conv_in/bias.*float16'):
    model_writer.save(tmp_path / 'm', params, loaded.config, step=0, dtype='float16')
  with pytest.raises(hub.HubError, match=r"'int8'.*float32, bfloat16, float16"):
    model_writer.save(tmp_path / 'm', params, loaded.config, step=0, dtype='int8')
  assert not (tmp_path / 'm').exists()


def test_the_fingerprint_is_that_of_the_weights(loaded):
  params = jax.tree.map(np.array, loaded.params)
  assert hub.fingerprint(params) == loaded.fingerprint
  assert hub.fingerprint(jax.tree.map(jnp.asarray, params)) == loaded.fingerprint
  params['conv_in']['bias'][0] += 1e-3
  assert hub.fingerprint(params) != loaded.fingerprint
  params['conv_in']['bias'][0] = loaded.params['conv_in']['bias'][0]
  params['conv_inn'] = params.pop('conv_in')
  assert hub.fingerprint(params) != loaded.fingerprint


def test_a_file_with_its_configuration_beside_it(loaded, model):
  by_file = hub.load(model / 'model.safetensors')
  assert (by_file.fingerprint, by_file.name) == (loaded.fingerprint, 'model')
  (model / 'model.safetensors').rename(model / 'ema.safetensors')
  assert hub.load(model / 'ema.safetensors').name == 'ema'
  (model / 'config.json').unlink()
  refused(model / 'ema.safetensors', 'config.json: missing')


# ------------------------------------------------------------------------- saving


def test_other_weights_are_not_saved(loaded, tmp_path):
  params = dict(loaded.params)
  del params['conv_in']
  with pytest.raises(hub.HubError, match='missing: conv_in/bias, conv_in/kernel'):
    model_writer.save(tmp_path / 'm', params, loaded.config, step=0)
  assert not any(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_name_of_the_folder(loaded, tmp_path, monkeypatch):
  def fail(*_):
    raise safetensors.SafetensorError('I/O error: No space left on device')

  monkeypatch.setattr(safetensors.numpy, 'save_file', fail)
  with pytest.raises(OSError, match='No space left') as error:
    model_writer.save(tmp_path / 'm', loaded.params, loaded.config, step=0)
  assert error.value.filename == f'{tmp_path / "m"}'
  assert not any(tmp_path.iterdir())


def test_what_is_no_model_folder_is_not_touched(loaded, tmp_path):
  (tmp_path / 'photo.jpg').write_text('mine')
  for place in (tmp_path, tmp_path / 'photo.jpg'):
    with pytest.raises(hub.HubError, match='not touched'):
      model_writer.save(place, loaded.params, loaded.config, step=0)
  assert (tmp_path / 'photo.jpg').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == 1


def test_a_model_folder_is_replaced_and_what_is_beside_stays(loaded, model):
  (model / '.git').mkdir()
  params = jax.tree.map(lambda a: a + 1, loaded.params)
  model_writer.save(model, params, loaded.config, step=5)
  again = hub.load(model)
  assert_equal(again.params, params)
  assert (again.step, again.presets) == (5, {})
  names = {'.git', 'README.md', 'config.json', 'model.safetensors'}
  assert {path.name for path in model.iterdir()} == names
  assert not list(model.parent.glob('.*'))


@pytest.mark.parametrize(
  ('existing', 'moves'), [(False, 0), (True, 0), (True, 1), (True, 2)]
)
def test_a_kill_leaves_nothing_that_loads_as_something_else(
  loaded, model, monkeypatch, existing, moves
):
  """After `moves` of the renames: no folder with one's weights, another's config."""
  if not existing:
    shutil.rmtree(model)
  left = [moves]

  def replace(self, target):
    if not left[0]:
      raise KeyboardInterrupt
    left[0] -= 1
    return os.replace(self, target)

  monkeypatch.setattr(type(hub.epath.Path(model)), 'replace', replace)
  params = jax.tree.map(lambda a: a + 1, loaded.params)
  with pytest.raises(KeyboardInterrupt):
    model_writer.save(model, params, loaded.config, step=100)
  monkeypatch.undo()
  assert not list(model.parent.glob('.*')), 'a part stayed behind'
  assert model.exists() == existing
  if existing:
    refused(model, 'config.json: missing')
    model_writer.save(model, params, loaded.config, step=100)
    assert_equal(hub.load(model).params, params)


def test_folders_of_this_machine_are_not_published(loaded, tmp_path):
  config = loaded.config.copy_and_resolve_references()
  config.data.source, config.data.path = 'folder', '/home/me/secret/ffhq'
  config.data.eval_path, config.data.data_dir = '/home/me/held', '/home/me/tfds'
  config.train.init_from = '/home/me/models/photos4x'
  model_writer.save(tmp_path / 'm', loaded.params, config, step=1)
  for name in ('config.json', 'README.md'):
    text = (tmp_path / 'm' / name).read_text()
    assert '/home' not in text
    assert 'ffhq' in text
    assert 'photos4x' in text
  assert config.data.path == '/home/me/secret/ffhq'
  assert hub.load(tmp_path / 'm').source == 'trained on ffhq'
  config.train.init_from = 'hf://me/photos4x'
  model_writer.save(tmp_path / 'm', loaded.params, config, step=1)
  assert 'hf://me/photos4x' in (tmp_path / 'm' / 'README.md').read_text()


# ------------------------------------------------------------------------ presets


def test_trajectories_of_presets(loaded):
  gammas = loaded.model.gammas
  levels, coefficients = make_trajectory(gammas, **PRESETS['fast'])
  np.testing.assert_array_equal(levels, diffusion.respace(gammas, 4, 'log_snr'))
  np.testing.assert_array_equal(coefficients, samplers.dpmpp_2m(levels))
  betas = np.linspace(1e-2, 0.9, 5)
  levels, coefficients = make_trajectory(gammas, **PRESETS['best'])
  np.testing.assert_allclose(levels, np.concatenate([[1], np.cumprod(1 - betas)]))
  np.testing.assert_array_equal(coefficients, samplers.ddpm(levels))
  ddim = PRESETS['best'] | {'name': 'ddim', 'eta': 0.5}
  np.testing.assert_array_equal(
    make_trajectory(gammas, **ddim)[1], samplers.ddim(levels, 0.5)
  )


def test_linear_trajectories_stay_within_the_trained_levels(loaded):
  gammas = loaded.model.gammas
  steep = PRESETS['best'] | {'end': 0.9999, 'num_steps': 8}
  levels, coefficients = make_trajectory(gammas, **steep)
  assert gammas[-1] <= levels[-1]
  assert len(coefficients) == len(levels) - 1 < 8
  with pytest.raises(ValueError, match='trained levels'):
    make_trajectory(gammas, **(steep | {'start': 0.99999}))


# ---------------------------------------------------------------------------- hub


def test_a_model_from_the_hub(exported, loaded, monkeypatch):
  calls = []

  def snapshot_download(**arguments):
    calls.append(arguments)
    return os.fspath(exported)

  stand_in = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', stand_in)
  found = hub.load('hf://some-one/photos.4x@v1.0')
  assert (found.name, found.fingerprint) == ('some-one/photos.4x', loaded.fingerprint)
  (call,) = calls
  assert (call['repo_id'], call['revision']) == ('some-one/photos.4x', 'v1.0')
  assert sorted(call['allow_patterns']) == sorted(model_files.FILES)
  assert hub.load('hf://some-one/photos4x').step == 20
  assert calls[1]['revision'] is None


def test_the_hub_may_be_out_of_reach(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  refused('hf://a/b', 'hf://a/b', "pip install 'sr3_jax[hub]'")
  for name in (
    'hf://a',
    'hf://a/b/c',
    'hf:///b',
    'hf://a/b@',
    'hf://../b',
    'hf://a/..',
  ):
    refused(name, 'should be hf://owner/name')

  def offline(**arguments):
    raise ConnectionError('no route\nto the hub')

  stand_in = types.SimpleNamespace(snapshot_download=offline)
  monkeypatch.setitem(sys.modules, 'huggingface_hub', stand_in)
  refused('hf://a/b', 'cannot be downloaded: no route to the hub')
  stand_in.snapshot_download = lambda **arguments: os.fspath(tmp_path)
  refused('hf://a/b', 'no model.safetensors')


def test_importing_the_package_is_light():
  """`sr3_jax.load` is there, and JAX only when it is called."""
  code = (
    'import sys, sr3_jax; assert callable(sr3_jax.load); print("jax" in sys.modules)'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout == 'False\n', done.stderr


def test_a_run_without_checkpoints_says_so(run, tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  shutil.copy(run / 'config.json', tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match='no complete checkpoint'):
    hub.load(tmp_path)


# ------------------------------------------------------- models of the package


@pytest.fixture
def shipped(model, tmp_path, monkeypatch):
  """A package with one model, 'photo-x4', seen from an empty folder."""
  shutil.copytree(model, tmp_path / 'package' / 'photo-x4')
  (tmp_path / 'here').mkdir()
  monkeypatch.setattr(hub, 'SHIPPED', epath.Path(tmp_path / 'package'))
  monkeypatch.chdir(tmp_path / 'here')
  return tmp_path / 'here'


def test_models_of_the_package_have_names(shipped, loaded):
  assert hub.shipped() == ['photo-x4']
  one = hub.load('photo-x4')
  assert (one.name, one.fingerprint) == ('photo-x4', loaded.fingerprint)


def test_folders_of_ones_own_come_first(shipped, model, state):
  (shipped / 'photo-x4').mkdir()  # say, of outputs: no model
  assert hub.load('photo-x4').source == hub.load(model).source
  other = jax.tree.map(lambda x: x + 1, state['ema'])
  model_writer.save('photo-x4', other, hub.load(model).config, step=7, source='mine')
  assert hub.load('photo-x4').source == 'mine'


def test_names_lead_nowhere_else(shipped):
  refused('photo-x5', 'no such file or folder, and no model of the package: photo-x4')
  refused('./photo-x4', 'no such file')
  refused('../package', 'a model folder has')
