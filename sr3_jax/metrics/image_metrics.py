"""Measures images by formulas: pure functions of arrays.

Unless a function says otherwise, images are float32 [B, H, W, C] in [-1, 1]; `image` is
evaluated by `truth` (or `condition`), which has the same shape, otherwise ValueError is
raised; and one float32 value per image, [B], is returned. Nothing is clipped or rounded
here: call `quantize` first to measure what a PNG file would hold, as papers do. All can
be jitted and vmapped. Sums over pixels and windows are written as sums, not as
convolutions or matrix products, so TPUs don't round them to bfloat16.

`output_low` is an output that the caller degraded as the task degrades its inputs,
`condition` the input it was made from. A `power` [..., R] is from `radial_power`,
summed or averaged over a set of outputs; `power_truth` is the same for the truth.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
AnyArray = Array | np.ndarray
Limit = float | AnyArray

# [-1, 1] is 2 wide and 8 bits are 255 wide.
_LEVELS = 127.5
# Wang et al. 2004, section III.C: an 11 x 11 Gaussian window of 1.5 pixels.
SSIM_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03
# Rec. 601 luma, as in JPEG.
_LUMA = (0.299, 0.587, 0.114)
# The same in the range of video, 16 to 235 (ITU-R BT.601).
_VIDEO_LUMA = (65.481, 128.553, 24.966)


def quantize(image: Array, low: Limit = 0.0, high: Limit = 255.0) -> Array:
  """Clip to [-1, 1] and round to what a file of integers can hold; same shape.

  `low` and `high` are the stored values that mean -1 and 1: numbers or [1, 1, 1, C].
  """
  half = (high - low) / 2.0
  levels = jnp.round((jnp.clip(image, -1.0, 1.0) + 1.0) * half + low)
  return (levels - low) / half - 1.0


def crop_border(image: Array, border: int) -> Array:
  """Return images without `border` pixels at each side.

  Raises:
    ValueError: nothing would be left.
  """
  height, width = image.shape[1:3]
  if min(height, width) <= 2 * border:
    raise ValueError(f'a border of {border} leaves nothing of {height} x {width}')
  return image[:, border : height - border, border : width - border]


def luma(image: Array) -> Array:
  """Return Y of YCbCr as ITU-R BT.601 has it for video: 16 to 235 of 255 levels.

  "PSNR (Y)" in the super-resolution literature is the PSNR of this. It equals the Y of
  MATLAB's and scikit-image's rgb2ycbcr, not rounded. Grey images count as R = G = B.
  The result is [B, H, W, 1] on the scale of the images: 127.5 levels are 1.
  """
  if image.shape[-1] == 1:
    image = jnp.broadcast_to(image, (*image.shape[:-1], 3))
  share = (image + 1.0) / 2.0
  parts = (w * share[..., c] for c, w in enumerate(_VIDEO_LUMA))
  y = 16.0 + functools.reduce(operator.add, parts)
  return y[..., None] / _LEVELS - 1.0


def psnr(image: Array, truth: Array) -> Array:
  """Return the peak signal-to-noise ratio in dB over all channels.

  The mean square runs over pixels and channels, the peak is the range of 2. Identical
  images give +inf, so average PSNR only over images that differ.
  """
  _check_same_shape(image, truth)
  error = (image - truth) * _LEVELS
  return 10.0 * jnp.log10(255.0**2 / jnp.mean(error**2, axis=(1, 2, 3)))


def ssim(image: Array, truth: Array) -> Array:
  """Return the structural similarity, at most 1 (Wang et al. 2004, eq. 13).

  Gaussian window of 11 pixels and sigma 1.5, only windows that lie inside the image,
  population covariances, K1 = 0.01, K2 = 0.03; mean over positions and channels. This
  equals scikit-image with `gaussian_weights=True, sigma=1.5,
  use_sample_covariance=False, channel_axis=-1` and the true data range.

  Raises:
    ValueError: the images are smaller than the window of 11 pixels.
  """
  _check_same_shape(image, truth)
  if min(image.shape[1:3]) < SSIM_WINDOW:
    raise ValueError(
      f'ssim needs images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got '
      f'{image.shape[1]} x {image.shape[2]}: leave it out for such small images'
    )
  # Halving gives a data range of 1. Covariances don't depend on the origin and keep
  # more digits around zero; means do depend on it, so they get it back below.
  x, y = image / 2.0, truth / 2.0
  # One call over all five maps compiles three times faster than five calls.
  means = _window_mean(jnp.concatenate([x, y, x * x, y * y, x * y]))
  mean_x, mean_y, mean_xx, mean_yy, mean_xy = jnp.split(means, 5)
  var_x, var_y = mean_xx - mean_x**2, mean_yy - mean_y**2
  cov = mean_xy - mean_x * mean_y
  mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
  c1, c2 = _K1**2, _K2**2
  luminance = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2.0 * cov + c2) / (var_x + var_y + c2)
  return jnp.mean(luminance * structure, axis=(1, 2, 3))


def consistency(output_low: Array, condition: Array) -> Array:
  """Return how far an output, downsampled, is from the input it was made from.

  It is the mean squared error in units of 1e-5 on the [0, 1] scale (SR3, table 2; 0 is
  best).
  """
  _check_same_shape(output_low, condition)
  error = (output_low - condition) / 2.0
  return 1e5 * jnp.mean(error**2, axis=(1, 2, 3))


def colour_drift(output_low: Array, condition: Array) -> Array:
  """Return the colour cast of an output in 8-bit levels (0 to 255; 0 is best).

  It is the mean over channels of |mean over pixels of output_low - condition|. Detail
  averages out of it, a shift of the whole image doesn't.
  """
  _check_same_shape(output_low, condition)
  shift = jnp.mean(output_low - condition, axis=(1, 2))  # [B, C]
  return _LEVELS * jnp.mean(jnp.abs(shift), axis=-1)


def radial_power(image: Array) -> Array:
  """Return the power spectrum of the luminance by radial frequency.

  The windowed mean is removed, a periodic Hann window applied, and |FFT|^2 averaged
  over each ring of frequencies whose radius rounds to the same integer. The corners
  beyond the Nyquist radius are left out. Luminance is Rec. 601 luma for three
  channels, else the mean of the channels.

  Args:
    image: [B, N, N, C] with N even.

  Returns:
    [B, N / 2 + 1], in squared 8-bit levels: white noise of standard deviation s
    levels has the expected value s^2 in every ring. Ring r holds r / N cycles per
    pixel. Ring 0, the mean, is zero.

  Raises:
    ValueError: the images aren't square or have an odd side.
  """
  _, height, width, channels = image.shape
  if height != width or height % 2:
    raise ValueError(
      f'radial_power needs square images with an even side, got {height} x {width}: '
      'crop them first'
    )
  weights = _LUMA if channels == 3 else (1.0 / channels,) * channels
  luma = _LEVELS * sum(w * image[..., c] for c, w in enumerate(weights))
  hann = np.hanning(height + 1)[:-1]
  window = np.outer(hann, hann)[None]  # [1, N, N]
  share = np.float32(window / window.sum())
  luma = luma - jnp.sum(luma * share, axis=(1, 2), keepdims=True)
  window = np.float32(window / np.sqrt(np.sum(window**2)))
  power = jnp.abs(jnp.fft.fft2(luma * window)) ** 2
  rings = _rings(height)
  # One more bucket than there are rings takes the corners.
  total = jax.ops.segment_sum(
    power.reshape(power.shape[0], -1).T, rings.ravel(), num_segments=height // 2 + 2
  ).T[:, :-1]
  return total / np.asarray(_ring_sizes(height), np.float32)[None]


def detail(power: AnyArray, power_truth: AnyArray, scale: float) -> Array:
  """Return the share of the true fine detail that a set of outputs holds.

  It is the power above the Nyquist frequency of the low-resolution grid (more than
  0.5 / scale cycles per pixel), all that the input could not show, as a ratio of
  outputs to truth: 1 is best, blur is near 0, noise is above 1. It compares amounts,
  not pixels, so it doesn't punish believable detail as PSNR does; nor does it know
  what the detail shows (the blocks of nearest-neighbour upsampling give about 0.6), so
  read it beside PSNR and look at samples.

  Raises:
    ValueError: `scale`, the magnification, is not above 1.
  """
  _check_same_shape(power, power_truth)
  size = 2 * (power.shape[-1] - 1)
  above = np.arange(power.shape[-1]) * 2 * scale > size
  if not above.any():
    raise ValueError(f'detail needs a scale above 1, got {scale}')
  # Sums of rings, from means: bigger rings hold more frequencies.
  weights = np.float32(above * _ring_sizes(size))
  weights = weights.reshape((1,) * (power.ndim - 1) + (-1,))
  found, wanted = (jnp.sum(p * weights, axis=-1) for p in (power, power_truth))
  return found / wanted


def spectrum_distance(power: AnyArray, power_truth: AnyArray) -> Array:
  """Return the root mean square over rings of the ratio of spectra in dB; 0 is best.

  Counts missing detail and invented noise alike, and each frequency the same.
  A spectrum that is zero in a ring gives inf or nan.
  """
  _check_same_shape(power, power_truth)
  decibels = 10.0 * jnp.log10(power[..., 1:] / power_truth[..., 1:])
  return jnp.sqrt(jnp.mean(decibels**2, axis=-1))


def _check_same_shape(a: AnyArray, b: AnyArray) -> None:
  """Raise ValueError if two arrays are of different shapes."""
  if a.shape != b.shape:
    raise ValueError(f'metrics compare arrays of one shape, got {a.shape}, {b.shape}')


def _window_mean(x: Array) -> Array:
  """Return the Gaussian mean of every 11 x 11 window inside [B, H, W, C]."""
  offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
  weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
  weights = [float(w) for w in weights / weights.sum()]
  for axis in (1, 2):
    size = x.shape[axis] - SSIM_WINDOW + 1
    parts = [
      w * jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i, w in enumerate(weights)
    ]
    x = functools.reduce(operator.add, parts)
  return x


def _rings(size: int) -> np.ndarray:
  """Return the ring of every FFT bin, [size, size]; size / 2 + 1 marks the corners."""
  frequency = np.fft.fftfreq(size) * size
  radius = np.rint(np.hypot(frequency[:, None], frequency[None, :]))
  return np.minimum(radius, size // 2 + 1).astype(np.int32)


def _ring_sizes(size: int) -> np.ndarray:
  """Return the number of FFT bins in every ring, [size / 2 + 1]."""
  return np.bincount(_rings(size).ravel(), minlength=size // 2 + 2)[: size // 2 + 1]
