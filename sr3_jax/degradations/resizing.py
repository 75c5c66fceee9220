"""Resizing with anti-aliasing, as Pillow does it."""

import jax

# Our names of kernels -> jax.image's.
RESIZE = {'bicubic': 'cubic', 'bilinear': 'linear', 'lanczos': 'lanczos3'}


def resize(
  image: jax.Array, height: int, width: int, kernel: str = 'bicubic'
) -> jax.Array:
  """Resizing with anti-aliasing; equals Pillow's of that name on float images."""
  shape = (image.shape[0], height, width, image.shape[3])
  return jax.image.resize(image, shape, method=RESIZE[kernel], antialias=True)
