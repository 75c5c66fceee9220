"""Checks every image of a set once, and stores what the findings are made of.

Images are decoded by as many threads as there are cores, because Pillow releases the
interpreter meanwhile. About 300 bytes are stored for each image.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from etils import epath

from sr3_jax.check_data import file_check
from sr3_jax.check_data.file_check import THUMBNAIL, FileFacts
from sr3_jax.data.folder_sources import Folder
from sr3_jax.data.records import Source
from sr3_jax.images import pixels, resizing
from sr3_jax.runtime.progress import Progress

FACTORS = (1, 2, 3, 4)  # by which images are downsampled to find their detail
_PORTION = 512  # images that are handed to the threads at a time
_CENTRE = 512  # side of the part in which `median_details` looks, in pixels


@dataclasses.dataclass(frozen=True)
class Scan:
  """The facts of N images: those of a source first, then files that it leaves out.

  See `file_check.FileFacts` for the meaning of each.
  """

  names: Sequence[str]
  height: np.ndarray  # int32 [N], pixels
  width: np.ndarray  # int32 [N], pixels
  quality: np.ndarray  # uint8 [N]
  digest: np.ndarray  # uint64 [N]
  thumbnails: np.ndarray  # uint8 [N, THUMBNAIL, THUMBNAIL]
  kinds: collections.Counter  # kind -> how many images
  traits: dict[str, list[int]]  # trait -> numbers of the images
  broken: dict[int, str]  # number of an image -> why it can't be decoded
  labels: dict[str, int]  # class -> how many images can be decoded

  def __len__(self) -> int:
    return len(self.names)

  @property
  def side(self) -> np.ndarray:
    """Shorter sides, int32 [N]."""
    return np.minimum(self.height, self.width)

  @property
  def decodable(self) -> np.ndarray:
    """Return whether each image can be decoded, bool [N]."""
    return ~np.isin(np.arange(len(self)), list(self.broken))


def scan_source(source: Source, name: str, files: epath.Path | None) -> Scan:
  """Check all images of a source, and show the progress.

  Args:
    source: made with min_size 1, so that small images are counted.
    name: of the source, for the progress line.
    files: the folder of a source of pictures, to check its files; None to check the
      decoded images of the source.
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

  def check(number: int) -> tuple[FileFacts, str]:
    if files is not None:
      label = names[number].partition('/')[0] if source.classes else ''
      return file_check.check_file(files / names[number]), label
    return _check_record(source, number, left_out.get(names[number], ''))

  progress = Progress(count, unit=f'{name} image')
  with progress, futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for start in range(0, count, _PORTION):
      numbers = range(start, min(start + _PORTION, count))
      for number, (facts, label) in zip(numbers, pool.map(check, numbers), strict=True):
        _store(found, number, facts, label)
        progress.update(number + 1)
  return found


def median_details(source: Source, numbers: Sequence[int]) -> dict[int, float]:
  """Find how much fine detail images have, downsampled by each of FACTORS.

  Args:
    source: the images.
    numbers: of the images to measure.

  Returns:
    Factor -> median of `file_check.fine_detail`; without factors that leave too few
    pixels of most images.
  """
  columns = collections.defaultdict(list)

  def measure(number: int) -> list[float]:
    try:
      plane = file_check.to_grey(source[number]['image'])
    except pixels.ImageError:
      return []
    top, left = (max(0, (side - _CENTRE) // 2) for side in plane.shape)
    plane = plane[top : top + _CENTRE, left : left + _CENTRE, None]
    return [_downsampled_detail(plane, factor) for factor in FACTORS]

  progress = Progress(len(numbers), unit='measured image')
  with progress, futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    for done, values in enumerate(pool.map(measure, numbers), 1):
      for factor, value in zip(FACTORS, values, strict=False):
        if np.isfinite(value):
          columns[factor].append(value)
      progress.update(done)
  # If only a few large images allow a factor, it says nothing about the others.
  enough = max((len(values) for values in columns.values()), default=0) / 2
  return {
    factor: float(np.median(values))
    for factor, values in sorted(columns.items())
    if len(values) >= enough
  }


def choose_images(found: Scan, source: Source, count: int) -> list[int]:
  """Return the numbers of up to `count` decodable images of a source, spread evenly."""
  numbers = np.flatnonzero(found.decodable[: len(source)])
  places = np.linspace(0, len(numbers) - 1, min(count, len(numbers)))
  return numbers[places.round().astype(int)].tolist()


def _check_record(source: Source, number: int, reason: str) -> tuple[FileFacts, str]:
  """Check a record that isn't a file of a picture; return its label, too."""
  if reason:
    return FileFacts(error=reason), ''
  try:
    record = source[number]
  except pixels.ImageError as error:
    return FileFacts(error=str(error)), ''
  image = record['image']
  kind = f'{image.shape[-1]} x {image.dtype}'
  label = source.classes[int(record['label'])] if 'label' in record else ''
  return file_check.check_pixels(image, kind), label


def _store(found: Scan, number: int, facts: FileFacts, label: str) -> None:
  for name in ('height', 'width', 'quality', 'digest'):
    getattr(found, name)[number] = getattr(facts, name)
  found.kinds[facts.kind] += 1
  for trait in facts.traits:
    found.traits[trait].append(number)
  if facts.thumbnail is None:
    found.broken[number] = facts.error
  else:
    found.thumbnails[number] = facts.thumbnail
    if label:
      found.labels[label] = found.labels.get(label, 0) + 1


def _downsampled_detail(plane: np.ndarray, factor: int) -> float:
  height, width = (side // factor for side in plane.shape[:2])
  if min(height, width) < 32:
    return float('nan')
  even = plane[: height * factor, : width * factor]
  return file_check.fine_detail(resizing.resize_area(even, (height, width))[..., 0])
