"""Resizes arrays as Pillow does, and makes outputs that downsample to their input."""

import functools
import math

import numpy as np
from PIL import Image

from sr3_jax.images.pixels import to_pillow

KERNELS = {
  'bicubic': Image.Resampling.BICUBIC,
  'bilinear': Image.Resampling.BILINEAR,
  'lanczos': Image.Resampling.LANCZOS,
}


def resize(
  image: np.ndarray, height: int, width: int, kernel: str = 'bicubic'
) -> np.ndarray:
  """Pillow's anti-aliased resizing of float32 [h, w, C]; not clipped.

  Equals `degradations.resize`, without a program to compile for each size.
  """
  if image.shape[:2] == (height, width):
    return image
  planes = [
    Image.fromarray(np.ascontiguousarray(image[..., c], np.float32)).resize(
      (width, height), KERNELS[kernel]
    )
    for c in range(image.shape[-1])
  ]
  return np.stack([np.asarray(plane) for plane in planes], axis=-1)


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


@functools.lru_cache(maxsize=32)
def downsampling_matrices(length: int, small: int) -> tuple[np.ndarray, np.ndarray]:
  """Bicubic reduction along one axis as a matrix, and its right inverse.

  Returns:
    down: float32 [small, length]; `down @ column` is Pillow's bicubic reduction.
    up: float32 [length, small], the pseudoinverse: down @ up = 1, so that adding
      up @ (wanted - down @ column) makes `column` reduce to `wanted` exactly, and no
      smaller change does.
  """
  identity = np.eye(length, dtype=np.float32)[..., None]
  down = resize(identity, small, length)[..., 0].astype(np.float64)
  up = np.linalg.solve(down @ down.T, down).T
  return down.astype(np.float32), up.astype(np.float32)


def make_consistent(
  image: np.ndarray, small: np.ndarray, iterations: int = 40
) -> np.ndarray:
  """An image near `image`, in [-1, 1], whose bicubic reduction is `small`.

  Corrects by the pseudoinverse and clips, in turns, with Nesterov's acceleration. Where
  no image in range reduces to `small` (stripes of one pixel in pure black and white do
  not come from any), it comes as near as clipping allows.

  Args:
    image: [H, W, C].
    small: [h, w, C], h <= H, w <= W, in [-1, 1].
    iterations: at most this many; it ends when no pixel of the reduction is off by a
      tenth of an 8-bit level.

  Returns:
    float32 [H, W, C] in [-1, 1].
  """
  down_rows, up_rows = downsampling_matrices(image.shape[0], small.shape[0])
  down_columns, up_columns = downsampling_matrices(image.shape[1], small.shape[1])
  # Matrix products over planes: BLAS, many times faster than einsum over pixels.
  planes = lambda a: np.moveaxis(np.asarray(a, np.float32), -1, 0)
  small = planes(small)
  missing = lambda a: small - down_rows @ a @ down_columns.T
  now = ahead = np.clip(planes(image), -1, 1)
  momentum = 1.0
  for _ in range(iterations):
    before, error = now, missing(ahead)
    now = np.clip(ahead + up_rows @ error @ up_columns.T, -1, 1)
    if np.abs(missing(now)).max() < 0.1 / 127.5:
      break
    faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
    ahead = now + (momentum - 1) / faster * (now - before)
    momentum = faster
  return np.moveaxis(now, 0, -1)
