"""Blur kernels, convolution and noise, against SciPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from sr3_jax.core.degradations import blurring

SIZE = 9
SIGMA = np.array([0.0, 0.8, 1.5], np.float32)
LENGTHS = np.array([0.0, 4.0, 6.0, 100.0], np.float32)


@pytest.fixture(scope='module')
def image() -> np.ndarray:
  return np.random.default_rng(0).uniform(-1, 1, (3, 14, 12, 2)).astype(np.float32)


@pytest.fixture(scope='module')
def kernels() -> np.ndarray:
  kernels = np.random.default_rng(1).uniform(0, 1, (3, SIZE, SIZE))
  return (kernels / kernels.sum((1, 2), keepdims=True)).astype(np.float32)


@pytest.fixture(scope='module')
def keys() -> jax.Array:
  return jax.random.split(jax.random.key(7), 4)


# Compiled once: tests of one function share shapes.


def gaussian_noise(key, image, sigma, grey=False):
  return image + blurring.normal(key, image, grey) * sigma[:, None, None, None]


def poisson_noise(key, image, scale, grey=False):
  deviation = blurring.shot_deviation(image, scale, grey)
  return image + blurring.normal(key, image, grey) * deviation


colour_noise = jax.jit(gaussian_noise)
shot_noise = jax.jit(poisson_noise)
motion = jax.jit(
  lambda key, angle, shake: blurring.motion_kernels(key, LENGTHS, SIZE, angle, shake)
)
ANGLES = np.array([0.3, 1.2, 2.0, 2.9], np.float32)


def moments(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Centre of mass (x, y) and covariance of a kernel, about its middle."""
  offset = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
  places = np.stack(np.meshgrid(offset, offset)).reshape(2, -1)  # x, y
  mean = places @ kernel.ravel()
  return mean, (places * kernel.ravel()) @ places.T - np.outer(mean, mean)


def test_gaussian_kernels_have_the_covariance_asked_for():
  angle = np.array([0.3, 1.1, 2.5], np.float32)
  long, short = (
    np.array([2.0, 1.5, 1.2], np.float32),
    np.array([0.9, 1.5, 0.8], np.float32),
  )
  kernels = np.asarray(blurring.gaussian_kernels(long, short, angle, 21))
  np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
  for kernel, a, b, turn in zip(kernels, long, short, angle, strict=True):
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mean, covariance = moments(kernel)
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(
      covariance, axes @ np.diag([a**2, b**2]) @ axes.T, atol=2e-3
    )


def test_a_kernel_without_width_is_the_unit_impulse():
  nothing = jnp.zeros(1)
  kernel = blurring.gaussian_kernels(nothing, nothing, jnp.ones(1), SIZE)
  np.testing.assert_array_equal(np.argwhere(np.asarray(kernel)), [[0, 4, 4]])
  assert float(kernel[0, 4, 4]) == 1


def test_straight_motion_is_a_line_of_the_length_and_angle(keys):
  straight = jnp.zeros(4)
  kernels = np.asarray(motion(keys, jnp.zeros(4), straight))
  np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-6)
  impulse = np.zeros((SIZE, SIZE))
  impulse[4, 4] = 1
  np.testing.assert_array_equal(kernels[0], impulse)
  # A horizontal box of 4 pixels, read between pixels: half a pixel at either end.
  np.testing.assert_allclose(
    kernels[1][4], [0, 0, 0.125, 0.25, 0.25, 0.25, 0.125, 0, 0], atol=1e-3
  )
  np.testing.assert_allclose(kernels[3][4, 1:-1], 1 / 8, atol=1e-3)  # shortened to 8
  _, covariance = moments(np.asarray(motion(keys, jnp.full(4, 0.6), straight))[2])
  largest = np.linalg.eigh(covariance)[1][:, 1]
  np.testing.assert_allclose(largest[1] / largest[0], np.tan(0.6), rtol=0.02)
  # The variance of a line of 6 is 36 / 12; a bilinear splat adds at most a quarter.
  assert 3 <= np.linalg.eigvalsh(covariance)[1] <= 3.3


