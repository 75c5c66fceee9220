"""Model folders that are damaged, foreign or newer: refused in one line."""

import os
import pickle

import numpy as np
import pytest
import safetensors.numpy

from sr3_jax.config import get_config
from sr3_jax.weights import hub
from tests.support import model_folders
from tests.support.model_folders import refused, rewrite

exported, model = model_folders.exported, model_folders.model


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
    ('', 'no JSON'),
    ('{"format": 1,', 'no JSON'),
    ('[1]', 'should hold an object'),
    ('{"seed": 1}', 'not the configuration of a model folder'),
    ('{"format": 1, "config": [1]}', 'not the configuration of a model folder'),
    ('[' * 100_000, 'nested too deeply'),
    (' ' * (2**20 + 1), 'larger than'),
    (b'\xff\xfe', 'not a text in UTF-8'),
  ],
  ids=range(8),
)
def test_a_file_that_is_no_configuration(model, text, word):
  data = text if isinstance(text, bytes) else text.encode()
  (model / 'config.json').write_bytes(data)
  refused(model, 'config.json', word)


@pytest.mark.parametrize(
  ('key', 'value', 'words'),
  [
    ('model.depth', 3, ['unknown key config.model.depth', '0.9', 'update']),
    ('colour', {}, ['unknown key config.colour']),
    ('model.channels', 'many', ["model.channels='many' must be a whole number from 2"]),
    ('model.channels', True, ['model.channels=True must be a whole number']),
    ('model.channels', 8.0, ['model.channels=8.0 must be a whole number']),
    ('model.channels', 2**31, ['model.channels=2147483648 must be', 'to 8192']),
    ('model.num_blocks', 10**6, ['model.num_blocks=1000000 must be', 'from 1 to 32']),
    (
      'model.multipliers',
      [1] * 99,
      ['model.multipliers=(1, 1', '...', '1 to 10 values'],
    ),
    ('model.multipliers', ['1'], ["model.multipliers=('1',) must be"]),
    ('model.patch', 0, ['model.patch=0 must be']),
    ('model.patch', 5, ['data.image_size=', 'model.patch=5']),
    ('model', 3, ['config.model is no value']),
    ('diffusion.y0_scale', 0, ['diffusion.y0_scale=0 must be']),
    ('diffusion.y0_scale', float('inf'), ['diffusion.y0_scale=inf must be']),
    ('train.ema_decay', float('nan'), ['train.ema_decay=nan must be']),
    ('seed', 10**30, ['seed=1000000000000000000000000000000 must be']),
    ('data.path', 'a\0b', ["data.path='a\\x00b' must be"]),
    ('model.network', 'huge', ["'huge'", 'sr3']),
    ('diffusion.end', None, ['diffusion.end=None must be']),
    ('diffusion.end', -1e-3, ['diffusion.end=-0.001 must be']),
    ('diffusion.end', 1.0, ['diffusion.end=1', 'betas']),
    ('sampler.num_steps', 5000, ['sampler.num_steps=5000', 'diffusion.num_levels']),
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
    {'eta': float('nan')},
    {'temperature': float('nan')},
    {'num_steps': True},
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
  refused(tmp_path / 'a.pth', 'sr3-convert')
  refused(tmp_path / 'a.txt', 'no model')
  (tmp_path / 'empty' / 'checkpoints').mkdir()
  refused(tmp_path / 'empty', 'config.json: missing')


def test_one_bit_of_the_weights_that_flipped_is_seen(model):
  """It would only be another picture."""
  data = bytearray((model / 'model.safetensors').read_bytes())
  data[-2] ^= 1
  (model / 'model.safetensors').write_bytes(data)
  refused(model, 'model.safetensors: damaged: its weights have the fingerprint')
