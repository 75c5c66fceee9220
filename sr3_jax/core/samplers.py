"""Samplers are tables; one scan runs them all.

Walking down levels gammas[n] -> ... -> gammas[0] = 1, every step is

    y_next = a y + b y0 + c y0_previous + d noise

where y0 is the estimate of the clean image at the current level t, and s is the next,
cleaner one. A sampler is a function from `gammas` to the rows (a, b, c, d), computed in
float64. With alpha = gamma_t / gamma_s:

  ddpm            posterior mean, variance 1 - alpha       Algorithm 2 of the paper
  ddpm_posterior  posterior mean, posterior variance       DDPM's smaller variance
  ddim            arXiv:2010.02502; eta = 1 gives ddpm_posterior
  dpmpp_2m        DPM-Solver++(2M), arXiv:2211.01095
  ddpm_learned    the variance is the network's, between the two of ddpm; a fifth column

Clipping and anything else that corrects the estimate happens inside `denoise`. Any of
them can be `cool`: from weaker noise, with weaker noise on the way.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.config import pick
from sr3_jax.core import diffusion

Denoise = Callable[[jax.Array, jax.Array], Any]
Noise = Callable[[jax.Array], jax.Array]


def _levels(gammas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(gamma_t, gamma_s) of every step, in the order in which sampling takes them."""
  gammas = np.asarray(gammas, np.float64)
  if gammas[0] != 1 or np.any(np.diff(gammas) >= 0) or gammas[-1] <= 0:
    raise ValueError('gammas must fall from 1 and stay above 0')
  return gammas[:0:-1], gammas[-2::-1]


def _ancestral(gammas: np.ndarray, posterior_variance: bool) -> np.ndarray:
  g_t, g_s = _levels(gammas)
  alpha = g_t / g_s
  a = np.sqrt(alpha) * (1 - g_s) / (1 - g_t)
  b = np.sqrt(g_s) * (1 - alpha) / (1 - g_t)
  variance = (1 - alpha) * ((1 - g_s) / (1 - g_t) if posterior_variance else 1)
  d = np.sqrt(variance)
  d[-1] = 0  # the last step adds no noise
  return np.stack([a, b, np.zeros_like(a), d], axis=1)


def ddpm(gammas: np.ndarray) -> np.ndarray:
  """The paper's sampler: variance 1 - alpha_t (DDPM's "fixed large"). [steps, 4]."""
  return _ancestral(gammas, posterior_variance=False)


def ddpm_posterior(gammas: np.ndarray) -> np.ndarray:
  """Ancestral sampling with the posterior variance ("fixed small"). [steps, 4]."""
  return _ancestral(gammas, posterior_variance=True)


def ddim(gammas: np.ndarray, eta: float = 0.0) -> np.ndarray:
  """DDIM: y_s = sqrt(g_s) y0 + sqrt(1 - g_s - d^2) eps + d z. [steps, 4].

  eps is the noise that y0 implies, (y - sqrt(g_t) y0) / sqrt(1 - g_t), so that a
  clipped y0 stays consistent.

  Args:
    gammas: [steps + 1] levels.
    eta: 0 is deterministic, 1 equals `ddpm_posterior`.
  """
  g_t, g_s = _levels(gammas)
  d = eta * np.sqrt((1 - g_s) / (1 - g_t) * (1 - g_t / g_s))
  a = np.sqrt(np.maximum(1 - g_s - d**2, 0)) / np.sqrt(1 - g_t)
  b = np.sqrt(g_s) - a * np.sqrt(g_t)
  return np.stack([a, b, np.zeros_like(a), d], axis=1)


