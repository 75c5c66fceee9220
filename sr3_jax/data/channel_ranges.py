"""Finds for every channel of a source the stored values that mean -1 and 1."""

import contextlib
import pathlib

import numpy as np
from etils import epath

from sr3_jax.data.records import DataError, Source
from sr3_jax.images import folder_listing, rasters
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime.progress import Progress

_SAMPLE = 2**22  # pixels of each channel that percentiles are taken of


def first_channels(folder: pathlib.Path) -> int:
  """Return the number of channels of the first image in a folder that can be read.

  Raises:
    DataError: there is no such folder, or no such image.
  """
  if not folder.is_dir():
    raise DataError(f'{folder}: no such folder')
  for name in folder_listing.list_files(epath.Path(folder), rasters.EXTENSIONS).names:
    with contextlib.suppress(ImageError):
      return rasters.header(folder / name).channels
  raise DataError(f'{folder}: no image that can be read in this folder')


def sample_pixels(source: Source, count: int) -> np.ndarray:
  """Read pixels of up to `count` images, evenly spread over a source: [n, C].

  Raises:
    DataError: no image can be read.
  """
  count, found = min(count, len(source)), []
  share = _SAMPLE // count  # pixels of an image
  with Progress(count, unit='image') as progress:
    for done, i in enumerate((np.arange(count) * len(source) // count).tolist()):
      with contextlib.suppress(ImageError):
        image = source[i]['image']
        pixels = image.reshape(-1, image.shape[-1])
        if share < len(pixels):
          # At random, because even steps would take the same columns of all rows.
          pixels = pixels[np.random.default_rng(i).choice(len(pixels), share)]
        found.append(pixels)
        progress.update(done + 1)
  if not found:
    raise DataError(f'not one of {count} images can be read')
  return np.concatenate(found)


def percentile_range(
  sample: np.ndarray, dtype: np.dtype, low: float, high: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return data.low and data.high of a model: two percentiles of every channel.

  Args:
    sample: pixels [n, C].
    dtype: type of the images; for integers the range is rounded outwards.
    low: percentile that means -1, 0 to 100.
    high: percentile that means 1, above `low`.

  Raises:
    DataError: a channel has one value only.
  """
  below, above = np.percentile(sample, (low, high), axis=0)
  if np.dtype(dtype).kind == 'u':
    below, above = np.floor(below), np.ceil(above)
  if len(constant := np.flatnonzero(below >= above)):
    c = constant[0]
    raise DataError(
      f'channel {c + 1} is {below[c]:g} nearly everywhere: leave it out, or choose '
      'other percentiles'
    )
  return tuple(below.tolist()), tuple(above.tolist())
