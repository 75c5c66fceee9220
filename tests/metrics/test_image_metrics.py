"""Truths: scikit-image for PSNR and SSIM, NumPy's float64 FFT for spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from skimage.color import rgb2ycbcr
from skimage.filters import gaussian
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax.metrics import image_metrics


def photos(size=128):
  """[4, size, size, 3] float32 in [-1, 1]: centres of scikit-image's photographs."""
  crops = []
  for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
    photo = getattr(skimage.data, name)()
    top, left = (photo.shape[0] - size) // 2, (photo.shape[1] - size) // 2
    crops.append(photo[top : top + size, left : left + size])
  return np.stack(crops).astype(np.float32) / 127.5 - 1


def blurred(images, sigma):
  return np.stack([gaussian(x, sigma, channel_axis=-1) for x in images])


def noisy(images, std, seed=0):
  noise = np.random.default_rng(seed).normal(scale=std, size=images.shape)
  return np.clip(images + noise, -1, 1).astype(np.float32)


DAMAGES = {
  'faint noise': lambda x: noisy(x, 0.004),
  'noise': lambda x: noisy(x, 0.2),
  'blur': lambda x: blurred(x, 2.0),
  'dark': lambda x: x * 0.5 - 0.5,
  'negative': lambda x: -x,
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_psnr_and_ssim_equal_scikit_image(damage):
  truth = photos()[:, :, :101]  # not square
  image = DAMAGES[damage](truth)
  psnr, ssim = (
    image_metrics.psnr(image, truth),
    jax.jit(image_metrics.ssim)(image, truth),
  )
  assert psnr.shape == ssim.shape == (4,)
  for i in range(4):
    x, y = image[i].astype(np.float64), truth[i].astype(np.float64)
    want = peak_signal_noise_ratio(y, x, data_range=2)
    np.testing.assert_allclose(psnr[i], want, atol=1e-4)
    # The luminance term depends on the origin: black must be zero.
    want = structural_similarity(
      (x + 1) / 2,
      (y + 1) / 2,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
      channel_axis=-1,
      data_range=1,
    )
    np.testing.assert_allclose(ssim[i], want, atol=1e-5)


def test_psnr_of_quantized_images_is_the_one_of_their_png_files():
  truth = photos()
  image = truth + np.random.default_rng(0).normal(scale=0.3, size=truth.shape)
  files = [np.uint8(np.rint(np.clip((x + 1) * 127.5, 0, 255))) for x in (image, truth)]
  got = image_metrics.psnr(
    image_metrics.quantize(np.float32(image)), image_metrics.quantize(truth)
  )
  want = [peak_signal_noise_ratio(t, x) for x, t in zip(*files, strict=True)]
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_luma_equals_scikit_image():
  """Its PSNR is "PSNR (Y)", too: of 255 levels, though luma has 219."""
  truth = photos(32)
  image = noisy(truth, 0.1)
  y, y_truth = (np.asarray(image_metrics.luma(x)) for x in (image, truth))
  assert y.shape == (4, 32, 32, 1)
  wanted = [rgb2ycbcr((np.float64(x) + 1) / 2)[..., :1] for x in (image, truth)]
  np.testing.assert_allclose((y + 1) * 127.5, wanted[0], atol=1e-4)
  psnr = [
    peak_signal_noise_ratio(t, x, data_range=255) for x, t in zip(*wanted, strict=True)
  ]
  np.testing.assert_allclose(image_metrics.psnr(y, y_truth), psnr, atol=1e-3)


def test_luma_of_grey_and_its_ends():
  grey = np.linspace(-1, 1, 9, dtype=np.float32).reshape(1, 3, 3, 1)
  y = image_metrics.luma(grey)
  colour = np.broadcast_to(grey, (1, 3, 3, 3))
  np.testing.assert_allclose(y, image_metrics.luma(colour), atol=1e-6)
  levels = (np.asarray(y).ravel() + 1) * 127.5
  np.testing.assert_allclose(levels, np.linspace(16, 235, 9), atol=1e-3)


def test_crop_border():
  image = photos(24)[:, :, :20]
  cropped = image_metrics.crop_border(image, 4)
  np.testing.assert_array_equal(cropped, image[:, 4:-4, 4:-4])
  np.testing.assert_array_equal(image_metrics.crop_border(image, 0), image)
  assert image_metrics.crop_border(image, 9).shape == (4, 6, 2, 3)
  with pytest.raises(ValueError, match='border of 10 leaves nothing of 24 x 20'):
    image_metrics.crop_border(image, 10)


def test_quantize_keeps_levels_and_clips():
  levels = (np.arange(256, dtype=np.float32) / 127.5 - 1).reshape(1, 16, 16, 1)
  np.testing.assert_allclose(image_metrics.quantize(levels), levels, atol=1e-7)
  off = image_metrics.quantize(levels + 0.4 / 127.5)
  np.testing.assert_allclose(off, levels, atol=1e-6)
  assert float(image_metrics.quantize(jnp.full((1, 1, 1, 1), 7.0))[0, 0, 0, 0]) == 1


def test_identical_images():
  truth = photos()
  assert np.all(np.isposinf(image_metrics.psnr(truth, truth)))
  np.testing.assert_allclose(jax.jit(image_metrics.ssim)(truth, truth), 1, atol=1e-6)
  power = image_metrics.radial_power(truth).sum(0)
  assert float(image_metrics.detail(power, power, 4)) == 1
  assert float(image_metrics.spectrum_distance(power, power)) == 0


def test_ssim_of_the_smallest_image_and_of_a_smaller_one():
  image = photos(12)[:, :11, :11]
  np.testing.assert_allclose(jax.jit(image_metrics.ssim)(image, image), 1, atol=1e-6)
  with pytest.raises(ValueError, match='at least 11 x 11 pixels, got 10 x 12'):
    image_metrics.ssim(photos(12)[:, :10], photos(12)[:, :10])


def test_shapes_must_agree():
  # One truth against many outputs would broadcast without a word.
  with pytest.raises(ValueError, match='one shape'):
    image_metrics.psnr(photos(), photos()[:1])


def test_consistency_and_colour_drift_units():
  condition = photos(32)
  # One 8-bit level everywhere.
  shift = condition + np.float32(1 / 127.5)
  np.testing.assert_allclose(
    image_metrics.consistency(shift, condition), 1e5 / 255**2, rtol=1e-4
  )
  np.testing.assert_allclose(image_metrics.colour_drift(shift, condition), 1, rtol=1e-4)


def test_colour_drift_sees_a_cast_and_not_detail():
  condition = photos(32)
  cast = condition + np.float32([3 / 127.5, -3 / 127.5, 0]).reshape(1, 1, 1, 3)
  np.testing.assert_allclose(image_metrics.colour_drift(cast, condition), 2, rtol=1e-4)
  checks = np.float32(np.indices((32, 32)).sum(0) % 2 - 0.5).reshape(1, 32, 32, 1)
  drift = image_metrics.colour_drift(condition + checks, condition)
  np.testing.assert_allclose(drift, 0, atol=1e-3)
  assert np.all(image_metrics.consistency(condition + checks, condition) > 1000)


def test_radial_power_equals_a_direct_computation():
  """Every FFT bin visited one by one, in float64."""
  images = photos(48)
  size = 48
  n = np.arange(size)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / size)
  for image, got in zip(images, image_metrics.radial_power(images), strict=True):
    luma = 127.5 * image.astype(np.float64) @ [0.299, 0.587, 0.114]
    window = hann[:, None] * hann
    luma = luma - (luma * window).sum() / window.sum()
    power = np.abs(np.fft.fft2(luma * window)) ** 2 / (window**2).sum()
    sums, counts = np.zeros(size), np.zeros(size)
    for u in range(size):
      for v in range(size):
        radius = round((min(u, size - u) ** 2 + min(v, size - v) ** 2) ** 0.5)
        sums[radius] += power[u, v]
        counts[radius] += 1
    want = (sums / np.maximum(counts, 1))[: size // 2 + 1]
    assert got.shape == (25,)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * want[-1])


