"""Bicubic downsampling and its right inverse as matrices of blocks.

Each pixel of a downsampled axis depends on a few neighbours, and the pseudoinverse
fades within a few pixels, too. So the matrices are stored as blocks along their
diagonal: the memory for them, and the time to multiply by them, grow with the length of
the axis, not with its square.

A matrix [n R, length] has n blocks of R rows. Block k multiplies the W neighbouring
pixels from `starts[k]` on; what lies outside of these windows is zero.
"""

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# How many low pixels an inverse looks beyond its own. Its weights there are less than
# 1e-6 of the largest, at every ratio from 1 on.
REACH = 16


class Windows(NamedTuple):
  """Which inputs the blocks of a matrix multiply."""

  starts: np.ndarray  # int32 [n]
  width: int  # of every window

  @property
  def indices(self) -> np.ndarray:
    """The inputs of every block, int32 [n, W]."""
    return self.starts[:, None] + np.arange(self.width, dtype=np.int32)


class Blocks(NamedTuple):
  """A matrix of blocks for one axis."""

  windows: Windows
  matrices: np.ndarray  # float32 [n, R, W]
  rows: int  # of the matrix: the last block may have more


def down_windows(blocks: int, rows: int, ratio: float, length: int) -> Windows:
  """Return the windows of a matrix that downsamples `length` pixels by `ratio`."""
  return _windows(blocks, rows, ratio, 2 * ratio + 2, length)


def up_windows(blocks: int, rows: int, ratio: float, small: int) -> Windows:
  """Return the windows of the right inverse, which reads `small` pixels."""
  return _windows(blocks, rows, 1 / ratio, REACH, small)


def _windows(
  blocks: int, rows: int, step: float, margin: float, length: int
) -> Windows:
  """Return windows that reach `margin` inputs beyond those below a block's rows.

  One row is `step` inputs further than the row before.
  """
  width = min(length, math.ceil(rows * step + 2 * margin) + 1)
  starts = np.floor(np.arange(blocks) * rows * step - margin)
  return Windows(np.clip(starts, 0, length - width).astype(np.int32), width)


def down_matrices(length: int, small: int, rows: int, windows: Windows) -> np.ndarray:
  """Return blocks that downsample `length` pixels to `small`, as Pillow does.

  Rows and inputs beyond these sizes are 0.

  Returns:
    float32 [n, rows, W].
  """
  made = np.zeros((len(windows.starts), rows, windows.width), np.float32)
  for k, start in enumerate(windows.starts):
    first, last = k * rows, min((k + 1) * rows, small)
    end = min(start + windows.width, length)
    if first >= last:
      break
    part = _bicubic(length, small, np.arange(first, last), np.arange(start, end))
    made[k, : last - first, : end - start] = part
  return made


def up_matrices(length: int, small: int, rows: int, windows: Windows) -> np.ndarray:
  """Return blocks of the pseudoinverse of downsampling `length` pixels to `small`.

  For the matrix D that downsamples, it is D' (D D')^-1. The inverse is that of the
  neighbourhood, which is as wide again as the window on both sides.

  Returns:
    float32 [n, rows, W].
  """
  made = np.zeros((len(windows.starts), rows, windows.width), np.float32)
  ratio = length / small
  known: dict[object, np.ndarray] = {}
  for k, start in enumerate(windows.starts):
    first, last = k * rows, min((k + 1) * rows, length)
    if first >= last:
      break
    low, high = max(0, start - REACH), min(small, start + windows.width + REACH)
    left = max(0, math.floor(low * ratio - 2 * ratio) - 2)
    right = min(length, math.ceil(high * ratio + 2 * ratio) + 2)
    # At a whole ratio all blocks that are away from the borders are the same.
    place = first - left, last - left, low - left / ratio, left == 0, right == length
    inside = length % small == 0 and not any(place[3:])
    if not inside or place not in known:
      down = _bicubic(length, small, np.arange(low, high), np.arange(left, right))
      up = np.linalg.solve(down @ down.T, down[:, first - left : last - left]).T
      known[place] = up[:, start - low : start - low + windows.width]
    made[k, : last - first, : known[place].shape[1]] = known[place]
  return made


def _bicubic(
  length: int, small: int, outputs: np.ndarray, inputs: np.ndarray
) -> np.ndarray:
  """Return a part of the downsampling matrix, float64 [outputs, inputs].

  The weights are Pillow's: Keys' kernel with a = -1/2, widened by the ratio and
  normalised. `inputs` must hold all that `outputs` depend on.
  """
  ratio = length / small
  centres = (outputs[:, None] + 0.5) * ratio
  wide = max(ratio, 1.0)
  x = np.abs(inputs + 0.5 - centres) / wide
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
  # Pillow begins and ends at whole pixels.
  begin = np.floor(centres - 2 * wide + 0.5)
  end = np.floor(centres + 2 * wide + 0.5)
  weights *= (inputs >= begin) & (inputs < end)
  return weights / weights.sum(1, keepdims=True)


@functools.lru_cache(maxsize=8)
def pair(length: int, small: int, rows: int = 128) -> tuple[Blocks, Blocks]:
  """Return downsampling from `length` to `small` pixels, and its right inverse.

  Blocks have about `rows` pixels of the longer axis.
  """
  ratio = length / small
  low = max(1, round(rows / ratio))
  count = -(-small // low)
  windows = down_windows(count, low, ratio, length)
  down = Blocks(windows, down_matrices(length, small, low, windows), small)
  windows = up_windows(-(-length // rows), rows, ratio, small)
  up = Blocks(windows, up_matrices(length, small, rows, windows), length)
  return down, up


def multiply(matrix: Blocks, planes: np.ndarray) -> np.ndarray:
  """Multiply planes by a matrix along their last axis: [..., length] -> [..., rows]."""
  rows = matrix.matrices.shape[1]
  out = np.empty((*planes.shape[:-1], matrix.rows), np.float32)
  for k, start in enumerate(matrix.windows.starts):
    part = out[..., k * rows : (k + 1) * rows]
    block = matrix.matrices[k, : part.shape[-1]]
    part[...] = planes[..., start : start + matrix.windows.width] @ block.T
  return out


def multiply_rows(
  matrix: Blocks, planes: np.ndarray
) -> Iterator[tuple[slice, np.ndarray]]:
  """Multiply planes [C, length, w] by a matrix along their columns, block by block.

  Yields:
    Slices of rows of the product, and these rows, float32 [C, R, w].
  """
  rows = matrix.matrices.shape[1]
  for k, start in enumerate(matrix.windows.starts):
    part = slice(k * rows, min((k + 1) * rows, matrix.rows))
    block = matrix.matrices[k, : part.stop - part.start]
    yield part, block @ planes[:, start : start + matrix.windows.width]
