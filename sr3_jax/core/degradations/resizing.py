"""Resizing with anti-aliasing, as Pillow does it."""

import jax
import jax.numpy as jnp

from sr3_jax.images import resizing

# Our names of kernels -> jax.image's.
RESIZE = {'bicubic': 'cubic', 'bilinear': 'linear', 'lanczos': 'lanczos3'}


def resize(
  image: jax.Array, height: int, width: int, kernel: str = 'bicubic'
) -> jax.Array:
  """Resizing with anti-aliasing; equals Pillow's of that name on float images."""
  shape = (image.shape[0], height, width, image.shape[3])
  return jax.image.resize(image, shape, method=RESIZE[kernel], antialias=True)


def nearest_consistent(image: jax.Array, small: jax.Array) -> jax.Array:
  """The image nearest to `image` [B, H, W, C] whose bicubic reduction is `small`.

  image + P (small - R image), for the reduction R and its pseudoinverse P, as DDNM
  (arXiv:2212.00490) corrects estimates. Not clipped.
  """
  down_rows, up_rows = resizing.downsampling_matrices(image.shape[1], small.shape[1])
  down_columns, up_columns = resizing.downsampling_matrices(
    image.shape[2], small.shape[2]
  )
  apply = lambda a, rows, columns: jnp.einsum(
    'hH,bHWc,wW->bhwc', rows, a, columns, precision='highest'
  )
  missing = small - apply(image, down_rows, down_columns)
  return image + apply(missing, up_rows, up_columns)


def area(image: jax.Array, factor: int) -> jax.Array:
  """Means of blocks, [B, H, W, C] -> [B, H / factor, W / factor, C].

  Raises:
    ValueError: a side that factor does not divide.
  """
  batch, height, width, channels = image.shape
  if height % factor or width % factor:
    raise ValueError(f'images of {height} x {width} cannot be made {factor}x smaller')
  blocks = image.reshape(batch, height // factor, factor, width // factor, factor, -1)
  return blocks.mean((2, 4)).reshape(batch, height // factor, -1, channels)
