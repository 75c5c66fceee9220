"""Weights of guided-diffusion's upsamplers against plain NumPy and the original.

The comparison with the original runs by hand: SR3_PEER_GUIDED names a checkout,
`pip install torch`, `pytest -m slow`.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.config import get_config
from sr3_jax.core import diffusion, samplers
from sr3_jax.core.networks import guided, make_network
from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import torch_to_flax
from tests.support import oracles_torch

SMALL = {'channels': 32, 'multipliers': (1, 2), 'blocks': 1, 'attention': (1,)}
GIVEN = {'num_heads': 4, 'scale': 2, 'image_size': 16}
BETAS = np.linspace(1e-4, 2e-2, 1000)
LEVELS = np.cumprod(1 - BETAS)


def _converted(state, preset=None, **given):
  """The model and its parameters."""
  config, params = torch_to_flax.convert(state, preset, **given)
  return SR3.from_config(config), params


def _nchw(x):
  return np.moveaxis(np.float64(x), -1, -3)


@pytest.fixture(scope='module')
def small():
  """A state dict, and the model and parameters made of it."""
  state = oracles_torch.random_state(oracles_torch.guided_shapes(**SMALL, classes=3))
  return state, *_converted(state, **GIVEN)


# -------------------------------------------------------------------- timesteps


def test_every_trained_level_is_its_timestep():
  gammas = diffusion.linear_gammas(1000, 1e-4, 2e-2)
  t = guided.timestep(jnp.asarray(gammas[1:], jnp.float32), tuple(gammas))
  assert t.dtype == jnp.float32
  np.testing.assert_array_equal(t, np.arange(1000))


def test_other_levels_are_the_nearest_timestep():
  """Nearest in log-SNR, and the clean image is the first step."""
  snr = np.log(LEVELS) - np.log1p(-LEVELS)
  wanted = np.random.default_rng(0).uniform(snr[-1] - 1, snr[0] + 1, 500)
  gamma = np.float32(np.append(1 / (1 + np.exp(-wanted)), 1))
  nearest = np.abs(wanted[:, None] - snr[None]).argmin(axis=1)
  t = guided.timestep(jnp.asarray(gamma), (1.0, *LEVELS))
  np.testing.assert_array_equal(t, [*nearest, 0])


# ------------------------------------------------------------------ the network


def test_forward_equals_numpy(small):
  """With sides that differ, both ends of the schedule, and two classes."""
  state, model, params = small
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, 6, 10, 6), np.float32)
  t, label = np.array([999, 2]), np.array([2, 0])
  truth = oracles_torch.guided(
    state, _nchw(x[..., 3:]), _nchw(x[..., :3]), t, label, heads=4, blocks=1
  )
  with jax.default_matmul_precision('highest'):
    found = jax.jit(model.network.apply)(
      {'params': params}, x, np.float32(LEVELS[t]), label
    )
  assert found.dtype == np.float32
  np.testing.assert_allclose(_nchw(found), truth, atol=5e-5)


def test_sampling_equals_the_formula(small):
  """Learned variance, between the posterior's and beta in the logarithm."""
  state, model, params = small
  rng = np.random.default_rng(2)
  condition = rng.uniform(-1, 1, (1, 4, 4, 3)).astype(np.float32)
  noise = rng.standard_normal((5, 1, 8, 8, 3), np.float32)
  label = np.array([1])
  steps = [0, 300, 700, 999]
  level = LEVELS[steps]
  before = np.append(1, level[:-1])
  betas = 1 - level / before

  # Bilinear with half-pixel centres: 3/4 of the nearer pixel and 1/4 of the next.
  near = np.arange(8) // 2
  far = np.clip(near + np.where(np.arange(8) % 2, 1, -1), 0, 3)
  rows = 0.75 * condition[:, near] + 0.25 * condition[:, far]
  x = _nchw(0.75 * rows[:, :, near] + 0.25 * rows[:, :, far])
  y, z = _nchw(noise[0]), _nchw(noise)
  for n, i in enumerate(range(3, -1, -1)):
    out = oracles_torch.guided(
      state, y, x, np.array([steps[i]]), label, heads=4, blocks=1
    )
    eps, v = out[:, :3], out[:, 3:]
    y0 = np.clip(y / np.sqrt(level[i]) - np.sqrt(1 / level[i] - 1) * eps, -1, 1)
    mean = betas[i] * np.sqrt(before[i]) * y0
    mean = mean + (1 - before[i]) * np.sqrt(1 - betas[i]) * y
    y = mean / (1 - level[i])
    if i:
      smallest = betas[i] * (1 - before[i]) / (1 - level[i])
      log = (v + 1) / 2 * np.log(betas[i]) + (1 - v) / 2 * np.log(smallest)
      y = y + np.exp(log / 2) * z[n + 1]

  levels = np.append(1, level)

  @jax.jit
  def restore(params, condition, label, noise):
    coefficients = samplers.ddpm_learned(levels)
    key = jax.random.key(0)
    return model.restore(params, key, condition, coefficients, levels, label, noise)

  with jax.default_matmul_precision('highest'):
    found = restore(params, condition, label, noise)
  np.testing.assert_allclose(_nchw(found), y, atol=2e-4)


def test_what_does_not_fit_is_refused(small):
  _, model, params = small
  for shape, label, words in (
    ((1, 8, 9, 6), jnp.zeros(1, int), 'multiples of 2: 8 x 9'),
    ((1, 8, 8, 6), None, 'needs a class: a label in 0..2'),
  ):
    with pytest.raises(ValueError, match=words):
      model.network.apply({'params': params}, jnp.zeros(shape), jnp.ones(1), label)


# ----------------------------------------------------------------- the original


