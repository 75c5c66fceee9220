"""Blurs images, each with a kernel of its own, and adds the noise of sensors.

Images are float32 [B, H, W, C] in [-1, 1], lengths are pixels, `size` is the odd side
of kernels, `key` is [B] keys: what is random in example b is a function of key[b]
alone. All of it is differentiable with finite gradients, and a strength of 0 gives the
image back exactly. Noise is not clipped; where `grey`, a truth value or [B], is true,
all channels get the same.
"""

import functools
import operator

import jax
import jax.numpy as jnp

# Photons that a white pixel counts at scale 1 of `shot_deviation`.
PHOTONS = 256


def gaussian_kernels(
  sigma_x: jax.Array, sigma_y: jax.Array, angle: jax.Array, size: int
) -> jax.Array:
  """Return Gaussian kernels, turned and stretched, sampled at pixel centres.

  They are [B, size, size], and each sums to 1.

  Args:
    sigma_x: [B], standard deviation along the kernel's first axis, in pixels; 0 where
      sigma_y is 0 too gives the unit impulse.
    sigma_y: [B], along its second axis.
    angle: [B], radians, from the image's x axis to the first axis, towards +y (down).
    size: of the kernel.
  """
  return unit_sum(jnp.exp(-squared_radius(sigma_x, sigma_y, angle, size) / 2))


def squared_radius(
  sigma_x: jax.Array, sigma_y: jax.Array, angle: jax.Array, size: int
) -> jax.Array:
  """Return (distance from the centre / sigma)^2 of kernel pixels: [B, size, size].

  The arguments are those of `gaussian_kernels`.
  """
  x, y = offsets(size)[None, None, :], offsets(size)[None, :, None]
  cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
  # At this least sigma every other pixel's weight is 0 in float32.
  sigma_x, sigma_y = (
    jnp.maximum(sigma, 1e-3)[:, None, None] for sigma in (sigma_x, sigma_y)
  )
  along, across = cos * x + sin * y, cos * y - sin * x
  return jnp.square(along / sigma_x) + jnp.square(across / sigma_y)


