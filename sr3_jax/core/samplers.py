"""Samplers are arrays of coefficients; one scan runs them all.

A sampling trajectory falls from pure noise to the clean image, through the levels
gammas[n] -> ... -> gammas[0] = 1. Every step of it is

    y_next = a y + b y0 + c y0_previous + d noise

where y0 is the prediction of the clean image at the current level t, and s is the next,
cleaner one. A sampler is a function from `gammas`, [steps + 1], to one row (a, b, c, d)
for each step, [steps, 4], computed in float64. With alpha = gamma_t / gamma_s:

  ddpm            posterior mean, variance 1 - alpha       Algorithm 2 of the paper
  ddpm_posterior  posterior mean, posterior variance       DDPM's smaller variance
  ddim            arXiv:2010.02502; eta = 1 gives ddpm_posterior
  dpmpp_2m        DPM-Solver++(2M), arXiv:2211.01095
  ddpm_learned    the network predicts the variance, between those two; a fifth column

Clipping and anything else that corrects the prediction happens inside `denoise`.
`scale_temperature` gives any of them weaker noise, at the start and on the way.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.config import pick
from sr3_jax.core import diffusion


class Prediction(NamedTuple):
  """The output of a denoiser for a noisy image."""

  y0: jax.Array  # [B, H, W, C] prediction of the clean image
  # [B, H, W, C] from networks that also predict the variance of a step, else None. Its
  # logarithm is interpolated: 0 is the variance of `ddpm_posterior`, 1 that of `ddpm`.
  variance: jax.Array | None = None


class Trajectory(NamedTuple):
  """A sampler's coefficients and the levels that they were computed from."""

  gammas: np.ndarray  # float64 [steps + 1], falling from 1
  # float64 [steps, 4 to 6], in the order of sampling: noisiest first.
  coefficients: np.ndarray


class Steps(NamedTuple):
  """Sampling steps as the compiled programs take them, in the order of sampling."""

  # float32 [steps, 6], rows (a, b, c, d, e, input scale): see `ddpm_learned` for e and
  # `scale_temperature` for the input scale.
  coefficients: np.ndarray
  gamma: np.ndarray  # float32 [steps], the level that each starts from
  number: np.ndarray  # int32 [steps], 1, 2, ...; each number has noise of its own


# (y [B, H, W, C], gamma [B]) -> prediction.
Denoise = Callable[[jax.Array, jax.Array], Prediction]
# Number of a step -> standard normal noise [B, H, W, C].
Noise = Callable[[int | jax.Array], jax.Array]
Carry = tuple[jax.Array, jax.Array]  # y and the previous prediction of y0


