"""Tests of which part of an image is cropped, and how it is downsampled."""

import itertools

import numpy as np
import pytest
import skimage.transform
from PIL import Image

from sr3_jax.data import crops
from sr3_jax.images import image_files, pixels, resizing
from tests.support.datasets import PHOTO, One, coordinates, take, training

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


def test_random_crops_are_uniform_and_independent():
  cut = crops.Cut(8, 'random', flip=True, rotate=True)
  rng = np.random.default_rng(0)
  taken = [cut(coordinates(12, 13), rng) for _ in range(2000)]
  counts = np.zeros((5, 6, 4, 2))
  for crop in taken:
    top, left = crop[..., 0].min(), crop[..., 1].min()
    plain = coordinates(12, 13)[top : top + 8, left : left + 8]
    # Which of the eight symmetries of the square is it?
    (pose,) = (
      (turn, flip)
      for turn in range(4)
      for flip in range(2)
      if np.array_equal(np.rot90(plain, turn)[:, :: 1 - 2 * flip], crop)
    )
    counts[(top, left, *pose)] += 1
  # Pearson's test of 240 equal cells: 239 degrees of freedom, 99.99 % at 326.
  expected = len(taken) / counts.size
  assert ((counts - expected) ** 2 / expected).sum() < 326


def test_downsampled_crops_are_block_means():
  image = image_files.read(PHOTO)[100:170, 200:280]
  cut = crops.Cut(16, 'random', reduce=3)
  crop = cut(image, np.random.default_rng(5)).astype(float)
  errors = []
  for y, x in itertools.product(range(3), range(3)):
    rows = (image.shape[0] - y) // 3 * 3
    columns = (image.shape[1] - x) // 3 * 3
    reduced = skimage.transform.downscale_local_mean(
      image[y : y + rows, x : x + columns], (3, 3, 1)
    )
    windows = np.lib.stride_tricks.sliding_window_view(reduced, (16, 16, 3))[:, :, 0]
    errors.append(np.abs(windows - crop).max((-1, -2, -3)).min())
  assert min(errors) <= 1.0  # it is one of the crops of one of the reduced images


def test_several_factors_are_chosen_where_they_fit():
  image = coordinates(40, 40)

  def factors(size, choice, count=60):
    cut, rng = crops.Cut(size, 'random', reduce=choice), np.random.default_rng(0)
    # Neighbours in a downsampled map are `factor` apart.
    taken = (cut(image, rng).astype(int) for _ in range(count))
    return {int(crop[-1, 0, 0] - crop[0, 0, 0]) // (size - 1) for crop in taken}

  assert factors(10, (1, 2, 4)) == {1, 2, 4}
  assert factors(11, (1, 2, 4)) == {1, 2}
  assert crops.Cut(11, 'random', reduce=(2, 3)).min_size == 22
  with pytest.raises(pixels.ImageError, match='40 x 40 pixels are too small, 42'):
    crops.Cut(21, 'random', reduce=(2, 4))(image, np.random.default_rng(0))


def test_center_crop_is_the_recipe_of_imagenet():
  image = image_files.read(PHOTO)
  truth = Image.fromarray(image).crop((100, 0, 500, 400)).resize((64, 64), Image.BOX)
  how = {'image_size': 64, 'crop': 'center'}
  (batch,) = take(training(One(image), batch_size=1, **how, area='pixels'), 1)
  np.testing.assert_array_equal(batch['image'][0], np.asarray(truth))
  # OpenCV counts shares of pixels, and so do runs that do not say otherwise.
  (batch,) = take(training(One(image), batch_size=1, **how), 1)
  truth = resizing.resize_area(image[:, 100:500], 64)
  np.testing.assert_array_equal(batch['image'][0], truth)
  cut = crops.Cut(401, 'center')
  with pytest.raises(pixels.ImageError, match='600 x 400 pixels are too small, 401'):
    cut(image, np.random.default_rng(0))


def test_whole_images():
  rng = np.random.default_rng(0)
  square = coordinates(16, 16)
  np.testing.assert_array_equal(crops.Cut(16, 'none')(square, rng), square)
  truth = skimage.transform.downscale_local_mean(square, (2, 2, 1))
  assert np.abs(crops.Cut(8, 'none')(square, rng) - truth).max() <= 1.0
  for image, size in ((square, 17), (coordinates(16, 18), 8)):
    with pytest.raises(pixels.ImageError, match='pixels'):
      crops.Cut(size, 'none')(image, rng)
