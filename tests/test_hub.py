"""Model folders against the safetensors library, YAML and themselves."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tiny
import yaml
from flax import traverse_util

import sr3_jax
from sr3_jax import checkpoint, diffusion, hub, model_files, samplers, train
from sr3_jax.config import as_json, get_config
from sr3_jax.sr3 import SR3, make_walk

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


@pytest.fixture(scope='module')
def state() -> dict[str, dict]:
  """Random weights of the smallest network, and others as their average."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(SR3.from_config(tiny.get_config()).init, jax.random.key(0))
  draw = lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32)
  params, ema = (jax.tree.map(draw, shapes) for _ in range(2))
  return {'params': params, 'ema': ema, 'optimizer': {'count': np.zeros(1)}}


@pytest.fixture(scope='module')
def run(state, tmp_path_factory) -> pathlib.Path:
  """A workdir as of a run that was trained, evaluated and swept."""
  folder = tmp_path_factory.mktemp('runs') / 'run'
  config = tiny.get_config()
  train.write_config(config, hub.epath.Path(folder))
  batches = train.training_data(config)
  with checkpoint.open_manager(folder, keep=1) as manager:
    checkpoint.save(manager, 20, state, batches)
  batches.close()
  (folder / 'results.json').write_text(json.dumps(RESULTS))
  (folder / 'presets.json').write_text(json.dumps(PRESETS))
  return folder


@pytest.fixture(scope='module')
def loaded(run) -> hub.Loaded:
  return hub.load(run)


@pytest.fixture(scope='module')
def exported(run, tmp_path_factory) -> pathlib.Path:
  """A model folder. Read only."""
  folder = tmp_path_factory.mktemp('models') / 'photos4x'
  hub.export(run, folder, license='Apache-2.0')
  return folder


@pytest.fixture
def model(exported, tmp_path) -> pathlib.Path:
  """A model folder to break."""
  return shutil.copytree(exported, tmp_path / 'model')


def flat(params) -> dict[str, np.ndarray]:
  return traverse_util.flatten_dict(params, sep='/')


def assert_equal(one, other) -> None:
  one, other = flat(one), flat(other)
  assert one.keys() == other.keys()
  for name, value in one.items():
    np.testing.assert_array_equal(value, other[name], err_msg=name, strict=True)


def refused(path, *words: str) -> None:
  """Loading `path` ends in one line that holds `words`."""
  with pytest.raises(hub.HubError) as error:
    hub.load(path)
  line = str(error.value)
  assert '\n' not in line
  assert len(line) < 700, line
  for word in words:
    assert word in line, line


# --------------------------------------------------------------------- round trip


def test_a_run_gives_its_averaged_weights(state, loaded):
  assert_equal(loaded.params, state['ema'])
  assert (loaded.step, loaded.name, loaded.presets) == (20, 'run', PRESETS)
  assert loaded.source == 'trained on photos'
  assert as_json(loaded.config) == as_json(tiny.get_config())


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
  hub.save(tmp_path / 'm', loaded.params, loaded.config, step=3, dtype=dtype)
  half = hub.load(tmp_path / 'm')
  kind = {'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16}[dtype]
  assert_equal(
    half.params, jax.tree.map(lambda a: a.astype(kind).astype('f4'), loaded.params)
  )
  assert half.fingerprint != loaded.fingerprint
  assert half.fingerprint in (tmp_path / 'm' / 'README.md').read_text()
  size = lambda folder: (folder / 'model.safetensors').stat().st_size
  assert size(tmp_path / 'm') < 0.6 * size(exported)


def test_float16_does_not_hold_every_number(loaded, tmp_path):
  params = jax.tree.map(np.array, loaded.params)
  params['conv_in']['bias'][0] = 1e6
  with pytest.raises(hub.HubError, match=r'conv_in/bias.*float16'):
    hub.save(tmp_path / 'm', params, loaded.config, step=0, dtype='float16')
  with pytest.raises(hub.HubError, match=r"'int8'.*float32, bfloat16, float16"):
    hub.save(tmp_path / 'm', params, loaded.config, step=0, dtype='int8')
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


# ------------------------------------------------------------------------ refused


def rewrite(path: pathlib.Path, change) -> None:
  """Changes a JSON file in place."""
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value))


