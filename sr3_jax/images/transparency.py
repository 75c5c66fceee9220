"""Keeps what lies under transparent pixels from showing.

A transparent pixel still has a colour in its file: black, or whatever was there before
somebody erased it. Networks and kernels mix colours of neighbours, so that it would
show at the edges. Here it is replaced by the colours of the visible pixels around it.
"""

import numpy as np

# Colours of pixels more transparent than this count less, because premultiplied files
# hold them with a few levels. On any background that changes no pixel by more than one
# level of 255.
_FAINT = 4 / 255


def extend_colours(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Replace the colours of transparent pixels by those of visible pixels around them.

  Means of blocks of 2 x 2, 4 x 4 and so on, weighted by visibility, are interpolated
  from coarse to fine. Pixels of 4/255 opacity or more stay exactly as they are.

  Args:
    pixels: float32 [h, w, C], not premultiplied with alpha.
    alpha: float32 [h, w] in [0, 1], 0 is transparent.

  Returns:
    float32 [h, w, C]; `pixels` itself if all are visible. If none is, all are 0.
  """
  weight = np.minimum(alpha / np.float32(_FAINT), 1)[..., None]
  if weight.min() >= 1:
    return pixels
  # Where the weight is 0 there may be any value, in rasters even NaN.
  return _fill(np.where(weight > 0, pixels, np.float32(0)), weight)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Lay float [h, w, C] in [-1, 1] over white, by its alpha [h, w] in [0, 1]."""
  return 1 + (pixels - 1) * alpha[..., None]


def _fill(pixels: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Mix pixels [h, w, C] of weights [h, w, 1] with means of what is around them."""
  height, width = weight.shape[:2]
  if weight.min() >= 1 or height == width == 1:
    return pixels * np.ceil(weight)
  even = ((0, height % 2), (0, width % 2), (0, 0))
  weights, sums = (_blocks(np.pad(a, even)) for a in (weight, pixels * weight))
  means = sums / np.maximum(weights, np.finfo(np.float32).tiny)
  around = _double(_fill(means, np.minimum(weights, 1)))[:height, :width]
  return np.where(weight >= 1, pixels, around + weight * (pixels - around))


def _blocks(array: np.ndarray) -> np.ndarray:
  """Return the sums of blocks of 2 x 2 of [h, w, C] with even sides."""
  array = array[::2] + array[1::2]
  return array[:, ::2] + array[:, 1::2]


def _double(array: np.ndarray) -> np.ndarray:
  """Return an array [h, w, C] twice as large, linearly interpolated."""
  for axis in (0, 1):
    array = array.swapaxes(0, axis)
    before = np.concatenate([array[:1], array[:-1]])
    after = np.concatenate([array[1:], array[-1:]])
    pairs = np.stack([(3 * array + before) / 4, (3 * array + after) / 4], 1)
    array = pairs.reshape(-1, *array.shape[1:]).swapaxes(0, axis)
  return array
