"""Chooses the trajectory and the tiles of an upscaler from its options."""

from typing import Any

import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.samplers import Trajectory, make_trajectory, trajectory_options
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import canvas, tiling
from sr3_jax.restoration.limits import LIMITS
from sr3_jax.restoration.tiling import TILES
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.values import shown
from sr3_jax.weights.hub import Loaded

# The most steps of the preset 'balanced' and the fewest of 'best', of models without
# presets of their own (which --mode=sweep writes).
BALANCED, BEST = 100, 250


class UpscalerError(UserError):
  """One line: what a model can't take (image, mask, label, option), and what it can."""


def check_limits(**options: Any) -> None:
  """Raise UpscalerError for an option that can't be so for any model; None is fine."""
  for name, value in options.items():
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is not None and not LIMITS[name].fits(plain):
      raise UpscalerError(f'{name}={shown(plain)} must be {LIMITS[name]}')


def choose_trajectory(
  loaded: Loaded,
  steps: int | str,
  sampler: str | None = None,
  temperature: float | None = None,
) -> tuple[dict[str, Any], Trajectory]:
  """Return the sampler options that arguments of `Upscaler` mean, and their trajectory.

  The options are arguments of `samplers.make_trajectory`.

  Raises:
    UpscalerError: the preset or sampler is unknown, there are more steps than trained
      levels, or the temperature is out of range.
  """
  model = loaded.model
  if model.method == 'regression':  # one step gives its prediction
    gammas = np.array([1.0, 0.5])
    trajectory = Trajectory(gammas, samplers.ddpm(gammas))
    return {'name': 'regression', 'num_steps': 1}, trajectory
  options = trajectory_options(loaded.config.sampler)
  most = len(model.gammas) - 1
  if isinstance(steps, str):
    presets = _presets(loaded, options['num_steps'])
    if steps not in presets:
      raise UpscalerError(
        f'steps={steps!r} is no number and no preset; presets: {", ".join(presets)}'
      )
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
  most = min(most, canvas.MAX_STEPS)
  if not 1 <= options['num_steps'] <= most:
    raise UpscalerError(
      f'{options["num_steps"]} steps: this model can take 1 to {most}'
    )
  try:
    return options, make_trajectory(model.gammas, **options)
  except ValueError as error:
    raise UpscalerError(str(error)) from None


def _presets(loaded: Loaded, configured: int) -> dict[str, dict[str, Any]]:
  """Return sampler options by the names of presets; the model's own come first."""
  general = {
    'fast': {'name': 'dpmpp_2m', 'num_steps': 12, 'spacing': 'log_snr'},
    'balanced': {'num_steps': min(configured, BALANCED)},
    'best': {'num_steps': max(configured, BEST)},
  }
  if loaded.config.train.distill_from:  # it has learned the steps of its run alone
    general = {name: {'num_steps': configured} for name in general}
  # The sweep measured presets with the defaults of `make_trajectory`, not with the
  # model's configuration, where they say nothing.
  defaults = {'eta': 0.0, 'temperature': 1.0}
  return general | {name: defaults | own for name, own in loaded.presets.items()}


def choose_tiles(
  model: SR3, tile: int | None, tile_pad: int | None
) -> tuple[tuple[int, ...], int]:
  """Return sides and pad of tiles in output pixels, as `Planner` takes them.

  The arguments are in input pixels, as `Upscaler` takes them.

  Raises:
    UpscalerError: the pad is too large for the tiles.
  """
  scale, network = model.scale, model.network
  if tile is not None:
    sides = (tiling.round_up(tile * scale, network.multiple),)
  elif network.has_attention:  # it was trained to see images of this size as a whole
    sides = (tiling.round_up(model.image_size, network.multiple),)
  else:
    sides = tuple(tiling.round_up(side, network.multiple) for side in TILES)
  # The same in output pixels for the usual scale of 4: a network sees about as far at
  # any scale.
  default = 4 if scale > 1 else 16
  most = sides[-1] // 4
  if tile_pad is not None and sides != (0,) and tile_pad * scale > most:
    raise UpscalerError(
      f'tiles of {sides[-1] // scale} input pixels can have a pad of at most '
      f'{most // scale}, not {tile_pad}'
    )
  return sides, min(scale * (default if tile_pad is None else tile_pad), most)