@pytest.fixture
def original(monkeypatch):
  """The original's functions that make networks."""
  if not os.environ.get('SR3_PEER_GUIDED'):
    pytest.skip('SR3_PEER_GUIDED names no checkout')
  pytest.importorskip('torch')
  monkeypatch.syspath_prepend(os.environ['SR3_PEER_GUIDED'])
  from guided_diffusion import script_util

  return script_util


# Its flags for the released 64 -> 256 upsampler, and a small one of 64 pixels.
FLAGS = {
  'large_size': 256,
  'small_size': 64,
  'attention_resolutions': '32,16,8',
  'class_cond': True,
  'diffusion_steps': 1000,
  'learn_sigma': True,
  'noise_schedule': 'linear',
  'num_channels': 192,
  'num_heads': 4,
  'num_res_blocks': 2,
  'resblock_updown': True,
  'use_scale_shift_norm': True,
}
FEWER = {
  'large_size': 64,
  'small_size': 16,
  'num_channels': 32,
  'num_res_blocks': 1,
  'attention_resolutions': '16,8',
}


def _make_original(original, **flags):
  """The original's network with random weights, its diffusion, and a state dict."""
  import torch

  flags = original.sr_model_and_diffusion_defaults() | FLAGS | flags
  network, process = original.sr_create_model_and_diffusion(**flags)
  shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
  state = oracles_torch.random_state(shapes)
  network.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
  return network.eval(), process, state


@pytest.mark.slow
@pytest.mark.parametrize(
  ('preset', 'flags', 'sizes'),
  [
    (None, FEWER, [(64, 64), (32, 56), (128, 8)]),
    (None, FEWER | {'class_cond': False, 'learn_sigma': False}, [(32, 56)]),
    ('64_256_upsampler', {}, [(64, 96)]),
    (
      '128_512_upsampler',
      {'large_size': 512, 'num_head_channels': 64, 'attention_resolutions': '32,16'},
      [(64, 64)],
    ),
  ],
)
def test_forward_equals_the_original(original, preset, flags, sizes):
  import torch

  network, _, state = _make_original(original, **flags)
  given = {} if preset else {'num_heads': 4, 'scale': 4, 'image_size': 64}
  model, params = _converted(state, preset, **given)
  classes = model.network.num_classes
  rng = np.random.default_rng(0)
  for height, width in sizes:
    small = rng.uniform(-1, 1, (2, height // 4, width // 4, 3)).astype(np.float32)
    y = rng.standard_normal((2, height, width, 3), np.float32)
    t, label = np.array([999, 1]), np.array([17, classes - 1])

    def torches(x):
      return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())

    with torch.no_grad():
      truth = network(
        torches(y),
        torch.from_numpy(t),
        low_res=torches(small),
        **({'y': torch.from_numpy(label)} if classes else {}),
      )
    with jax.default_matmul_precision('highest'):
      found = jax.jit(model.network.apply)(
        {'params': params},
        jnp.concatenate([model.upsample(small), y], axis=-1),
        np.float32(LEVELS[t]),
        label,
      )
    np.testing.assert_allclose(_nchw(found), truth.numpy(), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('learned', [True, False])
def test_50_steps_equal_the_original(original, learned, monkeypatch):
  import torch

  flags = FEWER | {'learn_sigma': learned, 'timestep_respacing': '50'}
  network, process, state = _make_original(original, **flags)
  model, params = _converted(state, num_heads=4, scale=4, image_size=64)
  rng = np.random.default_rng(0)
  condition = rng.uniform(-1, 1, (2, 4, 6, 3)).astype(np.float32)
  noise = rng.standard_normal((51, 2, 16, 24, 3), np.float32)
  label = np.array([5, 900])
  start, *given = torch.from_numpy(noise.transpose(0, 1, 4, 2, 3).copy())
  given = iter(given)
  monkeypatch.setattr(torch, 'randn_like', lambda *args, **kwargs: next(given))
  truth = process.p_sample_loop(
    network,
    tuple(start.shape),
    noise=start,
    device='cpu',
    model_kwargs={
      'low_res': torch.from_numpy(condition.transpose(0, 3, 1, 2).copy()),
      'y': torch.from_numpy(label),
    },
  )
  levels = np.append(1, LEVELS[sorted(process.use_timesteps)])
  coefficients = samplers.SAMPLERS['ddpm_learned' if learned else 'ddpm'](levels)
  with jax.default_matmul_precision('highest'):
    restore = jax.jit(
      lambda *args: model.restore(
        args[0], jax.random.key(0), args[1], coefficients, levels, *args[2:]
      )
    )
    found = restore(params, condition, label, noise)
  print('largest difference', np.abs(_nchw(found) - truth.numpy()).max())
  np.testing.assert_allclose(_nchw(found), truth.numpy(), atol=1e-3)


def test_no_class_has_a_row_where_labels_are_dropped():
  """A label beyond the table would read NaN."""
  gammas = diffusion.linear_gammas(10, 1e-4, 2e-2)
  options = {'channels': 32, 'multipliers': (1,), 'num_blocks': 1, 'num_heads': 1}
  options |= {'attention_levels': (), 'num_classes': 3, 'gammas': tuple(gammas)}
  inputs = jnp.ones((2, 4, 4, 6)), jnp.array([0.9, 0.9])
  shapes = {}
  for no_class in (False, True):
    network = guided.GuidedUNet(**options, no_class=no_class)
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs, jnp.array([0, 3]))
    shapes[no_class] = params['params']['label']['embedding'].shape[0]
  assert shapes == {False: 3, True: 4}
  c = get_config()
  c.model.network, c.model.num_classes = 'guided', 3
  assert not make_network(c, gammas).no_class
  c.model.label_dropout = 0.1
  assert make_network(c, gammas).no_class
