"""Tests that advice is the paper's for the paper's sets, and smaller for others."""

import ast

import pytest

from sr3_jax.check_data.advice import advise
from sr3_jax.config import config_names, load_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import crops
from tests.support.scans import checked


def _settings(training, devices=16, accelerator=True):
  found = advise(training, devices=devices, accelerator=accelerator)
  settings = {entry.setting: entry.value for entry in found}
  assert len(settings) == len(found) and all(entry.why for entry in found)
  assert settings['--config'] in config_names()
  return settings


def test_imagenet_gets_what_the_paper_trained_it_with():
  count = 1_281_167
  settings = _settings(checked([(375, 500)] * count, labels={'a': count}))
  assert settings == {
    '--config': 'imagenet_64_256',
    'data.image_size': '256',
    'data.crop': 'center',
    'train.batch_size': '256',
    'train.learning_rate': '0.0001',
    'train.num_steps': '1000000',
  }


def test_aligned_squares_are_not_cropped():
  settings = _settings(checked([(128, 128)] * 20_000))
  assert settings['--config'] == 'faces_16_128'
  assert settings['data.crop'] == 'none' and settings['data.image_size'] == '128'
  assert settings['train.num_steps'] == '20000'  # 200 * 20000 / 256, one digit
  larger = _settings(checked([(300, 300)] * 10))
  assert larger['data.crop'] == 'center' and larger['data.image_size'] == '256'
  assert larger['model.dropout']


def test_the_learning_rate_goes_by_the_root_of_the_batch():
  settings = _settings(checked([(500, 500), (400, 500)]), devices=4)
  assert settings['train.batch_size'] == '128'
  assert float(settings['train.learning_rate']) == pytest.approx(
    1e-4 / 2**0.5, rel=0.01
  )


def test_soft_photographs_are_downsampled_until_they_are_sharp():
  details = {1: 0.05, 2: 0.19, 3: 0.3, 4: 0.4}
  settings = _settings(checked([(400, 600)] * 5000, details=details))
  assert settings['data.reduce'] == '(3,)'
  assert settings['data.image_size'] == '128'  # 400 / 3 is 133
  assert settings['data.crop'] == 'random'
  # 200 * 5000 * (400 * 600) / (3 * 128) ** 2 / 256 would be less.
  assert settings['train.num_steps'] == '10000'
  assert 'data.reduce' not in _settings(checked([(400, 600)] * 5))


def test_a_few_small_images_do_not_set_the_size():
  sizes = [(300, 400)] * 97 + [(20, 30)] * 3
  assert _settings(checked(sizes))['data.image_size'] == '256'


def test_without_accelerators_everything_is_small():
  photographs = checked([(1000, 1500)] * 50)
  settings = _settings(photographs, devices=1, accelerator=False)
  assert settings == {
    '--config': 'small/photo_x4',
    'data.image_size': '64',
    'data.crop': 'random',
    'train.batch_size': '16',
    'train.learning_rate': '1e-3',
    'train.num_steps': '10000',
    'train.decay_steps': '5000',
  }
  small = _settings(checked([(40, 60)] * 50), devices=1, accelerator=False)
  assert small['--config'] == 'quickstart'
  assert (small['data.image_size'], small['train.num_steps']) == ('32', '3000')
  faces = _settings(checked([(64, 64)] * 50), devices=1, accelerator=False)
  assert faces['--config'] == 'small/portraits_16_64'
  assert faces['data.crop'] == 'none'
  many = _settings(checked([(64, 64)] * 1500), devices=1, accelerator=False)
  assert many['train.num_steps'] == '6000'  # 60 * 1500 / 16, one digit
  faces = _settings(checked([(256, 256)] * 50), devices=1, accelerator=False)
  assert faces['--config'] == 'small/portraits_16_128'
  assert (faces['data.image_size'], faces['data.crop']) == ('128', 'center')
  tiny = checked([(16, 16)] * 50, labels={'a': 50})
  assert _settings(tiny, 1, False)['--config'] == 'small/classes_8_16'


@pytest.mark.parametrize(
  'training',
  [
    checked([(1000, 1500)] * 50),
    checked([(1000, 1500)] * 50, details={1: 0.05, 2: 0.1, 3: 0.4}),
    checked([(1000, 1500)] * 50, labels={'a': 20, 'b': 30}),
    checked([(40, 60)] * 50),
    checked([(64, 64)] * 50),
    checked([(64, 64)] * 5000),
    checked([(40, 40)] * 50),
    checked([(16, 16)] * 50),
    checked([(256, 256)] * 50),
    checked([(16, 16)] * 50, labels={'a': 50}),
  ],
)
def test_the_configuration_takes_the_advice_on_a_cpu(training):
  settings = _settings(training, 1, False)
  config = load_config(settings.pop('--config'))
  crop = settings.pop('data.crop')
  changes = {key: ast.literal_eval(value) for key, value in settings.items()}
  config.update_from_flattened_dict(changes | {'data.crop': crop})
  d = config.data
  crops.Cut(d.image_size, d.crop, reduce=d.reduce)
  SR3.from_config(config)
  assert config.train.warmup_steps + config.train.decay_steps <= config.train.num_steps


def test_no_usable_image_gives_no_advice():
  broken = checked([(0, 0)], broken={0: 'zero bytes'})
  assert advise(broken, devices=1, accelerator=True) == []
