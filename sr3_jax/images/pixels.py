"""Converts pixels: integers of files, floats of networks, pictures for people."""

from collections.abc import Callable
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.types import Array

if TYPE_CHECKING:  # processes that read images start without JAX
  import jax

# Values that are converted at a time.
_PART = 2**20


# Stored values that mean -1 and 1, [C] each; None: the ends of the type of integer.
Range = tuple[np.ndarray, np.ndarray] | None


class ImageError(UserError):
  """One line that says which image file or array is wrong, and what is wrong."""


@overload
def to_float(image: np.ndarray) -> np.ndarray: ...


@overload
def to_float(image: 'jax.Array') -> 'jax.Array': ...


def to_float(image: Array) -> Array:
  """Convert uint8 or uint16 [...] to float32 in [-1, 1], in NumPy or in JAX."""
  return image.astype(np.float32) / (np.iinfo(image.dtype).max / 2) - 1.0


def from_stored(stored: 'jax.Array', value_range: Range) -> 'jax.Array':
  """Convert stored values [B, H, W, C] to float32, those of a range to -1 and 1."""
  if value_range is None:
    return to_float(stored)
  low, high = (limit.reshape(1, 1, 1, -1) for limit in value_range)
  return (stored.astype(np.float32) - low) * (2 / (high - low)) - 1


def to_uint8(image: npt.ArrayLike) -> np.ndarray:
  """Convert float [...] in [-1, 1] to uint8, clipped and rounded to nearest."""

  def convert(part: np.ndarray) -> np.ndarray:
    part = (part.astype(np.float32) + np.float32(1)) * np.float32(127.5)
    return np.clip(np.round(part), 0, 255)

  return by_parts(convert, np.asarray(image), np.uint8)


def by_parts(
  convert: Callable[[np.ndarray], np.ndarray], array: np.ndarray, dtype: npt.DTypeLike
) -> np.ndarray:
  """Convert an array value by value, some rows at a time, to save memory.

  `convert` maps a part to as many values, which are stored as `dtype`.
  """
  if array.size <= _PART or array.ndim < 2:
    return convert(array).astype(dtype)
  made = np.empty(array.shape, dtype)
  rows = max(1, _PART * len(array) // array.size)
  for start in range(0, len(array), rows):
    made[start : start + rows] = convert(array[start : start + rows])
  return made


def to_picture(image: npt.ArrayLike) -> np.ndarray:
  """Convert images of any number of channels to pictures that people can look at.

  One channel becomes grey. Two become magenta and green, which give white together. The
  first three of three or more become red, green and blue.

  Args:
    image: float `[..., H, W, C]` in [-1, 1].

  Returns:
    uint8 `[..., H, W, 3]`.
  """
  pixels = to_uint8(image)
  channels = pixels.shape[-1]
  return pixels[..., {1: [0, 0, 0], 2: [0, 1, 0]}.get(channels, [0, 1, 2])]


def to_pillow(image: np.ndarray) -> Image.Image:
  """Convert uint8 `[H, W, C]` or `[H, W]` to a Pillow image.

  Raises:
    ImageError: another type, another number of axes, or no pixel.
  """
  if image.ndim == 3 and image.shape[-1] == 1:
    image = image[..., 0]
  if image.dtype != np.uint8 or image.ndim not in (2, 3) or not image.size:
    raise ImageError(f'not an image: {image.dtype} array of shape {image.shape}')
  return Image.fromarray(image)
