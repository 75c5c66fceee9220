"""Makes sources of images by name: folders, arrays, photographs, and datasets.

`records.Source` says what a source is. Start with `make_source`; TFDS and Hugging Face
datasets are made by `make_dataset`.
"""

import functools
import hashlib
import importlib.util
import os
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from sr3_jax.data import hf_rows
from sr3_jax.data.columns import ColumnImages, ColumnPairs, Columns, Rows, make_images
from sr3_jax.data.folder_sources import ClassFolder, Folder, file_state
from sr3_jax.data.hf_rows import HfRows
from sr3_jax.data.pairs import Pairs
from sr3_jax.data.records import DataError, Record, Source
from sr3_jax.data.tfds_rows import TfdsRows
from sr3_jax.images import image_files, rasters
from sr3_jax.runtime import foreign_arrays, foreign_files

# Sources whose path is on this machine.
LOCAL = ('folder', 'classes', 'pairs', 'arrays')
# Sources that are folders, which are taken whole.
FOLDERS = ('folder', 'classes', 'pairs')
# Sources whose rows have columns.
DATASETS = ('tfds', 'hf')
AnyPairs = Pairs | ColumnPairs
# Photographs inside scikit-image's wheel. No scene is in both splits: the two views of
# the motorcycle stay together.
PHOTOS = {
  'train': 'astronaut.png brick.png camera.png grass.png gravel.png '
  'hubble_deep_field.jpg ihc.png motorcycle_left.png motorcycle_right.png '
  'retina.jpg rocket.jpg',
  'eval': 'chelsea.png coffee.png',
}


def make_source(
  source: str,
  *,
  path: str = '',
  split: str = 'train',
  min_size: int = 1,
  channels: int = 3,
  calibrated: bool = False,
  cache_folder: epath.Path | None = None,
  decode_side: int = 0,
  prefix: str = '',
) -> Source:
  """Make a source by name, of a path.

  Args:
    source: a name that `data.source` can have, but those of DATASETS; 'pairs' makes one
      of their two folders.
    path: the folder or file; photos need none.
    split: 'train' or 'eval' of photos, 'train' or 'test' of arrays. A folder is taken
      whole: hold images out by keeping them in another folder.
    min_size: shortest side that is of use; a folder leaves smaller images out.
    channels: of the images; with other than 3 they keep the values of their files.
    calibrated: whether the model says which stored values mean -1 and 1, so that images
      of 3 channels keep the values of their files, too.
    cache_folder: where the headers of a large folder are cached; None caches nothing.
    decode_side: how a JPEG picture may be decoded; see `image_files.read`.
    prefix: of the options of data that messages name: 'input_' for inputs of pairs.

  Raises:
    DataError: missing path, channels that the source can't have, floating
      point without a range, or what the source itself raises.
  """
  if source != 'photos' and not path:
    raise DataError(f'data.source={source!r} needs --config.data.{prefix}path=PATH')
  if source == 'photos' and channels not in (1, 3):
    raise DataError(f'photos are pictures, of 1 or 3 channels, not {channels}')
  if source == 'photos':
    made: Source = Photos(split, channels)
  elif source == 'arrays':
    made = Arrays(path, split, channels)
  else:
    made = (ClassFolder if source == 'classes' else Folder)(
      path,
      min_size=min_size,
      channels=channels,
      as_rasters=calibrated,
      cache_folder=cache_folder,
      decode_side=decode_side,
    )
  if np.dtype(made.dtype).kind == 'f' and not calibrated:
    raise DataError(
      f'{path}: {made.dtype} values have no range of their own: set data.{prefix}low '
      f'and data.{prefix}high (sr3-channels {path} finds them)'
    )
  return made