def test_arrays_left_over_on_either_side_are_listed(model):
  file = model / 'model.safetensors'
  arrays = safetensors.numpy.load_file(file)
  arrays['conv_inn/kernel'] = arrays.pop('conv_in/kernel')
  arrays['conv_out/bias'] = arrays['conv_out/bias'][:2]
  safetensors.numpy.save_file(arrays, file)
  refused(
    model,
    'missing: conv_in/kernel;',
    'left over: conv_inn/kernel;',
    'another shape: conv_out/bias [2] instead of [48]',
  )
  arrays = {f'a{i}': np.zeros(1, np.float32) for i in range(9)}
  safetensors.numpy.save_file(arrays, file)
  refused(model, 'a0, a1, a2, a3, a4 and 4 more')


def test_weights_that_are_no_weights(model):
  file = model / 'model.safetensors'
  arrays = safetensors.numpy.load_file(file)
  for value, word in ((np.nan, 'not finite'), (np.inf, 'not finite')):
    broken = {k: v.copy() for k, v in arrays.items()}
    broken['conv_in/bias'][1] = value
    safetensors.numpy.save_file(broken, file)
    refused(model, 'conv_in/bias', word)
  integers = arrays | {'conv_in/bias': arrays['conv_in/bias'].astype(np.int32)}
  safetensors.numpy.save_file(integers, file)
  refused(model, 'conv_in/bias is I32')


def test_damaged_and_foreign_weights(model):
  file = model / 'model.safetensors'
  whole = file.read_bytes()

  class Bomb:
    def __reduce__(self):
      return os.mkdir, (os.fspath(model / 'pickled'),)

  for data in (b'', whole[:-1], whole[: len(whole) // 2], b'\xff' * 99, whole + b'x'):
    file.write_bytes(data)
    refused(model, 'model.safetensors: not a whole safetensors file')
  file.write_bytes(pickle.dumps(Bomb()))
  refused(model, 'not a whole safetensors file')
  assert not (model / 'pickled').exists()


def test_a_newer_format_is_refused(model):
  rewrite(model / 'config.json', lambda c: c.update(format=2, sr3_jax='7.0'))
  refused(model, 'config.json', 'format 2', 'made by a newer version (7.0)', 'update')


@pytest.mark.parametrize(
  ('text', 'word'),
  [
    ('', 'not JSON'),
    ('{"format": 1,', 'not JSON'),
    ('[1]', 'JSON object'),
    ('{"seed": 1}', 'not the configuration of a model folder'),
    ('{"format": 1, "config": [1]}', 'not the configuration of a model folder'),
    ('[' * 100_000, 'not JSON'),
    (' ' * (2**20 + 1), 'larger than'),
    (b'\xff\xfe', 'not JSON'),
  ],
  ids=range(8),
)
def test_a_configuration_that_is_none(model, text, word):
  data = text if isinstance(text, bytes) else text.encode()
  (model / 'config.json').write_bytes(data)
  refused(model, 'config.json', word)


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('model.depth', 3, ['unknown key config.model.depth', '0.9', 'update']),
    ('colour', {}, ['unknown key config.colour']),
    ('model.channels', 'many', ['config.model.channels', "'many'", '128']),
    ('model.channels', True, ['config.model.channels', 'True']),
    ('model.channels', 8.0, ['config.model.channels']),
    ('model.channels', 10**12, ['config.model.channels', 'too large']),
    ('model.num_blocks', 10**6, ['config.model.num_blocks', 'too large']),
    ('model.multipliers', [1] * 99, ['config.model.multipliers']),
    ('model.multipliers', ['1'], ['config.model.multipliers']),
    ('model.patch', 0, ['zero']),
    ('model', 3, ['config.model']),
    ('model.network', 'huge', ["'huge'", 'sr3']),
    ('diffusion.end', None, ['config.diffusion.end']),
    ('diffusion.end', -1e-3, ['betas']),
    ('sampler.num_steps', 5000, ['5000', 'levels']),
    ('model.channels', 16, ['not the weights of this network', 'conv_in/kernel']),
  ],
  ids=str,
)
def test_a_configuration_that_does_not_fit(model, key, value, words):
  def change(header):
    header['sr3_jax'] = '0.9'
    *parents, last = key.split('.')
    config = header['config']
    for parent in parents:
      config = config[parent]
    config[last] = value

  rewrite(model / 'config.json', change)
  refused(model, *words)


