"""Reads Hugging Face datasets: saved on disk, as Parquet files, or by name of the hub.

The library `datasets` finds and maps the files. It never decodes an image, and no code
that comes with a dataset is run: since version 4 the library can't.
"""

import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from absl import logging
from etils import epath

from sr3_jax.data.columns import Columns, Row, check_column, image_column
from sr3_jax.data.folder_sources import file_state
from sr3_jax.data.records import DataError
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import activity
from sr3_jax.runtime.errors import first_line, line, some

if TYPE_CHECKING:  # it takes seconds, and only one source needs it
  import datasets as hf

_HUB_NAME = re.compile(r'[\w-][\w.-]*/[\w-][\w.-]*')
_MOST_CLASSES = 10**6  # what model.num_classes may be
_BYTES = ('binary', 'large_binary')


class HfRows:
  """The rows of a Hugging Face dataset.

  Args:
    path: a folder that `save_to_disk` wrote, a Parquet file or a folder of them, or a
      name of the hub, 'owner/name'.
    split: as `datasets` writes it: 'train', 'train[90%:]'. A dataset that was saved
      without splits is its own split, 'train' if it has no name.
    subset: configuration of a hub dataset; '' is its default.
    revision: branch, tag or commit of a hub dataset; '' is its main branch.
    cache_dir: where the library keeps what it fetches and makes of Parquet files; None
      for its own place.
    columns: by default 'image' or the only column of images; 'label', or the only
      column of class labels; and no inputs.

  Raises:
    DataError: the library is missing, or there is no such dataset, split or column.
  """

  def __init__(
    self,
    path: str,
    split: str,
    *,
    subset: str = '',
    revision: str = '',
    cache_dir: str | None = None,
    columns: Columns = Columns(),  # noqa: B008
  ):
    try:
      import datasets as hf
    except ImportError:
      raise DataError(
        f"data.source='hf' ({path}) needs datasets: pip install 'sr3_jax[hf]'"
      ) from None
    hf.disable_progress_bars()
    self._name, self.paired = f'{os.path.basename(path)}:{split}', bool(columns.input)
    if is_hub_name(path):
      self._name = f'{path}:{split}'
    elif subset or revision:
      raise DataError(f'{path}: data.subset and data.revision are of hub datasets')
    with activity.doing(f'opening {path}, and fetching what is not here yet'):
      parts = _open(path, subset, revision, cache_dir)
      chosen = _take(path, parts, split).with_format(None)
    kinds = {key: _kind(feature) for key, feature in chosen.features.items()}
    image = image_column(path, kinds, columns)
    self.classes, label = (), ''
    if not self.paired:
      self.classes, label = _find_classes(path, chosen, columns.label)
    self._columns = Columns(image, columns.input, label)
    data: Any = chosen.select_columns([c for c in self._columns if c])
    for column in (image, columns.input):
      if column and isinstance(chosen.features[column], hf.Image):
        data = data.cast_column(column, hf.Image(decode=False))
    self._data = data
    try:  # Arrow trusts its files; places outside of them would be read.
      data.data.validate(full=True)
    except Exception as error:
      raise DataError(f'{path}: damaged: {first_line(error)}') from None

  def __len__(self) -> int:
    return len(self._data)

  def row(self, index: int) -> Row:
    """Read a row; raise ImageError if it can't be read."""
    name = self.name(index)
    try:
      stored = self._data[index]
    except Exception as error:
      raise ImageError(f'{name}: {first_line(error)}') from None
    image, given, label = self._columns
    row: Row = {'image': _file(stored[image], name)}
    if given:
      row['input'] = _file(stored[given], name)
    if label:
      row['label'] = int(stored[label])
    return row

  def name(self, index: int) -> str:
    """Return 'NAME:SPLIT[INDEX]'."""
    return f'{self._name}[{index}]'

  def states(self) -> Iterator[str]:
    """Yield the split and the columns, and `file_state` of every file."""
    yield f'{self._name} {self._columns}'
    for file in self._data.cache_files:
      path = epath.Path(file['filename'])
      yield file_state(path, path.name)


def is_hub_name(path: str) -> bool:
  """Return whether a path is a name of the hub, 'owner/name', and no file or folder."""
  return bool(_HUB_NAME.fullmatch(path)) and not os.path.exists(path)


def _open(
  path: str, subset: str, revision: str, cache_dir: str | None
) -> 'dict[str, hf.Dataset]':
  """Return the splits of a dataset by name.

  Raises:
    DataError: there is none, or it can't be read.
  """
  import datasets as hf

  try:
    if is_hub_name(path):
      found: Any = hf.load_dataset(
        path, subset or None, revision=revision or None, cache_dir=cache_dir
      )
    elif not os.path.exists(path):
      raise ValueError(
        'no such folder or file here, and no name of the hub (owner/name)'
      )
    elif _saved(path):
      found = _load_saved(path)
    elif _has_parquet(path):
      place: Any = {'data_dir' if os.path.isdir(path) else 'data_files': path}
      found = hf.load_dataset('parquet', cache_dir=cache_dir, **place)
    else:
      raise ValueError('neither saved by save_to_disk nor a folder of Parquet files')
  except Exception as error:  # the library and Arrow raise nearly anything
    said = first_line(error)
    if 'onfig' in said:  # what it calls subsets; it lists them in lines below
      said = f'{line(error)}; set data.subset'
    raise DataError(f'{path}: {said}') from None
  if isinstance(found, hf.Dataset):
    return {str(found.split or 'train'): found}
  return {str(name): part for name, part in found.items()}


