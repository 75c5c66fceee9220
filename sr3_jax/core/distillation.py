"""Progressive distillation: one step of a student does what two of its teacher do.

This is arXiv:2202.00512 (Salimans and Ho). The steps are those of the sampler `ddim`,
which are deterministic. A student takes N of them, through every second level of the
2 N of its teacher, and starts from its teacher's weights. `SR3.loss` asks the teacher
for the levels and for the target; everything else of training stays as it is.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax.config import ConfigError
from sr3_jax.core import diffusion, samplers
from sr3_jax.runtime.types import Params


@dataclasses.dataclass(frozen=True, eq=False)
class Halving:
  """The N steps of a student and, for each, two of its teacher: float32 [N] arrays."""

  gamma: np.ndarray  # level from which the student's step and the teacher's first start
  middle: np.ndarray  # level from which the teacher's second step starts
  a: np.ndarray  # the teacher's first step goes to a y + b y0
  b: np.ndarray
  share: np.ndarray  # of the teacher's first prediction in what the student learns


class Teacher(NamedTuple):
  """A teacher: its weights, and the steps that are learned from it."""

  params: Params
  halving: Halving

  def sample_gamma(self, key: jax.Array) -> jax.Array:
    """Draw one of the levels from which a student's steps start."""
    return jax.random.choice(key, jnp.asarray(self.halving.gamma))

  def goal(
    self, denoise: samplers.Denoise, y: jax.Array, gamma: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Return what a student is to predict for noisy images, and the noise in them.

    Args:
      denoise: this teacher, with all that the sampler does to its predictions.
      y: [B, H, W, C] noisy images.
      gamma: [B], from `sample_gamma`.

    Returns:
      y0 [B, H, W, C], from which one step of DDIM ends where two steps of the teacher
      end; and eps, with sqrt(gamma) y0 + sqrt(1 - gamma) eps = y.
    """
    steps = self.halving
    place = jnp.argmin(jnp.abs(gamma[:, None] - steps.gamma[None]), axis=1)
    a, b, share = (
      jnp.asarray(row)[place, None, None, None]
      for row in (steps.a, steps.b, steps.share)
    )
    first = denoise(y, gamma).y0
    second = denoise(a * y + b * first, jnp.asarray(steps.middle)[place]).y0
    y0 = share * first + (1 - share) * second
    signal, noise = diffusion.scales(gamma)
    return y0, (y - signal * y0) / noise


def halving(config: ml_collections.ConfigDict, gammas: np.ndarray) -> Halving:
  """Return the steps that a run with `train.distill_from` learns.

  The student's are those of its configured sampler, so that it is trained at the very
  levels that sampling goes through.

  Args:
    config: of the student's run.
    gammas: [T + 1] trained levels.

  Raises:
    ConfigError: steps that can't be learned.
  """
  for fault in _faults(config, gammas):
    raise ConfigError(fault)
  sampler = config.sampler
  levels = diffusion.respace(gammas, 2 * sampler.num_steps, sampler.spacing)
  first, second = samplers.ddim(levels).reshape(-1, 2, 4).transpose(1, 0, 2)
  whole = samplers.ddim(levels[::2])
  # Two steps, y -> a1 y + b1 p1 = m -> a2 m + b2 p2, end where one step with a third
  # prediction ends, a y + b p. As a = a1 a2, that is p = (a2 b1 p1 + b2 p2) / b; and as
  # b = a2 b1 + b2, it is a mean of the two.
  share = second[:, 0] * first[:, 1] / whole[:, 1]
  rows = (levels[:0:-2], levels[-2::-2], first[:, 0], first[:, 1], share)
  return Halving(*(row.astype(np.float32) for row in rows))


def _faults(config: ml_collections.ConfigDict, gammas: np.ndarray) -> Iterator[str]:
  """Say what of a configuration can't be distilled."""
  sampler, key = config.sampler, 'train.distill_from'
  steps, most = sampler.num_steps, len(gammas) - 1
  if config.method == 'regression':
    yield f"{key}: method='regression' has one step already"
  if config.train.init_from:
    yield f'{key} and train.init_from: a student starts from its teacher, give one'
  if sampler.name != 'ddim' or sampler.eta:
    yield (
      f"{key}: the sampler must be deterministic, sampler.name='ddim' with "
      f'sampler.eta=0, not {sampler.name!r} with {sampler.eta:g}'
    )
  if sampler.guidance != 1:
    yield (
      f'{key}: sampler.guidance={sampler.guidance:g} is no part of what a student '
      'learns, it must be 1'
    )
  if 2 * steps > most:
    yield (
      f'{key}: sampler.num_steps={steps} needs a teacher of {2 * steps} steps, which '
      f'diffusion.num_levels={most} does not have'
    )
    return
  few, many = (
    diffusion.respace(gammas, n, sampler.spacing) for n in (steps, 2 * steps)
  )
  if np.any(few != many[::2]):
    yield (
      f'{key}: with sampler.spacing={sampler.spacing!r}, levels of {steps} steps are '
      f"not those of every second of {2 * steps}; take 'cosine' or 'time'"
    )
