"""Model folders of tiny stages with random weights, which tests of cascades share."""

import pathlib
from typing import Any

import jax
import numpy as np
import tiny

from sr3_jax import hub
from sr3_jax.config import ConfigDict
from sr3_jax.sr3 import SR3

CLASSES = 3


def stage_config(side: int, **changes: Any) -> ConfigDict:
  """A stage that draws images of a side, or enlarges them twice where told."""
  c = tiny.get_config()
  c.data.image_size = side
  c.task.name = 'generation'
  c.task.scale = 2
  c.task.augment_noise = (0.0, 0.5)
  c.model.patch = 2
  c.model.num_classes = CLASSES
  c.model.label_dropout = 0.1
  c.diffusion.schedule = 'cosine'
  c.diffusion.prediction = 'v'
  c.sampler.num_steps = 2
  c.update_from_flattened_dict(changes)
  return c


def save(folder: pathlib.Path, config: ConfigDict, seed: int = 0) -> None:
  """A model folder with random weights."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes
  )
  hub.save(folder, params, config, step=7)


def save_data(path: pathlib.Path, side: int = 16, count: int = 20) -> None:
  """Labelled images with detail at all sizes."""
  rng = np.random.default_rng(0)
  blocks = [
    rng.normal(0, 20, (count, side // k, side // k, 3)).repeat(k, 1).repeat(k, 2)
    for k in (1, 2, 4, 8)
  ]
  images = np.clip(128 + sum(blocks), 0, 255).astype(np.uint8)
  labels = np.arange(count) % CLASSES
  classes = np.array(['cat', 'dog', 'old car'])
  np.savez(
    path,
    x_train=images,
    y_train=labels,
    x_test=images,
    y_test=labels,
    classes=classes,
  )


def cascade_config(*stages: str, **changes: Any) -> ConfigDict:
  """A cascade of such stages."""
  c = tiny.get_config()
  c.cascade.stages = stages
  c.cascade.images_per_class = 2
  c.cascade.batch_size = 8
  c.update_from_flattened_dict(changes)
  return c
