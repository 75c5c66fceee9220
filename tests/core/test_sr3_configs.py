"""Models made from configurations: spaces, levels, samplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.config import config_names, get_config, load_config
from sr3_jax.core import diffusion, samplers
from sr3_jax.core.sr3 import SR3
from tests.support.sr3_models import condition_of, keys, photos, tiny, to_float


@pytest.mark.parametrize('residual', [False, True])
def test_encode_and_decode(residual):
  config = tiny(diffusion__residual=residual, diffusion__y0_scale=4.0)
  model = SR3.from_config(config)
  image = to_float(photos())
  x = model.upsample(condition_of(photos()))
  assert x.shape == image.shape
  y0 = model.encode(image, x)
  np.testing.assert_allclose(y0, 4 * (image - x) if residual else 4 * image, atol=1e-5)
  np.testing.assert_allclose(model.decode(y0, x), image, atol=1e-6)


@pytest.mark.parametrize(
  ('key', 'known'),
  [
    ('task.name', "'super_resolution'"),
    ('method', "'sr3', 'regression'"),
    ('diffusion.schedule', "'linear', 'cosine'"),
    ('sampler.name', "'ddpm', 'ddpm_posterior', 'ddim', 'dpmpp_2m'"),
  ],
)
def test_unknown_names_are_answered_with_the_known_ones(key, known):
  config = tiny()
  config.update_from_flattened_dict({key: 'nonsense'})
  with pytest.raises(ValueError, match=f"{key}='nonsense' must be one of {known}"):
    SR3.from_config(config)


def test_more_steps_than_levels():
  with pytest.raises(
    ValueError, match=r'sampler\.num_steps=2001 .* diffusion\.num_levels=2000'
  ):
    SR3.from_config(tiny(sampler__num_steps=2001))


MODELS = [name for name in config_names() if not load_config(name).cascade.stages]


@pytest.mark.parametrize('name', MODELS)
def test_trajectories_of_the_configs(name):
  """Sampling starts where the network was trained on noise, for any step count."""
  config = load_config(name)
  for num_steps in (config.sampler.num_steps, 1, 7, 100, 250):
    config.sampler.num_steps = num_steps
    gammas, coefficients = SR3.from_config(config).trajectory
    assert len(gammas) == num_steps + 1 and coefficients.shape == (num_steps, 4)
    assert gammas[-1] <= 1e-4


def test_the_papers_recipe():
  """2000 levels, 100 steps of Algorithm 2 with its variance; eps, L1, no residual."""
  model = SR3.from_config(get_config())
  np.testing.assert_array_equal(model.gammas, diffusion.linear_gammas(2000, 1e-6, 1e-2))
  gammas, coefficients = model.trajectory
  assert len(coefficients) == 100
  np.testing.assert_array_equal(coefficients, samplers.ddpm(gammas))
  assert (model.method, model.prediction, model.residual) == ('sr3', 'eps', False)
  assert model.loss_power == 1


def test_eta_reaches_ddim():
  model = SR3.from_config(tiny(sampler__name='ddim', sampler__eta=1.0))
  gammas, coefficients = model.trajectory
  np.testing.assert_allclose(coefficients, samplers.ddpm_posterior(gammas), atol=1e-9)


def test_samplers_of_fixed_variance_ignore_a_learned_one():
  """The network's share of the variance matters to 'ddpm_learned' alone."""

  class Learned(SR3):
    """Predicts y0 = 0.5, and `params` as its share of the variance."""

    def predict(self, params, x, y, gamma, label=None, dropout_key=None):
      return jnp.concatenate([jnp.full_like(x, 0.5), jnp.full_like(x, params)], -1)

  config = tiny(diffusion__prediction='y0', diffusion__learned_variance=True)
  model = Learned.from_config(config)
  gammas = diffusion.respace(model.gammas, 3)
  condition = jnp.zeros((1, 4, 4, 3))
  steps = {}
  for name in ('ddpm', 'ddpm_learned'):
    coefficients = samplers.SAMPLERS[name](gammas)
    x = model.upsample(condition)
    noise = model.noise(keys(1), x)
    for share in (-1.0, 1.0):
      first = jax.tree.map(lambda s: s[:1], samplers.steps(gammas, coefficients))
      carry = model.advance(share, noise, x, model.begin(noise, x), first)
      steps[name, share] = carry[0]
  np.testing.assert_array_equal(steps['ddpm', -1.0], steps['ddpm', 1.0])
  assert np.abs(steps['ddpm_learned', -1.0] - steps['ddpm_learned', 1.0]).max() > 1e-3
  np.testing.assert_allclose(steps['ddpm_learned', 1.0], steps['ddpm', 1.0], atol=1e-5)


def test_a_learned_variance_needs_a_network_that_gives_it():
  with pytest.raises(ValueError, match='needs diffusion'):
    SR3.from_config(tiny(sampler__name='ddpm_learned'))