def make_pairs(
  config: ml_collections.ConfigDict, *, held_out: bool, min_size: int, **common: Any
) -> Pairs:
  """Open the pairs of training, or those that are held out.

  Args:
    config: `config.data`.
    held_out: whether to take the held-out pairs; without paths of their own these are
      the pairs of training.
    min_size: shortest side of a target.
    **common: `make_source`'s arguments for both folders.

  Raises:
    DataError: as of `make_source` and `Pairs`, or one of two paths is missing.
  """
  d = config
  if bool(d.eval_path) != bool(d.eval_input_path):
    raise DataError(
      'data.eval_path (targets) and data.eval_input_path (inputs) go together: set both'
    )
  own = held_out and d.eval_path
  paths = (d.eval_path, d.eval_input_path) if own else (d.path, d.input_path)
  targets = make_source(
    'pairs',
    path=paths[0],
    min_size=min_size,
    channels=d.channels,
    calibrated=len(d.low) > 0,
    **common,
  )
  inputs = make_source(
    'pairs',
    path=paths[1],
    channels=d.input_channels or d.channels,
    calibrated=len(d.input_low) > 0,
    prefix='input_',
    **common,
  )
  assert isinstance(targets, Folder) and isinstance(inputs, Folder)
  return Pairs(targets, inputs)


def make_dataset(
  config: ml_collections.ConfigDict, *, held_out: bool, decode_side: int = 0
) -> Source:
  """Open a TFDS or Hugging Face dataset: its images, or pairs if it has inputs.

  Args:
    config: `config.data`.
    held_out: whether to take the held-out images.
    decode_side: how JPEG images may be decoded; see `image_files.read`.

  Raises:
    DataError: no path, channels that pictures can't have, no such dataset, split or
      column, or nothing in it.
  """
  d = config
  path = d.eval_path or d.path if held_out else d.path
  split = d.eval_split if held_out else d.split
  columns = Columns(d.image_column, d.input_column, d.label_column)
  if not path:
    raise DataError(f'data.source={d.source!r} needs --config.data.path=PATH')
  if wrong := {d.channels, d.input_channels or d.channels} - {1, 3}:
    raise DataError(f'{d.source}: pictures have 1 or 3 channels, not {min(wrong)}')
  if d.source == 'tfds':
    rows: Rows = TfdsRows(path, split, d.data_dir or None, columns)
  else:
    options = {'subset': d.subset, 'revision': d.revision, 'columns': columns}
    rows = HfRows(path, split, cache_dir=d.data_dir or None, **options)
  return make_images(rows, d.channels, d.input_channels, decode_side)


def is_local(source: str, path: str) -> bool:
  """Return whether the path of a source is one of this machine."""
  return source in LOCAL or (source == 'hf' and not hf_rows.is_hub_name(path))


def fingerprint(source: Source) -> str:
  """Return 16 hexadecimal digits that change when a file of a source does.

  They are made of the names, sizes and times of the files; of a source without files of
  its own, only of the number of images.
  """
  digest = hashlib.sha256(str(len(source)).encode())
  known = isinstance(source, Folder | AnyPairs | Arrays | ColumnImages)
  for state in source.states() if known else ():
    digest.update(f'\n{state}'.encode('utf-8', 'surrogateescape'))
  return digest.hexdigest()[:16]


def check_classes(source: Source, num_classes: int) -> None:
  """Refuse a source whose labels don't suit a model of `num_classes`, 0 for none.

  Raises:
    DataError: the model needs labels and the source has none, or has more classes.
  """
  found = len(source.classes)
  if num_classes and not 0 < found <= num_classes:
    raise DataError(
      f'model.num_classes={num_classes}, and the data has {found or "no"} classes: set '
      'model.num_classes, or choose a data.source with labels'
    )


