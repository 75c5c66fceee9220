"""JPEG artefacts against Pillow's encoder and decoder, and as a part of a program."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import skimage.data
from PIL import Image

from sr3_jax.core.degradations import jpeg

QUALITIES = (5, 10, 30, 75, 95)
MODES = (False, True)
compress = jax.jit(jpeg.compress)


def _float(image):
  return image.astype(np.float32) / 127.5 - 1


def _file(image, quality, subsample):
  file = io.BytesIO()
  subsampling = {'subsampling': 2 if subsample else 0} if image.ndim == 3 else {}
  Image.fromarray(image).save(file, 'JPEG', quality=int(quality), **subsampling)
  return Image.open(file)


def _images(height, width):
  """uint8 [5, H, W, 3]: sharp parts of photographs, noise, and noise of few levels."""
  photos = [
    skimage.data.astronaut()[60:, 180:],
    skimage.data.coffee()[100:, 200:],
    skimage.data.chelsea()[60:, 120:],
  ]
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (height, width, 3))
  few = rng.choice([0, 128, 255], (height, width, 3))  # coefficients between two
  parts = [photo[:height, :width] for photo in photos]
  return np.stack([*parts, noise, few]).astype(np.uint8)


def _batch(images):
  """Every image at every quality in every mode: uint8 images, qualities, modes."""
  rows = [*itertools.product(images, QUALITIES, MODES)]
  images, qualities, modes = zip(*rows, strict=True)
  return np.stack(images), np.array(qualities, np.float32), np.array(modes)


def _assert_pillows(found, images, qualities, modes):
  """Few pixels differ, as `compress` promises: one coefficient changes several."""
  assert found.dtype == jnp.float32
  levels = (np.asarray(found) + 1) * 127.5
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
  rows = zip(images, qualities, modes, strict=True)
  truth = np.stack([np.asarray(_file(*row)) for row in rows])
  difference = np.abs(np.round(levels) - truth.reshape(levels.shape))
  assert difference.max() <= 2
  assert (difference > 0).mean() < 3e-5
  # Not because nothing happened.
  assert np.abs(truth.astype(float) - images).mean() > 1


@pytest.mark.parametrize('size', [(57, 83), (34, 50), (48, 64)])
def test_images_are_those_of_pillow(size):
  batch = _batch(_images(*size))
  _assert_pillows(compress(_float(batch[0]), *batch[1:]), *batch)


def test_one_channel_is_luma():
  images, qualities, modes = _batch(_images(57, 83)[..., 1])
  found = compress(_float(images)[..., None], qualities, modes)
  _assert_pillows(found[..., 0], images, qualities, modes)


def test_tables_are_those_in_files():
  qualities = np.arange(1, 101)
  luma, chroma = jpeg.tables(jnp.asarray(qualities, jnp.float32))
  image = np.zeros((8, 8, 3), np.uint8)
  for i, quality in enumerate(qualities):
    truth = _file(image, quality, True).quantization
    np.testing.assert_array_equal(luma[i].ravel(), truth[0])
    np.testing.assert_array_equal(chroma[i].ravel(), truth[1])


def test_qualities_are_integers_from_1_to_100():
  given = jnp.array([-3, 0, 29.6, 30.4, 101, 1e6])
  meant = jnp.array([1, 1, 30, 30, 100, 100])
  for found, truth in zip(jpeg.tables(given), jpeg.tables(meant), strict=True):
    np.testing.assert_array_equal(found, truth)


def test_examples_do_not_see_each_other():
  images, qualities, modes = _batch(_images(34, 50))
  images = _float(images)
  whole = np.asarray(compress(images, qualities, modes))
  np.testing.assert_array_equal(compress(images, qualities, modes), whole)
  order = np.random.default_rng(1).permutation(len(images))
  moved = compress(images[order], qualities[order], modes[order])
  np.testing.assert_array_equal(moved, whole[order])
  some = slice(0, 6)
  alone = jax.jit(jax.vmap(jpeg.compress))(
    images[some, None], qualities[some, None], modes[some, None]
  )
  np.testing.assert_array_equal(alone[:, 0], whole[some])


@pytest.fixture(scope='module')
def gradients():
  """compress(image [2, 19, 21, 3]) in both modes: its value, jvp and vjp."""
  qualities, modes = jnp.full(2, 5.0), jnp.array(MODES)

  @jax.jit
  def program(image, tangent, cotangent):
    def function(x):
      return jpeg.compress(x, qualities, modes)

    value, out = jax.jvp(function, (image,), (tangent,))
    return value, out, jax.vjp(function, image)[1](cotangent)[0]

  return program


def test_gradients_pass_straight_through(gradients):
  rng = np.random.default_rng(2)
  image = _float(_images(19, 21)[[0, 0]])
  # Nothing in the linear parts changes an even colour.
  tangent = np.broadcast_to(np.float32([0.3, -0.7, 0.2]), image.shape)
  cotangent = rng.standard_normal(image.shape).astype(np.float32)
  _, out, back = gradients(image, tangent, cotangent)
  np.testing.assert_allclose(out, tangent, atol=2e-3)
  # At 4:4:4 all of them together are the identity.
  np.testing.assert_allclose(back[0], cotangent[0], atol=5e-3)
  # At 4:2:0 it keeps the luma of the smooth and less of the rest.
  assert 0.3 < np.square(back[1]).sum() / np.square(cotangent[1]).sum() < 0.9
  _, out, back = gradients(image, cotangent, tangent)
  np.testing.assert_allclose((back * cotangent).sum(), (out * tangent).sum(), rtol=1e-3)


@pytest.mark.parametrize('value', [-1.0, 0.0, 1.0, 3.0])
def test_flat_and_saturated_images_have_finite_gradients(gradients, value):
  image = np.full((2, 19, 21, 3), value, np.float32)
  value, *found = gradients(image, image, np.ones_like(image))
  assert np.abs(value).max() <= 1
  for gradient in found:
    assert np.isfinite(gradient).all()


def test_other_numbers_of_channels_are_refused():
  with pytest.raises(ValueError, match='1 or 3 channels, not 4'):
    jpeg.compress(jnp.zeros((1, 8, 8, 4)), jnp.ones(1), jnp.ones(1, bool))


def test_qualities_have_palettes_distribution():
  keys = jax.random.split(jax.random.key(0), 20_000)
  found = np.asarray(jax.jit(jpeg.sample_quality, static_argnums=(1, 2))(keys, 5, 30))
  assert found.dtype == np.float32
  values, counts = np.unique(found, return_counts=True)
  np.testing.assert_array_equal(values, np.arange(5, 31))
  shares = np.exp(-values.astype(float) / 10)
  expected = len(keys) * shares / shares.sum()
  assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3
  # Each from its own key.
  some = jpeg.sample_quality(keys[7:2:-4], 5, 30)
  np.testing.assert_array_equal(some, found[7:2:-4])