def _levels(gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return gamma_t and gamma_s of every step, in the order of sampling.

  Raises:
    ValueError: gammas that don't fall from 1, or reach 0.
  """
  gammas = np.asarray(gammas, np.float64)
  if gammas[0] != 1 or np.any(np.diff(gammas) >= 0) or gammas[-1] <= 0:
    raise ValueError('gammas must fall from 1 and stay above 0')
  return gammas[:0:-1], gammas[-2::-1]


def ddpm(gammas: np.ndarray, posterior_variance: bool = False) -> np.ndarray:
  """Return the coefficients of the paper's sampler.

  The variance is DDPM's "fixed large"; the posterior's is its "fixed small".
  """
  g_t, g_s = _levels(gammas)
  alpha = g_t / g_s
  a = np.sqrt(alpha) * (1 - g_s) / (1 - g_t)
  b = np.sqrt(g_s) * (1 - alpha) / (1 - g_t)
  variance = (1 - alpha) * ((1 - g_s) / (1 - g_t) if posterior_variance else 1)
  d = np.sqrt(variance)
  d[-1] = 0  # the last step adds no noise
  return np.stack([a, b, np.zeros_like(a), d], axis=1)


def ddpm_posterior(gammas: np.ndarray) -> np.ndarray:
  """Return the coefficients of `ddpm` with the posterior variance."""
  return ddpm(gammas, posterior_variance=True)


def ddim(gammas: np.ndarray, eta: float = 0.0) -> np.ndarray:
  """Return the coefficients of DDIM; eta = 0 is deterministic.

  y_s = sqrt(g_s) y0 + sqrt(1 - g_s - d^2) eps + d z (arXiv:2010.02502). eps is the
  noise that y0 implies, (y - sqrt(g_t) y0) / sqrt(1 - g_t), so that a clipped y0 stays
  consistent.
  """
  g_t, g_s = _levels(gammas)
  d = eta * np.sqrt((1 - g_s) / (1 - g_t) * (1 - g_t / g_s))
  a = np.sqrt(np.maximum(1 - g_s - d**2, 0)) / np.sqrt(1 - g_t)
  b = np.sqrt(g_s) - a * np.sqrt(g_t)
  return np.stack([a, b, np.zeros_like(a), d], axis=1)


def dpmpp_2m(gammas: np.ndarray) -> np.ndarray:
  """Return the coefficients of DPM-Solver++(2M).

  It is a second-order multistep method on predictions of y0 (arXiv:2211.01095). With
  lambda = log(g / (1 - g)) / 2, h = lambda_s - lambda_t and r = h_previous / h:
  D = y0 + (y0 - y0_previous) / (2 r);
  y_s = sqrt((1 - g_s) / (1 - g_t)) y - sqrt(g_s) expm1(-h) D.
  The first step has no previous prediction, and the last (to the clean image, h
  infinite) is of first order.
  """
  g_t, g_s = _levels(gammas)
  with np.errstate(divide='ignore'):
    h = 0.5 * (np.log(g_s) - np.log1p(-g_s) - np.log(g_t) + np.log1p(-g_t))
  a = np.sqrt((1 - g_s) / (1 - g_t))
  whole = -np.sqrt(g_s) * np.expm1(-h)
  share = np.zeros_like(h)  # 1 / (2 r)
  share[1:] = h[1:] / (2 * h[:-1])
  share[-1] = 0
  return np.stack([a, whole * (1 + share), -whole * share, np.zeros_like(a)], axis=1)


def ddpm_learned(gammas: np.ndarray) -> np.ndarray:
  """Return the coefficients (a, b, c, d, e) of learned variance, [steps, 5].

  This is eq. 15 of arXiv:2102.09672. Each pixel's noise has the standard deviation
  d^(1 - v) e^v: between the posterior's (d) and the larger one of `ddpm` (e), by the
  network's `Prediction.variance` v.
  """
  return np.concatenate([ddpm_posterior(gammas), ddpm(gammas)[:, 3:]], axis=1)


def scale_temperature(coefficients: np.ndarray, temperature: float) -> np.ndarray:
  """Return coefficients for noise of a standard deviation other than 1.

  Below 1 there is less detail and less grain: a network that is not perfect turns some
  of the noise that it is given into noise of the picture, in proportion. All noise is
  scaled by `temperature`, that of the start too. The starting noise comes from
  elsewhere with standard deviation 1. So the first step scales it: by the sixth column
  (the input scale) for the network, and by the coefficient `a` for the next y.

  Returns:
    [steps, 6] from [steps, 4 or 5]; samplers without a column e get a copy of d.

  Raises:
    ValueError: a temperature that is not above 0 and at most 1.
  """
  if not 0 < temperature <= 1:
    raise ValueError(f'temperature {temperature:g} is not above 0 and at most 1')
  input_scale = np.ones((len(coefficients), 1))
  scaled = np.concatenate([coefficients[:, [0, 1, 2, 3, -1]], input_scale], axis=1)
  scaled[:, 3:5] *= temperature
  scaled[0, [0, 5]] *= temperature
  return scaled


SAMPLERS: dict[str, Callable[..., np.ndarray]] = {
  'ddpm': ddpm,
  'ddpm_posterior': ddpm_posterior,
  'ddim': ddim,
  'dpmpp_2m': dpmpp_2m,
  'ddpm_learned': ddpm_learned,
}


def example_keys(key: jax.Array, batch: int) -> jax.Array:
  """Return one key for each example: [B] keys, or a key folded with 0 to batch - 1."""
  if key.ndim:
    return key
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def normal(
  key: jax.Array, number: int | jax.Array, shape: tuple[int, ...]
) -> jax.Array:
  """Draw noise [B, *shape]; that of example b depends on (key[b], number), not on B."""

  def one(key):
    return jax.random.normal(jax.random.fold_in(key, number), shape)

  return jax.vmap(one)(key)


def steps(
  gammas: np.ndarray, coefficients: np.ndarray, capacity: int | None = None
) -> Steps:
  """Return the steps of a trajectory as compiled programs take them.

  Where the variance is fixed, e equals d; where the temperature is 1, so is the input
  scale.

  Args:
    gammas: [steps + 1] levels.
    coefficients: [steps, 4 to 6], made from these levels.
    capacity: the arrays are padded to this many steps, so that trajectories of any
      length can be arguments of one compiled program; None adds none.

  Raises:
    ValueError: coefficients of another number of steps, or more steps than `capacity`.
  """
  g_t, _ = _levels(gammas)
  count = len(coefficients)
  if count != len(g_t) or coefficients.shape[1:] not in ((4,), (5,), (6,)):
    need = f'{len(g_t)} steps need coefficients [{len(g_t)}, 4]'
    raise ValueError(f'{need}: {coefficients.shape}')
  if coefficients.shape[1] < 6:
    coefficients = scale_temperature(coefficients, 1.0)
  padding = (capacity or count) - count
  if padding < 0:
    raise ValueError(f'{count} sampling steps are more than {capacity}')
  return Steps(
    np.pad(coefficients.astype(np.float32), ((0, padding), (0, 0))),
    np.pad(g_t.astype(np.float32), (0, padding), constant_values=1),
    np.arange(1, count + padding + 1, dtype=np.int32),
  )


def next_y(
  row: jax.Array,
  y: jax.Array,
  y0: jax.Array,
  y0_previous: jax.Array,
  noise: jax.Array | None = None,
  variance: jax.Array | None = None,
) -> jax.Array:
  """Take one step of any sampler: return y at the next level, [B, H, W, C].

  Args:
    row: [6], one of `Steps.coefficients`.
    y: noisy images.
    y0: predictions for them.
    y0_previous: predictions of the step before.
    noise: standard normal; None stands for d = 0.
    variance: `Prediction.variance`; None stands for e = d.
  """
  a, b, c, d, e = (row[i] for i in range(5))  # `advance` applies the sixth, to y
  y = a * y + b * y0 + c * y0_previous
  if noise is None:
    return y
  if variance is not None:
    # The last step has d = e = 0, and networks may leave [0, 1].
    log_d, log_e = (jnp.log(jnp.maximum(x, 1e-30)) for x in (d, e))
    d = d * jnp.exp(variance * (log_e - log_d))
  return y + d * noise


def advance(denoise: Denoise, noise: Noise | None, carry: Carry, steps: Steps) -> Carry:
  """Run a stretch of a trajectory, and return the carry after its last step.

  A trajectory can be cut anywhere without changing it: `steps` is a slice of what the
  function `steps` returns. `noise` is None for samplers whose d is 0.
  """

  def step(carry, now):
    y, y0_previous = carry
    y0, variance = denoise(now.coefficients[5] * y, jnp.full(y.shape[:1], now.gamma))
    z = None if noise is None else noise(now.number)
    return (next_y(now.coefficients, y, y0, y0_previous, z, variance), y0), None

  return jax.lax.scan(step, carry, steps)[0]


def is_stochastic(coefficients: np.ndarray) -> bool:
  """Return whether a sampler adds noise on the way."""
  return bool(np.any(coefficients[:, 3:5]))


def trajectory_options(sampler: Mapping[str, Any]) -> dict[str, Any]:
  """Return the options of `config.sampler` that `make_trajectory` takes."""
  of_the_model = ('clip', 'consistency', 'guidance')  # whatever the trajectory
  return {k: v for k, v in sampler.items() if k not in of_the_model}


def make_trajectory(
  gammas: np.ndarray,
  *,
  name: str,
  num_steps: int,
  spacing: str,
  eta: float = 0.0,
  temperature: float = 1.0,
  start: float = 0.0,
  end: float = 0.0,
) -> Trajectory:
  """Return the trajectory over trained levels that options of a sampler describe.

  They mean what they mean in `config.sampler`. `spacing` may also be 'linear': the
  levels are those of num_steps betas from `start` to `end`, as the paper searches them,
  as far as the trained levels reach.

  Raises:
    ValueError: a name or number that is not possible.
  """
  sampler = pick('sampler', SAMPLERS, name)
  if spacing == 'linear':
    levels = diffusion.linear_gammas(num_steps, start, end)
    levels = levels[levels >= gammas[-1] * (1 - 1e-6)]
    if len(levels) < 2:
      raise ValueError(f'betas from {start} to {end} are not of the trained levels')
  else:
    levels = diffusion.respace(gammas, num_steps, spacing)
  coefficients = sampler(levels, eta=eta) if name == 'ddim' else sampler(levels)
  if temperature != 1:
    coefficients = scale_temperature(coefficients, temperature)
  return Trajectory(levels, coefficients)
