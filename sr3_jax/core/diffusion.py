"""The diffusion process in SR3's notation: levels, noising and conversions.

A noise schedule is an array `gammas[0..T]` (float64 NumPy): gammas[t] is the share of
signal power left after t steps (DDPM's alpha-bar), gammas[0] = 1 is the clean image.
Noising is `y = sqrt(gamma) y0 + sqrt(1 - gamma) eps` (section 2.2 of arXiv:2104.07636).

Levels are kept in float64 because 1 - gamma at the first level is 1e-6: float32 holds
gamma there to 6e-8 only, an error of several per cent of the noise.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.config import pick

# ---------------------------------------------------------------- schedules


def linear_gammas(num_steps: int, start: float = 1e-6, end: float = 1e-2) -> np.ndarray:
  """Return the levels of a linear beta schedule: gamma_t = prod_{i<=t} (1 - beta_i).

  The T = `num_steps` betas go from `start` to `end`. The defaults with 2000 steps are
  Palette's, which says that it follows SR3.
  """
  return _from_betas(np.linspace(start, end, num_steps, dtype=np.float64))


def cosine_gammas(num_steps: int, offset: float = 0.008) -> np.ndarray:
  """Return the cosine schedule of Improved DDPM (arXiv:2102.09672, eq. 17).

  `offset`, the paper's s, keeps the first betas from being tiny.
  """
  t = np.linspace(0, 1, num_steps + 1, dtype=np.float64)
  level = np.cos((t + offset) / (1 + offset) * np.pi / 2) ** 2
  return _from_betas(np.minimum(1 - level[1:] / level[:-1], 0.999))


def _from_betas(betas: np.ndarray) -> np.ndarray:
  """Return levels [T + 1] from betas [T]."""
  gammas = np.concatenate([[1.0], np.cumprod(1 - betas)])
  if not (np.all((betas > 0) & (betas < 1)) and gammas[-1] > 0):
    raise ValueError(
      'betas must lie between 0 and 1 and leave some signal at the last level'
    )
  return gammas


SCHEDULES: dict[str, Callable[..., np.ndarray]] = {
  'linear': linear_gammas,
  'cosine': cosine_gammas,
}


def log_snr(gammas: np.ndarray) -> np.ndarray:
  """Return log(gamma / (1 - gamma)), twice the lambda of DPM-Solver."""
  with np.errstate(divide='ignore'):
    return np.log(gammas) - np.log1p(-gammas)


# A spacing turns levels into a coordinate in which the chosen levels lie evenly.
SPACINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'time': lambda gammas: np.arange(len(gammas), dtype=np.float64),
  'log_snr': lambda gammas: -log_snr(gammas),
  'cosine': lambda gammas: np.arccos(np.sqrt(gammas)),
  # 'time' over noisy levels only, as guided-diffusion chooses its steps.
  'trained': lambda gammas: np.r_[-np.inf, 1.0 : len(gammas)],
}


def respace(gammas: np.ndarray, num_steps: int, spacing: str = 'time') -> np.ndarray:
  """Return the levels of a trajectory of `num_steps` steps over trained levels.

  It always starts at the last trained level and ends at the clean image. Merely
  shortening the beta line instead would start from pure noise at a level where the
  network expects signal: gamma_T is 4e-5 for 2000 steps from 1e-6 to 1e-2, but 0.6
  for 100 steps between the same ends.

  Args:
    gammas: [T + 1] trained levels.
    num_steps: 1..T.
    spacing: 'time' (every k-th level), 'log_snr', 'cosine' (even in the angle
      arccos(sqrt(gamma))) or 'trained' (every k-th, from the first noisy one).

  Returns:
    float64 [num_steps + 1], falling from 1 to gammas[-1].

  Raises:
    ValueError: more steps than levels, or an unknown spacing.
  """
  last = len(gammas) - 1
  if not 1 <= num_steps <= last:
    raise ValueError(
      f'{num_steps} sampling steps asked for; the model has {last} levels'
    )
  # The clean image is infinitely far in log-SNR, so it stands apart from the others.
  coordinate = pick('spacing', SPACINGS, spacing)(gammas)
  first = 0 if np.isfinite(coordinate[0]) else 1
  wanted = np.linspace(coordinate[first], coordinate[-1], num_steps + 1 - first)
  index = np.interp(wanted, coordinate[first:], np.arange(first, last + 1)).round()
  index = np.concatenate([np.arange(first), index]).astype(int)
  index[-1] = last  # linspace of one point gives its start
  # Rounding may name a level twice: move apart upwards, then downwards from the end.
  index = np.maximum.accumulate(index - np.arange(num_steps + 1))
  index = index + np.arange(num_steps + 1)
  highest = last - np.arange(num_steps + 1)[::-1]
  return gammas[np.minimum(index, highest)]


# ----------------------------------------------------------------- training


def sample_gamma(key: jax.Array, gammas: np.ndarray, batch: int) -> jax.Array:
  """Draw noise levels for training: t ~ U{1..T}, then gamma ~ U(gamma_t, gamma_{t-1}).

  Section 2.4 of the paper. Every example has its own independent level: float32 [batch]
  in (gammas[-1], 1].
  """
  key_t, key_u = jax.random.split(key)
  t = jax.random.randint(key_t, (batch,), 1, len(gammas))
  u = jax.random.uniform(key_u, (batch,))
  levels = jnp.asarray(gammas, jnp.float32)
  return levels[t - 1] + u * (levels[t] - levels[t - 1])


def drop_labels(
  key: jax.Array, label: jax.Array, share: float, nothing: int
) -> jax.Array:
  """Return labels [B], a share of them `nothing`, to train both networks as one.

  This is classifier-free guidance, arXiv:2207.12598. `key` has one key an example.
  """

  def dropped(key):
    return jax.random.bernoulli(jax.random.fold_in(key, 3), share)

  return jnp.where(jax.vmap(dropped)(key), nothing, label)


def q_sample(y0: jax.Array, gamma: jax.Array, eps: jax.Array) -> jax.Array:
  """Return the noisy image sqrt(gamma) y0 + sqrt(1 - gamma) eps; gamma is [B]."""
  signal, noise = scales(gamma)
  return signal * y0 + noise * eps


def scales(gamma: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Return sqrt(gamma) and sqrt(1 - gamma) of [B] levels, as [B, 1, 1, 1]."""
  gamma = gamma[:, None, None, None]
  return jnp.sqrt(gamma), jnp.sqrt(1 - gamma)


