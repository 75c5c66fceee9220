"""Says what a source of images is, and what is raised when one can't be used."""

from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np

from sr3_jax.runtime.errors import UserError


class DataError(UserError):
  """One line that says what is wrong with a source of images, and what to do."""


class Record(TypedDict):
  """One image of a source: [H, W, C] of the source's type, and the number of its class.

  There is a label exactly if the source has classes, and a condition, the input
  [h, w, K] that belongs to the image, exactly if it is a `PairSource`.
  """

  image: np.ndarray
  label: NotRequired[np.int32]
  condition: NotRequired[np.ndarray]


class Source(Protocol):
  """A place that images come from, with access to each by its number.

  Attributes:
    classes: names of the labels; empty if images have no labels.
    channels: of every image.
    dtype: of every image: uint8, or for rasters uint16 or float32.
  """

  classes: tuple[str, ...]
  channels: int
  dtype: np.dtype

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Record:
    """Read an image.

    Raises:
      ImageError: it can't be read.
    """

  def name(self, index: int) -> str:
    """Return what messages call an image."""


@runtime_checkable
class PairSource(Source, Protocol):
  """A source whose images, the targets, come with the inputs to make them of.

  Attributes:
    input_channels: of every input.
    input_dtype: of every input.
  """

  input_channels: int
  input_dtype: np.dtype