def test_white_noise_is_flat_at_its_variance():
  """The mean over bins is 25 only if the window's power is divided out."""
  noise = np.random.default_rng(0).normal(scale=5 / 127.5, size=(256, 64, 64, 1))
  power = image_metrics.radial_power(np.float32(noise)).mean(0)
  # Rings 0 and 1 lose power to the removed mean, which the window smears.
  np.testing.assert_allclose(power[2:], 25, rtol=0.06)
  np.testing.assert_allclose(power[8:].mean(), 25, rtol=0.01)


def test_parseval():
  """The spectrum sums to the energy of the windowed image without corners' content."""
  image = blurred(photos(64), 2.0)[..., :1]  # nothing left in the corners
  window = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)] * 2)
  luma = 127.5 * image[..., 0].astype(np.float64)
  luma -= ((luma * window).sum((1, 2)) / window.sum())[:, None, None]
  want = ((luma * window) ** 2).sum((1, 2)) / (window**2).sum()
  f = np.fft.fftfreq(64, 1 / 64)
  radius = np.rint(np.sqrt(f[:, None] ** 2 + f**2)).astype(int)
  sizes = np.bincount(radius.ravel())[:33]
  got = image_metrics.radial_power(image) @ sizes / 64**2
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_a_wave_lands_in_its_ring():
  wave = np.cos(2 * np.pi * 9 * np.arange(64) / 64)
  image = np.tile(wave.astype(np.float32), (64, 1)).reshape(1, 64, 64, 1)
  power = np.array(image_metrics.radial_power(image)[0])
  assert power.argmax() == 9
  assert power[[0, *range(2, 7), *range(12, 33)]].max() < 1e-3 * power[9]


