"""Resizes arrays as Pillow does, and makes images that downsample to given ones."""

import functools
import math

import numpy as np
from PIL import Image

from sr3_jax.images import banded
from sr3_jax.images.pixels import to_pillow

KERNELS = {
  'bicubic': Image.Resampling.BICUBIC,
  'bilinear': Image.Resampling.BILINEAR,
  'lanczos': Image.Resampling.LANCZOS,
}


def resize(
  image: np.ndarray, height: int, width: int, kernel: str = 'bicubic'
) -> np.ndarray:
  """Resize float32 [h, w, C] to [height, width, C] as Pillow does; don't clip.

  It is anti-aliased by one of KERNELS, and equals `core.degradations.resize` without a
  program to compile for each size.
  """
  if image.shape[:2] == (height, width):
    return image
  return _resize_planes(image, (width, height), KERNELS[kernel])


def _resize_planes(
  image: np.ndarray, sides: tuple[int, int], method: Image.Resampling
) -> np.ndarray:
  """Resize [H, W, C] to [*sides[::-1], C] of float32, each channel alone."""
  resized = np.empty((*sides[::-1], image.shape[-1]), np.float32)
  for k in range(image.shape[-1]):
    plane = Image.fromarray(image[..., k].astype(np.float32))
    resized[..., k] = plane.resize(sides, method)
  return resized


def center_square(image: np.ndarray) -> np.ndarray:
  """Return the largest central square of `[H, W, C]`, the upper or left of two."""
  height, width = image.shape[:2]
  side = min(height, width)
  top, left = (height - side) // 2, (width - side) // 2
  return image[top : top + side, left : left + side]


def resize_area(
  image: np.ndarray, size: int | tuple[int, int], by: str = 'shares'
) -> np.ndarray:
  """Resize `[H, W, C]` by area: each pixel becomes the mean of a block.

  After `center_square` this is how the SR3 paper (section 4) prepares ImageNet. A block
  may end inside of a pixel. Means are exact to within a level.

  Args:
    image: uint8, uint16 or float32 `[H, W, C]`, any C.
    size: one side of a square, or (height, width).
    by: 'shares': a pixel counts by its share that lies in the block, as in the area
      resizing of OpenCV and TensorFlow. 'pixels': it belongs to the one block that its
      centre is in (Pillow's BOX); where a block is not a whole number of pixels, the
      result is sharper and jagged. Models of before there was a choice have it.

  Returns:
    The same type; integers are rounded.
  """
  height, width = (size, size) if isinstance(size, int) else size
  if image.shape[:2] == (height, width):
    return image
  whole = not (image.shape[0] % height or image.shape[1] % width)
  if by == 'shares' and not whole:
    return _resize_by_shares(image, height, width)
  sides, box = (width, height), Image.Resampling.BOX
  if image.dtype == np.uint8 and image.shape[-1] in (1, 3):
    resized = np.array(to_pillow(image).resize(sides, box))
    return resized.reshape(height, width, image.shape[-1])
  # Pillow takes a second or fourth channel for transparency, and has no 16 bits.
  resized = _resize_planes(image, sides, box)
  return np.round(resized).astype(image.dtype) if image.dtype.kind == 'u' else resized


