"""Resizes arrays as Pillow does, and makes outputs that downsample to their input."""

import functools
import math

import numpy as np
from PIL import Image

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


@functools.lru_cache(maxsize=32)
def shrinking(length: int, small: int) -> tuple[np.ndarray, np.ndarray]:
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
  down_rows, up_rows = shrinking(image.shape[0], small.shape[0])
  down_columns, up_columns = shrinking(image.shape[1], small.shape[1])
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
