"""Makes sources of datasets whose rows have columns: TFDS and Hugging Face datasets.

A reader of such a dataset (`Rows`) gives images as their files hold them. They are
decoded here, by the decoder for folders, so that bounds on sizes, orientation, profiles
and transparency are the same for both.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np

from sr3_jax.data.records import DataError, Record, Source
from sr3_jax.images import image_files


class Columns(NamedTuple):
  """Names of columns, as the options of data have them; '' finds one."""

  image: str = ''
  input: str = ''  # of pairs; '' means that there are no pairs
  label: str = ''


class Row(TypedDict):
  """A row of a dataset: the files of its images, and the number of its class."""

  image: bytes | str  # a text is the path of a file
  input: NotRequired[bytes | str]
  label: NotRequired[int]


class Rows(Protocol):
  """The rows of a dataset.

  Attributes:
    classes: names of the labels; empty if rows have none.
    paired: whether rows have an input.
  """

  classes: tuple[str, ...]
  paired: bool

  def __len__(self) -> int: ...

  def row(self, index: int) -> Row:
    """Read a row, without decoding its images.

    Raises:
      ImageError: it can't be read.
    """

  def name(self, index: int) -> str:
    """Return what messages call a row."""

  def states(self) -> Iterator[str]:
    """Yield texts that change when the dataset does, as far as that is known."""


class ColumnImages:
  """The images of a dataset, with labels if its rows have some."""

  def __init__(self, rows: Rows, channels: int, decode_side: int = 0):
    self._rows, self._decode_side = rows, decode_side
    self.classes, self.name, self.states = rows.classes, rows.name, rows.states
    self.channels, self.dtype = channels, np.dtype(np.uint8)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row, name = self._rows.row(index), self._rows.name(index)
    options = {'channels': self.channels, 'decode_side': self._decode_side}
    image = image_files.read(row['image'], name, **options)
    if 'label' in row:
      return {'image': image, 'label': np.int32(row['label'])}
    return {'image': image}


class ColumnPairs:
  """Pairs of two columns of a dataset: the images, which are targets, and their inputs.

  Attributes:
    unpaired: nothing, as a row has both; like that of `pairs.Pairs`.
    left_out: nothing: rows that can't be read are found when they are read.
  """

  classes: tuple[str, ...] = ()

  def __init__(self, rows: Rows, channels: int, input_channels: int):
    self._rows, self.name, self.states = rows, rows.name, rows.states
    self.channels, self.input_channels = channels, input_channels
    self.dtype = self.input_dtype = np.dtype(np.uint8)
    self.unpaired: dict[str, str] = {}
    self.left_out: dict[str, str] = {}

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row, name = self._rows.row(index), self._rows.name(index)
    assert 'input' in row
    given = image_files.read(row['input'], name, channels=self.input_channels)
    image = image_files.read(row['image'], name, channels=self.channels)
    return {'image': image, 'condition': given}


def make_images(
  rows: Rows, channels: int, input_channels: int = 0, decode_side: int = 0
) -> Source:
  """Return the source that a dataset is: its images, or pairs of two columns.

  Args:
    rows: of the dataset.
    channels: 3, or 1 for grey.
    input_channels: of the inputs of pairs; 0 for as many as the images have.
    decode_side: how JPEG images may be decoded; see `image_files.read`.

  Raises:
    DataError: no rows.
  """
  if not len(rows):
    raise DataError(f'{rows.name(0).removesuffix("[0]")}: no rows')
  if rows.paired:
    return ColumnPairs(rows, channels, input_channels or channels)
  return ColumnImages(rows, channels, decode_side)


def image_column(where: str, kinds: Mapping[str, str], wanted: Columns) -> str:
  """Return the name of the column that holds the images.

  Args:
    where: the dataset, as messages name it.
    kinds: column -> '' if it holds images, else what it holds.
    wanted: the columns that were asked for.

  Raises:
    DataError: a column that was asked for isn't there or holds something else, or
      there are none or several to choose from.
  """
  asked = {'image_column': wanted.image, 'input_column': wanted.input}
  for key, name in asked.items():
    if name:
      check_column(where, kinds, key, name)
    if name and kinds[name]:
      raise DataError(
        f'{where}: column {name!r} (data.{key}) holds {kinds[name]}, not images'
      )
  if wanted.image == wanted.input != '':
    raise DataError(f'{where}: data.image_column and data.input_column are the same')
  found = [name for name, kind in kinds.items() if not kind and name != wanted.input]
  if wanted.image or 'image' in found:
    return wanted.image or 'image'
  if not found:
    raise DataError(f'{where}: no column of images, only {", ".join(kinds)}')
  if len(found) > 1:
    raise DataError(
      f'{where}: columns {", ".join(found)} hold images: set data.image_column'
    )
  return found[0]


def check_column(where: str, known: Mapping[str, object], key: str, name: str) -> None:
  """Raise DataError if a dataset has no column of the name that an option gives."""
  if name not in known:
    raise DataError(
      f'{where}: no column {name!r} (data.{key}), only {", ".join(known)}'
    )
