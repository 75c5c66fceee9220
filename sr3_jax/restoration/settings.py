"""What a restoration is asked for: made into what it runs with, or refused."""

from typing import Any

import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.samplers import Trajectory, make_trajectory, trajectory_options
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import canvas, tiling
from sr3_jax.restoration.tiling import TILES
from sr3_jax.runtime.errors import UserError
from sr3_jax.weights.hub import Loaded

# Steps of 'balanced' at most and of 'best' at least, where --mode=sweep has not written
# a model's own presets.
BALANCED, BEST = 100, 250


class UpscalerError(UserError):
  """One line: what can't be done, and what can."""


def choose_trajectory(
  loaded: Loaded,
  steps: int | str,
  sampler: str | None = None,
  temperature: float | None = None,
) -> tuple[dict[str, Any], Trajectory]:
  """Return the options that these arguments mean, and their trajectory.

  Raises:
    UpscalerError: an unknown preset or sampler, more steps than trained levels, or no
      temperature.
  """
  model = loaded.model
  if model.method == 'regression':  # one step, to its prediction
    gammas = np.array([1.0, 0.5])
    trajectory = Trajectory(gammas, samplers.ddpm(gammas))
    return {'name': 'regression', 'num_steps': 1}, trajectory
  options = trajectory_options(loaded.config.sampler)
  most = len(model.gammas) - 1
  if isinstance(steps, str):
    configured = options['num_steps']
    presets = {
      'fast': {'name': 'dpmpp_2m', 'num_steps': 12, 'spacing': 'log_snr'},
      'balanced': {'num_steps': min(configured, BALANCED)},
      'best': {'num_steps': max(configured, BEST)},
    }
    # A preset was measured with what `make_trajectory` has where it says nothing.
    measured = {'eta': 0.0, 'temperature': 1.0}
    presets |= {name: measured | preset for name, preset in loaded.presets.items()}
    if steps not in presets:
      raise UpscalerError(f'no preset {steps!r}; there are {", ".join(presets)}')
    options |= presets[steps]
    options['num_steps'] = min(options['num_steps'], most)
  else:
    options['num_steps'] = steps
  if sampler:
    options['name'] = sampler
  if temperature is not None:
    options['temperature'] = temperature
  if options['name'] == 'ddpm_learned' and not model.learned_variance:
    raise UpscalerError("the sampler 'ddpm_learned' needs a model of learned variance")
  if not 1 <= options['num_steps'] <= min(most, canvas.MAX_STEPS):
    raise UpscalerError(
      f'{options["num_steps"]} steps: this model can take 1 to '
      f'{min(most, canvas.MAX_STEPS)}'
    )
  try:
    return options, make_trajectory(model.gammas, **options)
  except ValueError as error:
    raise UpscalerError(str(error)) from None


def choose_tiles(
  model: SR3, tile: int | None, tile_pad: int | None
) -> tuple[tuple[int, ...], int]:
  """Sides of tiles and their pad in output pixels, from options in input pixels.

  Raises:
    UpscalerError: a pad too large for the tiles.
  """
  scale, network = model.scale, model.network
  if tile is not None:
    sides = (tiling.round_up(tile * scale, network.multiple),)
  elif network.has_attention:  # at another size it would see what it never saw
    sides = (tiling.round_up(model.image_size, network.multiple),)
  else:
    sides = tuple(tiling.round_up(side, network.multiple) for side in TILES)
  # Half of what tiles share: a network sees about as far at any scale.
  default = 4 if scale > 1 else 16
  most = sides[-1] // 4
  if tile_pad is not None and sides != (0,) and tile_pad * scale > most:
    raise UpscalerError(
      f'tiles of {sides[-1] // scale} input pixels can have a pad of at most '
      f'{most // scale}, not {tile_pad}'
    )
  return sides, min(scale * (default if tile_pad is None else tile_pad), most)
