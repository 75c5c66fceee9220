"""Weights of Janspiry's SR3, converted, against plain NumPy and against the original.

The comparison with the original runs by hand: SR3_PEER_JANSPIRY names a checkout,
`pip install torch`, `pytest -m slow`.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import torch_to_flax
from tests.support import oracles_torch

SMALL = {'channels': 8, 'multipliers': (1, 2), 'blocks': 1, 'attention': (1,)}
GIVEN = {'groups': 4, 'scale': 4, 'image_size': 16}
BETAS = np.linspace(1e-3, 0.4, 6)


def _converted(state, **given):
  """The model and its parameters."""
  tensors = oracles_torch.janspiry_buffers(BETAS) | state
  config, params = torch_to_flax.convert(tensors, **(GIVEN | given))
  return SR3.from_config(config), params


def _apply(model, params, x, gamma):
  with jax.default_matmul_precision('highest'):
    return np.asarray(jax.jit(model.network.apply)({'params': params}, x, gamma))


# ------------------------------------------------------------------ the network


@pytest.mark.parametrize('affine', [False, True])
def test_forward_equals_numpy(affine):
  """With sides that differ, attention, and both ends of the schedule."""
  state = oracles_torch.random_state(
    oracles_torch.janspiry_shapes(**SMALL, affine=affine)
  )
  model, params = _converted(state)
  assert model.network.affine == affine
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 6, 10, 6), np.float32)
  gamma = np.array([0.97, 1e-3], np.float32)
  truth = oracles_torch.janspiry(
    state, np.float64(x).transpose(0, 3, 1, 2), np.sqrt(np.float64(gamma)), groups=4
  )
  found = _apply(model, params, x, gamma)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found.transpose(0, 3, 1, 2), truth, atol=3e-5)


def test_sampling_equals_the_formula():
  """The formula: posterior mean and variance of clipped predictions of y0."""
  state = oracles_torch.random_state(oracles_torch.janspiry_shapes(**SMALL))
  model, params = _converted(state)
  rng = np.random.default_rng(2)
  condition = rng.uniform(-1, 1, (1, 2, 2, 3)).astype(np.float32)
  noise = rng.standard_normal((7, 1, 8, 8, 3), np.float32)

  x = np.float64(model.upsample(condition)).transpose(0, 3, 1, 2)
  z = np.float64(noise).transpose(0, 1, 4, 2, 3)
  level = np.cumprod(1 - BETAS)
  before = np.append(1, level[:-1])
  y = z[0]
  for n, i in enumerate(range(5, -1, -1)):
    inputs, s = np.concatenate([x, y], axis=1), np.sqrt(level[[i]])
    eps = oracles_torch.janspiry(state, inputs, s, groups=4)
    y0 = np.clip(y / np.sqrt(level[i]) - np.sqrt(1 / level[i] - 1) * eps, -1, 1)
    mean = BETAS[i] * np.sqrt(before[i]) * y0
    mean = mean + (1 - before[i]) * np.sqrt(1 - BETAS[i]) * y
    spread = np.sqrt(BETAS[i] * (1 - before[i]) / (1 - level[i]))
    y = mean / (1 - level[i]) + spread * z[n + 1]

  @jax.jit
  def restore(params, condition, noise):
    return model.restore(params, jax.random.key(0), condition, noise=noise)

  with jax.default_matmul_precision('highest'):
    found = np.asarray(restore(params, condition, noise))
  np.testing.assert_allclose(found.transpose(0, 3, 1, 2), y, atol=1e-4)


def test_sides_that_do_not_halve_are_refused():
  network = torch_to_flax.NETWORKS['16_128']
  with pytest.raises(ValueError, match='multiples of 16: 128 x 120'):
    jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros((1, 128, 120, 6)), jnp.ones(1)
    )


def test_dropout_is_for_training_only():
  state = oracles_torch.random_state(oracles_torch.janspiry_shapes(**SMALL))
  model, params = _converted(state)
  network = model.network.clone(dropout=0.5)
  x, gamma = jnp.ones((1, 4, 4, 6)), jnp.ones(1)

  @jax.jit
  def outputs(params):
    def run(**kwargs):
      return network.apply({'params': params}, x, gamma, **kwargs)

    return run(), run(deterministic=False, rngs={'dropout': jax.random.key(0)})

  still, dropped = outputs(params)
  assert np.abs(np.asarray(still - dropped)).max() > 0.1


# ----------------------------------------------------------------- the original


@pytest.fixture
def original(monkeypatch):
  """The original's two modules, unet and diffusion."""
  if not os.environ.get('SR3_PEER_JANSPIRY'):
    pytest.skip('SR3_PEER_JANSPIRY names no checkout')
  pytest.importorskip('torch')
  monkeypatch.syspath_prepend(os.environ['SR3_PEER_JANSPIRY'])
  from model.sr3_modules import diffusion, unet

  return unet, diffusion


