"""Tests of squares and of resizing by area, as training data are prepared."""

import numpy as np
import skimage.transform

from sr3_jax.images import resizing
from tests.support.pictures import noise


def test_center_square():
  image = noise(7, 12)
  np.testing.assert_array_equal(resizing.center_square(image), image[:, 2:9])
  turned = image.transpose(1, 0, 2)
  np.testing.assert_array_equal(resizing.center_square(turned), turned[2:9])


def test_resize_area_against_skimage():
  image = noise(60, 60)
  blocks = skimage.transform.downscale_local_mean(image, (4, 4, 1))
  # Pillow rounds to a level after each of the two directions.
  assert np.abs(resizing.resize_area(image, 15) - blocks).max() <= 1.0
  grey = resizing.resize_area(image[..., :1], 15)
  assert grey.shape == (15, 15, 1)
  np.testing.assert_array_equal(grey[..., 0], resizing.resize_area(image, 15)[..., 0])


def test_resize_area_by_any_factor():
  """Every pixel belongs to the block in which its centre lies, with equal weight."""
  image = noise(60, 50).astype(float)
  rows = np.floor((np.arange(60) + 0.5) * 17 / 60).astype(int)
  columns = np.floor((np.arange(50) + 0.5) * 23 / 50).astype(int)
  truth = np.stack([image[rows == r].mean(0) for r in range(17)])
  truth = np.stack([truth[:, columns == c].mean(1) for c in range(23)], 1)
  resized = resizing.resize_area(image.astype(np.uint8), (17, 23))
  assert np.abs(resized - truth).max() <= 1.0
