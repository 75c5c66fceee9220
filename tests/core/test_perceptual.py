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


def test_patterns_are_told_from_other_errors():
  """A pattern counts by its mean square; noise and shifts of colour hardly do."""
  truth = jax.random.uniform(jax.random.key(6), (2, 67, 64, 3))
  cell = jax.random.normal(jax.random.key(7), (2, 4, 4, 3))
  cell -= jnp.mean(cell, (1, 2), keepdims=True)
  tiled = jnp.tile(cell, (1, 17, 16, 1))[:, :67]
  got = perceptual.pattern(truth + tiled, truth, 4)
  np.testing.assert_allclose(got, jnp.mean(cell**2), rtol=1e-4)
  noise = jax.random.normal(jax.random.key(8), truth.shape)
  assert perceptual.pattern(truth + noise, truth, 4) < 1.2 / 64  # of windows of 8 x 8
  assert perceptual.pattern(truth + 0.5, truth, 4) < 1e-9
  assert perceptual.pattern(truth + tiled, truth, 1) < 1e-9


def test_a_pattern_that_changes_from_window_to_window_counts():
  cell = jax.random.normal(jax.random.key(9), (1, 4, 4, 1))
  cell -= jnp.mean(cell)
  windows = jnp.concatenate(
    [jnp.tile(cell, (1, 8, 8, 1)), -jnp.tile(cell, (1, 8, 8, 1))]
  )
  image = jnp.concatenate([windows[:1], windows[1:]], axis=1)
  got = perceptual.pattern(image, jnp.zeros_like(image), 4)
  np.testing.assert_allclose(got, jnp.mean(cell**2), rtol=1e-4)


def test_small_crops_are_one_window():
  cell = jax.random.normal(jax.random.key(10), (1, 4, 4, 1))
  cell -= jnp.mean(cell)
  image = jnp.tile(cell, (1, 3, 5, 1))
  got = perceptual.pattern(image, jnp.zeros_like(image), 4)
  np.testing.assert_allclose(got, jnp.mean(cell**2), rtol=1e-4)


def test_the_term_is_the_sum_of_both():
  keys = jax.random.split(jax.random.key(11), 2)
  image, truth = jax.random.normal(jax.random.key(12), (2, 2, 32, 32, 3))
  args = every_fourth, keys, image, truth
  got = perceptual.looks_different(*args, 4) - perceptual.looks_different(*args, 1)
  wanted = perceptual.PATTERN * perceptual.pattern(image, truth, 4)
  np.testing.assert_allclose(got, wanted, rtol=1e-4)
