"""Which tiles and canvases images are put on; plain arithmetic, no arrays.

An image's tiles follow from its own size, never from other images. Canvases are shared:
they come in few sizes, because a program is compiled for each.
"""

import dataclasses
import math
from collections.abc import Iterable

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


Size = tuple[int, int]  # height, width

# Sides of the tiles of networks that see a neighbourhood only, in output pixels.
TILES = (64, 128, 256)
# Images that one tile of at most this side holds are done several at a time.
SMALL = 128
# A canvas may have this many times the pixels of an image on it: what a pixel costs
# outside of the network is about a hundredth of what it costs there.
MAX_WASTE = 64


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a program is compiled for."""

  tile: Size  # in output pixels
  height: int  # of the canvas
  width: int
  images: int  # canvases at a time on each device
  shared: bool  # all devices work on the same canvases, each on some of the tiles


class Planner:
  """Plans the runs of one model.

  Args:
    scale: output side over condition side.
    multiple: tiles start and end at multiples of this, the network's.
    sides: of the tiles it may use, ascending, in output pixels; (0,) is the whole
      image.
    pad: half of the smallest overlap, output pixels.
    at_once: small images at a time and device, in units of 8 of 64 x 64 pixels.
  """

  def __init__(
    self, scale: int, multiple: int, sides: tuple[int, ...], pad: int, at_once: int
  ):
    self.scale, self.multiple, self.sides, self.pad = scale, multiple, sides, pad
    self._at_once = at_once
    self._known: list[Layout] = []

  def passes(self, size: Size, outscale: float) -> list[Size]:
    """Condition sizes of the model's runs, one after the other.

    The model runs at its own scale until that is enough; the last of several runs
    starts from no more than it needs. One that doesn't enlarge runs once.
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
    """Size of a run's output."""
    return size[0] * self.scale, size[1] * self.scale

  def layout(self, size: Size) -> Layout:
    """The canvas that a condition of this size is put on."""
    height, width = self.output(size)
    if self.sides == (0,):
      multiple = math.lcm(self.multiple, CELL)
      whole = round_up(height, multiple), round_up(width, multiple)
      return Layout(whole, *whole, images=1, shared=True)
    if tile := self._small_tile(size):
      side = round_up(tile, CELL)
      images = max(1, 8 * 64**2 // tile**2) * self._at_once
      return Layout((tile, tile), side, side, images, shared=False)
    known = [
      layout
      for layout in self._known
      if layout.height >= height
      and layout.width >= width
      and layout.height * layout.width <= MAX_WASTE * self._used(height, width)
    ]
    if known:
      return min(known, key=lambda layout: layout.height * layout.width)
    # Nothing reserved: one that others like it fit on, too.
    step = 256 if max(height, width) <= 1024 else 1024
    return self._add(round_up(height, step), round_up(width, step))

  def reserve(self, sizes: Iterable[Size]) -> None:
    """Makes canvases for conditions to come, as few as is sensible."""
    if self.sides == (0,):
      return
    large = [self.output(size) for size in sizes if not self._small_tile(size)]
    # The largest first; what nearly fits makes its canvas a little larger.
    canvases: list[list[int]] = []
    for height, width in sorted(large, key=math.prod, reverse=True):
      for known in canvases:
        union = max(known[0], height), max(known[1], width)
        waste = 2 * self._used(*known), MAX_WASTE * self._used(height, width)
        if math.prod(union) <= min(waste):
          known[:] = union
          break
      else:
        canvases.append([height, width])
    for height, width in canvases:
      self._add(height, width)

  def cover(self, size: Size, layout: Layout) -> list[tuple[np.ndarray, np.ndarray]]:
    """Starts and windows of the tiles along both axes of an output `size`."""
    return [
      cover(length, tile, self.pad, self.multiple)
      for length, tile in zip(size, layout.tile, strict=True)
    ]

  def count(self, size: Size, layout: Layout) -> int:
    """Tiles of an output `size`."""
    return math.prod(len(starts) for starts, _ in self.cover(size, layout))

  def work(self, size: Size) -> int:
    """One step of one run from a condition, in units of 64 x 64 pixels."""
    layout = self.layout(size)
    area = max(1, math.prod(layout.tile) // 64**2)
    return area * self.count(self.output(size), layout)

  def halve(self, layout: Layout) -> int:
    """From now on, tiles half as large as this layout's; 0 if they'd be too small."""
    half = round_up(max(layout.tile) // 2, self.multiple)
    if half < max(32, 4 * self.multiple):
      return 0
    self.sides = (*(side for side in self.sides if 0 < side < half), half)
    self.pad = min(self.pad, half // 4)
    self._known.clear()
    return half

  def _small_tile(self, size: Size) -> int | None:
    """The smallest tile that holds a condition, if that is a small one."""
    side = max(self.output(size))
    return min((t for t in self.sides if side <= t <= SMALL), default=None)

  def _used(self, height: int, width: int) -> int:
    """Pixels of the tiles of an output, at least."""
    return max(height, self.sides[-1]) * max(width, self.sides[-1])

  def _add(self, height: int, width: int) -> Layout:
    """A new canvas of at least this size for the largest tiles."""
    tile = self.sides[-1]
    cover = lambda n: max(round_up(n, self.multiple), tile)
    sides = [round_up(cover(n), CELL) for n in (height, width)]
    layout = Layout((tile, tile), *sides, images=1, shared=True)
    self._known.append(layout)
    return layout


def output_size(size: Size, outscale: float) -> Size:
  """Sides of the output: rounded, at least 1."""
  return max(1, round(size[0] * outscale)), max(1, round(size[1] * outscale))
