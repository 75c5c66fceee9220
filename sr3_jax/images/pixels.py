"""Turns pixels as files have them into floats and back, and resizes whole images."""

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


def center_square(image: np.ndarray) -> np.ndarray:
  """The largest central square of `[H, W, C]` (odd remainders: right and bottom)."""
  height, width = image.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  return image[top : top + side, left : left + side]


def resize_area(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
  """Area resampling (Pillow's BOX) of `[H, W, C]` to `size`.

  After `center_square` this is the preparation of ImageNet in the SR3 paper
  (section 4). Every source pixel belongs to one block, the one that its centre is in;
  a block becomes its mean, to within a level.

  Args:
    image: uint8, uint16 or float32 `[H, W, C]`, any C.
    size: one side of a square, or (height, width).

  Returns:
    The same type; integers are rounded.
  """
  height, width = (size, size) if isinstance(size, int) else size
  if image.shape[:2] == (height, width):
    return image
  sides, box = (width, height), Image.Resampling.BOX
  if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
    resized = np.array(to_pillow(image).resize(sides, box))
    return resized.reshape(height, width, image.shape[-1])
  # Pillow would take a second or fourth channel for transparency, and has no 16 bits.
  planes = [
    np.asarray(Image.fromarray(plane.astype(np.float32)).resize(sides, box))
    for plane in np.moveaxis(image, -1, 0)
  ]
  resized = np.stack(planes, -1)
  return np.round(resized).astype(image.dtype) if image.dtype.kind == 'u' else resized


def show(image: Any) -> np.ndarray:
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
