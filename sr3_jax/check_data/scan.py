"""Every image of a set, looked at once: what `data_check` finds things in.

Images are decoded by as many threads as there are cores (Pillow lets go of the
interpreter meanwhile) and forgotten at once; about 300 bytes are kept of each.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
from etils import epath

from sr3_jax.check_data import file_check
from sr3_jax.check_data.file_check import THUMBNAIL, Look
from sr3_jax.data.folder_sources import Folder
from sr3_jax.data.records import Source
from sr3_jax.images import pixels, resizing

REDUCTIONS = (1, 2, 3, 4)
_PORTION = 512  # images in flight
_CENTRE = 512  # pixels of an image that `details` looks at, along each axis


@dataclasses.dataclass(frozen=True)
class Scan:
  """A set of N images: those of its source first, then files that it leaves out.

  Attributes:
    names: [N].
    height: int32 [N] in pixels, 0 where even the header is broken.
    width: the same.
    quality: uint8 [N], of JPEG files 1 to 100, else 0.
    digest: uint64 [N], of files' bytes or of pixels.
    thumbnails: uint8 [N, S, S].
    kinds: 'JPEG, RGB' -> how many images.
    traits: 'transparent' -> numbers of the images.
    broken: number of an image -> why it can't be decoded.
    labels: class -> images, of the usable ones; empty without classes.
  """

  names: Sequence[str]
  height: np.ndarray
  width: np.ndarray
  quality: np.ndarray
  digest: np.ndarray
  thumbnails: np.ndarray
  kinds: collections.Counter
  traits: dict[str, list[int]]
  broken: dict[int, str]
  labels: dict[str, int]

  def __len__(self) -> int:
    return len(self.names)

  @property
  def side(self) -> np.ndarray:
    """Shorter sides, int32 [N]."""
    return np.minimum(self.height, self.width)

  @property
  def whole(self) -> np.ndarray:
    """bool [N], whether an image can be decoded."""
    whole = np.ones(len(self), bool)
    whole[list(self.broken)] = False
    return whole


def scan(
  source: Source,
  files: epath.Path | None,
  on_images: Callable[[int], None] = lambda count: None,
) -> Scan:
  """Looks at all images of a source.

  Args:
    source: made with min_size 1, so that small images are counted.
    files: the folder, where the source is a folder of pictures: then files are looked
      at, those that the source leaves out, too; None: records are.
    on_images: called with the number of images that are done.
  """
  left_out = source.left_out if isinstance(source, Folder) else {}
  names = [*map(source.name, range(len(source))), *left_out]
  count = len(names)
  found = Scan(
    names=names,
    height=np.zeros(count, np.int32),
    width=np.zeros(count, np.int32),
    quality=np.zeros(count, np.uint8),
    digest=np.zeros(count, np.uint64),
    thumbnails=np.zeros((count, THUMBNAIL, THUMBNAIL), np.uint8),
    kinds=collections.Counter(),
    traits=collections.defaultdict(list),
    broken={},
    labels=dict.fromkeys(source.classes, 0),
  )

  def look(number: int) -> tuple[Look, str]:
    if files is not None:
      name = names[number]
      label = pathlib.PurePath(name).parts[0] if source.classes else ''
      return file_check.of_file(files / name), label
    return _record(source, number, left_out.get(names[number], ''))

  with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for start in range(0, count, _PORTION):
      numbers = range(start, min(start + _PORTION, count))
      for number, (seen, label) in zip(numbers, pool.map(look, numbers), strict=True):
        _keep(found, number, seen, label)
        on_images(number + 1)
  return found


def details(
  source: Source,
  numbers: Sequence[int],
  on_images: Callable[[int], None] = lambda count: None,
) -> dict[int, float]:
  """How much fine detail images have, reduced by each of REDUCTIONS.

  Args:
    source: the images.
    numbers: of those to look at.
    on_images: called with the number of images that are done.

  Returns:
    Factor -> median of `file_check.detail`; factors that leave too little are missing.
  """
  columns = collections.defaultdict(list)

  def measure(number: int) -> list[float]:
    try:
      plane = file_check.grey(source[number]['image'])
    except pixels.ImageError:
      return []
    top, left = (max(0, (side - _CENTRE) // 2) for side in plane.shape)
    plane = plane[top : top + _CENTRE, left : left + _CENTRE, None]
    return [_reduced_detail(plane, factor) for factor in REDUCTIONS]

  with futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for done, values in enumerate(pool.map(measure, numbers), 1):
      for factor, value in zip(REDUCTIONS, values, strict=False):
        if np.isfinite(value):
          columns[factor].append(value)
      on_images(done)
  # A factor that only a few large images allow says nothing of the others.
  enough = max((len(values) for values in columns.values()), default=0) / 2
  return {
    factor: float(np.median(values))
    for factor, values in sorted(columns.items())
    if len(values) >= enough
  }


def chosen(found: Scan, source: Source, count: int) -> list[int]:
  """Numbers of so many images of the source that can be read, spread evenly."""
  whole = np.flatnonzero(found.whole[: len(source)])
  places = np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)
  return whole[places].tolist()


def _record(source: Source, number: int, reason: str) -> tuple[Look, str]:
  """A record that isn't a file of a picture."""
  if reason:
    return file_check.broken(reason), ''
  try:
    record = source[number]
  except pixels.ImageError as error:
    return file_check.broken(str(error)), ''
  image = record['image']
  kind = f'{image.shape[-1]} x {image.dtype}'
  label = source.classes[int(record['label'])] if 'label' in record else ''
  return file_check.of_pixels(image, kind), label


def _keep(found: Scan, number: int, seen: Look, label: str) -> None:
  found.height[number], found.width[number] = seen.height, seen.width
  found.quality[number], found.digest[number] = seen.quality, seen.digest
  found.kinds[seen.kind] += 1
  for trait in seen.traits:
    found.traits[trait].append(number)
  if seen.thumbnail is None:
    found.broken[number] = seen.error
  else:
    found.thumbnails[number] = seen.thumbnail
    if label:
      found.labels[label] = found.labels.get(label, 0) + 1


def _reduced_detail(plane: np.ndarray, factor: int) -> float:
  height, width = (side // factor for side in plane.shape[:2])
  if min(height, width) < 32:
    return float('nan')
  even = plane[: height * factor, : width * factor]
  return file_check.detail(resizing.resize_area(even, (height, width))[..., 0])
