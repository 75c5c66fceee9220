"""The network that predicts once and refines, and the terms of its loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import diffusion, samplers
from sr3_jax.core.networks import blocks
from sr3_jax.core.networks.refine import RefineNet
from sr3_jax.core.perceptual import looks_different
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime.errors import UserError
from tests.support.sr3_models import keys, photos, tiny, to_float

REFINE = {
  'model__network': 'refine',
  'model__predict_blocks': 2,
  'model__channels': 16,
  'diffusion__prediction': 'v',
  'diffusion__residual': True,
  'diffusion__y0_scale': 4.0,
  'diffusion__loss': 'l2',
}


def random_params(network, inputs, seed=0):
  """Parameters without zeros, so that every layer counts."""
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), inputs, jnp.ones((len(inputs),))
  )
  generator = np.random.default_rng(seed)

  def draw(leaf):
    return generator.normal(0, 0.15, leaf.shape).astype(np.float32)

  return jax.tree.map(draw, shapes['params'])


@pytest.fixture(scope='module')
def small():
  """A small network, its parameters and inputs of 2 images of 32 x 24."""
  network = RefineNet(channels=16, num_blocks=2, predict_blocks=2, patch=4)
  generator = np.random.default_rng(1)
  inputs = generator.normal(size=(2, 32, 24, 6)).astype(np.float32)
  return network, random_params(network, inputs), inputs


def apply(network, params, inputs, gamma):
  gamma = jnp.full((len(inputs),), gamma)
  out, kept = network.apply({'params': params}, inputs, gamma, mutable='intermediates')
  return np.asarray(out), np.asarray(kept['intermediates']['y0'][0])


def test_the_prediction_knows_the_condition_alone(small):
  network, params, inputs = small
  _, first = apply(network, params, inputs, 0.3)
  _, second = apply(network, params, inputs + np.array([0, 0, 0, 1, 1, 1.0]), 0.9)
  np.testing.assert_array_equal(first, second)
  _, third = apply(network, params, inputs + np.array([1, 1, 1, 0, 0, 0.0]), 0.3)
  assert np.abs(first - third).max() > 0.1


@pytest.mark.parametrize('gamma', [0.01, 0.5, 0.99])
def test_what_is_left_of_the_prediction_is_refined(small, gamma):
  """With a silent second part, the residual is what is likely without a network.

  Its v is 0, so the residual's prediction is sqrt(gamma) times the noisy residual.
  """
  network, params, inputs = small
  silent = params | {'v': jax.tree.map(np.zeros_like, params['v'])}
  out, prediction = apply(network, silent, inputs, gamma)
  y = inputs[..., 3:]
  y0 = diffusion.predict_y0('v', out, y, jnp.full((2,), gamma))
  residual = np.sqrt(gamma) * (y - np.sqrt(gamma) * prediction)
  np.testing.assert_allclose(y0, prediction + residual, atol=2e-5)


def test_a_tile_gives_what_the_whole_gives(small):
  """Nothing reaches further than the convolutions: 2 + 2 + ... on the small grid."""
  network, params, inputs = small
  wide = np.tile(inputs, (1, 4, 4, 1))  # 128 x 96
  whole, _ = apply(network, params, wide, 0.4)
  part, _ = apply(network, params, wide[:, :112, :80], 0.4)
  reach = 4 * (1 + 2 * 2 + 1 + 2 * 2 + 1)
  inner = slice(0, 112 - reach), slice(0, 80 - reach)
  np.testing.assert_allclose(part[:, *inner], whole[:, *inner], atol=1e-5)
  assert np.abs(part - whole[:, :112, :80]).max() > 1e-3


def test_sides_must_be_multiples_of_the_patch(small):
  network, params, inputs = small
  with pytest.raises(ValueError, match='multiples of 4: 30 x 24'):
    apply(network, params, inputs[:, :30], 0.5)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gradients_of_the_convolution(dtype):
  """They are those of JAX's own convolution."""
  generator = np.random.default_rng(0)
  x = jnp.asarray(generator.normal(size=(2, 7, 9, 5)), dtype)
  kernel = jnp.asarray(generator.normal(size=(3, 3, 5, 4)), dtype)
  weights = jnp.asarray(generator.normal(size=(2, 7, 9, 4)), dtype)

  def library(x, kernel):
    layout = ('NHWC', 'HWIO', 'NHWC')
    out = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=layout
    )
    return jnp.sum(out.astype('float32') * weights)

  def ours(x, kernel):
    return jnp.sum(blocks.conv3x3(x, kernel).astype('float32') * weights)

  wanted = jax.jit(jax.value_and_grad(library, (0, 1)))(x, kernel)
  got = jax.jit(jax.value_and_grad(ours, (0, 1)))(x, kernel)
  tolerance = 1e-4 if dtype == 'float32' else 0.05
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
    assert a.dtype == b.dtype
    a, b = (np.asarray(value, np.float64) for value in (a, b))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def test_the_loss_has_three_terms():
  """Recomputed from the model's own parts, in NumPy."""
  model = SR3.from_config(tiny(**REFINE, diffusion__perceptual=0.7))
  hr = photos(2)
  x = model.upsample(model.degrade(keys(2), to_float(hr)))
  params = random_params(model.network, np.concatenate([x, x], -1))

  def distance(image, truth):
    return jnp.abs(image - truth).mean((1, 2, 3))

  got = model.loss(params, keys(2), {'image': hr}, distance)

  gamma = jax.vmap(model._sample_gamma)(keys(2))
  eps = np.asarray(samplers.normal(keys(2), 1, (16, 16, 3)))
  y0 = (to_float(hr) - np.asarray(x)) * 4
  root, noise = (
    np.sqrt(np.asarray(a))[:, None, None, None] for a in (gamma, 1 - gamma)
  )
  y = root * y0 + noise * eps
  out, kept = model.network.apply(
    {'params': params}, np.concatenate([x, y], -1), gamma, mutable='intermediates'
  )
  own = np.asarray(kept['intermediates']['y0'][0])
  image = np.asarray(x) + (root * y - noise * np.asarray(out)) / 4
  wanted = np.mean((np.asarray(out) - (root * eps - noise * y0)) ** 2)
  wanted += np.mean((own - y0) ** 2)
  different = looks_different(distance, keys(2), image, to_float(hr), 4)
  wanted += 0.7 * np.asarray(different)
  np.testing.assert_allclose(got, wanted, rtol=1e-5)
  with pytest.raises(ValueError, match='needs the distance'):
    model.loss(params, keys(2), {'image': hr})


