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
