"""Folded execution against the plain network: results, gradients and parameters."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core.networks import blocks, folded, unet
from sr3_jax.core.sr3 import SR3
from tests.support.networks import random_weights
from tests.support.sr3_models import tiny

# Attention at the first level, which is folded; 30 channels have 6 groups, 60 have 15,
# and 90, of a concatenation, 18.
EVERYTHING = {
  'channels': 30,
  'multipliers': (1, 2),
  'num_blocks': 1,
  'attention_levels': (0,),
  'num_classes': 3,
  'patch': 2,
  'remat': True,
}
SMALL = {
  'channels': 8,
  'multipliers': (1, 1, 1),
  'num_blocks': 1,
  'middle_attention': False,
}
# These take half of the time of a test, and change nothing that it compares.
QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}


def _draw(*shape):
  return np.random.default_rng(3).standard_normal(shape, np.float32)


def _close(found, truth):
  """Compare trees to float32 rounding of sums as long as those of gradients."""
  jax.tree.map_with_path(
    lambda path, a, b: np.testing.assert_allclose(
      a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max() + 1e-6, err_msg=str(path)
    ),
    found,
    truth,
  )


def test_pixels_of_a_channel_stay_together():
  x = np.arange(2 * 3 * 8 * 5).reshape(2, 3, 8, 5)
  lanes = folded.fold(x, 4)
  assert lanes.shape == (2, 3, 2, 20)
  for c in range(5):
    for j in range(4):
      np.testing.assert_array_equal(lanes[..., 4 * c + j], x[:, :, j::4, c])
  np.testing.assert_array_equal(folded.unfold(lanes, 4), x)
  joined = folded.fold(np.concatenate([x, -x], axis=-1), 4)
  np.testing.assert_array_equal(joined, np.concatenate([lanes, -lanes], axis=-1))


@pytest.mark.parametrize(
  ('direction', 'given', 'made'),
  [('', 2, 2), ('', 4, 4), ('down', 4, 2), ('down', 2, 1), ('up', 2, 4), ('up', 1, 2)],
)
def test_layers_are_those_of_flax(direction, given, made):
  """A convolution and a dense layer of the resampled array, zeros around it."""
  x = _draw(2, 6, 8, 3)
  pairs = (
    (nn.Conv(5, (3, 3)), folded.conv),
    (nn.Dense(5), folded.dense),
  )
  for plain, make in pairs:
    layer = make(5, given, made, kernel_init=nn.initializers.zeros_init())
    small = folded.resample(direction, given, made, True, folded.fold(x, given))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), small)
    truth = blocks.resample(x, direction)
    params = random_weights(plain, truth)
    assert jax.tree.map(jnp.shape, shapes['params']) == jax.tree.map(jnp.shape, params)
    _close(
      folded.unfold(layer.apply({'params': params}, small), made),
      plain.apply({'params': params}, truth),
    )


def test_nothing_folded_is_flaxs_own():
  assert isinstance(folded.conv(5, 1, 1), nn.Conv)
  assert isinstance(folded.dense(5, 1, 1), nn.Dense)


@pytest.mark.parametrize(
  ('options', 'pixels'),
  [(EVERYTHING, 2), (SMALL, 1), pytest.param(SMALL, 4, marks=pytest.mark.slow)],
)
def test_the_network_is_the_same_on_tpus(options, pixels):
  """Parameters, outputs, and gradients of parameters and inputs; with dropout, too."""
  inputs, gamma = _draw(2, 8, 16, 6), np.float32([0.2, 0.9])
  label = np.int32([0, 3])
  plain = unet.UNet(**options, dropout=0.3)
  params = random_weights(plain, inputs, gamma, label)

  def run(network, params, inputs):
    key = jax.random.key(5)
    return network.apply(
      {'params': params},
      inputs,
      gamma,
      label,
      deterministic=False,
      rngs={'dropout': key},
    )

  def both(network, params, inputs):
    out, pull = jax.vjp(partial(run, network), params, inputs)
    return out, pull(_draw(*out.shape))

  shapes, seen = [], []
  for network in (plain, plain.clone(fold=pixels, tpu=True)):
    made = jax.eval_shape(network.init, jax.random.key(0), inputs, gamma, label)
    shapes.append(jax.tree.map(jnp.shape, made))
    seen.append(jax.jit(partial(both, network), compiler_options=QUICK)(params, inputs))
  assert shapes[1] == shapes[0]
  _close(seen[1], seen[0])


def test_a_network_in_bfloat16_is_as_near_to_the_truth():
  x, gamma = _draw(2, 8, 16, 6), np.float32([0.2, 0.9])
  exact = unet.UNet(**SMALL)
  params = random_weights(exact, x, gamma)
  plain = exact.clone(dtype=jnp.bfloat16)
  networks = exact, plain, plain.clone(fold=4, tpu=True)
  truth, plain, found = (
    jax.jit(network.apply, compiler_options=QUICK)({'params': params}, x, gamma)
    for network in networks
  )
  assert np.std(found - truth) < 1.3 * np.std(plain - truth)


def test_networks_fold_on_tpus_only():
  config = tiny(model__fold=2, model__multipliers=(1, 2))
  for platform, pixels in (('', 1), ('cpu', 1), ('gpu', 1), ('tpu', 2)):
    network = SR3.from_config(config, platform).network
    assert (network.fold, network.tpu) == (pixels, platform == 'tpu')
