"""Crops images to the squares that training and evaluation see."""

import dataclasses
import functools

import numpy as np

from sr3_jax.images import pixels, resizing


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

  def __call__(
    self, image: np.ndarray, rng: np.random.Generator, out: np.ndarray | None = None
  ) -> np.ndarray:
    """Crop `[H, W, C]` to `[S, S, C]` of the same type, into `out` if that is given.

    `rng` chooses the square, the factor, and how it is turned.

    Raises:
      ImageError: the image is too small, or not square although it must be.
    """
    height, width = image.shape[:2]
    if min(height, width) < self.min_size:
      raise pixels.ImageError(
        f'{width} x {height} pixels are too small, {self.min_size} are needed'
      )
    if self.crop == 'none' and height != width:
      raise pixels.ImageError(f"{width} x {height} pixels need crop='center'")
    if self.crop == 'random':
      # To crop first and downsample the crop gives the same, much faster.
      shorter = min(height, width)
      fitting = [f for f in self.factors if shorter >= self.image_size * f]
      factor = fitting[rng.integers(len(fitting)) if len(fitting) > 1 else 0]
      side = self.image_size * factor
      top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
      image = image[top : top + side, left : left + side]
    image = resizing.center_square(image)
    image = resizing.resize_area(image, self.image_size, self.area)
    if self.rotate:
      image = np.rot90(image, int(rng.integers(4)))
    if self.flip and rng.integers(2):
      image = image[:, ::-1]
    out = np.empty(image.shape, image.dtype) if out is None else out
    if image.strides[1] == image[0, :1].nbytes:
      out[...] = image
    else:  # NumPy copies turned pixels one by one, which takes four times as long
      for channel in range(image.shape[-1]):
        out[..., channel] = image[..., channel]
    return out
