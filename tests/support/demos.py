"""Demos with models that compile in milliseconds, and pictures for them."""

import pathlib
from typing import Any

import numpy as np
from PIL import Image

from sr3_jax.demo.jobs import Limits
from sr3_jax.restoration.upscaler import Upscaler
from tests.support import models

LIMITS = Limits(pixels=40 * 30, megabytes=0.2, samples=3, steps=20, queue=5)


def small_models() -> dict[str, Upscaler]:
  """Return a model that upscales four times, and one that fills in."""
  large = models.residual(models.Local(), sampler__num_steps=4)
  fills = models.residual(models.Local(), task__name='inpainting')
  return {'large': _named(large, 'large'), 'fills': _named(fills, 'fills')}


def _named(loaded: Any, name: str) -> Upscaler:
  object.__setattr__(loaded, 'name', name)
  object.__setattr__(loaded, 'place', f'/secret/{name}')
  return Upscaler(loaded, on_note=lambda text: None)


def save(path: pathlib.Path, width: int = 24, height: int = 16, **options: Any) -> Any:
  """Write a smooth picture with noise, and return its pixels, uint8 [h, w, 3]."""
  rng = np.random.default_rng(0)
  ramp = np.linspace(40, 200, width)[None, :, None] + np.zeros((height, 1, 3))
  pixels = np.clip(ramp + rng.normal(0, 10, ramp.shape), 0, 255).astype(np.uint8)
  Image.fromarray(pixels).save(path, **options)
  return pixels
