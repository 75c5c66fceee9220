"""The second-order degradation, against SciPy, Pillow and bicubic downsampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.special
import skimage

from sr3_jax.core.degradations import blind, resizing

MILD = blind.Order(
  sigma=(0, 0),
  sinc=0,
  factor=(1, 1),
  kernels=('bicubic',),
  noise=(0, 0),
  shots=(0, 0),
  quality=(100, 100),
  halved=0,
)
SCALE = 2


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
  """[3, 32, 32, 3]: the same part of a photograph three times."""
  part = skimage.data.astronaut()[40:168, 160:288].astype(np.float32) / 127.5 - 1
  part = part.reshape(32, 4, 32, 4, 3).mean((1, 3))
  return np.stack([part] * 3)


@pytest.fixture(scope='module')
def keys() -> jax.Array:
  return jax.random.split(jax.random.key(5), 3)


@pytest.fixture(scope='module')
def degrade():
  """Return the result, and the gradient of its squares in the image."""

  def squares(hr, key):
    result = blind.second_order(key, hr, scale=SCALE)
    return jnp.sum(result**2), result

  compiled = jax.jit(jax.grad(squares, has_aux=True))
  return lambda key, hr: compiled(hr, key)[::-1]


def test_low_pass_filters_are_scipys_bessel_functions():
  cutoff = np.array([1.1, 2.0, np.pi], np.float32)
  kernels = np.asarray(blind.sinc_kernels(cutoff, 21))
  offset = np.arange(21) - 10
  radius = np.maximum(np.hypot(offset[:, None], offset), 1e-9)
  for kernel, edge in zip(kernels, cutoff, strict=True):
    expected = edge * scipy.special.j1(edge * radius) / (2 * np.pi * radius)
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=4e-6)


def test_blur_kernels_are_as_varied_as_asked_for():
  keys = jax.random.split(jax.random.key(0), 400)
  order = dataclasses.replace(blind.FIRST, blurred=0.8)
  draw = jax.jit(blind.blur_kernels, static_argnums=1)
  kernels = np.asarray(draw(keys, order))
  np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
  assert 0.13 < (kernels[:, 10, 10] == 1).mean() < 0.27
  rings = (kernels.min((1, 2)) < -1e-3).mean()  # 10 % of the 80 % blurred
  assert 0.04 < rings < 0.13
  # Low-pass filters fill the side that was drawn for them.
  kernels = np.asarray(draw(keys, dataclasses.replace(blind.FIRST, sinc=1)))
  sides, counts = np.unique(np.count_nonzero(kernels[:, 10], 1), return_counts=True)
  np.testing.assert_array_equal(sides, range(7, 22, 2))
  assert np.all(np.abs(counts - 50) < 22)  # more than 3 standard deviations


@pytest.mark.parametrize('name', ['bilinear', 'bicubic', 'area'])
def test_a_resize_inside_a_canvas_is_pillows(name):
  image = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
  canvas = np.full((20, 20), 7, np.float32)  # what is beyond the extent has no part
  canvas[:16, :12] = image
  order = dataclasses.replace(MILD, kernels=(name,))
  for after in ((8, 4), (16, 12)) if name == 'area' else ((7, 5), (23, 17)):
    got = blind._resample(
      jnp.zeros(1),
      canvas[None, :, :, None],
      jnp.array([[16.0, 12.0]]),
      jnp.array([after], jnp.float32),
      (24, 24),
      order,
    )[0, :, :, 0]
    how = {'bilinear': 'BILINEAR', 'bicubic': 'BICUBIC', 'area': 'BOX'}[name]
    height, width = after
    expected = PIL.Image.fromarray(image).resize(
      (width, height), PIL.Image.Resampling[how]
    )
    np.testing.assert_allclose(got[:height, :width], expected, atol=1e-5)
    rest = got[height : 2 * height]  # repeats it mirrored
    np.testing.assert_allclose(rest, got[:height][::-1][: len(rest)], atol=1e-5)


def test_at_its_mildest_it_is_bicubic_downsampling(keys, photo):
  mildest = jax.jit(
    lambda key, hr: blind.second_order(
      key, hr, scale=SCALE, orders=(MILD, MILD), final_sinc=0
    )
  )
  plain = np.clip(resizing.resize(photo, 16, 16), -1, 1)
  # Two codings at quality 100 are off by a few of 255 levels.
  error = np.abs(np.asarray(mildest(keys, photo)) - plain) * 127.5
  assert error.max() < 6
  assert error.mean() < 1


def test_noise_of_a_round_has_the_spread_asked_for(keys):
  """Noise of 20 levels, and no resize after it: the output has what was added."""
  grey = dataclasses.replace(MILD, noise=(20, 20), gaussian=1, grey=1)
  flat = jnp.zeros((3, 48, 48, 3))
  one = jax.jit(
    lambda key: blind._round(key, flat, blind._full((48, 48), flat), (48, 48), grey)
  )
  image, extent, _ = one(keys)
  np.testing.assert_array_equal(extent, 48)
  np.testing.assert_allclose(np.std(image, (1, 2, 3)) * 127.5, 20, rtol=0.06)
  np.testing.assert_array_equal(image[..., 0], image[..., 1])


def test_results_are_images_that_differ_by_key_alone(keys, photo, degrade):
  results, gradient = degrade(keys, photo)
  assert results.shape == (3, 16, 16, 3)
  assert results.dtype == jnp.float32
  assert np.abs(results).max() <= 1
  assert np.all(np.isfinite(gradient))
  assert all(np.any(one) for one in gradient)
  plain = resizing.resize(photo, 16, 16)
  distance = np.abs(results - plain).mean((1, 2, 3))
  assert np.all((distance > 0.01) & (distance < 0.5))  # degraded, but that picture
  assert np.abs(results[0] - results[1]).mean() > 0.01
  again, _ = degrade(keys[::-1], photo)
  np.testing.assert_allclose(again[::-1], results, atol=1e-5)


def test_every_batch_and_every_scale_has_its_shape(keys, photo):
  for scale, side in ((1, 32), (4, 8), (16, 2)):
    shape = jax.eval_shape(
      jax.vmap(lambda key, hr, scale=scale: blind.second_order(key, hr, scale=scale)),
      jnp.stack([keys] * 2),
      np.stack([photo] * 2),
    ).shape
    assert shape == (2, 3, side, side, 3)


def test_a_side_that_the_scale_does_not_divide_is_refused(keys, photo):
  with pytest.raises(ValueError, match='32 x 32 cannot be downsampled 3x'):
    blind.second_order(keys, photo, scale=3)
