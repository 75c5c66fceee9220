"""A sampler setting, as configurations and presets write it, made into what is run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sr3_jax import diffusion, samplers
from sr3_jax.networks import pick

# Of `config.sampler`, what holds for every walk.
_OF_THE_MODEL = ('clip', 'consistency', 'guidance')


def walk_options(sampler: Mapping[str, Any]) -> dict[str, Any]:
  """What `make_walk` takes of `config.sampler`."""
  return {k: v for k, v in sampler.items() if k not in _OF_THE_MODEL}


def make_walk(
  gammas: np.ndarray,
  *,
  name: str,
  num_steps: int,
  spacing: str,
  eta: float = 0.0,
  temperature: float = 1.0,
  start: float = 0.0,
  end: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
  """Levels [steps + 1] and table [steps, 4 to 6] of a sampler setting.

  Args:
    gammas: [T + 1] trained levels.
    name: a key of `samplers.SAMPLERS`.
    num_steps: 1 to T.
    spacing: a key of `diffusion.SPACINGS`, for a subset of the trained levels; or
      'linear' for those of num_steps betas from `start` to `end`, as the paper searches
      them, as far as the trained levels reach.
    eta: of 'ddim'.
    temperature: of all noise, see `samplers.cool`.
    start, end: of 'linear'.

  Raises:
    ValueError: a name or number that is not possible.
  """
  sampler = pick('sampler', samplers.SAMPLERS, name)
  if spacing == 'linear':
    levels = diffusion.linear_gammas(num_steps, start, end)
    levels = levels[levels >= gammas[-1] * (1 - 1e-6)]
    if len(levels) < 2:
      raise ValueError(f'betas from {start} to {end} are not of the trained levels')
  else:
    levels = diffusion.respace(gammas, num_steps, spacing)
  table = sampler(levels, eta=eta) if name == 'ddim' else sampler(levels)
  return levels, table if temperature == 1 else samplers.cool(table, temperature)
