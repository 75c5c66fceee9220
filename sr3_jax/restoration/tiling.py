"""Plans tiles and canvases: which ones an image is put on, and how tiles blend.

An image's tiles follow from its own size, never from other images. Canvases are shared:
they come in few sizes, because a program is compiled for each. `Planner` decides on
canvases, `cover` on the tiles along one side of an image.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Side of the cells in which a canvas's noise is drawn, and height of the strips in
# which it is updated. Sides of canvases are multiples of it.
CELL = 32
# Sides of tiles, in output pixels, of networks without attention, which see only a
# neighbourhood of each pixel.
TILES = (64, 128, 256)
# Images that fit on one tile of at most this side are done several at a time.
SMALL = 128
# A canvas may be at most this many times as large as the image on it. The pixels around
# an image cost little: no tile covers them, so the network never sees them.
MAX_WASTE = 64
# An output of more than so many tiles' length has narrow tiles if it is narrow: its
# canvas is then a few times smaller, which is worth a program of its own.
LONG = 4

Size = tuple[int, int]  # height, width


class Layout(NamedTuple):
  """Canvases that one program is compiled for."""

  tile: Size  # in output pixels, like all sides here
  height: int  # of a canvas
  width: int  # of a canvas
  images: int  # canvases at a time on each device
  shared: bool  # whether all devices work on the same canvases, each on some tiles


class Planner:
  """The canvases and tiles of one model.

  Args:
    scale: output side over condition side.
    multiple: tiles start and end at multiples of this, which the network needs.
    sides: of the tiles that may be used, ascending, in output pixels; (0,) means one
      tile that holds the whole image.
    pad: half of the smallest overlap of tiles, in output pixels.
    at_once: how many small images a device works on at a time, in units of 8 images of
      64 x 64 pixels.
  """

  def __init__(
    self, scale: int, multiple: int, sides: tuple[int, ...], pad: int, at_once: int
  ):
    self.scale, self.multiple, self.sides, self.pad = scale, multiple, sides, pad
    self._at_once = at_once
    self._known: list[Layout] = []

  def passes(self, size: Size, outscale: float) -> list[Size]:
    """Return the sizes of the conditions of the model's runs, one after the other.

    The model runs at its own scale until that is enough. The last of several runs
    starts from no more pixels than it needs. A model of scale 1 runs once.
    """
    if self.scale == 1:
      return [size]
    count = max(1, math.ceil(math.log(outscale) / math.log(self.scale) - 1e-9))
    sizes = [(size[0] * self.scale**p, size[1] * self.scale**p) for p in range(count)]
    if count > 1:
      height, width = output_size(size, outscale)
      sizes[-1] = -(-height // self.scale), -(-width // self.scale)
    return sizes

  def output(self, size: Size) -> Size:
    """Return the size of the output of a run from a condition of this size."""
    return size[0] * self.scale, size[1] * self.scale

  def layout(self, size: Size) -> Layout:
    """Return the layout of the canvas that a condition of this size is put on."""
    height, width = self.output(size)
    if self.sides == (0,):
      multiple = math.lcm(self.multiple, CELL)
      whole = round_up(height, multiple), round_up(width, multiple)
      return Layout(whole, *whole, images=1, shared=True)
    if tile := self._small_tile(size):
      side = round_up(tile, CELL)
      images = max(1, 8 * 64**2 // tile**2) * self._at_once
      return Layout((tile, tile), side, side, images, shared=False)
    tile, most = self._tile(height, width), MAX_WASTE * self._used(height, width)
    known = sorted(self._known, key=lambda canvas: canvas.height * canvas.width)
    for canvas in known:
      fits = canvas.height >= height and canvas.width >= width
      if fits and canvas.tile == tile and canvas.height * canvas.width <= most:
        return canvas
    # None was reserved: take one that images of about this size fit on, too.
    step = 256 if max(height, width) <= 1024 else 1024
    sides = zip((height, width), tile, strict=True)
    return self._add(tile, *(s if s <= t else round_up(s, step) for s, t in sides))

  def reserve(self, sizes: Iterable[Size]) -> None:
    """Plan few canvases for conditions of these sizes."""
    if self.sides == (0,):
      return
    large = [self.output(size) for size in sizes if not self._small_tile(size)]
    # The largest come first. One that nearly fits makes its canvas a little larger.
    canvases: list[tuple[Size, list[int]]] = []
    for height, width in sorted(large, key=math.prod, reverse=True):
      own = self._tile(height, width)
      for tile, known in canvases:
        union = max(known[0], height), max(known[1], width)
        waste = 2 * self._used(*known), MAX_WASTE * self._used(height, width)
        if tile == own and math.prod(union) <= min(waste):
          known[:] = union
          break
      else:
        canvases.append((own, [height, width]))
    for tile, (height, width) in canvases:
      self._add(tile, height, width)

  def cover(self, size: Size, layout: Layout) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return tiles and windows along both axes of an output, as `cover` makes them."""
    return [
      cover(length, tile, self.pad, self.multiple)
      for length, tile in zip(size, layout.tile, strict=True)
    ]

  def count(self, size: Size, layout: Layout) -> int:
    """Return the number of tiles of an output of this size."""
    return math.prod(len(starts) for starts, _ in self.cover(size, layout))

  def work(self, size: Size) -> int:
    """Return how much work a step is for a condition, in units of 64 x 64 pixels."""
    layout = self.layout(size)
    units = max(1, math.prod(layout.tile) // 64**2)
    return units * self.count(self.output(size), layout)

  def halve(self, layout: Layout) -> int:
    """Use tiles of half the side from now on; return it, or 0 if it is too small."""
    half = round_up(max(layout.tile) // 2, self.multiple)
    if half < max(32, 4 * self.multiple):
      return 0
    self.sides = (*(side for side in self.sides if 0 < side < half), half)
    self.pad = min(self.pad, half // 4)
    self._known.clear()
    return half

  def _small_tile(self, size: Size) -> int | None:
    """Return the smallest tile that holds an image, or None if that is not SMALL."""
    side = max(self.output(size))
    return min((t for t in self.sides if side <= t <= SMALL), default=None)

  def _tile(self, height: int, width: int) -> Size:
    """Return the tiles of an output: narrow ones for one that is long and narrow."""
    most = self.sides[-1]
    if max(height, width) <= LONG * most:
      return most, most
    least_height, least_width = (
      min((t for t in self.sides if side <= t), default=most)
      for side in (height, width)
    )
    return least_height, least_width

  def _used(self, height: int, width: int) -> int:
    """Return how many pixels the tiles of an output have at least."""
    tile = self._tile(height, width)
    return max(height, tile[0]) * max(width, tile[1])

  def _add(self, tile: Size, height: int, width: int) -> Layout:
    """Add a canvas of at least this size for these tiles, and return it."""
    covered = [
      max(round_up(side, self.multiple), least)
      for side, least in zip((height, width), tile, strict=True)
    ]
    sides = [round_up(side, CELL) for side in covered]
    layout = Layout(tile, *sides, images=1, shared=True)
    self._known.append(layout)
    return layout


def output_size(size: Size, outscale: float) -> Size:
  """Return the sides of the output: rounded, and at least 1."""
  return max(1, round(size[0] * outscale)), max(1, round(size[1] * outscale))


def cover(
  length: int, tile: int, pad: int, multiple: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return the tiles along one axis, and their blending windows.

  Neighbours overlap by at least 2 pad pixels. Over the middle half of the overlap one
  fades into the other. In the outer quarter, pad / 2 pixels at its edge, a tile counts
  for nothing, because there the network has seen too little. If it sees no farther than
  pad / 2 pixels, the blended prediction equals that of the whole image.

  Args:
    length: pixels to cover.
    tile: side of a tile.
    pad: half of the smallest overlap, in pixels; less than tile / 2.
    multiple: tiles start at multiples of this, to stay on the network's grid.

  Returns:
    Starts, int32 [n], of which the last tile ends at or behind `length`; and windows,
    float32 [n, tile], how much each tile counts at each of its pixels. They add up to 1
    everywhere.
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
    windows[k] = (rise if k else 1.0) * (rise[::-1] if k < count - 1 else 1.0)
  total_weight = np.zeros(total)
  for start, window in zip(starts, windows, strict=True):
    total_weight[start : start + tile] += window
  for start, window in zip(starts, windows, strict=True):
    window /= total_weight[start : start + tile]
  return starts, windows.astype(np.float32)


def round_up(length: int, multiple: int) -> int:
  """Return the smallest multiple that is no less than `length`."""
  return -(-length // multiple) * multiple


def mirror(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Continue an image [h, w, C] to the right and below by reflection.

  So the network sees around the image what it is like inside, and the statistics of its
  normalisation layers are those of the image.
  """
  around = (0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)
  return np.pad(image, around, mode='symmetric')


def seam(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
  """Return how visible the borders of tiles are in an image [H, W, C].

  It is the mean gradient across borders over the mean gradient elsewhere, so about 1
  where they can't be seen. `rows` are the first ones below borders of tiles, `columns`
  the first ones right of them.
  """
  near, far = 0.0, 0.0
  for axis, borders in enumerate((rows, columns)):
    step = np.abs(np.diff(image, axis=axis)).mean((1 - axis, 2))
    # A fade is wider than a cut: the two steps on each side belong to it.
    close = np.abs(np.arange(1, len(step) + 1)[:, None] - borders).min(1) <= 2
    near, far = near + step[close].mean(), far + step[~close].mean()
  return near / far
