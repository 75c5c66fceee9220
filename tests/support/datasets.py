"""Makes sources and batches of small pictures for tests."""

import dataclasses
import pathlib

import numpy as np
import pytest
import skimage.data
from absl import logging

from sr3_jax.data import batches as data_batches
from sr3_jax.data.crops import Cut
from sr3_jax.images import pixels as images_pixels

# 600 x 400, without a colour profile.
PHOTO = pathlib.Path(skimage.data.__file__).parent / 'coffee.png'


class Numbers:
  """A source whose record i is a picture of the number i."""

  classes, channels, dtype = tuple('0123456789'), 3, np.dtype(np.uint8)

  def __init__(self, count, bad=(), size=4):
    self._count, self._bad, self._size = count, bad, size

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    assert 0 <= index < self._count
    if index in self._bad:
      raise images_pixels.ImageError(f'{self.name(index)}: torn')
    pixels = np.full((self._size, self._size, 3), index, np.uint8)
    return {'image': pixels, 'label': np.int32(index % 10)}

  def name(self, index):
    return f'number {index}'


class One:
  """A source of one given picture."""

  classes, channels, dtype = (), 3, np.dtype(np.uint8)

  def __init__(self, image):
    self._image = image

  def __len__(self):
    return 1

  def __getitem__(self, index):
    return {'image': self._image}

  def name(self, index):
    return 'one'


def cut_and_rest(options):
  """Divide options by name: the `Cut` they make, and the others."""
  names = {field.name for field in dataclasses.fields(Cut)}
  options = {'batch_size': 4, 'image_size': 4, 'crop': 'random'} | options
  cut = {name: value for name, value in options.items() if name in names}
  return Cut(**cut), {k: value for k, value in options.items() if k not in names}


def training(source, **changes):
  cut, options = cut_and_rest(changes)
  return data_batches.train_batches(source, cut, **options)


def take(batches, count, close=True):
  taken = [next(batches) for _ in range(count)]
  if close:
    batches.close()
  return taken


@pytest.fixture
def warnings(monkeypatch):
  """Return a list of all lines that are logged as warnings."""
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: lines.append(text % a))
  return lines


def coordinates(height, width):
  """Make a picture in which each pixel holds its place: (row, column, 0)."""
  y, x = np.mgrid[0:height, 0:width]
  return np.stack([y, x, 0 * x], -1).astype(np.uint8)
