"""Turns pixels as files have them into floats and back, and into pictures."""

from typing import Any

import numpy as np
from PIL import Image

from sr3_jax.runtime.errors import UserError


class ImageError(UserError):
  """One line: which file, what is wrong with it."""


def to_float(image: Any) -> Any:
  """uint8 or uint16 -> float32 in [-1, 1]; NumPy or (traced) JAX arrays."""
  return image.astype(np.float32) / (np.iinfo(image.dtype).max / 2) - 1.0


def to_uint8(image: Any) -> np.ndarray:
  """Float in [-1, 1] -> uint8 NumPy array: clipped, rounded to nearest."""
  image = np.asarray(image).astype(np.float32)
  return np.clip(np.round((image + 1.0) * 127.5), 0, 255).astype(np.uint8)


def to_picture(image: Any) -> np.ndarray:
  """Images of any number of channels as pictures.

  One channel is grey; two are magenta and green, which give white together; of more
  the first three are red, green and blue.

  Args:
    image: float `[..., H, W, C]` in [-1, 1].

  Returns:
    uint8 `[..., H, W, 3]`.
  """
  pixels = to_uint8(image)
  channels = pixels.shape[-1]
  return pixels[..., {1: [0, 0, 0], 2: [0, 1, 0]}.get(channels, [0, 1, 2])]


def to_pillow(image: np.ndarray) -> Image.Image:
  """uint8 `[H, W, C]` or `[H, W]` -> Pillow."""
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
    raise ImageError(f'not an image: {image.dtype} array of shape {image.shape}')
  return Image.fromarray(image)
