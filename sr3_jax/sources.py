"""Where images come from: random-access objects over folders, TFDS and photographs.

A source has `len(source)`, `source[i]` -> `{'image': uint8 [H, W, 3]}` with an int32
`'label'` where there are labels, `source.name(i)` for messages, and `source.labels`. A
record that can't be read raises `images.ImageError`.
"""

import functools
import hashlib
import importlib.util
import itertools
import os
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

  labels: bool

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict[str, Any]: ...
  def name(self, index: int) -> str: ...


class Photos:
  """The photographs that come with scikit-image: no download.

  Raises:
    DataError: unknown split, or a scikit-image without its pictures.
  """

  labels = False

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

  labels = False

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
    self.labels = isinstance(features.get('label'), tfds.features.ClassLabel)
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
    if self.labels:
      return {'image': pixels, 'label': np.int32(record['label'])}
    return {'image': pixels}

  def name(self, index: int) -> str:
    return f'{self._name}[{index}]'


SOURCES: dict[str, Callable[..., Source]] = {
  'photos': lambda path, split, data_dir, min_size: Photos(split),
  'folder': lambda path, split, data_dir, min_size: Folder(path, min_size=min_size),
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
    path: the folder, or the name of the TFDS dataset; photos need none.
    split: 'train' or 'eval' of photos, or a TFDS split. A folder is taken whole: hold
      images out by keeping them in another folder.
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