def _resize_by_shares(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resize by means of blocks, in which pixels count by their shares."""
  channels = image.shape[2]
  flat = image.reshape(len(image), -1)  # long rows: NumPy is slow with short axes
  rows = np.zeros((height, flat.shape[1]), np.float32)
  for place, share in zip(*_shares(image.shape[0], height), strict=True):
    part = flat[place].astype(np.float32)
    part *= share[:, None]
    rows += part
  resized = np.zeros((height, width * channels), np.float32)
  for place, share in zip(*_shares(image.shape[1], width), strict=True):
    columns = place[:, None] * channels + np.arange(channels)
    part = rows.take(columns.ravel(), axis=1)
    part *= np.repeat(share, channels)
    resized += part
  if image.dtype.kind == 'u':
    np.rint(resized, out=resized)
  return resized.reshape(height, width, channels).astype(image.dtype)


@functools.lru_cache(maxsize=256)
def _shares(length: int, small: int) -> tuple[np.ndarray, np.ndarray]:
  """Return which pixels lie in each block of an axis, and their shares of its mean.

  Both are [n, small], for the n pixels that at most lie in a block; some have share 0.
  Blocks are cut in units of 1 / small of a pixel, so that nothing is rounded.
  """
  start = np.arange(small) * length
  first, last = start // small, -(-(start + length) // small)
  place = first + np.arange((last - first).max())[:, None]
  end = np.minimum((place + 1) * small, start + length)
  share = np.maximum(end - np.maximum(place * small, start), 0) / length
  return np.minimum(place, length - 1), share.astype(np.float32)


@functools.lru_cache(maxsize=32)
def downsampling_matrices(length: int, small: int) -> tuple[np.ndarray, np.ndarray]:
  """Return bicubic downsampling along one axis as a matrix, and its right inverse.

  Args:
    length: pixels of the axis.
    small: pixels after downsampling.

  Returns:
    `down`, float32 [small, length], so that `down @ column` downsamples as Pillow does;
    and `up`, float32 [length, small], its pseudoinverse: down @ up = 1. Adding
    up @ (wanted - down @ column) makes `column` downsample to `wanted` exactly, and no
    smaller change does.
  """
  identity = np.eye(length, dtype=np.float32)[..., None]
  down = resize(identity, small, length)[..., 0].astype(np.float64)
  up = np.linalg.solve(down @ down.T, down).T
  return down.astype(np.float32), up.astype(np.float32)


def make_consistent(
  image: np.ndarray, small: np.ndarray, iterations: int = 40
) -> np.ndarray:
  """Change an image as little as makes its bicubic downsampling `small`.

  It corrects by the pseudoinverse and clips, in turns, with Nesterov's acceleration. No
  image in range downsamples to some inputs, such as stripes of one pixel in pure black
  and white; then the result comes as near as clipping allows.

  Args:
    image: [H, W, C].
    small: [h, w, C], h <= H, w <= W, in [-1, 1].
    iterations: at most this many. It ends when no pixel of the downsampled result is
      off by a tenth of an 8-bit level.

  Returns:
    float32 [H, W, C] in [-1, 1].
  """
  down_rows, up_rows = banded.pair(image.shape[0], small.shape[0])
  down_columns, up_columns = banded.pair(image.shape[1], small.shape[1])
  # Matrix products over planes use BLAS, many times faster than einsum over pixels.
  small = np.moveaxis(np.asarray(small, np.float32), -1, 0)

  def missing(planes: np.ndarray) -> np.ndarray:
    error = np.empty(small.shape, np.float32)
    for part, rows in banded.multiply_rows(down_rows, planes):
      error[:, part] = small[:, part] - banded.multiply(down_columns, rows)
    return error

  def correct(planes: np.ndarray, error: np.ndarray) -> None:
    for part, rows in banded.multiply_rows(up_rows, error):
      planes[:, part] += banded.multiply(up_columns, rows)
    np.clip(planes, -1, 1, out=planes)

  # Two buffers take turns, because outputs may be as large as memory allows.
  now = np.array(np.moveaxis(image, -1, 0), np.float32, order='C')
  np.clip(now, -1, 1, out=now)
  ahead, momentum = now.copy(), 1.0
  for _ in range(iterations):
    before = now
    correct(ahead, missing(ahead))
    now = ahead
    if np.abs(missing(now)).max() < 0.1 / 127.5:
      break
    faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
    # now + (momentum - 1) / faster * (now - before), in the memory of `before`
    before -= now
    before *= (1 - momentum) / faster
    before += now
    ahead, momentum = before, faster
  return np.moveaxis(now, 0, -1)
