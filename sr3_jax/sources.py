"""Where images come from: random-access objects over folders, TFDS and photographs.

A source has `len(source)`, `source[i]` -> `{'image': uint8 [H, W, C]}` with an int32
`'label'` where there are labels, `source.name(i)` for messages, and `source.classes`,
the names of the labels. A record that can't be read raises `images.ImageError`.
"""

import functools
import hashlib
import importlib.util
import itertools
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Protocol

import numpy as np
from absl import logging
from etils import epath

from sr3_jax import images

# Photographs inside scikit-image's wheel. No scene is on both sides: the two views of
# the motorcycle stay together.
PHOTOS = {
  'train': (
    'astronaut.png',
    'brick.png',
    'camera.png',
    'grass.png',
    'gravel.png',
    'hubble_deep_field.jpg',
    'ihc.png',
    'motorcycle_left.png',
    'motorcycle_right.png',
    'retina.jpg',
    'rocket.jpg',
  ),
  'eval': ('chelsea.png', 'coffee.png'),
}


class DataError(ValueError):
  """One line: what is wrong with a source of images, and what to do."""


class Source(Protocol):
  """What `train_batches` and `eval_batches` read from."""

  classes: tuple[str, ...]  # none: no labels
  channels: int
  dtype: Any  # of the pixels

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict[str, Any]: ...
  def name(self, index: int) -> str: ...


class Photos:
  """The photographs that come with scikit-image: no download.

  Raises:
    DataError: unknown split, or a scikit-image without its pictures.
  """

  classes, channels, dtype = (), 3, np.uint8

  def __init__(self, split: str):
    if split not in PHOTOS:
      raise DataError(f'photos have no split {split!r}, only {", ".join(PHOTOS)}')
    # Found, not imported: scikit-image would bring SciPy into every worker.
    package = importlib.util.find_spec('skimage')
    if package is None:
      raise DataError('photos need scikit-image: pip install scikit-image')
    folder = os.path.join(package.submodule_search_locations[0], 'data')
    self._paths = [os.path.join(folder, name) for name in PHOTOS[split]]
    for path in self._paths:
      if not os.path.exists(path):
        raise DataError(f'{path}: missing; install scikit-image from its wheel')

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': _read_once(self._paths[index])}

  def name(self, index: int) -> str:
    return os.path.basename(self._paths[index])


class Folder:
  """All images below a folder, in sorted order; labels none.

  Only headers are read here. Files whose header is broken or whose shorter side is
  below `min_size` are left out, counted and named in `left_out` and in the log.
  Hidden files and folders (a dot in front) and links to folders aren't followed.

  Args:
    path: local or gs://.
    min_size: shortest side of a usable image in pixels.
    max_pixels: larger images are left out.

  Raises:
    DataError: no such folder, nothing in it, or nothing that can be used.
  """

  classes, channels, dtype = (), 3, np.uint8

  def __init__(
    self,
    path: epath.PathLike,
    *,
    min_size: int = 1,
    max_pixels: int = images.MAX_PIXELS,
  ):
    self._root = epath.Path(path)
    self._max_pixels = max_pixels
    if not self._root.is_dir():
      what = 'is a file, not a folder' if self._root.exists() else 'no such folder'
      raise DataError(f'{path}: {what}')
    names = sorted(_walk(self._root))
    if not names:
      known = ', '.join(images.EXTENSIONS)
      raise DataError(f'{path}: no images in this folder ({known})')
    check = functools.partial(
      _unusable, self._root, min_size=min_size, max_pixels=max_pixels
    )
    if len(names) > 20_000:  # about 4,000 a second
      logging.info('%s: reading the headers of %d images', path, len(names))
    reasons: list[str | None] = []
    with futures.ThreadPoolExecutor(16) as pool:
      # In portions: a future for each of a million files would be a gigabyte.
      for start in range(0, len(names), 10_000):
        reasons.extend(pool.map(check, names[start : start + 10_000]))
    found = dict(zip(names, reasons, strict=True))
    self.left_out = {name: why for name, why in found.items() if why}
    self._names = [name for name, why in found.items() if not why]
    if self.left_out:
      some = [f'{k} ({why})' for k, why in itertools.islice(self.left_out.items(), 3)]
      more = ', ...' if len(self.left_out) > 3 else ''
      summary = (
        f'{path}: {len(self.left_out)} of {len(names)} images left out: '
        f'{", ".join(some)}{more}'
      )
      if not self._names:
        raise DataError(f'{summary}; images of at least {min_size} pixels are needed')
      logging.warning('%s', summary)

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = self._root / self._names[index]
    return {'image': images.read(path, max_pixels=self._max_pixels)}

  def name(self, index: int) -> str:
    return self._names[index]

  def state(self, index: int) -> str:
    """Name, size and time of a file."""
    stat = (self._root / self._names[index]).stat()
    return f'{self._names[index]} {stat.length} {stat.mtime}'


