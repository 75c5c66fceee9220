"""Geometry of large images: overlapping tiles, their windows, exact resizing.

NumPy only, computed once per image in float64; what runs at every step is in pipeline.
"""

import numpy as np

# Side of the cells in which a canvas's noise is drawn, and height of the strips in
# which it is updated: sides of canvases are multiples of it.
CELL = 32


def round_up(length: int, multiple: int) -> int:
  return -(-length // multiple) * multiple


def cover(
  length: int, tile: int, pad: int, multiple: int
) -> tuple[np.ndarray, np.ndarray]:
  """Tiles along one axis and how much each counts at each of its pixels.

  Neighbours overlap by at least 2 pad pixels. Over the middle half of the overlap one
  fades into the other; the outer quarter of a tile's overlap, pad / 2 pixels at its
  edge, counts for nothing, because there the network has seen too little. Where that
  is more than the network can see, the tiled estimate equals the untiled one.

  Args:
    length: pixels to cover.
    tile: side of a tile.
    pad: half of the smallest overlap; less than tile / 2.
    multiple: tiles start at multiples of this, to stay on the network's grid.

  Returns:
    starts: int32 [n]; the last tile ends at or behind `length`.
    windows: float32 [n, tile]; those of all tiles add up to 1 everywhere.
  """
  total = max(round_up(length, multiple), tile)
  if total == tile:
    return np.zeros(1, np.int32), np.ones((1, tile), np.float32)
  stride = max((tile - 2 * pad) // multiple, 1) * multiple
  count = -(-(total - tile) // stride) + 1
  starts = np.linspace(0, (total - tile) / multiple, count).astype(np.int32) * multiple
  to_edge = np.arange(tile) + 0.5
  rise = np.clip((to_edge - pad / 2) / max(pad, 1e-9), 0, 1)
  rise = np.sin(rise * np.pi / 2) ** 2
  windows = np.empty((count, tile))
  for k in range(count):  # nothing fades at the borders of the image
    left = rise if k else 1.0
    right = rise[::-1] if k < count - 1 else 1.0
    windows[k] = left * right
  total_weight = np.zeros(total)
  for start, window in zip(starts, windows, strict=True):
    total_weight[start : start + tile] += window
  for start, window in zip(starts, windows, strict=True):
    window /= total_weight[start : start + tile]
  return starts, windows.astype(np.float32)


def seam(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
  """How much tiles show: mean gradient across their borders over that elsewhere.

  Args:
    image: [H, W, C].
    rows, columns: where tiles meet: the first row below, the first column right of it.

  Returns:
    1 where nothing shows, but for what the image itself has there.
  """
  near, far = 0.0, 0.0
  for axis, borders in enumerate((rows, columns)):
    step = np.abs(np.diff(image, axis=axis)).mean((1 - axis, 2))
    # A fade is wider than a cut: the two steps on each side belong to it.
    close = np.abs(np.arange(1, len(step) + 1)[:, None] - borders).min(1) <= 2
    near, far = near + step[close].mean(), far + step[~close].mean()
  return near / far


def mirror(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """[h, w, C] continued by reflection to the right and below, [height, width, C].

  The network then sees around the image what it is like inside, and the statistics of
  its normalisation layers are those of the image.
  """
  rows, columns = (
    np.pad(np.arange(have), (0, want - have), mode='symmetric')
    for have, want in zip(image.shape[:2], (height, width), strict=True)
  )
  return image[rows][:, columns]
