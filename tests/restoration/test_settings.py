"""The settings of an Upscaler: presets and samplers, and what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from sr3_jax.restoration.upscaler import Upscaler, UpscalerError
from tests.support.models import Pointwise, residual


@pytest.fixture(scope='module')
def pointwise():
  return residual(Pointwise())


def test_presets_are_in_order_and_a_models_own_come_first():
  """Try a model as converted, with thousands of steps configured, and others."""
  for configured, want in ((2000, (12, 100, 2000)), (50, (12, 50, 250))):
    model = residual(
      Pointwise(), diffusion__num_levels=2000, sampler__num_steps=configured
    )
    steps = [Upscaler(model, steps=s).num_steps for s in ('fast', 'balanced', 'best')]
    assert tuple(steps) == want
  own = {'fast': {'name': 'ddpm', 'num_steps': 7, 'spacing': 'time', 'eta': 0.0}}
  model = dataclasses.replace(model, presets=own)
  settings = Upscaler(model, steps='fast').settings()
  assert settings['num_steps'] == 7 and settings['sampler'] == 'ddpm'
  assert Upscaler(model).num_steps == 50


def test_presets_of_a_distilled_model_are_the_steps_that_it_learned():
  steps = {'sampler__name': 'ddim', 'sampler__num_steps': 2}
  model = residual(Pointwise(), train__distill_from='teacher', **steps)
  for preset in ('fast', 'balanced', 'best'):
    settings = Upscaler(model, steps=preset).settings()
    assert (settings['sampler'], settings['num_steps']) == ('ddim', 2)


def test_presets_of_a_model_ignore_its_configuration():
  """Take nothing from the configuration that they leave out."""
  own = {'fast': {'name': 'ddim', 'num_steps': 3, 'spacing': 'time'}}
  model = residual(Pointwise(), sampler__temperature=0.5, sampler__eta=0.3)
  model = dataclasses.replace(model, presets=own)
  settings = Upscaler(model, steps='fast').settings()
  assert (settings['eta'], settings['temperature']) == (0.0, 1.0)
  settings = Upscaler(model).settings()
  assert (settings['eta'], settings['temperature']) == (0.3, 0.5)


@pytest.mark.parametrize(
  'options, message',
  [
    (
      {'steps': 'quick'},
      "steps='quick' is no number and no preset; presets: fast, balanced, best",
    ),
    ({'steps': 0}, '0 steps: this model can take 1 to 50'),
    ({'steps': 51}, '51 steps: this model can take 1 to 50'),
    ({'sampler': 'euler'}, "unknown sampler 'euler'; known: ddpm"),
    ({'sampler': 'ddpm_learned'}, 'needs a model of learned variance'),
    ({'temperature': 0.0}, 'temperature=0.0 must be a number above 0 up to 1'),
    ({'tile': 10**9}, 'tile=1000000000 must be a whole number from 0 to 16384'),
    ({'tile': -1}, 'tile=-1 must be'),
    ({'seed': 2**31}, 'seed=2147483648 must be'),
    ({'seed': True}, 'seed=True must be'),
    ({'temperature': float('nan')}, 'temperature=nan must be'),
    ({'guidance': float('inf')}, 'guidance=inf must be'),
    ({'blur': -0.1}, r'blur=-0\.1 must be'),
    ({'tile': 16, 'tile_pad': 5}, 'a pad of at most 4, not 5'),
  ],
)
def test_options_that_do_not_fit(pointwise, options, message):
  with pytest.raises(UpscalerError, match=message):
    Upscaler(pointwise, **options)


@pytest.mark.parametrize(
  'image, options, message',
  [
    (np.zeros((4, 4, 4)), {}, 'not an image'),
    (np.zeros((0, 4, 3)), {}, 'not an image'),
    (np.zeros((4, 4, 3), np.int64), {}, 'must be uint8'),
    (np.full((4, 4, 3), 255.0), {}, 'must be in'),
    (np.full((4, 4, 3), np.nan), {}, 'must be in'),
    (np.zeros((4, 4, 3)), {'label': 3}, 'no classes'),
    (np.zeros((4, 4, 3)), {'outscale': -1}, 'outscale=-1 must be a number above 0'),
    (np.zeros((4, 4, 3)), {'outscale': 100}, 'up to 64'),
  ],
)
def test_images_that_it_cannot_take(pointwise, image, options, message):
  with pytest.raises(UpscalerError, match=message):
    Upscaler(pointwise, steps=1).upscale(image, **options)


def test_regression_takes_one_step():
  """The baseline network's own prediction, whatever is asked."""
  model = residual(Pointwise())
  model = dataclasses.replace(
    model, model=dataclasses.replace(model.model, method='regression')
  )
  upscaler = Upscaler(model, steps='best')
  assert upscaler.num_steps == 1
  image = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3)).astype(np.float32)
  want = model.model.restore(model.params, jax.random.key(0), image[None])[0]
  np.testing.assert_allclose(upscaler.upscale(image).image, want, atol=1e-5)
