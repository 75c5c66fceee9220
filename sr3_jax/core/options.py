"""Checks what a configuration says of a model."""

import ml_collections
import numpy as np

from sr3_jax.core import degradations


def check_options(config: ml_collections.ConfigDict, task: degradations.Task) -> None:
  """Refuse options of a model that don't fit together.

  Raises:
    ValueError: which ones, and why.
  """
  d, sampler, name = config.diffusion, config.sampler, config.task.name
  if sampler.guidance != 1 and not config.model.label_dropout:
    raise ValueError('sampler.guidance needs a model with model.label_dropout')
  if d.residual and not task.conditional:
    raise ValueError('diffusion.residual needs a condition; generation has none')
  if task.colour and config.data.channels != 3:
    raise ValueError(f'the task {name!r} is for images of 3 channels')
  if sampler.consistency and (task.scale == 1 or task.extras or config.task.through):
    through = ' with task.through' if config.task.through else ''
    raise ValueError(
      f'sampler.consistency: the task {name!r}{through} has no inputs that are its '
      'outputs downsampled'
    )
  if d.noise_weight < 0:  # infinite where there is no noise
    raise ValueError(f'diffusion.noise_weight={d.noise_weight} must not be negative')
  if sampler.name == 'ddpm_learned' and not d.learned_variance:
    raise ValueError("the sampler 'ddpm_learned' needs diffusion.learned_variance")


def value_range(
  data: ml_collections.ConfigDict,
) -> tuple[np.ndarray, np.ndarray] | None:
  """Return the stored values [C] that mean -1 and 1.

  None stands for the whole range of the stored type of integer.

  Raises:
    ValueError: not one pair for each channel, or an empty range.
  """
  low, high = np.array(data.low, np.float32), np.array(data.high, np.float32)
  if not len(low) and not len(high):
    return None
  if len(low) != data.channels or len(high) != data.channels or np.any(high <= low):
    raise ValueError(
      f'data.low={data.low} and data.high={data.high} must be {data.channels} numbers '
      'each, one for each channel, and rising'
    )
  return low, high
