"""Pairs whose inputs are known functions of their targets, and their runs."""

import pathlib
from fractions import Fraction

import numpy as np
from PIL import Image

from sr3_jax.config import ConfigDict
from sr3_jax.data import input_pipeline
from sr3_jax.data.pairs import Pairs
from sr3_jax.images import rasters, resizing
from tests.support import runs


def scene(height: int, width: int, seed: int) -> np.ndarray:
  """Return a smooth random pattern, float [height, width] in [0, 1]."""
  noise = np.random.default_rng(seed).normal(size=(height + 16, width + 16))
  plane = np.asarray(
    Image.fromarray(noise[::8, ::8].astype(np.float32)).resize(
      (width, height), Image.Resampling.BICUBIC
    )
  )
  return np.clip((plane + 2) / 4, 0, 1)


def as_input(target: np.ndarray, scale: float, channels: int, dtype) -> np.ndarray:
  """Return a target's input: its mean over channels, resized, at half the contrast."""
  ratio = Fraction(scale).limit_denominator(64)
  grey = target.astype(np.float32).mean(-1, keepdims=True) / np.iinfo(target.dtype).max
  sides = (round(side / ratio) for side in target.shape[:2])
  grey = resizing.resize(grey, *sides) / 2 + 0.25
  return np.round(np.repeat(grey, channels, -1) * np.iinfo(dtype).max).astype(dtype)


def write(
  root: pathlib.Path,
  *,
  count: int = 4,
  size: tuple[int, int] = (48, 60),
  scale: float = 1.0,
  channels: int = 3,
  input_channels: int = 3,
  input_dtype=np.uint8,
  extension: str = '.png',
) -> None:
  """Write targets/NAME.png (8 bits) and inputs/NAME and the extension."""
  for folder in ('targets', 'inputs'):
    (root / folder).mkdir(parents=True)
  for i in range(count):
    planes = [scene(*size, seed=10 * i + c) for c in range(channels)]
    target = np.round(np.stack(planes, -1) * 255).astype(np.uint8)
    given = as_input(target, scale, input_channels, input_dtype)
    shown = target[..., 0] if channels == 1 else target
    Image.fromarray(shown).save(root / 'targets' / f'cell_{i}.png')
    rasters.write(root / 'inputs' / f'cell_{i}{extension}', given)


def config(root: pathlib.Path, **data) -> ConfigDict:
  """Return the configuration of a run on `write`'s folders, the smallest there is."""
  c = runs.get_config()
  c.task.name = c.data.source = 'pairs'
  c.data.path, c.data.input_path = str(root / 'targets'), str(root / 'inputs')
  c.data.image_size, c.data.reduce = 24, (1,)
  c.train.num_steps, c.train.batch_size, c.checkpoint.every_steps = 2, 8, 2
  c.eval.every_steps, c.eval.final_images = 0, 8
  c.data.update(data)
  return c


def source(config: ConfigDict, *, held_out: bool = False) -> Pairs:
  """Return the pairs of a configuration."""
  found = input_pipeline.make_source(config, held_out=held_out)
  assert isinstance(found, Pairs)
  return found
