"""Which tiles and canvases images are put on; plain arithmetic, no arrays.

An image's tiles follow from its own size, never from other images. Canvases are shared:
they come in few sizes, because a program is compiled for each.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from sr3_jax import tiles
from sr3_jax.tiles import CELL

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
      whole = tiles.round_up(height, multiple), tiles.round_up(width, multiple)
      return Layout(whole, *whole, images=1, shared=True)
    if tile := self._small_tile(size):
      side = tiles.round_up(tile, CELL)
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
    return self._add(tiles.round_up(height, step), tiles.round_up(width, step))

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
      tiles.cover(length, tile, self.pad, self.multiple)
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
    half = tiles.round_up(max(layout.tile) // 2, self.multiple)
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
    cover = lambda n: max(tiles.round_up(n, self.multiple), tile)
    sides = [tiles.round_up(cover(n), CELL) for n in (height, width)]
    layout = Layout((tile, tile), *sides, images=1, shared=True)
    self._known.append(layout)
    return layout


def output_size(size: Size, outscale: float) -> Size:
  """Sides of the output: rounded, at least 1."""
  return max(1, round(size[0] * outscale)), max(1, round(size[1] * outscale))
