"""Reads prepared TensorFlow Datasets, without TensorFlow."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from etils import epath

from sr3_jax.data.columns import Columns, Row, check_column, image_column
from sr3_jax.data.records import DataError
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime.errors import first_line

if TYPE_CHECKING:  # it takes a second, and only one source needs it
  import tensorflow_datasets as tfds


class TfdsRows:
  """The rows of a prepared TensorFlow Dataset.

  Rows have a label if the data set has class labels.

  Args:
    name: as TFDS writes it: 'mnist', 'celeb_a_hq/256', 'imagenet2012:5.1.0'.
    split: as TFDS writes it: 'train', 'train[90%:]'.
    data_dir: where it was prepared; None for the place TFDS takes by default.
    columns: by default 'image' or the only column of images, 'label', and no inputs.

  Raises:
    DataError: not prepared (the message has the command), no such split or column.
  """

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: epath.PathLike | None = None,
    columns: Columns = Columns(),  # noqa: B008
  ):
    try:
      import tensorflow_datasets as tfds  # 1 s, and only this source needs it
    except ImportError:
      raise DataError(
        f"data.source='tfds' ({name}) needs TFDS: pip install 'sr3_jax[tfds]'"
      ) from None

    self._name, self.paired = f'{name}:{split}', bool(columns.input)
    arguments = f"'{name}', file_format='array_record'"
    if data_dir:
      arguments += f", data_dir='{data_dir}'"
    file_format = tfds.core.FileFormat.ARRAY_RECORD
    try:
      builder = tfds.builder(name, data_dir=data_dir, file_format=file_format)
      splits = builder.info.splits
    except Exception as error:
      raise DataError(f'TFDS {name!r}: {first_line(error)}') from None
    if not splits:
      once = _preparation(builder, arguments)
      raise DataError(
        f'TFDS {name!r} is not prepared as ArrayRecord here; once: {once}'
      )
    where, features = f'TFDS {name!r}', dict(builder.info.features)
    kinds = {
      key: '' if isinstance(feature, tfds.features.Image) else type(feature).__name__
      for key, feature in features.items()
    }
    image = image_column(where, kinds, columns)
    if columns.label:
      check_column(where, features, 'label_column', columns.label)
    label = columns.label or 'label'
    self.classes: tuple[str, ...] = ()
    if isinstance(features.get(label), tfds.features.ClassLabel):
      self.classes = tuple(features[label].names)
    elif columns.label:
      raise DataError(
        f'{where}: column {label!r} (data.label_column) holds {kinds[label] or "Image"}'
        ', not class labels'
      )
    self._columns = Columns(image, columns.input, label if self.classes else '')
    # Images are decoded elsewhere.
    decoders = {c: tfds.decode.SkipDecoding() for c in self._columns[:2] if c}
    try:
      # TFDS declares a nest of decoders that refers to itself and can't be read.
      records = builder.as_data_source(
        split=split,
        decoders=decoders,  # pyrefly: ignore[bad-argument-type]
      )
      self._records = cast('Sequence[dict[str, Any]]', records)
      self._length = len(self._records)
    except Exception as error:
      raise DataError(f'{where}: {first_line(error)}') from None

  def __len__(self) -> int:
    return self._length

  def row(self, index: int) -> Row:
    """Read a row; raise ImageError if it can't be read."""
    try:
      record = self._records[index]
    except Exception as error:
      raise ImageError(f'{self.name(index)}: {first_line(error)}') from None
    image, given, label = self._columns
    row: Row = {'image': record[image]}
    if given:
      row['input'] = record[given]
    if label:
      row['label'] = int(record[label])
    return row

  def name(self, index: int) -> str:
    """Return 'NAME:SPLIT[INDEX]'."""
    return f'{self._name}[{index}]'

  def states(self) -> Iterator[str]:
    """Yield nothing: a dataset of TFDS has a version, and its name has it."""
    yield from ()


def _preparation(builder: 'tfds.core.DatasetBuilder', arguments: str) -> str:
  """Return the command that prepares a dataset, and what must be fetched before."""
  given = by_hand = ''
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    given = "download_config=t.download.DownloadConfig(manual_dir='FOLDER')"
    text = ' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    by_hand = f'; FOLDER is what TFDS calls manual_dir: {text}'
  made = f't.builder({arguments}).download_and_prepare({given})'
  return f'python -c "import tensorflow_datasets as t; {made}"{by_hand}'
