"""Resizes images with anti-aliasing, as Pillow does."""

import functools

import jax
import jax.numpy as jnp

from sr3_jax.images import resizing

# Our names of kernels -> jax.image's.
RESIZE = {'bicubic': 'cubic', 'bilinear': 'linear', 'lanczos': 'lanczos3'}


def resize(
  image: jax.Array, height: int, width: int, kernel: str = 'bicubic'
) -> jax.Array:
  """Resize images with anti-aliasing; equals Pillow's kernel on float images.

  `kernel` is a key of `RESIZE`; others than 'bilinear' may overshoot the range.
  [B, H, W, C] becomes [B, height, width, C].
  """
  shape = (image.shape[0], height, width, image.shape[3])
  return jax.image.resize(image, shape, method=RESIZE[kernel], antialias=True)


def nearest_consistent(image: jax.Array, small: jax.Array) -> jax.Array:
  """Return the image nearest to `image` whose bicubic downsampling is `small`.

  It is image + P (small - R image), for the downsampling R and its pseudoinverse P, as
  DDNM (arXiv:2212.00490) corrects predictions of y0. Nothing is clipped.
  """
  down_rows, up_rows = resizing.downsampling_matrices(image.shape[1], small.shape[1])
  down_columns, up_columns = resizing.downsampling_matrices(
    image.shape[2], small.shape[2]
  )
  apply = functools.partial(jnp.einsum, 'hH,bHWc,wW->bhwc', precision='highest')
  missing = small - apply(down_rows, image, down_columns)
  return image + apply(up_rows, missing, up_columns)


def area(image: jax.Array, factor: int) -> jax.Array:
  """Return the means of blocks: [B, H, W, C] to [B, H / factor, W / factor, C].

  Raises:
    ValueError: a side that factor does not divide.
  """
  batch, _, _, channels = image.shape
  height, width = downsampled_size(image, factor)
  blocks = image.reshape(batch, height, factor, width, factor, channels)
  return blocks.mean((2, 4))


def downsampled_size(image: jax.Array, factor: int) -> tuple[int, int]:
  """Return the height and width of images [B, H, W, C], downsampled `factor` times.

  Raises:
    ValueError: a side that factor does not divide.
  """
  height, width = image.shape[1:3]
  if height % factor or width % factor:
    raise ValueError(f'images of {height} x {width} cannot be downsampled {factor}x')
  return height // factor, width // factor