class ClassFolder(Folder):
  """A folder of folders, one for each class: labels are numbers of the sorted names.

  Args:
    path, min_size, max_pixels: as of `Folder`.

  Raises:
    DataError: as `Folder`, or an image outside of the folders.
  """

  def __init__(self, path: epath.PathLike, **options: Any):
    super().__init__(path, **options)
    places = [pathlib.PurePath(name).parts for name in (*self._names, *self.left_out)]
    if stray := [place[0] for place in places if len(place) == 1]:
      raise DataError(f'{path}: {stray[0]} is not in the folder of a class')
    # Also of classes without a usable image: labels must not depend on image sizes.
    self.classes = tuple(sorted({place[0] for place in places}))

  def __getitem__(self, index: int) -> dict[str, Any]:
    label = self.classes.index(pathlib.PurePath(self._names[index]).parts[0])
    return super().__getitem__(index) | {'label': np.int32(label)}


class Arrays:
  """An .npz file of images and labels, as small data sets are often kept.

  Images are 'x_train' and 'x_test', uint8 [N, H, W, C], with 'y_train' and 'y_test',
  int [N]; or 'x' and 'y', of which every tenth is for tests. 'classes' may name the
  labels.

  Args:
    path: the file.
    split: 'train' or 'test'.

  Raises:
    DataError: no such file or split, or arrays of other types and shapes.
  """

  def __init__(self, path: epath.PathLike, split: str):
    self._name = f'{epath.Path(path).name}:{split}'
    if split not in ('train', 'test'):
      raise DataError(f"{path}: no split {split!r}, only 'train' and 'test'")
    try:
      with epath.Path(path).open('rb') as file, np.load(file) as stored:
        if f'x_{split}' in stored:
          self._images, labels = stored[f'x_{split}'], stored[f'y_{split}']
        else:
          test = np.arange(len(stored['y'])) % 10 == 9
          chosen = test if split == 'test' else ~test
          self._images, labels = stored['x'][chosen], stored['y'][chosen]
        names = stored.get('classes', ())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
      raise DataError(f'{path}: {first_line(error)}') from None
    count = len(self._images)
    if self._images.dtype != np.uint8 or self._images.ndim != 4 or not count:
      raise DataError(f'{path}: images must be uint8 [N, H, W, C]')
    if labels.shape != (count,) or labels.dtype.kind not in 'iu' or labels.min() < 0:
      raise DataError(f'{path}: labels must be integers from 0, one for each image')
    self._labels = labels.astype(np.int32)
    most = max(len(names), int(labels.max()) + 1)
    self.classes = tuple(map(str, names)) or tuple(map(str, range(most)))
    self.channels, self.dtype = self._images.shape[-1], np.uint8

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return {'image': self._images[index], 'label': self._labels[index]}

  def name(self, index: int) -> str:
    return f'{self._name}[{index}]'


def fingerprint(source: Source) -> str:
  """Changes when a file of a folder does; others are told apart by their size.

  16 hexadecimal digits, of the names, sizes and times of a folder's files.
  """
  lines = [str(len(source))]
  if isinstance(source, Folder):
    with futures.ThreadPoolExecutor(16) as pool:
      lines += pool.map(source.state, range(len(source)))
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16]