# The network's output is of one of these kinds. `target` is what the loss compares it
# with; `predict_y0` turns it into a prediction of y0. v is that of arXiv:2202.00512.
# All take broadcastable arrays: s = sqrt(gamma), n = sqrt(1 - gamma).
TARGETS = {
  'eps': lambda y0, eps, s, n: eps,
  'v': lambda y0, eps, s, n: s * eps - n * y0,
  'y0': lambda y0, eps, s, n: y0,
}
Y0_PREDICTIONS = {
  'eps': lambda output, y, s, n: (y - n * output) / s,
  'v': lambda output, y, s, n: s * y - n * output,
  'y0': lambda output, y, s, n: output,
}


def target(kind: str, y0: jax.Array, eps: jax.Array, gamma: jax.Array) -> jax.Array:
  """Return what a network of `kind` 'eps', 'v' or 'y0' should output: [B, H, W, C]."""
  return TARGETS[kind](y0, eps, *scales(gamma))


def predict_y0(
  kind: str, output: jax.Array, y: jax.Array, gamma: jax.Array
) -> jax.Array:
  """Return the y0 that a network's output of `kind` means for a noisy y."""
  return Y0_PREDICTIONS[kind](output, y, *scales(gamma))


def clip_finite(image: jax.Array) -> jax.Array:
  """Return an image clipped to [-1, 1], with NaN where its square is not finite.

  A plain clip would turn infinity, and 1e38, into white, and nobody would see that the
  network is broken.
  """
  return jnp.where(jnp.isfinite(jnp.square(image)), jnp.clip(image, -1, 1), jnp.nan)