def test_detail_orders_blur_truth_and_noise():
  truth = photos()

  def power(x):
    return image_metrics.radial_power(x).sum(0)

  def detail(x):
    return float(image_metrics.detail(power(x), power(truth), 4))

  assert detail(blurred(truth, 4.0)) < 0.05
  assert detail(blurred(truth, 2.0)) < detail(blurred(truth, 1.0)) < 0.8
  assert detail(noisy(truth, 0.2)) > 1.2

  def distance(x):
    return float(image_metrics.spectrum_distance(power(x), power(truth)))

  assert distance(blurred(truth, 2.0)) > distance(blurred(truth, 1.0)) > 3
  assert distance(noisy(truth, 0.2)) > distance(noisy(truth, 0.05)) > 0.3


def test_detail_is_a_ratio_of_high_passed_energies():
  """NumPy sums every FFT bin above the cut, so rings must count by their size."""
  truth = photos(64)
  image = noisy(blurred(truth, 1.0), 0.05)
  window = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)] * 2)
  f = np.fft.fftfreq(64, 1 / 64)
  radius = np.rint(np.sqrt(f[:, None] ** 2 + f**2))
  above = (radius > 64 / 2 / 4) & (radius <= 32)

  def energy(x):
    luma = x.astype(np.float64) @ [0.299, 0.587, 0.114]
    luma -= ((luma * window).sum((1, 2)) / window.sum())[:, None, None]
    return (np.abs(np.fft.fft2(luma * window)) ** 2)[:, above].sum()

  got = image_metrics.detail(
    *(image_metrics.radial_power(x).sum(0) for x in (image, truth)), 4
  )
  np.testing.assert_allclose(got, energy(image) / energy(truth), rtol=1e-4)


def test_detail_ignores_what_the_input_already_shows():
  """A wave below 0.5 / 4 cycles per pixel doesn't count, one above it does."""
  noise = np.random.default_rng(0).normal(scale=0.1, size=(1, 64, 64, 1))

  def wave(k):
    return np.cos(2 * np.pi * k * np.arange(64) / 64).reshape(1, 1, 64, 1)

  def power(x):
    return image_metrics.radial_power(np.float32(x)).sum(0)

  truth = power(noise)
  np.testing.assert_allclose(
    image_metrics.detail(power(noise + wave(5)), truth, 4), 1, atol=0.05
  )
  assert float(image_metrics.detail(power(noise + wave(11)), truth, 4)) > 2


def test_spectrum_distance_in_decibels():
  power = image_metrics.radial_power(photos()).sum(0)
  for factor, want in ((2, 3.0103), (0.1, 10)):
    got = image_metrics.spectrum_distance(factor * power, power)
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize('shape', [(1, 32, 30, 3), (1, 31, 31, 3)])
def test_radial_power_refuses_what_has_no_rings(shape):
  with pytest.raises(ValueError, match='square images with an even side'):
    image_metrics.radial_power(jnp.zeros(shape))


def test_detail_refuses_scale_one():
  with pytest.raises(ValueError, match='scale above 1'):
    image_metrics.detail(jnp.ones(17), jnp.ones(17), 1)


PAIRS = (
  image_metrics.psnr,
  image_metrics.ssim,
  image_metrics.consistency,
  image_metrics.colour_drift,
)


@pytest.mark.parametrize('metric', PAIRS, ids=lambda f: f.__name__)
def test_jit_vmap_and_batching_change_nothing(metric):
  truth = photos(48)
  image = noisy(truth, 0.1)
  want = [metric(image[i : i + 1], truth[i : i + 1])[0] for i in range(4)]
  np.testing.assert_allclose(jax.jit(metric)(image, truth), want, rtol=1e-5)
  one_by_one = jax.jit(jax.vmap(metric))(image[:, None], truth[:, None])[:, 0]
  np.testing.assert_allclose(one_by_one, want, rtol=1e-5)


def test_jit_and_vmap_of_spectra_change_nothing():
  truth = photos(48)
  want = image_metrics.radial_power(truth)
  for f in (
    jax.jit(image_metrics.radial_power),
    jax.jit(lambda x: jax.vmap(image_metrics.radial_power)(x[:, None])[:, 0]),
  ):
    np.testing.assert_allclose(f(truth), want, rtol=1e-4, atol=1e-3)
  # Per image instead of over the set.
  other = image_metrics.radial_power(noisy(truth, 0.1))
  detail = jax.jit(lambda a, b: image_metrics.detail(a, b, 4))(other, want)
  distance = image_metrics.spectrum_distance(other, want)
  for i in range(4):
    np.testing.assert_allclose(
      detail[i], image_metrics.detail(other[i], want[i], 4), rtol=1e-5
    )
    np.testing.assert_allclose(
      distance[i], image_metrics.spectrum_distance(other[i], want[i]), rtol=1e-5
    )
