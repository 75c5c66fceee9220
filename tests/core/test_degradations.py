"""Resizing against Pillow, and what a task must hold for training and metrics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.core import degradations

KEY = jax.random.key(0)


def _photo(height, width):
  """float32 [1, H, W, 3] in [-1, 1], a sharp part of a real photograph."""
  image = skimage.data.chelsea()[60 : 60 + height, 120 : 120 + width]
  return image[None].astype(np.float32) / 127.5 - 1


def _pillow(image, height, width, kernel='BICUBIC'):
  """Resizing of float pixels: Pillow's mode F, one channel at a time."""
  planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in image[0].T]
  assert planes[0].mode == 'F'
  # .T has turned the picture on its side: so are the sizes.
  method = Image.Resampling[kernel]
  planes = [plane.resize((height, width), method) for plane in planes]
  return np.stack([np.asarray(plane) for plane in planes]).T[None]


@pytest.mark.parametrize(
  ('size', 'to'),
  [
    ((128, 128), (16, 16)),
    ((128, 192), (32, 48)),
    ((16, 16), (128, 128)),
    ((32, 48), (128, 192)),
    ((40, 56), (30, 25)),  # no whole ratio, and not the same both ways
    ((30, 25), (40, 56)),
  ],
)
def test_resize_is_pillows_bicubic(size, to):
  image = _photo(*size)
  found = degradations.resize(image, *to)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, _pillow(image, *to), atol=1e-6)


@pytest.mark.parametrize('kernel', ['lanczos', 'bilinear'])
@pytest.mark.parametrize(('size', 'to'), [((64, 96), (16, 24)), ((30, 25), (40, 56))])
def test_other_kernels_are_pillows(kernel, size, to):
  image = _photo(*size)
  found = degradations.resize(image, *to, kernel)
  np.testing.assert_allclose(found, _pillow(image, *to, kernel.upper()), atol=1e-6)


@pytest.mark.parametrize(
  ('size', 'middle'), [((128, 128), (28, 28)), ((128, 192), (28, 42))]
)
def test_downsampling_through_a_still_smaller_image(size, middle):
  """In the paper's classification test, upsampling restores no lost detail."""
  hr = _photo(*size)
  degrade = partial(degradations.super_resolution, scale=4, through=28)
  small = jax.jit(degrade)(KEY, hr)
  truth = _pillow(_pillow(hr, *middle), size[0] // 4, size[1] // 4)
  np.testing.assert_allclose(small, truth, atol=1e-5)
  plain = degradations.super_resolution(KEY, hr, scale=4)
  assert np.abs(small - plain).max() > 0.05


@pytest.mark.parametrize('scale', [2, 8])
def test_super_resolution_downsamples(scale):
  hr = np.concatenate([_photo(64, 96), -_photo(64, 96)])
  small = jax.jit(partial(degradations.super_resolution, scale=scale))(KEY, hr)
  assert small.dtype == jnp.float32
  for b in range(2):
    truth = _pillow(hr[b : b + 1], 64 // scale, 96 // scale)
    np.testing.assert_allclose(small[b : b + 1], truth, atol=1e-6)


def test_flips_commute_with_super_resolution():
  """Crops may be flipped before they are downsampled."""
  hr = _photo(64, 96)
  small = degradations.super_resolution(KEY, hr, scale=4)
  for axis in (1, 2):
    flipped = degradations.super_resolution(KEY, np.flip(hr, axis), scale=4)
    np.testing.assert_allclose(flipped, np.flip(small, axis), atol=1e-6)


@pytest.mark.parametrize(('height', 'width'), [(30, 32), (32, 30)])
def test_sizes_that_do_not_divide(height, width):
  hr = np.zeros((1, height, width, 3), np.float32)
  with pytest.raises(ValueError, match=f'{height} x {width} cannot be downsampled 4x'):
    degradations.super_resolution(KEY, hr, scale=4)
