"""Weights for networks that are not trained."""

import jax
import numpy as np


def random_weights(network, *inputs):
  """Return random weights as if trained: no layer is zero.

  Made by NumPy, because compiling the initialisation takes longer than a test should.
  """
  shapes = jax.eval_shape(network.init, jax.random.key(0), *inputs)['params']
  rng = np.random.default_rng(7)

  def draw(path, shape):
    noise = rng.standard_normal(shape.shape, np.float32)
    if path[-1].key in ('kernel', 'embedding'):
      return noise / np.sqrt(np.prod(shape.shape[:-1]), dtype=np.float32)
    return (path[-1].key == 'scale') + np.float32(0.3) * noise

  return jax.tree.map_with_path(draw, shapes)
