"""Makes model folders of small stages with random weights, for tests of cascades."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest

from sr3_jax.config import ConfigDict
from sr3_jax.core import model_fields
from sr3_jax.core.sr3 import SR3
from sr3_jax.weights import hub, model_writer
from tests.support import runs

CLASSES = 3
UP = {'task.name': 'cascade'}


class Pointwise(nn.Module):
  """A network that compiles at once: it sees one pixel, the level and the class."""

  num_classes: int
  channels: int
  dropout = 0.0
  predicts = False

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    h = nn.Dense(8, name='a')(inputs) + gamma[:, None, None, None]
    if self.num_classes:
      h = h + nn.Embed(self.num_classes + 1, 8, name='label')(label)[:, None, None]
    return nn.Dense(self.channels, name='b')(nn.tanh(h))


def make_network(
  config: ConfigDict, gammas: np.ndarray, platform: str = ''
) -> Pointwise:
  """Make the network, in place of `model_fields.make_network`."""
  del gammas, platform
  return Pointwise(config.model.num_classes, config.data.channels)


def sample_elsewhere(workdir: str, stages: tuple[str, ...], changes: Any) -> None:
  """Run --mode=sample of a cascade of such stages, in a process of its own."""
  from sr3_jax.cascade import run as cascade_run

  model_fields.make_network = make_network
  cascade_run.sample_run(cascade_config(*stages, **changes), pathlib.Path(workdir))


def stage_config(side: int, **changes: Any) -> ConfigDict:
  """Return a stage that samples images of a side; `changes` can make it upsample."""
  c = runs.get_config()
  c.data.image_size = side
  c.task.name = 'generation'
  c.task.scale = 2
  c.task.augment_noise = (0.0, 0.5)
  c.model.num_classes = CLASSES
  c.model.label_dropout = 0.1
  c.diffusion.schedule = 'cosine'
  c.diffusion.prediction = 'v'
  c.sampler.num_steps = 2
  c.update_from_flattened_dict(changes)
  return c


def save(folder: pathlib.Path, config: ConfigDict, seed: int = 0) -> None:
  """Write a model folder with random weights."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
  )
  model_writer.save(folder, params, config, step=7)


@contextlib.contextmanager
def stages(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Write stages 'base' (8 x 8) and 'up' (16 x 16, with levels), and data.npz."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(model_fields, 'make_network', make_network)
    # A model that is loaded again keeps its compiled programs.
    patch.setattr(hub, 'load', functools.cache(hub.load))
    save(folder / 'base', stage_config(8), 1)
    save(folder / 'up', stage_config(16, **UP), 2)
    save_data(folder / 'data.npz')
    yield folder


def save_data(
  path: pathlib.Path, side: int = 16, count: int = 20, *, same: bool = False
) -> None:
  """Write labelled images with detail at all scales, or copies of one if `same`."""
  rng = np.random.default_rng(0)
  blocks = [
    rng.normal(0, 20, (count, side // k, side // k, 3)).repeat(k, 1).repeat(k, 2)
    for k in (1, 2, 4, 8)
  ]
  images = np.clip(128 + sum(blocks), 0, 255).astype(np.uint8)
  images = images[:1].repeat(count, 0) if same else images
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


def with_data(config: ConfigDict, path: pathlib.Path) -> ConfigDict:
  """Set a cascade to be compared with the images of such a file; return it."""
  d = config.data
  d.source, d.path, d.eval_split = 'arrays', str(path), 'test'
  d.crop, d.reduce = 'none', (1,)
  return config


def cascade_config(*stages: str, **changes: Any) -> ConfigDict:
  """Return a cascade of such stages."""
  c = runs.get_config()
  c.cascade.stages = stages
  c.cascade.images_per_class = 2
  c.cascade.batch_size = 8
  c.update_from_flattened_dict(changes)
  return c
