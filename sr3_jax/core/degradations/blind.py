"""Degrades images as found images are: blurred, resized, noisy, compressed, twice over.

This is the second-order degradation of Real-ESRGAN (arXiv:2107.10833, section 3 and
4.1). Where the paper leaves something open, the authors' published training options
decide.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from sr3_jax.core.degradations import blurring, jpeg, resizing

# Sides of blur kernels are odd and between these; arrays have the largest.
SIZES = (7, 21)
# Shares of Gaussian, generalised Gaussian and plateau kernels, each round or not.
SHAPE_SHARES = ((0.45, 0.25), (0.12, 0.03), (0.12, 0.03))
# Exponent of the squared distance, from and to.
GENERALISED, PLATEAU = (0.5, 4.0), (1.0, 2.0)
# Cut-off of low-pass filters, radians a pixel: pi keeps nearly everything.
CUTOFF = (math.pi / 3, math.pi)


@dataclasses.dataclass(frozen=True)
class Order:
  """One round of blur, resize, noise and JPEG. Pairs are the ends of uniform ranges."""

  blurred: float = 1.0  # share of images that are blurred
  sigma: tuple[float, float] = (0.2, 3.0)  # of the blur, pixels
  sinc: float = (
    0.1  # share of blurs by a low-pass filter with a sharp edge, which rings
  )
  # Of the resize; relative to the target size in the last round, else to the size of
  # the original.
  factor: tuple[float, float] = (0.15, 1.5)
  # Shares of images that are upsampled and downsampled; the others keep that size.
  up_down: tuple[float, float] = (0.2, 0.7)
  kernels: tuple[str, ...] = ('area', 'bilinear', 'bicubic')  # equally often
  noise: tuple[float, float] = (1.0, 30.0)  # Gaussian: deviation in 8-bit levels
  shots: tuple[float, float] = (0.05, 3.0)  # scale of `blurring.shot_deviation`
  gaussian: float = 0.5  # share of images with Gaussian noise; others: Poisson noise
  grey: float = 0.4  # share of images with the same noise in all channels
  quality: tuple[float, float] = (30.0, 95.0)  # of JPEG, 1 to 100
  halved: float = 1.0  # share of images whose chroma JPEG stores at half the size


FIRST = Order()
SECOND = Order(
  blurred=0.8,
  sigma=(0.2, 1.5),
  factor=(0.3, 1.2),
  up_down=(0.3, 0.4),
  noise=(1.0, 25.0),
  shots=(0.05, 2.5),
)

# For pictures that were handled well: a lens that is a little soft, the noise of a
# bright day, JPEG as cameras and web pages use it.
MILD = Order(
  blurred=0.5,
  sigma=(0.2, 2.0),
  sinc=0.0,
  factor=(1.0, 1.0),
  up_down=(0.0, 0.0),
  kernels=('bicubic',),
  noise=(0.0, 3.0),
  gaussian=1.0,
  quality=(60.0, 100.0),
  halved=0.5,
)


def second_order(
  key: jax.Array,
  hr: jax.Array,
  *,
  scale: int,
  orders: tuple[Order, ...] = (FIRST, SECOND),
  final_sinc: float = 0.8,
) -> jax.Array:
  """Degrade images by rounds of blur, resize, noise and JPEG.

  The last round resizes to near the target size, and ends with the resize to that size,
  a low-pass filter that rings, and JPEG; the JPEG comes before the other two in half of
  the images. Between the rounds an image really has its random size, so that noise has
  the grain and JPEG the blocks of that size: it lies in the corner of a canvas as large
  as the largest factor makes it, whose rest repeats it mirrored. Unlike the authors'
  code, downsampling is anti-aliased.

  Args:
    key: [B] keys.
    hr: [B, H, W, 3] in [-1, 1].
    scale: side over side of the result; 1 keeps the size.
    orders: the rounds, first to last; a single one is the classical degradation.
    final_sinc: share of images that end with the low-pass filter.

  Raises:
    ValueError: a side that scale does not divide.
  """
  target = resizing.downsampled_size(hr, scale)
  height, width = hr.shape[1:3]
  image, extent = hr, _full((height, width), hr)
  *earlier, order = orders
  for index, each in enumerate(earlier):
    one = blurring.fold_in(key, index)
    image, extent, jpeg_uniforms = _round(one, image, extent, (height, width), each)
    image = _compressed(jpeg_uniforms, image, each)
  one = blurring.fold_in(key, len(earlier))
  image, extent, jpeg_uniforms = _round(one, image, extent, target, order)

  early, kernel, cutoff, ringing = _uniforms(blurring.fold_in(key, len(orders)), 4)
  early = blurring.per_example(early < 0.5)
  image = jnp.where(early, _compressed(jpeg_uniforms, image, order), image)
  image = _resample(kernel, image, extent, _full(target, hr), target, order)
  size = SIZES[1]
  filters = sinc_kernels(_between(cutoff, CUTOFF), size)
  filters = _select(ringing < final_sinc, filters, _impulse(size))
  image = jnp.clip(blurring.convolve(image, filters), -1, 1)
  return jnp.where(early, image, _compressed(jpeg_uniforms, image, order))


def sinc_kernels(cutoff: jax.Array, size: int) -> jax.Array:
  """Return ideal low-pass filters, circular: cutoff * J1(cutoff * r) / (2 pi r).

  They are [B, size, size], and each sums to 1.

  Args:
    cutoff: [B], radians a pixel, up to pi.
    size: odd side, at most 21.
  """
  offset = blurring.offsets(size)
  radius = jnp.hypot(offset[:, None], offset[None])
  x = cutoff[:, None, None] * jnp.maximum(radius, 1e-3)[None]
  # Bessel's integral over a period; with 96 nodes as exact as float32 up to x = 60.
  node = 2 * jnp.pi * jnp.arange(96)[None, None, None] / 96
  sine = jnp.sin(node)
  return blurring.unit_sum(jnp.mean(sine * jnp.sin(x[..., None] * sine), -1) / x)


def blur_kernels(key: jax.Array, order: Order) -> jax.Array:
  """Draw kernels [B, 21, 21] of one round; the unit impulse stands for no blur."""
  size = SIZES[1]
  kind, along, across, angle, generalised, plateau, *others = _uniforms(key, 10)
  side, cutoff, ringing, blurred = others
  kind = _choices(kind, sum(SHAPE_SHARES, ()))
  shape, turned = kind // 2, kind % 2 == 1
  along, across = _between(along, order.sigma), _between(across, order.sigma)
  distance = blurring.squared_radius(
    along, jnp.where(turned, across, along), _between(angle, (-math.pi, math.pi)), size
  )
  generalised = _between(generalised, GENERALISED)[:, None, None]
  plateau = _between(plateau, PLATEAU)[:, None, None]
  kernels = jnp.select(
    [shape[:, None, None] == index for index in range(2)],
    [jnp.exp(-distance / 2), jnp.exp(-(distance**generalised) / 2)],
    1 / (1 + distance**plateau),
  )
  half = jnp.floor(_between(side, (SIZES[0] // 2, SIZES[1] // 2 + 1)))
  # The cut-off goes lower where the kernel is large enough to show it.
  lowest = jnp.where(half < 6, CUTOFF[0], math.pi / 5)
  filters = sinc_kernels(_between(cutoff, (lowest, CUTOFF[1])), size)
  kernels = _select(ringing < order.sinc, filters, kernels)
  inside = jnp.abs(jnp.arange(size) - size // 2)[None] <= half[:, None]
  kernels = blurring.unit_sum(kernels * (inside[:, :, None] & inside[:, None, :]))
  return _select(blurred < order.blurred, kernels, _impulse(size))


def _round(
  key: jax.Array,
  image: jax.Array,
  extent: jax.Array,
  base: tuple[int, int],
  order: Order,
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
  """Blur, resize and add noise.

  Args:
    key: [B].
    image: [B, h, w, C], a canvas.
    extent: [B, 2], height and width of the part of it that is the image.
    base: height and width at the factor 1.
    order: this round.

  Returns:
    A canvas that holds `base` times the largest factor, the extent [B, 2] of the image
    in it, and the random numbers of the JPEG that follows.
  """
  drawn = _uniforms(blurring.fold_in(key, 0), 8)
  direction, factor, kernel, grey, strength, gaussian, *jpeg_uniforms = drawn
  image = blurring.convolve(image, blur_kernels(blurring.fold_in(key, 1), order))
  (low, high), (up, down) = order.factor, order.up_down
  factor = jnp.select(
    [direction < up, direction < up + down],
    [_between(factor, (1, max(high, 1))), _between(factor, (low, min(high, 1)))],
    1.0,
  )
  resized = jnp.maximum(jnp.round(factor[:, None] * _full(base, image)), 1)
  height, width = (math.ceil(side * max(high, 1)) for side in base)
  image = _resample(kernel, image, extent, resized, (height, width), order)

  grey = grey < order.grey
  even = blurring.per_example(_between(strength, order.noise) / 127.5)
  shots = blurring.shot_deviation(image, _between(strength, order.shots), grey)
  deviation = jnp.where(blurring.per_example(gaussian < order.gaussian), even, shots)
  image = image + blurring.normal(blurring.fold_in(key, 2), image, grey) * deviation
  return jnp.clip(image, -1, 1), resized, jpeg_uniforms


def _compressed(uniforms: list[jax.Array], image: jax.Array, order: Order) -> jax.Array:
  """Return an image after JPEG, with two random numbers [B] for quality and chroma."""
  quality = _between(uniforms[0], order.quality)
  return jpeg.compress(image, quality, uniforms[1] < order.halved)


def _resample(
  uniform: jax.Array,
  image: jax.Array,
  before: jax.Array,
  after: jax.Array,
  canvas: tuple[int, int],
  order: Order,
) -> jax.Array:
  """Resize the corner `before` [B, 2] of canvases to `after` [B, 2] of new ones."""
  count = len(order.kernels)
  choice = _choices(uniform, (1 / count,) * count)
  for axis, side in enumerate(canvas):
    out, pixel, ratio = _grids(
      before[:, axis], after[:, axis], image.shape[1 + axis], side
    )
    weights = jnp.select(
      [choice[:, None, None] == index for index in range(count)],
      [_KERNELS[name](out, pixel, ratio) for name in order.kernels],
    )
    weights = weights * (pixel < before[:, axis, None, None])
    weights = weights / jnp.sum(weights, 2, keepdims=True)
    equation = ('bih,bhwc->biwc', 'bjw,bhwc->bhjc')[axis]
    image = jnp.einsum(equation, weights, image, precision='highest')
  return image


def _grids(
  before: jax.Array, after: jax.Array, inputs: int, outputs: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Return new pixels [B, outputs, 1], old ones [1, 1, inputs], old size / new size."""
  before, after = before[:, None, None], after[:, None, None]
  # Beyond its end the new image goes on mirrored.
  out = jnp.mod(jnp.arange(outputs, dtype=jnp.float32)[None, :, None], 2 * after)
  out = jnp.minimum(out, 2 * after - 1 - out)
  pixel = jnp.arange(inputs, dtype=jnp.float32)[None, None]
  return out, pixel, before / after