def dpmpp_2m(gammas: np.ndarray) -> np.ndarray:
  """DPM-Solver++(2M), second-order multistep on the y0 estimate. [steps, 4].

  With lambda = log(g / (1 - g)) / 2, h = lambda_s - lambda_t, r = h_previous / h:
  D = y0 + (y0 - y0_previous) / (2 r); y_s = sqrt((1 - g_s) / (1 - g_t)) y
  - sqrt(g_s) expm1(-h) D. The first step has no previous estimate and the last
  (to the clean image, h infinite) is of first order.
  """
  g_t, g_s = _levels(gammas)
  with np.errstate(divide='ignore'):
    h = 0.5 * (np.log(g_s) - np.log1p(-g_s) - np.log(g_t) + np.log1p(-g_t))
  a = np.sqrt((1 - g_s) / (1 - g_t))
  whole = -np.sqrt(g_s) * np.expm1(-h)
  previous = np.zeros_like(h)
  previous[1:] = h[1:] / (2 * h[:-1])  # 1 / (2 r)
  previous[-1] = 0
  return np.stack(
    [a, whole * (1 + previous), -whole * previous, np.zeros_like(a)], axis=1
  )


def ddpm_learned(gammas: np.ndarray) -> np.ndarray:
  """Learned variance, arXiv:2102.09672 eq. 15: rows (a, b, c, d, e), [steps, 5].

  Each pixel's noise has the spread d^(1 - share) e^share: between the posterior's and
  the larger one of `ddpm`, by the share that the network gives.
  """
  table = ddpm_posterior(gammas)
  return np.concatenate([table, ddpm(gammas)[:, 3:]], axis=1)


def cool(table: np.ndarray, temperature: float) -> np.ndarray:
  """A table for noise of another standard deviation: [steps, 4 or 5] to [steps, 6].

  Below 1 there is less detail and less grain: a network that is not perfect turns some
  of the noise that it is given into noise of the picture, in proportion. All noise
  counts `temperature` times, that of the start too. As that is drawn elsewhere, a sixth
  column says how many times y counts where the network sees it, and a has it as well.

  Raises:
    ValueError: a temperature that is not above 0 and at most 1.
  """
  if not 0 < temperature <= 1:
    raise ValueError(f'temperature {temperature:g} is not above 0 and at most 1')
  table = table[:, [0, 1, 2, 3, -1]]
  table = np.concatenate([table, np.ones((len(table), 1))], axis=1)
  table[:, 3:5] *= temperature
  table[0, [0, 5]] *= temperature
  return table


SAMPLERS: dict[str, Callable[..., np.ndarray]] = {
  'ddpm': ddpm,
  'ddpm_posterior': ddpm_posterior,
  'ddim': ddim,
  'dpmpp_2m': dpmpp_2m,
  'ddpm_learned': ddpm_learned,
}


def example_keys(key: jax.Array, batch: int) -> jax.Array:
  """One key per example: `key` folded with 0..batch-1; [B] keys stay as they are."""
  if key.ndim:
    return key
  return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))