def test_an_older_configuration_gets_the_defaults(model):
  def change(header):
    del header['config']['checkpoint'], header['config']['model']['network']
    header['config']['diffusion']['end'] = 1  # a float, as another program writes it
    header['config']['diffusion']['schedule'] = 'cosine'

  rewrite(model / 'config.json', change)
  config = hub.load(model).config
  assert config.checkpoint == get_config().checkpoint
  assert config.model.network == 'sr3'
  assert type(config.diffusion.end) is float


@pytest.mark.parametrize(
  'change',
  [
    {'name': 'euler'},
    {'num_steps': 10**6},
    {'num_steps': 2.5},
    {'num_steps': '4'},
    {'spacing': 'random'},
    {'spacing': 'linear'},
    {'colour': 1},
  ],
  ids=str,
)
def test_a_preset_that_is_not_possible(model, change):
  rewrite(model / 'presets.json', lambda p: p['fast'].update(change))
  refused(model, 'presets.json', "preset 'fast'")


def test_places_without_a_model(tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'a.pth').write_bytes(b'x')
  (tmp_path / 'a.txt').write_bytes(b'x')
  refused(tmp_path / 'nothing', 'nothing: no model: no such file or folder')
  refused(tmp_path / 'empty', 'model.safetensors', 'checkpoints')
  refused(tmp_path / 'a.pth', 'python -m sr3_jax.convert')
  refused(tmp_path / 'a.txt', 'no model')
  (tmp_path / 'empty' / 'checkpoints').mkdir()
  refused(tmp_path / 'empty', 'config.json: missing')


# ------------------------------------------------------------------------- saving


def test_other_weights_are_not_saved(loaded, tmp_path):
  params = dict(loaded.params)
  del params['conv_in']
  with pytest.raises(hub.HubError, match='missing: conv_in/bias, conv_in/kernel'):
    hub.save(tmp_path / 'm', params, loaded.config, step=0)
  assert not any(tmp_path.iterdir())


def test_what_is_no_model_folder_is_not_touched(loaded, tmp_path):
  (tmp_path / 'photo.jpg').write_text('mine')
  for place in (tmp_path, tmp_path / 'photo.jpg'):
    with pytest.raises(hub.HubError, match='not touched'):
      hub.save(place, loaded.params, loaded.config, step=0)
  assert (tmp_path / 'photo.jpg').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == 1


def test_a_model_folder_is_replaced_and_what_is_beside_stays(loaded, model):
  (model / '.git').mkdir()
  params = jax.tree.map(lambda a: a + 1, loaded.params)
  hub.save(model, params, loaded.config, step=5)
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
    hub.save(model, params, loaded.config, step=100)
  monkeypatch.undo()
  assert not list(model.parent.glob('.*')), 'a part stayed behind'
  assert model.exists() == existing
  if existing:
    refused(model, 'config.json: missing')
    hub.save(model, params, loaded.config, step=100)
    assert_equal(hub.load(model).params, params)


def test_folders_of_this_machine_are_not_published(loaded, tmp_path):
  config = loaded.config.copy_and_resolve_references()
  config.data.source, config.data.path = 'folder', '/home/me/secret/ffhq'
  config.data.eval_path, config.data.data_dir = '/home/me/held', '/home/me/tfds'
  config.train.init_from = '/home/me/models/photos4x'
  hub.save(tmp_path / 'm', loaded.params, config, step=1)
  for name in ('config.json', 'README.md'):
    text = (tmp_path / 'm' / name).read_text()
    assert '/home' not in text
    assert 'ffhq' in text
    assert 'photos4x' in text
  assert config.data.path == '/home/me/secret/ffhq'
  assert hub.load(tmp_path / 'm').source == 'trained on ffhq'
  config.train.init_from = 'hf://me/photos4x'
  hub.save(tmp_path / 'm', loaded.params, config, step=1)
  assert 'hf://me/photos4x' in (tmp_path / 'm' / 'README.md').read_text()


# --------------------------------------------------------------------------- card