def _load_saved(path: str) -> Any:
  """Return what `save_to_disk` wrote."""
  import datasets as hf

  try:
    return hf.load_from_disk(path, keep_in_memory=False)
  except IndexError:  # a dataset without rows is saved without files
    raise ValueError('no rows') from None


def _saved(path: str) -> bool:
  """Return whether a folder is one that `save_to_disk` wrote."""
  names = ('dataset_dict.json', 'state.json')
  return any(os.path.isfile(os.path.join(path, name)) for name in names)


def _has_parquet(path: str) -> bool:
  """Return whether a path is a Parquet file, or a folder with one in it."""
  files = [path] if os.path.isfile(path) else []
  for _, _, names in os.walk(path):
    files += names
  return any(name.lower().endswith('.parquet') for name in files)


def _take(path: str, parts: 'Mapping[str, hf.Dataset]', split: str) -> 'hf.Dataset':
  """Return a split, a part of one ('train[:90%]') or several ('train+test').

  Raises:
    DataError: there is no such split.
  """
  import datasets as hf

  if split in parts:
    return parts[split]
  sizes = {name: len(part) for name, part in parts.items()}
  try:
    ranges = hf.ReadInstruction.from_spec(split).to_absolute(sizes)
    pieces: Any = [parts[r.splitname].select(range(*_ends(r, sizes))) for r in ranges]
    whole: Any = hf.concatenate_datasets(pieces) if len(pieces) > 1 else pieces[0]
    return whole
  except Exception:
    raise DataError(
      f'{path}: no split {split!r}, only {some(parts)}: set data.split and '
      f"data.eval_split (a part is '{min(parts)}[90%:]')"
    ) from None


def _ends(part: Any, sizes: Mapping[str, int]) -> tuple[int, int]:
  """Return first and last + 1 of the rows of a part of a split."""
  size = sizes[part.splitname]
  return part.from_ or 0, size if part.to is None else part.to


def _kind(feature: Any) -> str:
  """Return what a column holds; '' for images: encoded by `Image`, or as bytes."""
  import datasets as hf

  if isinstance(feature, hf.Image):
    return ''
  if isinstance(feature, dict):  # how Parquet files of others have images
    return '' if 'bytes' in feature and not _kind(feature['bytes']) else 'several parts'
  if isinstance(feature, hf.Value):
    return '' if feature.dtype in _BYTES else feature.dtype
  return type(feature).__name__


def _find_classes(
  path: str, data: 'hf.Dataset', wanted: str
) -> tuple[tuple[str, ...], str]:
  """Return the names of the classes, and the column of their numbers; nothing if none.

  Raises:
    DataError: the column that is `wanted` doesn't hold labels.
  """
  import datasets as hf

  features = data.features
  if wanted:
    check_column(path, features, 'label_column', wanted)
  named = [name for name, f in features.items() if isinstance(f, hf.ClassLabel)]
  label = wanted or ('label' if 'label' in features else '')
  label = label or (named[0] if len(named) == 1 else '')
  if not label:
    return (), ''
  feature, most, wrong = features[label], _MOST_CLASSES, ''
  if isinstance(feature, hf.ClassLabel):
    most = len(feature.names or ())
  elif not (isinstance(feature, hf.Value) and 'int' in feature.dtype):
    wrong = f'{_kind(feature) or "images"}, not whole numbers'
  last = -1
  if not wrong:
    table: Any = data.select_columns([label]).with_format('arrow')[:]
    numbers = table.column(label).to_numpy()  # floats with NaN where some are missing
    last = int(numbers.max(initial=-1)) if numbers.dtype.kind in 'iu' else most
    if not 0 <= last < most or numbers.min() < 0:
      wrong = f'values that are no labels from 0 to {most - 1}'
  if wrong:
    text = f'{path}: column {label!r} holds {wrong}'
    if wanted:
      raise DataError(f'{text}: set another data.label_column')
    logging.info('%s: images have no labels', text)
    return (), ''
  if isinstance(feature, hf.ClassLabel):
    return tuple(feature.names), label
  return tuple(map(str, range(last + 1))), label


def _file(stored: Any, name: str) -> bytes | str:
  """Return the bytes of an image, or the path of its file on this machine.

  Raises:
    ImageError: the row has neither.
  """
  path = None
  if isinstance(stored, Mapping):
    stored, path = stored.get('bytes'), stored.get('path')
  if stored is not None:
    return stored
  if not path or '://' in path:
    raise ImageError(f'{name}: no image here ({path or "empty"})')
  return path
