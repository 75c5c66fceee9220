"""Crops images to the squares that training and evaluation see."""

import dataclasses
import functools
from fractions import Fraction

import numpy as np

from sr3_jax.data.records import Record
from sr3_jax.images import pair_grid, pixels, resizing


@dataclasses.dataclass(frozen=True)
class Cut:
  """A way to make a square from an image; `core.relations` checks the settings."""

  image_size: int  # S, side of the square in pixels
  # 'random' takes a square anywhere. 'center' downsamples the largest central square by
  # area. 'none' does so with the whole image, which must be square.
  crop: str
  flip: bool = False  # mirror left to right with probability 1/2
  rotate: bool = False  # turn by a random multiple of 90 degrees; for textures
  # With 'random', the image is first downsampled by area by this factor, because
  # photographs are often soft at full size. If there are several, one is chosen at
  # random among those that leave the image large enough.
  reduce: int | tuple[int, ...] = 1
  area: str = 'shares'  # how pixels count; see `resizing.resize_area`
  # Of pairs: the target's side over its input's. Both are cut at the same place, which
  # begins at whole pixels of both; downsampled by the same factor; and turned alike.
  ratio: Fraction = Fraction(1)

  @functools.cached_property
  def factors(self) -> tuple[int, ...]:
    """The factors of `reduce`."""
    return (self.reduce,) if isinstance(self.reduce, int) else tuple(self.reduce)

  @functools.cached_property
  def min_size(self) -> int:
    """Shortest side that an image must have."""
    return self.image_size * min(self.factors)

  @property
  def decode_side(self) -> int:
    """Pixels of the shorter side that a decoder must leave of a picture.

    They are four for each pixel of the result, so that blocks which begin elsewhere
    move it by an eighth of a pixel at most. Random crops are taken from the whole
    picture.
    """
    return 4 * self.image_size

  @property
  def input_size(self) -> int:
    """Side of the inputs of pairs."""
    return pair_grid.input_side(self.image_size, self.ratio)

  def __call__(
    self, image: np.ndarray, rng: np.random.Generator, out: np.ndarray | None = None
  ) -> np.ndarray:
    """Crop `[H, W, C]` to `[S, S, C]` of the same type, into `out` if that is given.

    `rng` chooses the square, the factor, and how it is turned.

    Raises:
      ImageError: the image is too small, or not square although it must be.
    """
    place = self._place(image.shape[:2], 1, rng)
    taken = self._take(image, place, 1, self.image_size)
    return _turn(taken, *self._pose(rng), out)

  def crop_record(
    self, record: Record, rng: np.random.Generator, out: np.ndarray | None = None
  ) -> Record:
    """Crop the image of a record, into `out` if that is given, and its input alike.

    Raises:
      ImageError: as of `__call__`; or an input whose size doesn't fit its target.
    """
    image = record['image']
    if 'condition' not in record:
      return {**record, 'image': self(image, rng, out)}
    given, (p, q) = record['condition'], self.ratio.as_integer_ratio()
    units = pair_grid.shared_units(image.shape, given.shape, self.ratio)
    place = self._place(units, p, rng)
    pose = self._pose(rng)
    image = _turn(self._take(image, place, p, self.image_size), *pose, out)
    given = _turn(self._take(given, place, q, self.input_size), *pose)
    return {**record, 'image': image, 'condition': given}

  def _place(
    self, size: tuple[int, int], unit: int, rng: np.random.Generator
  ) -> tuple[int, int, int]:
    """Choose a square: top, left and side, in units of so many pixels, as `size` is."""
    height, width = size
    shorter = min(height, width)
    if shorter * unit < self.min_size:
      raise pixels.ImageError(
        f'{width * unit} x {height * unit} pixels are too small, {self.min_size} are '
        'needed'
      )
    if self.crop == 'none' and height != width:
      raise pixels.ImageError(
        f"{width * unit} x {height * unit} pixels need crop='center'"
      )
    if self.crop != 'random':
      return (height - shorter) // 2, (width - shorter) // 2, shorter
    # To crop first and downsample the crop gives the same, much faster.
    needed = self.image_size // unit
    fitting = [f for f in self.factors if shorter >= needed * f]
    side = needed * fitting[rng.integers(len(fitting)) if len(fitting) > 1 else 0]
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return int(top), int(left), side

  def _pose(self, rng: np.random.Generator) -> tuple[int, bool]:
    """Choose quarter turns, and whether to mirror after them."""
    turns = int(rng.integers(4)) if self.rotate else 0
    return turns, self.flip and bool(rng.integers(2))

  def _take(
    self, image: np.ndarray, place: tuple[int, int, int], unit: int, size: int
  ) -> np.ndarray:
    """Cut a square of units out of an image, downsampled by area to `size`."""
    top, left, side = (unit * number for number in place)
    square = image[top : top + side, left : left + side]
    return resizing.resize_area(square, size, self.area)


def _turn(
  image: np.ndarray, turns: int, mirror: bool, out: np.ndarray | None = None
) -> np.ndarray:
  """Copy an image `[S, S, C]`, turned, then mirrored, into `out` if that is given."""
  image = np.rot90(image, turns)
  image = image[:, ::-1] if mirror else image
  out = np.empty(image.shape, image.dtype) if out is None else out
  if image.strides[1] == image[0, :1].nbytes:
    out[...] = image
  else:  # NumPy copies turned pixels one by one, which takes four times as long
    for channel in range(image.shape[-1]):
      out[..., channel] = image[..., channel]
  return out