def card(folder) -> tuple[dict, str]:
  """Front matter as YAML reads it, and the text."""
  _, front, text = (folder / 'README.md').read_text().split('---\n', 2)
  return yaml.safe_load(front), text


def test_the_card_says_what_hubs_and_people_ask(exported, loaded):
  front, text = card(exported)
  assert front['license'] == 'apache-2.0'
  assert front['library_name'] == 'sr3_jax'
  assert front['pipeline_tag'] == 'image-to-image'
  assert 'super-resolution' in front['tags']
  for words in (
    '# photos4x',
    '4 times larger',
    'from 4 to 16 pixels',
    '20 steps of 8 images',
    'photos',
    'On 64 held-out images',
    '| sr3 | 24.60 | 0.600 | 0.73 |',
    'ddim, 7 steps, spacing cosine',
    '| fast | dpmpp_2m | 4 | log_snr | 0 |',
    '| best | ddpm | 5 | betas 0.01 to 0.9 | 0 |',
    'bicubic with anti-aliasing',
    '[-1, 1]',
    loaded.fingerprint,
    f'sr3_jax {sr3_jax.__version__}',
    'python -m sr3_jax.upscale',
    'sr3_jax.load(',
    'not true',
  ):
    assert words in text, words


def test_the_card_of_unmeasured_weights(loaded, tmp_path):
  hub.save(tmp_path / 'm', loaded.params, loaded.config, step=0, source='a`b|\n[c](d)')
  front, text = card(tmp_path / 'm')
  assert front['license'] == 'unknown'
  assert 'weights: ab c(d)' in text
  assert 'Not measured' in text
  assert 'default is ddpm, 3 steps' in text
  assert 'steps of' not in text
  # What hubs don't know as an identifier has a field of its own.
  hub.save(
    tmp_path / 'm', {**loaded.params}, loaded.config, step=0, license='My: "own"'
  )
  assert card(tmp_path / 'm')[0]['license'] == 'other'
  assert card(tmp_path / 'm')[0]['license_name'] == 'My: "own"'


def test_results_of_other_weights_stay_out(run, tmp_path):
  shutil.copytree(run, tmp_path / 'run')
  rewrite(tmp_path / 'run' / 'results.json', lambda r: r.update(step=15))
  hub.export(tmp_path / 'run', tmp_path / 'm')
  assert 'Not measured' in card(tmp_path / 'm')[1]


def test_a_model_folder_exports_too(exported, tmp_path):
  """Say, to halve its size; what it was measured as may no longer hold."""
  loaded = hub.export(exported, tmp_path / 'm', dtype='bfloat16')
  again = hub.load(tmp_path / 'm')
  assert again.presets == loaded.presets == PRESETS
  assert (again.step, again.source) == (loaded.step, loaded.source)
  assert 'Not measured' in card(tmp_path / 'm')[1]


# ------------------------------------------------------------------------ presets


def test_walks_of_presets(loaded):
  gammas = loaded.model.gammas
  levels, table = make_walk(gammas, **PRESETS['fast'])
  np.testing.assert_array_equal(levels, diffusion.respace(gammas, 4, 'log_snr'))
  np.testing.assert_array_equal(table, samplers.dpmpp_2m(levels))
  betas = np.linspace(1e-2, 0.9, 5)
  levels, table = make_walk(gammas, **PRESETS['best'])
  np.testing.assert_allclose(levels, np.concatenate([[1], np.cumprod(1 - betas)]))
  np.testing.assert_array_equal(table, samplers.ddpm(levels))
  ddim = PRESETS['best'] | {'name': 'ddim', 'eta': 0.5}
  np.testing.assert_array_equal(
    make_walk(gammas, **ddim)[1], samplers.ddim(levels, 0.5)
  )


def test_linear_walks_stay_within_the_trained_levels(loaded):
  gammas = loaded.model.gammas
  steep = PRESETS['best'] | {'end': 0.9999, 'num_steps': 8}
  levels, table = make_walk(gammas, **steep)
  assert gammas[-1] <= levels[-1]
  assert len(table) == len(levels) - 1 < 8
  with pytest.raises(ValueError, match='trained levels'):
    make_walk(gammas, **(steep | {'start': 0.99999}))


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
