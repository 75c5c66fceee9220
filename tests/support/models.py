"""Loaded models whose networks have few weights and compile in milliseconds.

They are for tests that need a model, but not a trained one.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import hub
from tests.support import runs


class Local(nn.Module):
  """Three convolutions without normalisation, which see 3 pixels around each pixel."""

  channels: int = 3
  multiple = 2
  has_attention = False
  predicts = False
  dropout = 0.0

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    h = nn.Conv(8, (3, 3), name='a')(inputs)
    h = nn.tanh(h + gamma[:, None, None, None])
    h = nn.tanh(nn.Conv(8, (3, 3), name='b')(h))
    return nn.Conv(self.channels, (3, 3), name='c')(h)


class Pointwise(nn.Module):
  """A network whose output for a pixel depends on this pixel and the class only."""

  channels: int = 3
  num_classes: int = 0
  multiple = 1
  has_attention = False
  predicts = False
  dropout = 0.0

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    out = nn.Dense(self.channels, name='dense')(jnp.tanh(inputs))
    if not self.num_classes:
      return out
    embed = nn.Embed(self.num_classes + 1, self.channels, name='label')
    return out + embed(label)[:, None, None]


def loaded(network: nn.Module | None, **changes: Any) -> hub.Loaded:
  """Return a loaded model with random weights.

  Args:
    network: the network; None stands for the configured one.
    **changes: changes of the configuration of tests/support/runs.py, as group__key.
  """
  config = runs.get_config()
  with config.unlocked():
    for name, value in changes.items():
      group, _, key = name.partition('__')
      config[group][key] = value
  model = SR3.from_config(config)
  if network is not None:
    model = dataclasses.replace(model, network=network)
  shapes = jax.eval_shape(lambda k: model.init(k, side=64), jax.random.key(0))
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda p: 0.3 * rng.standard_normal(p.shape).astype(np.float32), shapes
  )
  return hub.Loaded(
    model=model,
    params=params,
    config=config,
    presets={},
    fingerprint='0' * 16,
    name='test',
    step=0,
    source='test',
  )


def residual(network, **changes):
  """Return a loaded model of the residual, with this network and random weights."""
  settings = {
    'data__image_size': 64,
    'diffusion__prediction': 'v',
    'diffusion__residual': True,
    'diffusion__num_levels': 50,
    'diffusion__schedule': 'cosine',
  }
  return loaded(network, **settings | changes)