def motion_kernels(
  key: jax.Array,
  length: jax.Array,
  size: int,
  angle: jax.Array | None = None,
  shake: jax.Array | float = 0.0,
) -> jax.Array:
  """Draw kernels of a camera that moves at constant speed while the shutter is open.

  The path has the given length. Its direction is constant, or wanders smoothly as a
  hand shakes: angle + shake * (a sum of three random sinusoids of unit variance).

  Args:
    key: [B] keys.
    length: [B], of the path, in pixels, from 0 (the unit impulse) to size - 1; longer
      paths are shortened to that.
    size: of the kernel.
    angle: [B], radians, from the image's x axis towards +y (down), at the middle of a
      straight path; None draws it uniformly.
    shake: standard deviation of the direction along the path, radians, a number or
      [B]; 0 is straight, 1 is a curve that seldom crosses itself, 3 is a knot.

  Returns:
    [B, size, size], each sums to 1, with its centre of mass in the middle.
  """
  # Points of the path, dense enough that splatting them is integration along it.
  points = 8 * size
  time = (jnp.arange(points) + 0.5) / points
  waves = jnp.arange(1, 4)  # half periods over the exposure

  def direction(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    turned, phased, scaled = jax.random.split(key, 3)
    phase = jax.random.uniform(phased, (3, 1), maxval=2 * jnp.pi)
    amplitude = jax.random.normal(scaled, (3, 1)) / waves[:, None]
    wave = jnp.sin(jnp.pi * waves[:, None] * time[None] + phase)
    scale = jnp.sqrt(2 / jnp.sum(1 / jnp.square(waves)))
    return (
      jax.random.uniform(turned, maxval=2 * jnp.pi),
      scale * jnp.sum(amplitude * wave, 0),
    )

  drawn, wander = jax.vmap(direction)(key)
  angle = drawn if angle is None else angle
  shake = jnp.broadcast_to(jnp.asarray(shake, jnp.float32), angle.shape)
  heading = angle[:, None] + shake[:, None] * wander
  step = jnp.clip(length, 0, size - 1)[:, None] / points

  def splat(velocity: jax.Array) -> jax.Array:
    path = jnp.cumsum(step * velocity, 1)
    # No point is further from their mean than half the length: the kernel holds all.
    path = path - jnp.mean(path, 1, keepdims=True)
    distance = jnp.abs(path[:, :, None] - offsets(size)[None, None])
    return jnp.maximum(1 - distance, 0)  # [B, points, size], bilinear

  rows, columns = splat(jnp.sin(heading)), splat(jnp.cos(heading))
  return unit_sum(jnp.einsum('bpi,bpj->bij', rows, columns, precision='highest'))


def convolve(image: jax.Array, kernels: jax.Array) -> jax.Array:
  """Convolve each example with its own kernel of [B, size, size], which is flipped.

  The image is mirrored at its borders without repeating the last pixel ('reflect' of
  NumPy, 'mirror' of SciPy).
  """
  size = kernels.shape[1]
  batch, height, width, channels = image.shape
  padded = _mirrored(_mirrored(image, 1, size), 2, size)
  # Channels are folded into rows: a shift by a pixel is one by so many numbers, and
  # what is summed is contiguous. Grouped convolutions are far slower on a CPU, and
  # Fourier transforms are gathered to one device when the batch is sharded.
  padded = padded.reshape(batch, height + size - 1, -1)

  def add_row(total: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
    lines = jax.lax.dynamic_slice_in_dim(padded, row, height, 1)
    weights = jax.lax.dynamic_index_in_dim(kernels, size - 1 - row, 1, keepdims=False)
    for column in range(size):
      shifted = lines[:, :, column * channels : (column + width) * channels]
      total += shifted * weights[:, size - 1 - column, None, None]
    return total, None

  total = jnp.zeros((batch, height, width * channels), image.dtype)
  total, _ = jax.lax.scan(add_row, total, jnp.arange(size))
  return total.reshape(image.shape)


def gaussian_blur(image: jax.Array, sigma: jax.Array, size: int) -> jax.Array:
  """Blur by isotropic Gaussians, separably; borders are those of `convolve`.

  Equals `scipy.ndimage.gaussian_filter(mode='mirror', radius=size // 2)`. `sigma` is
  [B]; a kernel of 6 sigma + 1 pixels cuts off 0.3 %.
  """
  across = jnp.square(offsets(size)[None] / jnp.maximum(sigma, 1e-3)[:, None])
  weights = jnp.exp(-across / 2)
  weights = weights / jnp.sum(weights, 1, keepdims=True)
  for axis in (1, 2):
    padded, extent = _mirrored(image, axis, size), image.shape[axis]
    parts = (
      jax.lax.slice_in_dim(padded, tap, tap + extent, axis=axis)
      * weights[:, tap, None, None, None]
      for tap in range(size)
    )
    image = functools.reduce(operator.add, parts)
  return image


def normal(
  key: jax.Array, image: jax.Array, grey: jax.Array | bool = False
) -> jax.Array:
  """Draw standard normal noise of an image's shape, one for all channels if `grey`."""
  noise = jax.vmap(lambda one: jax.random.normal(one, image.shape[1:]))(key)
  return jnp.where(per_example(grey), noise[..., :1], noise)


def shot_deviation(
  image: jax.Array, scale: jax.Array, grey: jax.Array | bool = False
) -> jax.Array:
  """Return the standard deviation of shot noise in each pixel: [B, H, W, C].

  The variance grows in proportion to the light. For light u in [0, 1],
  Poisson(256 u) / 256 - u has the variance u / 256, and is multiplied by `scale` [B]
  (as in arXiv:2107.10833). A Gaussian of that variance looks the same from a few
  photons on, and has a gradient. Grey noise is that of the mean of the channels.
  """
  light = jnp.clip((image + 1) / 2, 0, 1)
  mean = jnp.mean(light, 3, keepdims=True)
  light = jnp.where(per_example(grey), mean, light)
  # The root's slope is infinite in the dark: there neither noise nor gradient.
  lit = light > 1e-4
  deviation = jnp.where(lit, jnp.sqrt(jnp.where(lit, light, 1) / PHOTONS), 0)
  return 2 * scale[:, None, None, None] * deviation  # 2: the range of [-1, 1]


def offsets(size: int) -> jax.Array:
  """Return [size] offsets of kernel pixels: -(size // 2) ... size // 2."""
  return jnp.arange(size, dtype=jnp.float32) - size // 2


def unit_sum(kernels: jax.Array) -> jax.Array:
  """Return kernels scaled so that each sums to 1."""
  return kernels / jnp.sum(kernels, (1, 2), keepdims=True)


def _mirrored(image: jax.Array, axis: int, size: int) -> jax.Array:
  """Return the image with size // 2 mirrored pixels before and after an axis."""
  margin = [(0, 0)] * image.ndim
  margin[axis] = (size // 2, size // 2)
  return jnp.pad(image, margin, mode='reflect')


def fold_in(key: jax.Array, number: int) -> jax.Array:
  """Return keys [B] for one of the random choices, independent of the others."""
  return jax.vmap(jax.random.fold_in, (0, None))(key, number)


def per_example(choice: jax.Array | bool) -> jax.Array:
  """Return a truth value or [B] with axes for [B, H, W, C]."""
  return jnp.asarray(choice).reshape(-1, 1, 1, 1)