def test_the_prediction_learns_from_its_own_error_alone():
  """Gradients of its last layer are those of its squared error."""
  model = SR3.from_config(tiny(**REFINE))
  hr = photos(2)
  x = model.upsample(model.degrade(keys(2), to_float(hr)))
  params = random_params(model.network, np.concatenate([x, x], -1))
  grads = jax.grad(model.loss)(params, keys(2), {'image': hr})
  y0 = (to_float(hr) - x) * 4

  def error(params):
    inputs = jnp.concatenate([x, jnp.zeros_like(x)], -1)
    _, own = blocks.predict_both(model.network, params, inputs, jnp.zeros(2))
    return jnp.mean((own - y0) ** 2)

  wanted = jax.grad(error)(params)
  for name in ('prediction', 'prediction_norm'):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      grads[name],
      wanted[name],
    )
  assert np.abs(grads['conv_in']['kernel'] - wanted['conv_in']['kernel']).max() > 1e-4


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'diffusion__prediction': 'eps'}, "prediction='eps'.*needs 'v'"),
    ({'model__num_classes': 3}, 'no classes'),
    ({'model__dropout': 0.1}, 'no dropout'),
    ({'task__name': 'generation', 'diffusion__residual': False}, 'needs a condition'),
    ({'data__image_size': 18, 'task__scale': 2}, 'multiple of 4: model.patch=4'),
    ({'data__channels': 1, 'diffusion__perceptual': 1.0}, 'data.channels=3, not 1'),
  ],
)
def test_what_it_cannot_do_is_refused(change, words):
  with pytest.raises(UserError, match=words):
    SR3.from_config(tiny(**REFINE | change))


def test_a_share_of_the_examples_is_at_the_last_level():
  model = SR3.from_config(tiny(**REFINE, diffusion__start_share=0.25))
  plain = SR3.from_config(tiny(**REFINE))
  many = keys(2000)
  gamma, usual = (np.asarray(jax.vmap(m._sample_gamma)(many)) for m in (model, plain))
  start = gamma == np.float32(model.gammas[-1])
  assert abs(start.mean() - 0.25) < 0.04
  np.testing.assert_array_equal(gamma[~start], usual[~start])


def test_it_samples_in_any_number_of_steps():
  model = SR3.from_config(tiny(**REFINE, sampler__name='ddim', sampler__num_steps=1))
  condition = jnp.zeros((1, 4, 4, 3))
  params = model.init(jax.random.key(0))
  one = model.restore(params, jax.random.key(1), condition)
  assert one.shape == (1, 16, 16, 3)
  assert np.isfinite(one).all()
  assert dataclasses.replace(model, clip=False).network.predicts
