"""Group normalisation against Flax's own, float64 and textbook gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core.networks import blocks, group_norm


@pytest.mark.parametrize(
  ('channels', 'groups'), [(3, 1), (8, 2), (16, 4), (50, 10), (128, 32)]
)
def test_group_norm(channels, groups):
  """Values and gradients of Flax's, for min(channels // 4, 32) groups or fewer."""
  rng = np.random.default_rng(0)
  x = 2 + 3 * rng.standard_normal((2, 4, 6, channels), np.float32)
  weight = rng.standard_normal(x.shape, np.float32)
  params = {'scale': 1 + x[0, 0, 0] / 5, 'bias': x[1, 1, 1]}

  def run(layer):
    def loss(params, x):
      y = layer.apply({'params': params}, x)
      return (y * weight).sum(), y

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

  (_, found), gradients = run(group_norm.GroupNorm())
  (_, truth), true_gradients = run(nn.GroupNorm(groups))  # its epsilon is 1e-6 too
  np.testing.assert_allclose(found, truth, atol=2e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4),
    gradients,
    true_gradients,
  )


@pytest.mark.parametrize('tpu', [False, True])
def test_parts_are_normalised_as_one(tpu):
  """12 channels have 3 groups of 4, of which the second reaches into both parts."""
  rng = np.random.default_rng(2)
  x, weight = 2 + rng.standard_normal((2, 2, 4, 6, 12), np.float32)
  params = {'params': {'scale': x[0, 0, 0], 'bias': x[1, 1, 1]}}

  def run(x):
    parts = jnp.split(x, [5], axis=-1)
    found = group_norm.GroupNorm(tpu=tpu).apply(params, parts, method='of_parts')
    return jnp.concatenate(found, axis=-1)

  truth = nn.GroupNorm(3)
  (found, pull), (wanted, true_pull) = (
    jax.vjp(f, x) for f in (run, lambda x: truth.apply(params, x))
  )
  np.testing.assert_allclose(found, wanted, atol=2e-4)
  np.testing.assert_allclose(pull(weight)[0], true_pull(weight)[0], atol=2e-3)


def test_group_norm_of_a_flat_image():
  """E[x^2] - E[x]^2 may round below zero; a plain sky must not become NaN."""
  x = jnp.full((1, 16, 16, 8), 333.3)
  params = {'scale': jnp.ones(8), 'bias': jnp.zeros(8)}
  out = group_norm.GroupNorm().apply({'params': params}, x)
  np.testing.assert_allclose(out, 0, atol=0.5)


@pytest.mark.parametrize(
  ('dtype', 'tpu'), [(jnp.float32, False), (jnp.bfloat16, False), (jnp.bfloat16, True)]
)
@pytest.mark.parametrize(
  ('mean', 'bound'), [(0, 1e-4), (100, 1e-4), (-1e3, 1e-3), (1e4, 1e-2)]
)
@pytest.mark.parametrize('outlier', [0, 5])
def test_group_norm_far_from_zero(mean, bound, dtype, tpu, outlier):
  """The oracle is float64; E[x^2] - E[x]^2 is off by 4e-3 at 100, by 0.2 at 1000.

  An outlying middle row is the worst case for the sums around its mean.
  """
  x = np.random.default_rng(0).normal(mean, 1, (2, 33, 32, 16))
  x[:, 16] += 100 * outlier
  x = jnp.asarray(x, dtype)
  exact = np.float64(np.asarray(x, np.float32)).reshape(2, 33, 32, 4, 4)
  center = exact.mean((1, 2, 4), keepdims=True)
  spread = exact.var((1, 2, 4), keepdims=True)
  wanted = ((exact - center) / np.sqrt(spread + 1e-6)).reshape(x.shape)
  network = group_norm.GroupNorm(tpu=tpu)
  params = {'scale': jnp.ones(16), 'bias': jnp.zeros(16)}
  found = network.apply({'params': params}, x)
  np.testing.assert_allclose(found, wanted, atol=bound)


@pytest.mark.parametrize(('mean', 'bound'), [(0, 2e-5), (100, 2e-5), (1e4, 1e-3)])
def test_gradient_of_group_norm(mean, bound):
  """Against the textbook's: (g - mean(g) - h mean(g h)) / deviation, in float64."""
  rng = np.random.default_rng(1)
  x = np.float64(np.float32(rng.normal(mean, 2, (2, 6, 8, 16))))
  g = rng.normal(size=x.shape)
  network = group_norm.GroupNorm()
  params = {'scale': jnp.ones(16), 'bias': jnp.zeros(16)}

  @jax.jit
  def back(x, g):
    return jax.vjp(lambda x: network.apply({'params': params}, x), x)[1](g)[0]

  found = back(jnp.float32(x), jnp.float32(g))
  shape, axes = (2, 6, 8, 4, 4), (1, 2, 4)
  x, g = x.reshape(shape), g.reshape(shape)
  deviation = np.sqrt(x.var(axes, keepdims=True) + 1e-6)
  h = (x - x.mean(axes, keepdims=True)) / deviation
  g = g - g.mean(axes, keepdims=True) - h * (g * h).mean(axes, keepdims=True)
  wanted = (g / deviation).reshape(found.shape)
  np.testing.assert_allclose(found, wanted, atol=bound)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_norms_of_other_networks_far_from_zero(dtype):
  x = jnp.asarray(np.random.default_rng(0).normal(100, 1, (2, 32, 32, 16)), dtype)
  exact = np.float64(np.asarray(x, np.float32)).reshape(2, 32, 32, 4, 4)
  center = exact.mean((1, 2, 4), keepdims=True)
  spread = exact.var((1, 2, 4), keepdims=True)
  wanted = ((exact - center) / np.sqrt(spread + 1e-5)).reshape(x.shape)
  norm = blocks.group_norm(4, jnp.float32, 'norm')
  found = norm.apply({'params': {'scale': jnp.ones(16), 'bias': jnp.zeros(16)}}, x)
  np.testing.assert_allclose(found, wanted, atol=3e-4)


def test_group_norm_has_float32_statistics():
  """A mean of 64 with spread 1 is lost in bfloat16 sums."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(64 + rng.standard_normal((2, 8, 8, 16)), jnp.bfloat16)
  params = {'scale': jnp.ones(16), 'bias': jnp.zeros(16)}
  found = group_norm.GroupNorm(jnp.bfloat16).apply({'params': params}, x)
  assert found.dtype == jnp.bfloat16
  truth = nn.GroupNorm(4).apply({'params': params}, x.astype(jnp.float32))
  np.testing.assert_allclose(found.astype(np.float32), truth, atol=0.02, rtol=0.01)
