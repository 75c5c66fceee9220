"""Reads a model out of a configuration: the fields of `SR3`."""

from functools import partial
from typing import Any

import ml_collections
import numpy as np

from sr3_jax.config import check_values
from sr3_jax.core import degradations, diffusion, samplers
from sr3_jax.core.networks import make_network
from sr3_jax.core.relations import check_model, input_channels
from sr3_jax.images import pixels


def value_range(data: ml_collections.ConfigDict, prefix: str = '') -> pixels.Range:
  """Return the stored values that mean -1 and 1, of targets or ('input_') of inputs."""
  low, high = (np.array(data[f'{prefix}{end}'], np.float32) for end in ('low', 'high'))
  return (low, high) if len(low) else None


def model_fields(
  config: ml_collections.ConfigDict, platform: str = ''
) -> dict[str, Any]:
  """Return the fields of the `SR3` that a configuration describes, by name.

  The platform is that of `make_network`.

  Raises:
    ConfigError: a value that its key can't have, or values that don't go together.
  """
  check_values(config)
  check_model(config)
  d, m, sampler = config.diffusion, config.model, config.sampler
  task = degradations.make(config.task.name, config.task)
  make_gammas = diffusion.SCHEDULES[d.schedule]
  if d.schedule == 'linear':
    make_gammas = partial(make_gammas, start=d.start, end=d.end)
  gammas = make_gammas(d.num_levels)
  options = samplers.trajectory_options(sampler)
  return {
    'network': make_network(config, gammas, platform),
    'task': task,
    'image_size': config.data.image_size,
    'channels': config.data.channels,
    'input_channels': input_channels(config.data, task),
    'value_range': value_range(config.data),
    'input_range': value_range(config.data, 'input_' if task.paired else ''),
    'gammas': gammas,
    'upsampling': m.upsampling,
    'smooth_holes': m.smooth_holes,
    'method': config.method,
    'prediction': d.prediction,
    'residual': d.residual,
    'y0_scale': d.y0_scale,
    'learned_variance': d.learned_variance,
    'loss_power': {'l1': 1, 'l2': 2}[d.loss],
    'start_share': d.start_share,
    'perceptual': d.perceptual,
    'noise_weight': d.noise_weight,
    'hole_loss': d.hole_loss,
    'num_classes': m.num_classes,
    'label_dropout': m.label_dropout if m.num_classes else 0.0,
    'trajectory': samplers.make_trajectory(gammas, **options),
    'clip': sampler.clip,
    'consistency': sampler.consistency and config.method == 'sr3',
  }