def test_shaken_motion_is_centred_and_curved(keys):
  lines = np.asarray(motion(keys, ANGLES, jnp.zeros(4)))
  curves = np.asarray(motion(keys, ANGLES, jnp.full(4, 1.5)))
  for kernel in (*lines, *curves):
    np.testing.assert_allclose(kernel.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(moments(kernel)[0], 0, atol=1e-4)
  lines, curves = (
    max(np.linalg.eigvalsh(moments(kernel)[1])[0] for kernel in drawn)
    for drawn in (lines, curves)
  )
  assert lines < 0.26  # the variance across: a splat's alone
  assert curves > 0.35


def test_without_an_angle_the_direction_is_random(keys):
  kernels = np.asarray(blurring.motion_kernels(keys, jnp.full(4, 6.0), SIZE))
  different = np.abs(kernels[:, None] - kernels[None]).max((2, 3))
  assert np.all(different[~np.eye(4, dtype=bool)] > 0.02)


def test_convolution_is_scipys(image, kernels):
  got = np.asarray(jax.jit(blurring.convolve)(image, kernels))
  for one, kernel, result in zip(image, kernels, got, strict=True):
    expected = scipy.ndimage.convolve(one, kernel[:, :, None], mode='mirror')
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_gaussian_blur_is_scipys(image):
  got = np.asarray(jax.jit(blurring.gaussian_blur, static_argnums=2)(image, SIGMA, 9))
  np.testing.assert_array_equal(got[0], image[0])  # sigma 0
  for one, sigma, result in zip(image[1:], SIGMA[1:], got[1:], strict=True):
    expected = scipy.ndimage.gaussian_filter(
      one, sigma, mode='mirror', radius=4, axes=(0, 1)
    )
    np.testing.assert_allclose(result, expected, atol=1e-5)
  turned = blurring.gaussian_kernels(SIGMA, SIGMA, jnp.full(3, 0.4), 9)
  np.testing.assert_allclose(blurring.convolve(image, turned), got, atol=1e-5)


def test_noise_has_the_spread_asked_for(keys):
  grey = jnp.array([False, True, False, True])
  sigma = jnp.array([0.1, 0.1, 0.4, 0.4])
  flat = jnp.full((4, 64, 64, 3), 0.2)
  noise = np.asarray(colour_noise(keys, flat, sigma, grey)) - 0.2
  np.testing.assert_allclose(noise.std((1, 2, 3)), sigma, rtol=0.03)
  np.testing.assert_allclose(noise.mean((1, 2, 3)), 0, atol=0.02)
  for one, is_grey in zip(noise, grey, strict=True):
    correlation = np.corrcoef(one.reshape(-1, 3).T)[0, 1]
    np.testing.assert_allclose(correlation, float(is_grey), atol=0.06)
  assert scipy.stats.kstest(noise[2].ravel() / 0.4, 'norm').pvalue > 1e-3
  same = gaussian_noise(keys, flat, sigma, grey=True) - 0.2
  np.testing.assert_allclose(same[1], noise[1], atol=1e-6)
  np.testing.assert_array_equal(same[0, ..., 0], same[0, ..., 2])


def test_shot_noise_has_the_variance_of_counted_photons(keys):
  light = np.array([0.0, 0.25, 1.0, 0.5], np.float32)
  flat = jnp.asarray(
    np.broadcast_to(2 * light[:, None, None, None] - 1, (4, 64, 64, 3))
  )
  scale = jnp.array([1.0, 1.0, 1.0, 2.0])
  noisy = np.asarray(shot_noise(keys, flat, scale))
  np.testing.assert_array_equal(noisy[0], flat[0])
  for one, level, factor in zip(noisy[1:], light[1:], scale[1:], strict=True):
    photons = scipy.stats.poisson(256 * level)
    spread = 2 * photons.std() / 256 * float(factor)
    np.testing.assert_allclose(one.std(), spread, rtol=0.03)
    np.testing.assert_allclose(one.mean(), 2 * level - 1, atol=4 * spread / 100)


def test_noise_of_an_example_is_a_function_of_its_key(keys):
  flat, sigma = jnp.zeros((4, 64, 64, 3)), jnp.full(4, 0.3)
  for noise in (colour_noise, shot_noise):
    batch = noise(keys, flat, sigma)
    np.testing.assert_array_equal(noise(keys[::-1], flat, sigma)[::-1], batch)
    assert np.abs(batch[0] - batch[1]).max() > 0.1
  kept = np.array([0, 1, 3])
  kernels = motion(keys, ANGLES, sigma)
  np.testing.assert_array_equal(
    motion(keys[np.array([0, 1, 3, 3])], ANGLES, sigma)[kept], kernels[kept]
  )


def test_gradients_are_finite_at_every_extreme(keys, image):
  """Gradients at black pixels, no blur, no motion and no noise."""

  def total(image, strength):
    blurred = blurring.gaussian_blur(image, strength, 5)
    kernels = blurring.gaussian_kernels(strength, strength, strength, 5)
    motion = blurring.motion_kernels(keys[:3], strength, 5, shake=strength)
    blurred += blurring.convolve(image, kernels + motion)
    noisy = gaussian_noise(keys[:3], blurred, strength)
    noisy += poisson_noise(keys[:3], image, strength, grey=True)
    return jnp.sum(noisy**2)

  black = jnp.asarray(image).at[:, :4].set(-1)
  gradients = jax.jit(jax.grad(total, (0, 1)))(black, jnp.asarray(SIGMA))
  for gradient in gradients:
    assert np.all(np.isfinite(gradient))
    assert np.any(gradient)
