import numpy as np
import pytest
from PIL import Image
from skimage import data

from sr3_jax.core import degradations
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images import resizing
from sr3_jax.restoration import tiling


@pytest.mark.parametrize('length', [1, 64, 65, 100, 129, 1000])
@pytest.mark.parametrize('tile, pad, multiple', [(64, 8, 4), (64, 16, 16), (32, 0, 8)])
def test_tiles_cover_and_their_windows_add_up_to_one(length, tile, pad, multiple):
  starts, windows = tiling.cover(length, tile, pad, multiple)
  total = max(tiling.round_up(length, multiple), tile)
  weight = np.zeros(total)
  for start, window in zip(starts, windows, strict=True):
    weight[start : start + tile] += window
  np.testing.assert_allclose(weight, 1, atol=1e-6)
  assert starts[0] == 0 and starts[-1] + tile == total
  assert np.all(starts % multiple == 0) and windows.min() >= 0
  assert np.all(np.diff(starts) <= max(tile - 2 * pad, multiple))


def test_windows_ignore_what_lies_at_the_edge_and_fade_smoothly():
  """Within pad / 2 of an inner edge a tile counts for nothing; at borders it counts."""
  starts, windows = tiling.cover(112, tile=64, pad=8, multiple=4)
  assert list(starts) == [0, 48]  # an overlap of 16 = 2 pad
  assert np.all(windows[0][60:] == 0) and np.all(windows[1][:4] == 0)
  assert np.all(windows[0][:52] == 1) and np.all(windows[1][12:] == 1)
  fade = windows[0][48:64]
  assert np.all(np.diff(fade) <= 0) and np.abs(np.diff(fade)).max() < 0.25
  np.testing.assert_allclose(fade, windows[1][:16][::-1], atol=1e-6)


def test_seam():
  """White noise has no borders; a step of 1 at two of them, over a mean of 1.13."""
  rng = np.random.default_rng(0)
  image = rng.standard_normal((400, 400, 3))
  rows = columns = np.array([100, 200, 300])
  assert abs(tiling.seam(image, rows, columns) - 1) < 0.02
  image[200:] += 20
  assert tiling.seam(image, rows, columns) > 1.5
  assert tiling.seam(image, rows + 20, columns) < 1


def test_mirror():
  image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
  wide = tiling.mirror(image, 5, 7)[..., 0]
  np.testing.assert_array_equal(wide[0], [0, 1, 2, 2, 1, 0, 0])
  np.testing.assert_array_equal(wide[:, 0], [0, 3, 3, 0, 0])
  assert tiling.mirror(image[:1, :1], 4, 4).max() == 0  # a single pixel


@pytest.mark.parametrize('size', [(20, 30), (80, 120), (33, 7), (1, 1)])
@pytest.mark.parametrize('kernel', ['bicubic', 'bilinear'])
def test_resize_equals_the_one_inside_the_model(size, kernel):
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (20, 30, 3)).astype(np.float32)
  want = degradations.resize(image[None], *size, kernel)[0]
  np.testing.assert_allclose(resizing.resize(image, *size, kernel), want, atol=2e-6)


@pytest.mark.parametrize('length, small', [(16, 4), (40, 10), (37, 12), (9, 9), (4, 1)])
def test_shrinking_is_pillows_and_inverted_exactly(length, small):
  column = np.random.default_rng(0).uniform(-1, 1, (length, 1)).astype(np.float32)
  down, up = resizing.downsampling_matrices(length, small)
  want = Image.fromarray(column).resize((1, small), Image.Resampling.BICUBIC)
  np.testing.assert_allclose(down @ column, np.asarray(want), atol=1e-6)
  np.testing.assert_allclose(down @ up, np.eye(small), atol=1e-5)
  # The smallest change: it lies in the span of the rows of `down`.
  np.testing.assert_allclose(up @ down, np.linalg.pinv(down) @ down, atol=1e-4)


def _reduced(image, height, width):
  """What Pillow makes of the 8-bit file, per channel in float."""
  pixels = images_pixels.to_uint8(image).astype(np.float32) / 127.5 - 1
  return resizing.resize(pixels, height, width)


@pytest.mark.parametrize('scale', [2, 4, 3.5])
def test_make_consistent_on_photographs(scale):
  """Within an 8-bit level everywhere, and 1e-5 in the paper's measure; in range."""
  photo = data.astronaut()[:200, 150:350].astype(np.float32) / 127.5 - 1
  side = round(200 / scale)
  small = resizing.resize(photo, side, side)
  small = images_pixels.to_float(images_pixels.to_uint8(small))
  rng = np.random.default_rng(0)
  start = resizing.resize(small, 200, 200) + 0.2 * rng.standard_normal((200, 200, 3))
  image = resizing.make_consistent(start, small)
  assert image.dtype == np.float32 and np.abs(image).max() <= 1
  error = _reduced(image, side, side) - small
  # The paper's unit: 1e-5 of squared error on the [0, 1] scale.
  assert 1e5 * np.mean((error / 2) ** 2) < 1
  assert np.abs(error).max() < 1.5 / 127.5
  np.testing.assert_array_less(np.abs(error.mean((0, 1))), 0.05 / 127.5)


def test_make_consistent_keeps_what_is_consistent_already():
  photo = data.astronaut()[:64, :64].astype(np.float32) / 127.5 - 1
  small = resizing.resize(photo, 16, 16)
  np.testing.assert_allclose(resizing.make_consistent(photo, small), photo, atol=1e-3)


def test_make_consistent_of_what_no_image_reduces_to():
  """A checkerboard of single pixels: as near as possible, never out of range."""
  small = (np.indices((12, 12)).sum(0) % 2 * 2.0 - 1)[..., None]
  start = resizing.resize(small.astype(np.float32), 48, 48)
  before = np.mean((_reduced(start, 12, 12) - small) ** 2)
  image = resizing.make_consistent(start, small)
  after = np.mean((_reduced(image, 12, 12) - small) ** 2)
  assert np.abs(image).max() <= 1 and after < 0.75 * before
  assert np.abs(image.mean()) < 0.01