def _make_original(original, betas, affine=False, **options):
  """The original's wrapper with random weights, and its state dict as arrays."""
  import torch

  unet, diffusion = original
  network = unet.UNet(**options).eval()
  for module in network.modules():
    if affine and isinstance(module, unet.FeatureWiseAffine):
      layer = module.noise_func[0]
      layer = torch.nn.Linear(layer.in_features, 2 * layer.out_features)
      module.noise_func, module.use_affine_level = torch.nn.Sequential(layer), True
  wrapper = diffusion.GaussianDiffusion(
    network, image_size=options['image_size'], conditional=True
  )
  steps, start, end = betas
  wrapper.set_new_noise_schedule(
    {
      'schedule': 'linear',
      'n_timestep': steps,
      'linear_start': start,
      'linear_end': end,
    },
    'cpu',
  )
  shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
  state = oracles_torch.random_state(shapes)
  network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
  return wrapper, {
    k.removeprefix('denoise_fn.'): v.numpy() for k, v in wrapper.state_dict().items()
  }


RELEASED = {
  '16_128': {
    'inner_channel': 64,
    'channel_mults': (1, 2, 4, 8, 8),
    'attn_res': [16],
    'res_blocks': 2,
    'norm_groups': 32,
    'dropout': 0.2,
    'image_size': 128,
  },
  '64_512': {
    'inner_channel': 64,
    'channel_mults': (1, 2, 4, 8, 16),
    'attn_res': [],
    'res_blocks': 1,
    'norm_groups': 16,
    'image_size': 512,
  },
}
SMALLER = {
  'inner_channel': 32,
  'channel_mults': (1, 2, 2),
  'attn_res': [16],
  'res_blocks': 2,
  'norm_groups': 8,
  'image_size': 32,
}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('preset', 'affine', 'sizes'),
  [
    ('', False, [(32, 32), (16, 40), (64, 4)]),
    ('', True, [(32, 32), (16, 40)]),
    ('16_128', False, [(128, 128), (64, 96)]),
    ('16_128', True, [(64, 64)]),
    ('64_512', False, [(128, 128), (64, 96)]),
  ],
)
def test_forward_equals_the_original(original, preset, affine, sizes):
  import torch

  options = RELEASED.get(preset, SMALLER)
  wrapper, state = _make_original(original, (2000, 1e-6, 1e-2), affine, **options)
  given = {} if preset else {'groups': 8, 'scale': 4, 'image_size': 32}
  config, params = torch_to_flax.convert(state, preset or None, **given)
  model = SR3.from_config(config)
  rng = np.random.default_rng(0)
  for height, width in sizes:
    x = rng.standard_normal((2, height, width, 6), np.float32)
    gamma = np.array([0.999999, 4.4e-5], np.float32)
    with torch.no_grad():
      truth = wrapper.denoise_fn(
        torch.from_numpy(x.transpose(0, 3, 1, 2)),
        torch.from_numpy(np.sqrt(gamma))[:, None],
      )
    found = _apply(model, params, x, gamma)
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), truth.numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('affine', [False, True])
def test_50_steps_equal_the_original(original, affine, monkeypatch):
  import torch

  wrapper, state = _make_original(original, (50, 1e-4, 0.2), affine, **SMALLER)
  model, params = _converted(state, groups=8, image_size=32)
  rng = np.random.default_rng(0)
  condition = rng.uniform(-1, 1, (2, 4, 6, 3)).astype(np.float32)
  noise = rng.standard_normal((51, 2, 16, 24, 3), np.float32)
  given = iter(torch.from_numpy(noise.transpose(0, 1, 4, 2, 3).copy()))
  monkeypatch.setattr(torch, 'randn', lambda *args, **kwargs: next(given))
  monkeypatch.setattr(torch, 'randn_like', lambda *args, **kwargs: next(given))
  x = np.array(model.upsample(condition))
  steps = wrapper.super_resolution(torch.from_numpy(x.transpose(0, 3, 1, 2)), True)
  truth = steps[-2:].numpy().transpose(0, 2, 3, 1)
  with jax.default_matmul_precision('highest'):
    restore = jax.jit(lambda *args, **kwargs: model.restore(*args, **kwargs))
    found = restore(params, jax.random.key(0), condition, noise=noise)
  print('largest difference', np.abs(found - truth).max())
  np.testing.assert_allclose(found, truth, atol=1e-3)
