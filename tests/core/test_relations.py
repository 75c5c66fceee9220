"""Tests what must hold between options: a mistake names the keys in time."""

import pytest

from sr3_jax.config import ConfigError, config_names, get_config, load_config
from sr3_jax.core import check, relations
from sr3_jax.core.sr3 import SR3
from tests.support.runs import compilations
from tests.support.sr3_models import tiny

GUIDED = {
  'model.network': 'guided',
  'model.channels': 32,
  'model.multipliers': (1,),
  'model.patch': 1,
}
JANSPIRY = GUIDED | {'model.network': 'janspiry', 'model.groups': 16}

MISTAKES = [
  ({'data.image_size': 18}, ['data.image_size=18', 'task.scale=4']),
  ({'eval.image_size': 18}, ['eval.image_size=18', 'task.scale=4']),
  ({'data.image_size': 20, 'model.patch': 8}, ['data.image_size=20', 'model.patch=8']),
  ({'model.multipliers': (1,) * 9}, ['data.image_size=16', '9 model.multipliers']),
  ({'task.through': 32}, ['task.through=32', 'data.image_size=16']),
  ({'data.channels': 1, 'task.name': 'jpeg'}, ['data.channels=1', "task.name='jpeg'"]),
  ({'task.name': 'mixture'}, ["task.name='mixture'", 'task.mixture']),
  (
    {'task.name': 'mixture', 'task.mixture': ('jpeg', 'generation')},
    ['task.mixture', "'generation'"],
  ),
  ({'task.name': 'generation', 'diffusion.residual': True}, ['diffusion.residual']),
  ({'data.low': (1.0,), 'data.high': (2.0,)}, ['data.low', 'data.channels=3']),
  ({'data.low': (1.0,) * 3}, ['data.low', 'data.high=()']),
  ({'data.low': (1.0,) * 3, 'data.high': (0.5,) * 3}, ['data.low', 'rising']),
  ({'model.smooth_holes': True}, ['model.smooth_holes', "'super_resolution'"]),
  ({'diffusion.perceptual': 1.0}, ['diffusion.perceptual=1', 'image_size=34', '16']),
  ({'data.reduce': (1, 2)}, ['data.reduce=(1, 2)', "data.crop='random'"]),
  (
    {'data.crop': 'random', 'data.reduced_decoding': True},
    ['data.reduced_decoding', 'data.crop'],
  ),
  ({'sampler.num_steps': 2001}, ['sampler.num_steps=2001', 'num_levels=2000']),
  ({'sampler.guidance': 2.0}, ['sampler.guidance=2', 'model.label_dropout']),
  ({'sampler.name': 'ddpm_learned'}, ['sampler.name', 'diffusion.learned_variance']),
  ({'diffusion.learned_variance': True}, ['learned_variance', "network='guided'"]),
  ({'diffusion.end': 1.0}, ['diffusion.end=1', 'betas']),
  ({'diffusion.start': 0.9, 'diffusion.end': 0.9}, ['diffusion.start=0.9', 'signal']),
  ({'diffusion.start': 1e-300}, ['diffusion.start=1e-300', 'level']),
  ({'train.decay_steps': 9, 'train.num_steps': 8}, ['decay_steps=9', 'num_steps=8']),
  ({'train.profile': (1, 9), 'train.num_steps': 8}, ['train.profile=(1, 9)']),
  ({'train.accumulate': 3}, ['train.batch_size=256', 'train.accumulate=3']),
  ({'model.label_dropout': 0.1}, ['model.label_dropout=0.1', 'model.num_classes']),
  (
    {'checkpoint.keep_best': 'psnr', 'eval.every_steps': 7},
    ['checkpoint.keep_best', 'eval.every_steps=7', 'checkpoint.every_steps=5000'],
  ),
  ({'eval.border': 8}, ['eval.border=8', 'data.image_size=16']),
  (
    GUIDED | {'model.num_classes': 4, 'model.label_dropout': 0.1},
    ['model.label_dropout=0.1', "model.network='guided'"],
  ),
  (GUIDED | {'model.channels': 8}, ['model.channels=8', '32']),
  (GUIDED | {'model.num_heads': 3}, ['model.num_heads=3', 'model.channels=32']),
  (GUIDED | {'data.channels': 1}, ["model.network='guided'", 'data.channels=1']),
  (GUIDED | {'task.name': 'inpainting'}, ["model.network='guided'", "'inpainting'"]),
  (GUIDED | {'model.patch': 2}, ['model.patch=2', "model.network='guided'"]),
  (JANSPIRY | {'model.num_classes': 4}, ['model.num_classes=4', 'janspiry']),
  ({'model.fold': 3}, ['model.fold=3', 'power of 2']),
  ({'model.fold': 4, 'model.multipliers': (1, 1)}, ['model.fold=4', 'up to 2']),
  (JANSPIRY | {'model.fold': 2}, ['model.fold=2', 'janspiry']),
  ({'model.keep': 'convolutions'}, ["model.keep='convolutions'", 'model.remat']),
  (JANSPIRY | {'model.groups': 24}, ['model.channels=32', '24, model.groups']),
]


@pytest.mark.parametrize(('change', 'words'), MISTAKES, ids=str)
def test_what_does_not_go_together_is_one_line_with_the_keys(change, words):
  config = tiny(**{key.replace('.', '__'): value for key, value in change.items()})
  with compilations() as compiled, pytest.raises(ConfigError) as error:
    relations.check_relations(config)
  assert compiled == [] and '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize('change', [{}, GUIDED, JANSPIRY], ids=['sr3', 'guided', 'j'])
def test_what_goes_together_passes_and_makes_a_network(change):
  changes = {key.replace('.', '__'): value for key, value in change.items()}
  check.check_config(tiny(eval__batch_size=64, **changes))


@pytest.mark.parametrize('name', config_names())
def test_every_configuration_goes_together(name):
  relations.check_relations(load_config(name))


def test_a_network_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
  config = tiny(model__channels=8192, model__multipliers=(64,), model__num_blocks=32)
  model = SR3.from_config(config)
  with compilations() as compiled, pytest.raises(ConfigError) as error:
    check.param_shapes(model)
  assert compiled == []
  said = str(error.value)
  assert 'model.channels' in said and 'GB' in said and '\n' not in said
  small = SR3.from_config(tiny())
  count = sum(leaf.size for leaf in check.jax.tree.leaves(check.param_shapes(small)))
  monkeypatch.setattr(check.devices, 'total_memory', lambda: 4 * count)
  check.param_shapes(small)
  monkeypatch.setattr(check.devices, 'total_memory', lambda: 4 * count - 1)
  with pytest.raises(ConfigError, match='parameters needs'):
    check.param_shapes(small)


def test_the_default_configuration_is_one():
  relations.check_relations(get_config())
