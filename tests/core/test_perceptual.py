"""The perceptual term of the loss: where it looks."""

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core import perceptual


def every_fourth(image, truth):
  """Return a distance that sees every fourth pixel alone, as a strided layer does."""
  return jnp.sum(jnp.abs(image - truth)[:, ::4, ::4], (1, 2, 3))


def test_no_pixel_is_overlooked():
  """An error at any place of a block of 4 x 4 pixels counts for some of the keys."""
  keys = jax.random.split(jax.random.key(0), 400)
  truth = jnp.zeros((400, 16, 16, 1))
  image = jax.random.normal(jax.random.key(1), (16, 16, 1))

  def loss(image):
    images = jnp.broadcast_to(image, truth.shape)
    return perceptual.mean_distance(every_fourth, keys, images, truth)

  weight = np.abs(jax.grad(loss)(image))[3:-3, 3:-3]  # further out fewer see them
  assert weight.min() > 0.3 / 16
  assert weight.max() < 2.5 / 16


def test_image_and_truth_are_cut_alike():
  keys = jax.random.split(jax.random.key(2), 8)
  image = jax.random.normal(jax.random.key(3), (8, 12, 9, 3))
  assert perceptual.mean_distance(every_fourth, keys, image, image) == 0


def test_every_example_has_its_own_place():
  """It is a function of its own key, so a batch may be split in any way."""
  keys = jax.random.split(jax.random.key(4), 6)
  image = jax.random.normal(jax.random.key(5), (6, 12, 12, 3))
  truth = jnp.zeros_like(image)
  whole = perceptual.mean_distance(every_fourth, keys, image, truth)
  parts = [
    perceptual.mean_distance(
      every_fourth, keys[i : i + 1], image[i : i + 1], truth[i : i + 1]
    )
    for i in range(6)
  ]
  np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-6)