def _area(out: jax.Array, pixel: jax.Array, ratio: jax.Array) -> jax.Array:
  """Return the share of each old pixel in the area of each new one."""
  end = jnp.minimum((out + 1) * ratio, pixel + 1)
  return jnp.maximum(end - jnp.maximum(out * ratio, pixel), 0)


def _distance(out: jax.Array, pixel: jax.Array, ratio: jax.Array) -> jax.Array:
  """Return distances between pixels; the unit is a pixel of the coarser grid."""
  return jnp.abs((out + 0.5) * ratio - 0.5 - pixel) / jnp.maximum(ratio, 1)


def _linear(out: jax.Array, pixel: jax.Array, ratio: jax.Array) -> jax.Array:
  """Evaluate a triangle, 2 pixels wide."""
  return jnp.maximum(1 - _distance(out, pixel, ratio), 0)


def _cubic(out: jax.Array, pixel: jax.Array, ratio: jax.Array) -> jax.Array:
  """Evaluate Keys' cubic with a = -1/2, as Pillow's and JAX's."""
  x = _distance(out, pixel, ratio)
  near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
  return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))


_KERNELS = {'area': _area, 'bilinear': _linear, 'bicubic': _cubic}


def _full(size: tuple[int, int], image: jax.Array) -> jax.Array:
  """Return the extent [B, 2] of images that fill their canvas."""
  return jnp.broadcast_to(jnp.array(size, jnp.float32), (image.shape[0], 2))


def _impulse(size: int) -> jax.Array:
  """Return the kernel [1, size, size] that changes nothing."""
  return jnp.zeros((1, size, size)).at[:, size // 2, size // 2].set(1)


def _select(choice: jax.Array, kernels: jax.Array, others: jax.Array) -> jax.Array:
  """Return `kernels` where `choice` [B] is true, else `others`."""
  return jnp.where(choice[:, None, None], kernels, others)


def _uniforms(key: jax.Array, count: int) -> list[jax.Array]:
  """Draw `count` times [B] numbers in [0, 1), all at once, which compiles fast."""
  drawn = jax.vmap(lambda one: jax.random.uniform(one, (count,)))(key)
  return [drawn[:, index] for index in range(count)]


def _between(uniform: jax.Array, ends: tuple) -> jax.Array:
  """Return the number between two ends that lies at `uniform` of the way."""
  return ends[0] + uniform * (ends[1] - ends[0])


def _choices(uniform: jax.Array, shares: tuple[float, ...]) -> jax.Array:
  """Return [B] indices into `shares`, which sum to 1, each as often as its share."""
  limits = jnp.cumsum(jnp.array(shares))[:-1]
  return jnp.sum(uniform[:, None] >= limits[None], 1)