class Tfds:
  """A prepared TensorFlow Dataset with an `image`, read without TensorFlow.

  Images are decoded by `images.decode`, so that grey, CMYK and 16-bit files mean the
  same as in a folder. An integer `label` comes along if there is one.

  Args:
    name: as TFDS writes it: 'mnist', 'celeb_a_hq/256', 'imagenet2012:5.1.0'.
    split: as TFDS writes it: 'train', 'train[90%:]'.
    data_dir: where it was prepared; None for the place TFDS takes by default.
    max_pixels: larger images count as unreadable.

  Raises:
    DataError: not prepared (the message has the command), no such split, no images.
  """

  channels, dtype = 3, np.uint8

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: epath.PathLike | None = None,
    *,
    max_pixels: int = images.MAX_PIXELS,
  ):
    import tensorflow_datasets as tfds  # 1 s, and only this source needs it

    self._name = f'{name}:{split}'
    self._max_pixels = max_pixels
    arguments = f"'{name}', file_format='array_record'"
    if data_dir:
      arguments += f", data_dir='{data_dir}'"
    try:
      builder = tfds.builder(
        name, data_dir=data_dir, file_format=tfds.core.FileFormat.ARRAY_RECORD
      )
      splits = builder.info.splits
    except Exception as error:
      raise DataError(f'TFDS {name!r}: {first_line(error)}') from None
    if not splits:
      raise DataError(
        f'TFDS {name!r} is not prepared as ArrayRecord here; once: python -c "import '
        f'tensorflow_datasets as t; t.builder({arguments}).download_and_prepare()"'
      )
    features = dict(builder.info.features)
    if not isinstance(features.get('image'), tfds.features.Image):
      raise DataError(f"TFDS {name!r} has no 'image', only {', '.join(features)}")
    label = features.get('label')
    named = isinstance(label, tfds.features.ClassLabel)
    self.classes = tuple(label.names) if named else ()
    try:
      self._records = builder.as_data_source(
        split=split, decoders={'image': tfds.decode.SkipDecoding()}
      )
      self._length = len(self._records)
    except Exception as error:
      raise DataError(f'TFDS {name!r}: {first_line(error)}') from None

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    name = self.name(index)
    try:
      record = self._records[index]
    except Exception as error:
      raise images.ImageError(f'{name}: {first_line(error)}') from None
    pixels = images.decode(record['image'], name, max_pixels=self._max_pixels)
    if self.classes:
      return {'image': pixels, 'label': np.int32(record['label'])}
    return {'image': pixels}

  def name(self, index: int) -> str:
    return f'{self._name}[{index}]'


SOURCES: dict[str, Callable[..., Source]] = {
  'photos': lambda path, split, data_dir, min_size: Photos(split),
  'folder': lambda path, split, data_dir, min_size: Folder(path, min_size=min_size),
  'classes': lambda path, split, data_dir, min_size: ClassFolder(
    path, min_size=min_size
  ),
  'arrays': lambda path, split, data_dir, min_size: Arrays(path, split),
  'tfds': lambda path, split, data_dir, min_size: Tfds(path, split, data_dir),
}


def make_source(
  source: str,
  *,
  path: str = '',
  split: str = 'train',
  data_dir: str | None = None,
  min_size: int = 1,
) -> Source:
  """A source by name.

  Args:
    source: a key of SOURCES.
    path: the folder or file, or the name of the TFDS dataset; photos need none.
    split: 'train' or 'eval' of photos, 'train' or 'test' of arrays, or a TFDS split. A
      folder is taken whole: hold images out by keeping them in another folder.
    data_dir: where TFDS datasets were prepared.
    min_size: shortest side that is of use; a folder leaves smaller images out.

  Raises:
    DataError: unknown name, missing path, or what the source itself raises.
  """
  if source not in SOURCES:
    raise DataError(f'no source {source!r}, only {", ".join(SOURCES)}')
  if source != 'photos' and not path:
    raise DataError(f'source {source!r} needs a path')
  return SOURCES[source](path, split, data_dir, min_size)


def _walk(root: epath.Path) -> Iterator[str]:
  """Names of the images below a folder, relative to it."""

  def refuse(error: OSError):
    raise DataError(f'{error.filename}: {error.strerror}')

  for folder, folders, files in root.walk(on_error=refuse):
    folders[:] = [name for name in folders if not name.startswith('.')]
    place = folder.relative_to(root)
    for name in files:
      if name.lower().endswith(images.EXTENSIONS) and not name.startswith('.'):
        yield str(place / name)


def _unusable(
  root: epath.Path, name: str, *, min_size: int, max_pixels: int
) -> str | None:
  """Why a file of a folder can't be used, judged by its header; None if it can."""
  path = root / name
  try:
    height, width = images.size(path, max_pixels=max_pixels)
  except images.ImageError as error:
    return str(error).removeprefix(f'{path}: ')
  if min(height, width) < min_size:
    return f'{width} x {height} pixels'
  return None


@functools.cache
def _read_once(path: str) -> np.ndarray:
  image = images.read(path)
  image.setflags(write=False)  # everybody gets the same array
  return image


def first_line(error: BaseException) -> str:
  """The first line of an error's message, for messages of our own."""
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__
