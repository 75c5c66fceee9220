"""Tiny models, and oracles in place of their networks, for tests."""

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data

from sr3_jax.config import get_config
from sr3_jax.core import degradations
from sr3_jax.core.sr3 import SR3


def tiny(**changes):
  """A configuration whose network compiles fast; `changes` are 'a.b' -> value."""
  config = get_config()
  config.update_from_flattened_dict(
    {
      'data.image_size': 16,
      'model.channels': 8,
      'model.multipliers': (1,),
      'model.num_blocks': 1,
      'model.attention_resolutions': (),
      'model.middle_attention': False,
      'model.patch': 4,
      'model.dtype': 'float32',
      'sampler.num_steps': 4,
    }
    | {key.replace('__', '.'): value for key, value in changes.items()}
  )
  return config


def photos(batch=4):
  """uint8 [batch, 16, 16, 3]: neighbouring parts of a photograph."""
  image = skimage.data.astronaut()
  return np.stack([image[100:116, 200 + 16 * b : 216 + 16 * b] for b in range(batch)])


def to_float(image):
  return image.astype(np.float32) / 127.5 - 1


def condition_of(image):
  return degradations.resize(to_float(image), 4, 4)


def keys(batch, seed=0):
  return jax.random.split(jax.random.key(seed), batch)


class Oracle(SR3):
  """Knows the truth: `params` is the clean image, float32 in [-1, 1]."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    g = gamma[:, None, None, None]
    y0 = ((params - x) if self.residual else params) * self.y0_scale
    if self.method == 'regression':
      return y0
    eps = (y - jnp.sqrt(g) * y0) / jnp.sqrt(1 - g)
    v = jnp.sqrt(g) * eps - jnp.sqrt(1 - g) * y0
    return {'eps': eps, 'v': v, 'y0': y0}[self.prediction]


class Constant(SR3):
  """Predicts `params`, whatever it sees."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    return jnp.full_like(x, params)


class Watch(SR3):
  """Remembers what the network is shown; for use outside of jit."""

  def predict(self, params, x, y, gamma, label=None, dropout_key=None):
    params.append({'x': x, 'y': y, 'gamma': gamma, 'label': label, 'key': dropout_key})
    return jnp.zeros_like(x)