class Photos:
  """The photographs that come with scikit-image, in colour or of one channel.

  Raises:
    DataError: unknown split, or a scikit-image without its pictures.
  """

  def __init__(self, split: str, channels: int = 3):
    self.classes: tuple[str, ...] = ()
    self.channels, self.dtype = channels, np.dtype(np.uint8)
    if split not in PHOTOS:
      raise DataError(f'photos have no split {split!r}, only {", ".join(PHOTOS)}')
    # The package is not imported, because it would bring SciPy into every worker.
    package = importlib.util.find_spec('skimage')
    if package is None or package.origin is None:
      raise DataError('photos need scikit-image: pip install scikit-image')
    folder = os.path.join(os.path.dirname(package.origin), 'data')
    self._paths = [os.path.join(folder, name) for name in PHOTOS[split].split()]
    if missing := [path for path in self._paths if not os.path.exists(path)]:
      raise DataError(f'{missing[0]}: missing; install scikit-image from its wheel')

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> Record:
    return {'image': _read_once(self._paths[index], self.channels)}

  def name(self, index: int) -> str:
    """Return the file name of a photograph."""
    return os.path.basename(self._paths[index])


class Arrays:
  """The images and labels of an .npz file, a usual form of small data sets.

  Images are 'x_train' and 'x_test', [N, H, W, C] of uint8, uint16 or float32, with
  'y_train' and 'y_test', int [N]; or 'x' and 'y', of which every tenth image is for
  tests. 'classes' may name the labels.

  Raises:
    DataError: no such file or split, or arrays of other types and shapes.
  """

  def __init__(self, path: epath.PathLike, split: str, channels: int = 3):
    self._path = foreign_files.place(path)
    self._name = f'{self._path.name}:{split}'
    if split not in ('train', 'test'):
      raise DataError(f"{path}: no split {split!r}, only 'train' and 'test'")
    what, parts = 'images and labels', (f'x_{split}', f'y_{split}')
    with foreign_files.explained(path, what, DataError):
      there = foreign_arrays.npz_names(path)
      wanted = parts if parts[0] in there else ('x', 'y')
      if not set(wanted) <= set(there):
        found = ', '.join(there) or 'nothing'
        raise ValueError(f'holds {found}; wanted are {" and ".join(parts)}, or x and y')
      options = {'only': (*wanted, 'classes'), 'what': what, 'finite': False}
      stored = foreign_arrays.read_npz(path, wanted, **options)
      self._images, labels = (stored[name] for name in wanted)
      names = stored.get('classes', np.array(()))
      if labels.ndim != 1 or self._images.shape[:1] != labels.shape or names.ndim != 1:
        raise ValueError('labels must be integers from 0, one for each image')
      if wanted == ('x', 'y'):
        test = np.arange(len(labels)) % 10 == 9
        chosen = test if split == 'test' else ~test
        self._images, labels = self._images[chosen], labels[chosen]
    shape, self.dtype = self._images.shape, self._images.dtype
    wrong = ''
    if self.dtype not in rasters.DTYPES or len(shape) != 4 or not shape[0]:
      wrong = 'images must be uint8, uint16 or float32 [N, H, W, C]'
    elif shape[-1] != channels:
      wrong = f'{shape[-1]} channels, data.channels is {channels}'
    elif not np.isfinite(self._images).all():
      wrong = 'holds values that are not finite (NaN?)'
    elif labels.shape != shape[:1] or labels.dtype.kind not in 'iu' or labels.min() < 0:
      wrong = 'labels must be integers from 0, one for each image'
    if wrong:
      raise DataError(f'{path}: {wrong}')
    self._labels = labels.astype(np.int32)
    numbers = range(int(labels.max()) + 1)
    self.classes = tuple(map(str, names if len(names) else numbers))
    self.channels = channels

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> Record:
    return {'image': self._images[index], 'label': self._labels[index]}

  def name(self, index: int) -> str:
    """Return 'FILE:SPLIT[INDEX]'."""
    return f'{self._name}[{index}]'

  def states(self) -> list[str]:
    """Return `file_state` of the file, as a list of one."""
    return [file_state(self._path, self._name)]


@functools.cache
def _read_once(path: str, channels: int) -> np.ndarray:
  image = image_files.read(path, channels=channels)
  image.setflags(write=False)  # every caller gets the same array
  return image
