"""Puts images on canvases: makes arguments of the program in `canvas`.

Shapes are as there, and M is a number of tiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sr3_jax.core.sr3 import SR3
from sr3_jax.images import banded, resizing
from sr3_jax.images.banded import Windows
from sr3_jax.restoration import tiling
from sr3_jax.restoration.tiling import CELL, Layout, Planner, Size, round_up
from sr3_jax.runtime.types import Array


class Item(NamedTuple):
  """One run of the model: one sample of one image."""

  condition: np.ndarray  # float32 [h, w, K]
  seed: tuple[int, int, int, int]  # all its noise is made from these
  label: int  # class; ignored by models without


class Downsampling(NamedTuple):
  """Holds what makes images on canvases agree with conditions; all float32."""

  condition: Array  # [N, h, w, C]; h, w: multiples of `low_rows`
  # Matrices of `images.banded`, with blocks of `low_rows` and of CELL rows.
  down_rows: Array  # [N, h / r, r, V], downsamples columns of pixels
  down_columns: Array  # [N, w / r, r, V], downsamples rows of pixels
  up_rows: Array  # [N, H / CELL, CELL, V], right inverse of down_rows
  up_columns: Array  # [N, W / CELL, CELL, V], right inverse of down_columns


class Canvases(NamedTuple):
  """The images of one device."""

  x: Array  # float32 [N, H, W, K], upsampled conditions; H, W: multiples of CELL
  seed: Array  # uint32 [N, 4], `Item.seed`
  label: Array  # int32 [N]
  strips: np.int32  # how many strips of CELL rows are in use
  guidance: np.float32 | None  # how much the class counts; None for no guidance
  downsampling: Downsampling | None  # None where predictions are not corrected


class Tiles(NamedTuple):
  """Tiles of canvases, or a batch of them."""

  corners: Array  # int32 [M, 3]: image, top, left
  rows: Array  # float32 [M, tile height], blending windows along the height
  columns: Array  # float32 [M, tile width], blending windows along the width

  @property
  def size(self) -> Size:
    """Height and width of a tile."""
    return self.rows.shape[1], self.columns.shape[1]


class Work(NamedTuple):
  """The tiles that one device works on, and how many batches of them there are."""

  tiles: Tiles
  num_batches: np.int32


def upsample(model: SR3, condition: np.ndarray) -> np.ndarray:
  """Return x: a condition [h, w, K] at the size of the output, [H, W, K]."""
  if model.scale == 1:
    return model.fill(condition[None])[0]
  height, width = (model.scale * side for side in condition.shape[:2])
  return resizing.resize(condition, height, width, model.upsampling)


def make_canvases(
  model: SR3,
  plan: Planner,
  layout: Layout,
  items: Sequence[Item],
  consistency: bool,
  guidance: float | None,
) -> Canvases:
  """Return the canvases of one device with their images on them, as NumPy arrays."""
  count, height, width = layout.images, layout.height, layout.width
  inputs = model.task.num_channels(model.input_channels)
  x = np.zeros((count, height, width, inputs), np.float32)
  used = 0
  for k, item in enumerate(items):
    rows, columns = plan.cover(plan.output(item.condition.shape[:2]), layout)
    full = rows[0][-1] + layout.tile[0], columns[0][-1] + layout.tile[1]
    x[k, : full[0], : full[1]] = tiling.mirror(upsample(model, item.condition), *full)
    used = max(used, full[0])
  spare = count - len(items)
  return Canvases(
    x=x,
    seed=np.array([item.seed for item in items] + [(0,) * 4] * spare, np.uint32),
    label=np.array([item.label for item in items] + [0] * spare, np.int32),
    strips=np.int32(-(-used // CELL)),
    guidance=None if guidance is None else np.float32(guidance),
    downsampling=_downsampling(model, layout, items) if consistency else None,
  )


def low_rows(scale: int) -> int:
  """Return how many rows of a condition are corrected at a time."""
  return max(1, CELL // scale)


def windows(scale: int, side: int) -> tuple[Windows, Windows]:
  """Return the windows of downsampling a side of a canvas, and of its inverse."""
  rows = low_rows(scale)
  blocks = -(-side // (scale * rows))
  down = banded.down_windows(blocks, rows, scale, side)
  return down, banded.up_windows(side // CELL, CELL, scale, blocks * rows)


def _downsampling(model: SR3, layout: Layout, items: Sequence[Item]) -> Downsampling:
  """Return the conditions of one device, and the matrices that downsample to them."""
  scale, rows, count = model.scale, low_rows(model.scale), layout.images
  sides = layout.height, layout.width
  low = [round_up(-(-side // scale), rows) for side in sides]
  condition = np.zeros((count, *low, model.channels), np.float32)
  for k, item in enumerate(items):
    h, w = item.condition.shape[:2]
    condition[k, :h, :w] = model.observed(item.condition)
  matrices: list[list[np.ndarray]] = [[], []]
  for axis, side in enumerate(sides):
    down, up = windows(scale, side)
    shape = count, len(down.starts), rows, down.width
    downs = np.zeros(shape, np.float32)
    ups = np.zeros((count, len(up.starts), CELL, up.width), np.float32)
    for k, item in enumerate(items):
      small = item.condition.shape[axis]
      downs[k] = banded.down_matrices(scale * small, small, rows, down)
      ups[k] = banded.up_matrices(scale * small, small, CELL, up)
    matrices[0].append(downs)
    matrices[1].append(ups)
  return Downsampling(condition, *matrices[0], *matrices[1])


def tiles_of(plan: Planner, layout: Layout, items: Sequence[Item]) -> Tiles:
  """Return all tiles of the images of one device."""
  tiles = [
    ((k, top, left), row_window, column_window)
    for k, item in enumerate(items)
    for rows, columns in [plan.cover(plan.output(item.condition.shape[:2]), layout)]
    for top, row_window in zip(*rows, strict=True)
    for left, column_window in zip(*columns, strict=True)
  ]
  corners, rows, columns = zip(*tiles, strict=True) if tiles else ((), (), ())
  return Tiles(
    np.array(corners, np.int32).reshape(-1, 3),
    np.array(rows, np.float32).reshape(-1, layout.tile[0]),
    np.array(columns, np.float32).reshape(-1, layout.tile[1]),
  )


def make_work(tiles: Tiles, capacity: int, batch: int) -> Work:
  """Return the work of one device: its tiles in arrays of `capacity` tiles.

  Windows of tiles that are not there are 0, so that they add nothing.
  """
  count = len(tiles.corners)
  padded = (np.pad(array, ((0, capacity - count), (0, 0))) for array in tiles)
  return Work(Tiles(*padded), np.int32(-(-count // batch)))