def normal(key: jax.Array, index: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Noise [B, *shape]; example b's depends on (key[b], index) only, not on B."""
  draw = lambda k: jax.random.normal(jax.random.fold_in(k, index), shape)
  return jax.vmap(draw)(key)


def steps(
  gammas: np.ndarray, table: np.ndarray, room: int | None = None
) -> dict[str, np.ndarray]:
  """What a walk runs over: rows, their levels gamma_t and their numbers 1, 2, ...

  Args:
    gammas: [steps + 1] levels.
    table: [steps, 4], [steps, 5] or, from `cool`, [steps, 6]; made from them.
    room: rows of zeros are added up to this many, so that walks of any length can be
      arguments of one compiled program; None adds none.

  Returns:
    'row' [room, 6], 'gamma' [room], 'index' [room]. Where the variance is fixed, both
    ends of its range (d and e) are the same; where nothing is cool, the last is 1.
  """
  g_t, _ = _levels(gammas)
  count = len(table)
  if count != len(g_t) or table.shape[1:] not in ((4,), (5,), (6,)):
    raise ValueError(f'{len(g_t)} steps need a [{len(g_t)}, 4] table: {table.shape}')
  if table.shape[1] < 6:
    table = cool(table, 1.0)
  extra = (room or count) - count
  if extra < 0:
    raise ValueError(f'{count} sampling steps are more than {room}')
  return {
    'row': np.pad(table.astype(np.float32), ((0, extra), (0, 0))),
    'gamma': np.pad(g_t.astype(np.float32), (0, extra), constant_values=1),
    'index': np.arange(1, count + extra + 1, dtype=np.int32),
  }


def next_y(
  row: jax.Array,
  y: jax.Array,
  y0: jax.Array,
  y0_previous: jax.Array,
  noise: jax.Array | None = None,
  share: jax.Array | None = None,
) -> jax.Array:
  """One step of any table; without `noise` d counts as 0, without `share` e as d."""
  a, b, c, d, e = (row[i] for i in range(5))  # the sixth is the network's
  y = a * y + b * y0 + c * y0_previous
  if noise is None:
    return y
  if share is not None:
    # d^(1 - share) e^share; the last step has d = e = 0, and share may leave [0, 1].
    log = lambda x: jnp.log(jnp.maximum(x, 1e-30))
    d = d * jnp.exp(share * (log(e) - log(d)))
  return y + d * noise


def advance(
  denoise: Denoise,
  noise: Noise | None,
  carry: tuple[jax.Array, jax.Array],
  steps: dict[str, Any],
) -> tuple[jax.Array, jax.Array]:
  """Runs a stretch of a walk; a long one can be cut anywhere without changing it.

  Args:
    denoise: (y [B, H, W, C], gamma [B]) -> estimate of y0 [B, H, W, C]; or (estimate,
      share) of a network that gives the variance, which tables of four columns ignore.
    noise: step number -> standard normal [B, H, W, C]; None for tables whose d is 0.
    carry: (y, the previous y0 estimate).
    steps: from `steps()`, or a slice of it.

  Returns:
    The carry after the last of these steps.
  """

  def step(carry, now):
    y, y0_previous = carry
    y0 = denoise(now['row'][5] * y, jnp.full(y.shape[:1], now['gamma']))
    y0, share = y0 if isinstance(y0, tuple) else (y0, None)
    z = None if noise is None else noise(now['index'])
    return (next_y(now['row'], y, y0, y0_previous, z, share), y0), None

  return jax.lax.scan(step, carry, steps)[0]


def is_stochastic(table: np.ndarray) -> bool:
  """Whether a table adds noise on the way."""
  return bool(np.any(table[:, 3:5]))


def sample(
  denoise: Denoise,
  key: jax.Array,
  y: jax.Array,
  gammas: np.ndarray,
  table: np.ndarray,
) -> jax.Array:
  """Walks from noise to an image.

  Args:
    denoise: (y [B, H, W, C], gamma [B]) -> estimate of y0 [B, H, W, C].
    key: a key, or [B] keys: example b's noise depends on its own key only.
    y: [B, H, W, C] standard normal noise to start from.
    gammas: [steps + 1] levels, falling from 1.
    table: as `steps` takes it, made from the same gammas.

  Returns:
    [B, H, W, C].
  """
  key = example_keys(key, y.shape[0])
  noise = (lambda i: normal(key, i, y.shape[1:])) if is_stochastic(table) else None
  return advance(denoise, noise, (y, jnp.zeros_like(y)), steps(gammas, table))[0]


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
  sampler = pick('sampler', SAMPLERS, name)
  if spacing == 'linear':
    levels = diffusion.linear_gammas(num_steps, start, end)
    levels = levels[levels >= gammas[-1] * (1 - 1e-6)]
    if len(levels) < 2:
      raise ValueError(f'betas from {start} to {end} are not of the trained levels')
  else:
    levels = diffusion.respace(gammas, num_steps, spacing)
  table = sampler(levels, eta=eta) if name == 'ddim' else sampler(levels)
  return levels, table if temperature == 1 else cool(table, temperature)
