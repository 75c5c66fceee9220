"""Smooth fillings of holes, against Laplace's equation as SciPy solves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import skimage.data
from numpy.testing import assert_allclose, assert_array_equal

from sr3_jax.core import degradations
from sr3_jax.core.degradations import masks
from sr3_jax.core.sr3 import SR3
from tests.support.sr3_models import keys, photos, tiny


def photo(height=60, width=75):
  picture = skimage.data.coffee()[100 : 100 + 4 * height : 4, 150 : 150 + 4 * width : 4]
  return picture.astype(np.float32)[None] / 127.5 - 1


def membrane(image, mask):
  """Solve for missing pixels that are the mean of their neighbours."""
  height, width = mask.shape
  number = np.arange(mask.size).reshape(mask.shape)
  padded = np.pad(number, 1, mode='edge')
  holes = np.flatnonzero(mask)
  places = [padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in
            ((0, 1), (1, 0), (0, -1), (-1, 0))]  # fmt: skip
  rows = np.repeat(holes, 4)
  columns = np.stack([place.ravel()[holes] for place in places], 1).ravel()
  matrix = scipy.sparse.csr_matrix(
    (np.full(len(rows), -0.25), (rows, columns)), (mask.size, mask.size)
  ) + scipy.sparse.identity(mask.size)
  known = np.where(mask[..., None], 0, image).reshape(mask.size, -1)
  solved = scipy.sparse.linalg.spsolve(matrix.tocsc(), known)
  return solved.reshape(image.shape)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_a_filling_is_near_the_membrane(seed):
  """The difference is small beside what either is from the truth."""
  image = photo()
  mask = np.asarray(masks.inpainting(keys(seed + 1)[-1:], *image.shape[1:3]))
  got = degradations.smooth(image, mask)
  wanted = membrane(np.float64(image[0]), mask[0, ..., 0] > 0)
  hole = mask[0, ..., 0] > 0
  error = np.sqrt(np.mean((got[0] - wanted)[hole] ** 2))
  assert error < 0.25 * np.sqrt(np.mean((image[0] - wanted)[hole] ** 2))
  assert_array_equal(got[0][~hole], image[0][~hole])


@pytest.mark.parametrize('sides', [(1, 1), (1, 7), (13, 8), (33, 64)])
def test_numpy_and_jax_fill_alike(sides):
  image = photo(*sides)
  mask = np.zeros((1, *sides, 1), np.float32)
  mask[:, sides[0] // 3 :, sides[1] // 2 :] = 1
  compiled = jax.jit(degradations.smooth)(jnp.asarray(image), jnp.asarray(mask))
  assert_allclose(degradations.smooth(image, mask), compiled, atol=1e-6)


def test_one_colour_fills_with_itself():
  """Whatever stands where pixels are missing, also at borders."""
  mask = np.asarray(masks.uncropping(keys(1), 37, 50))
  image = np.where(mask > 0, 100.0, np.float32([0.3, -0.7, 0.1]))
  got = degradations.smooth(image.astype(np.float32), mask)
  assert_allclose(got, np.broadcast_to(np.float32([0.3, -0.7, 0.1]), got.shape), 1e-5)


def test_an_image_without_known_pixels_stays():
  """In mixtures of tasks that means: everything may change, nothing is hidden."""
  images = np.repeat(photo(8, 8), 2, axis=0)
  mask = np.ones((2, 8, 8, 1), np.float32)
  mask[1, :4] = 0
  got = degradations.smooth(images, mask)
  assert_array_equal(got[0], images[0])
  assert_array_equal(got[1, :4], images[1, :4])
  assert np.abs(got[1] - images[1]).max() > 0.1


@pytest.mark.parametrize('smooth', [True, False])
def test_a_network_sees_the_filling_only_where_it_is_asked_for(smooth):
  options = {'task__name': 'inpainting', 'diffusion__residual': True}
  model = SR3.from_config(tiny(**options, model__smooth_holes=smooth))
  condition = model.degrade(keys(2), model.to_float(jnp.asarray(photos(2))))
  x = model.upsample(condition)
  hole = np.broadcast_to(np.asarray(condition[..., 3:]) > 0, condition[..., :3].shape)
  assert bool(np.any(np.asarray(x[..., :3])[hole])) == smooth
  assert_array_equal(x[..., 3:], condition[..., 3:])
  y0 = model.encode(model.to_float(jnp.asarray(photos(2))), x)
  assert_array_equal(np.asarray(y0)[~hole], 0)
