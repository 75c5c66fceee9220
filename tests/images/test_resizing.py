"""Tests of squares, of resizing, and of outputs that downsample to their input."""

import numpy as np
import pytest
import skimage.transform
from PIL import Image
from skimage import data

from sr3_jax.core import degradations
from sr3_jax.images import pixels, resizing
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


def test_resize_area_is_opencvs():
  """OpenCV 5.0.0, opencv-python-headless: resize(..., interpolation=INTER_AREA)."""
  rng = np.random.default_rng(3)
  small = rng.integers(0, 256, (5, 7, 1)).astype(np.uint8)
  wanted = [[112, 43, 88, 184], [82, 132, 83, 106], [125, 179, 164, 110]]
  np.testing.assert_array_equal(resizing.resize_area(small, (3, 4))[..., 0], wanted)
  exact = [
    [112.1429, 43.2857, 87.5714, 183.9714],
    [82.0286, 131.9143, 82.9714, 106.1714],
  ]
  exact.append([125.2, 179.4857, 164.0, 109.7143])
  found = resizing.resize_area(small.astype(np.float32), (3, 4))
  np.testing.assert_allclose(found[..., 0], exact, atol=1e-4)
  large = np.random.default_rng(4).integers(0, 256, (375, 500, 3)).astype(np.uint8)
  found = resizing.resize_area(large, (256, 200))
  assert found.astype(int).sum() == 19590542
  assert found[::64, ::64, 0].tolist() == [
    [169, 152, 147, 180],
    [66, 93, 136, 129],
    [110, 132, 179, 154],
    [153, 72, 133, 92],
  ]
  power = [np.square(np.diff(found.astype(float), axis=axis)).mean() for axis in (0, 1)]
  np.testing.assert_allclose(power, [1753.0606928104576, 1946.4348565745393])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
  'size', [(17, 23), (17, 10), (60, 7), (59, 49), (1, 1), (90, 75)]
)
def test_resize_area_is_the_integral_over_blocks(size, dtype):
  """The oracle integrates cumulative sums in float64, upsampling included."""
  image = noise(60, 50).astype(np.float64) * (257 if dtype != np.uint8 else 1)
  truth = image
  for axis, side in enumerate(size):
    whole = np.cumsum(np.moveaxis(truth, axis, 0), 0)
    whole = np.concatenate([0 * whole[:1], whole])
    edges = np.linspace(0, len(whole) - 1, side + 1)
    low = np.minimum(edges.astype(int), len(whole) - 2)
    share = (edges - low)[:, None, None]
    blocks = np.diff(whole[low] * (1 - share) + whole[low + 1] * share, axis=0)
    truth = np.moveaxis(blocks * side / (len(whole) - 1), 0, axis)
  found = resizing.resize_area(image.astype(dtype), size)
  assert found.dtype == dtype
  bound = 0.02 if dtype == np.float32 else 1 if dtype == np.uint8 else 0.52
  assert np.abs(found - truth).max() <= bound


def test_resize_area_by_whole_pixels():
  """Every pixel belongs to the block in which its centre lies, with equal weight."""
  image = noise(60, 50).astype(float)
  rows = np.floor((np.arange(60) + 0.5) * 17 / 60).astype(int)
  columns = np.floor((np.arange(50) + 0.5) * 23 / 50).astype(int)
  truth = np.stack([image[rows == r].mean(0) for r in range(17)])
  truth = np.stack([truth[:, columns == c].mean(1) for c in range(23)], 1)
  resized = resizing.resize_area(image.astype(np.uint8), (17, 23), 'pixels')
  assert np.abs(resized - truth).max() <= 1.0


@pytest.mark.parametrize('size', [(20, 30), (80, 120), (33, 7), (1, 1)])
@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear'])
def test_resize_equals_the_one_inside_the_model(size, kernel):
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (20, 30, 3)).astype(np.float32)
  want = degradations.resize(image[None], *size, kernel)[0]
  np.testing.assert_allclose(resizing.resize(image, *size, kernel), want, atol=2e-6)


@pytest.mark.parametrize('length, small', [(16, 4), (40, 10), (37, 12), (9, 9), (4, 1)])
def test_downsampling_matrices_are_pillows_and_inverted_exactly(length, small):
  column = np.random.default_rng(0).uniform(-1, 1, (length, 1)).astype(np.float32)
  down, up = resizing.downsampling_matrices(length, small)
  want = Image.fromarray(column).resize((1, small), Image.Resampling.BICUBIC)
  np.testing.assert_allclose(down @ column, np.asarray(want), atol=1e-6)
  np.testing.assert_allclose(down @ up, np.eye(small), atol=1e-5)
  # The smallest change: it lies in the span of the rows of `down`.
  np.testing.assert_allclose(up @ down, np.linalg.pinv(down) @ down, atol=1e-4)


def _downsampled(image, height, width):
  """Round to 8 bits and downsample with Pillow, in float."""
  rounded = pixels.to_uint8(image).astype(np.float32) / 127.5 - 1
  return resizing.resize(rounded, height, width)


@pytest.mark.parametrize('scale', [2, 4, 3.5])
def test_make_consistent_on_photographs(scale):
  """Within an 8-bit level everywhere, and 1e-5 in the paper's measure; in range."""
  photo = data.astronaut()[:200, 150:350].astype(np.float32) / 127.5 - 1
  side = round(200 / scale)
  small = resizing.resize(photo, side, side)
  small = pixels.to_float(pixels.to_uint8(small))
  rng = np.random.default_rng(0)
  start = resizing.resize(small, 200, 200) + 0.2 * rng.standard_normal((200, 200, 3))
  image = resizing.make_consistent(start, small)
  assert image.dtype == np.float32 and np.abs(image).max() <= 1
  error = _downsampled(image, side, side) - small
  # The paper's unit: 1e-5 of squared error on the [0, 1] scale.
  assert 1e5 * np.mean((error / 2) ** 2) < 1
  assert np.abs(error).max() < 1.5 / 127.5
  np.testing.assert_array_less(np.abs(error.mean((0, 1))), 0.05 / 127.5)


def test_make_consistent_keeps_what_is_consistent_already():
  photo = data.astronaut()[:64, :64].astype(np.float32) / 127.5 - 1
  small = resizing.resize(photo, 16, 16)
  np.testing.assert_allclose(resizing.make_consistent(photo, small), photo, atol=1e-3)


def test_make_consistent_where_no_image_fits():
  """A checkerboard of single pixels: as near as possible, never out of range."""
  small = (np.indices((12, 12)).sum(0) % 2 * 2.0 - 1)[..., None]
  start = resizing.resize(small.astype(np.float32), 48, 48)
  before = np.mean((_downsampled(start, 12, 12) - small) ** 2)
  image = resizing.make_consistent(start, small)
  after = np.mean((_downsampled(image, 12, 12) - small) ** 2)
  assert np.abs(image).max() <= 1 and after < 0.75 * before
  assert np.abs(image.mean()) < 0.01
