"""Squares out of images: what training and evaluation see of them."""

import dataclasses
import functools

import numpy as np

from sr3_jax.data.folder_sources import DataError
from sr3_jax.images import pixels, resizing

CROPS = ('random', 'center', 'none')


@dataclasses.dataclass(frozen=True)
class Cut:
  """Takes an `image_size` square out of an image.

  Attributes:
    image_size: side of the result in pixels.
    crop: 'random': anywhere; 'center': the largest central square, reduced by area;
      'none': the whole image, which must be square, reduced by area if larger.
    flip: mirror every second image, left to right.
    rotate: turn by a random multiple of 90 degrees; for textures.
    reduce: with 'random', the image is first reduced by this integer factor, by area
      (photographs are often soft at full size); of several factors one is drawn among
      those that leave the image large enough.
  """

  image_size: int
  crop: str
  flip: bool = False
  rotate: bool = False
  reduce: int | tuple[int, ...] = 1

  def __post_init__(self):
    if self.crop not in CROPS:
      raise DataError(f'no crop {self.crop!r}, only {", ".join(CROPS)}')
    if self.image_size < 1 or min(self.factors, default=0) < 1:
      raise DataError('image_size and every factor of reduce must be at least 1')
    if self.crop != 'random' and self.factors != (1,):
      raise DataError(f"reduce is for crop='random', not {self.crop!r}")

  @functools.cached_property
  def factors(self) -> tuple[int, ...]:
    return (self.reduce,) if isinstance(self.reduce, int) else tuple(self.reduce)

  @functools.cached_property
  def min_size(self) -> int:
    """Shortest side that an image must have."""
    return self.image_size * min(self.factors)

  @property
  def decode_side(self) -> int:
    """Of the shorter side of a picture that a decoder may make smaller.

    Four pixels for each that is left: then blocks that begin elsewhere move the example
    by an eighth of a pixel at most.

    Raises:
      DataError: crops that are taken out of the picture as it is.
    """
    if self.crop == 'random':
      raise DataError(
        "data.reduced_decoding is for data.crop='center' or 'none', not 'random'"
      )
    return 4 * self.image_size

  def __call__(
    self, image: np.ndarray, rng: np.random.Generator, into: np.ndarray | None = None
  ) -> np.ndarray:
    """`[H, W, C]` -> `[S, S, C]` of the same type, in a new array or `into` one.

    Raises:
      ImageError: the image is too small.
    """
    height, width = image.shape[:2]
    if min(height, width) < self.min_size:
      raise pixels.ImageError(
        f'{width} x {height} pixels are too small, {self.min_size} are needed'
      )
    if self.crop == 'none' and height != width:
      raise pixels.ImageError(f"{width} x {height} pixels need crop='center'")
    if self.crop == 'random':
      # Cropping first and reducing the crop is the same and much faster.
      side = self.image_size * self._factor(min(height, width), rng)
      top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
      image = image[top : top + side, left : left + side]
    image = resizing.resize_area(resizing.center_square(image), self.image_size)
    if self.rotate:
      image = np.rot90(image, rng.integers(4))
    if self.flip and rng.integers(2):
      image = image[:, ::-1]
    into = np.empty(image.shape, image.dtype) if into is None else into
    if image.strides[1] == image[0, :1].nbytes:
      into[...] = image
    else:  # NumPy copies turned pixels one by one: four times as long
      for channel in range(image.shape[-1]):
        into[..., channel] = image[..., channel]
    return into

  def _factor(self, shorter: int, rng: np.random.Generator) -> int:
    """One of the factors that leave an image of this shorter side large enough."""
    fitting = [f for f in self.factors if shorter >= self.image_size * f]
    return fitting[rng.integers(len(fitting)) if len(fitting) > 1 else 0]
