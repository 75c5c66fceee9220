"""Schedules against published figures, levels against their distribution, algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import diffusion

# Linear betas: (start, end, T), gamma_T, log-SNR of the first and of the last level.
# Worked out by hand for the schedules that SR3, WaveGrad, DDPM and Palette state.
KNOWN = [
  ((1e-6, 1e-2, 2000), 4.39e-5, 13.8, -10.0),
  ((1e-6, 1e-2, 1000), 6.6e-3, 13.8, -5.0),
  ((1e-4, 2e-2, 1000), 4.04e-5, 9.2, -10.1),
  ((1e-4, 0.09, 1000), 6.6e-21, 9.2, -46.5),
  ((1e-6, 0.2, 100), 2.1e-5, 13.8, -10.8),
  ((1e-4, 0.2, 100), 2.1e-5, 9.2, -10.8),
  ((1e-4, 0.09, 100), 9.6e-3, 9.2, -4.6),
  ((1e-6, 1e-2, 100), 0.605, 13.8, 0.43),
  ((1e-4, 0.08, 250), 3.4e-5, 9.2, -10.3),
]
SPACINGS = ('time', 'log_snr', 'cosine')


@pytest.mark.parametrize(('line', 'last', 'first_snr', 'last_snr'), KNOWN)
def test_linear_gammas_and_log_snr(line, last, first_snr, last_snr):
  start, end, num_steps = line
  gammas = diffusion.linear_gammas(num_steps, start, end)
  assert gammas.dtype == np.float64 and gammas.shape == (num_steps + 1,)
  assert gammas[0] == 1 and np.all(np.diff(gammas) < 0)
  np.testing.assert_allclose(1 - gammas[1], start, rtol=1e-9)
  np.testing.assert_allclose(gammas[-1] / gammas[-2], 1 - end, rtol=1e-9)
  np.testing.assert_allclose(gammas[-1], last, rtol=0.03)  # of two digits
  # The full log-SNR: half of it would be 6.9 at the first level.
  log_snr = diffusion.log_snr(gammas)
  assert log_snr[0] == np.inf
  np.testing.assert_allclose(log_snr[[1, -1]], [first_snr, last_snr], atol=0.06)


def test_the_default_is_palettes_schedule():
  np.testing.assert_array_equal(
    diffusion.linear_gammas(2000), diffusion.linear_gammas(2000, 1e-6, 1e-2)
  )


def test_cosine_gammas():
  gammas = diffusion.cosine_gammas(4000)
  np.testing.assert_allclose(gammas[-1], 1.5e-10, rtol=0.02)  # Improved DDPM's

  # Below the clipped betas it is the closed form, relative to that of t = 0.
  def level(t):
    return np.cos((t / 4000 + 0.008) / 1.008 * np.pi / 2) ** 2

  t = np.array([0, 1, 1000, 2000, 3900])
  np.testing.assert_allclose(gammas[t], level(t) / level(0), rtol=1e-9)


@pytest.mark.parametrize('end', [0.0, -0.1, 1.0])
def test_impossible_betas(end):
  with pytest.raises(ValueError, match='betas'):
    diffusion.linear_gammas(10, 1e-6, end)


@pytest.mark.parametrize('spacing', SPACINGS)
def test_respace_is_a_subset_that_starts_at_the_last_level(spacing):
  """Every step count of short schedules, awkward ones of the long one."""
  schedules = [
    (diffusion.linear_gammas(t, 1e-3, 0.3), range(1, t + 1)) for t in (1, 2, 3, 20, 37)
  ]
  schedules += [(diffusion.cosine_gammas(50), range(1, 51))]
  awkward = (1, 2, 3, 7, 19, 100, 333, 999, 1000, 1001, 1500, 1998, 1999, 2000)
  schedules += [(diffusion.linear_gammas(2000), awkward)]
  for gammas, counts in schedules:
    for count in counts:
      levels = diffusion.respace(gammas, count, spacing)
      where = f'{count} of {len(gammas) - 1} steps'
      assert levels.shape == (count + 1,) and levels.dtype == np.float64, where
      assert levels[0] == 1 and levels[-1] == gammas[-1], where
      assert np.all(np.diff(levels) < 0), where
      assert np.all(np.isin(levels, gammas)), where


@pytest.mark.parametrize('spacing', SPACINGS)
def test_respace_is_even_in_its_coordinate(spacing):
  gammas = diffusion.linear_gammas(2000)
  coordinate = {
    'time': lambda g: np.searchsorted(-gammas, -g),
    'log_snr': lambda g: np.log(g / (1 - g)),
    'cosine': lambda g: np.arccos(np.sqrt(g)),
    'trained': lambda g: np.searchsorted(-gammas, -g),
  }[spacing]
  levels = diffusion.respace(gammas, 25, spacing)
  # Two start at the first noisy level; in log-SNR its neighbours are 1.9 apart.
  first = 1 if spacing in ('log_snr', 'trained') else 0
  steps = np.diff(coordinate(levels[first:]))
  nearest = {'time': 0.5, 'log_snr': 0.96, 'cosine': 0.002, 'trained': 0.5}[spacing]
  even = steps.sum() / len(steps)
  wanted = coordinate(levels[first:])[0] + even * np.arange(len(steps) + 1)
  assert np.abs(coordinate(levels[first:]) - wanted).max() <= nearest
  if spacing == 'time':
    np.testing.assert_array_equal(levels, gammas[::80])
  if spacing == 'trained':  # steps 1, 1 + 1999 / 24, ..., 2000
    chosen = [round(1 + 1999 / 24 * k) for k in range(25)]
    np.testing.assert_array_equal(levels[1:], gammas[chosen])


def test_only_the_step_count_changed():
  """The mistake behind most "noisy with few steps" reports, and its cure.

  The same beta line with 100 steps ends where 78 % of the signal's amplitude is left,
  but sampling starts from pure noise. A trajectory over trained levels ends below 1e-4.
  """
  assert diffusion.linear_gammas(100)[-1] > 0.6
  for count in (1, 5, 20, 50, 100, 250, 1000, 2000):
    for spacing in SPACINGS:
      levels = diffusion.respace(diffusion.linear_gammas(2000), count, spacing)
      assert levels[-1] <= 1e-4, (count, spacing)


def test_respace_errors():
  gammas = diffusion.linear_gammas(10)
  for count in (0, -1, 11):
    with pytest.raises(ValueError, match=rf'{count} sampling steps.* 10 levels'):
      diffusion.respace(gammas, count)
  with pytest.raises(ValueError, match=r"'snr'; known: time, log_snr, cosine"):
    diffusion.respace(gammas, 3, 'snr')


def test_sample_gamma_quantiles():
  """The noise distribution that Algorithm 1 implies, from an independent simulation."""
  gammas = diffusion.linear_gammas(2000)
  gamma = diffusion.sample_gamma(jax.random.key(0), gammas, 1_000_000)
  assert gamma.dtype == jnp.float32 and gamma.shape == (1_000_000,)
  gamma = np.asarray(gamma, np.float64)
  assert gammas[-1] * (1 - 1e-6) <= gamma.min() and gamma.max() <= 1
  # float32 may round the cleanest draws to 1: one part in 2000 * 16 of them.
  log_snr = diffusion.log_snr(gamma)
  np.testing.assert_allclose(
    np.quantile(log_snr, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]),
    [-9.8, -9.1, -5.6, -2.4, 0.1, 3.7, 6.9],
    atol=0.08,
  )
  np.testing.assert_allclose(np.mean(log_snr < 0), 0.74, atol=0.006)
  np.testing.assert_allclose(np.mean(log_snr > np.log(100)), 0.03, atol=0.006)


def test_sample_gamma_is_piecewise_uniform_over_all_bins():
  """t = 1 and t = T are drawn as often as any other, and gamma fills each bin."""
  gammas = np.array([1, 0.9, 0.4, 0.3, 0.01])
  gamma = np.asarray(diffusion.sample_gamma(jax.random.key(1), gammas, 40_000))
  t = np.searchsorted(-gammas, -gamma, side='left')
  np.testing.assert_allclose(
    np.bincount(t, minlength=5) / 40_000, [0] + [0.25] * 4, atol=0.01
  )
  inside = (gammas[t - 1] - gamma) / (gammas[t - 1] - gammas[t])
  for bin in range(1, 5):
    share = np.histogram(inside[t == bin], 4, (0, 1))[0] / np.sum(t == bin)
    np.testing.assert_allclose(share, 0.25, atol=0.02)


def test_sample_gamma_is_independent_for_each_example():
  gammas = diffusion.linear_gammas(2000)
  gamma = np.asarray(diffusion.sample_gamma(jax.random.key(2), gammas, 256))
  t = np.searchsorted(-gammas, -gamma)
  # 256 draws from 2000 name about 240 different t; one t a batch would name 1.
  assert len(np.unique(t)) > 220
  assert abs(np.corrcoef(t[:-1], t[1:])[0, 1]) < 0.2
  other = np.asarray(diffusion.sample_gamma(jax.random.key(3), gammas, 256))
  assert abs(np.corrcoef(gamma, other)[0, 1]) < 0.2


def _example(batch=5):
  rng = np.random.default_rng(0)
  y0 = rng.uniform(-1, 1, (batch, 2, 3, 3)).astype(np.float32)
  eps = rng.standard_normal(y0.shape).astype(np.float32)
  gamma = np.linspace(0.02, 0.98, batch).astype(np.float32)
  return y0, gamma, eps


def test_q_sample():
  y0, gamma, eps = _example()
  y = diffusion.q_sample(y0, gamma, eps)
  for b in range(len(gamma)):
    truth = np.sqrt(gamma[b]) * y0[b] + np.sqrt(1 - gamma[b]) * eps[b]
    np.testing.assert_allclose(y[b], truth, atol=1e-6)


@pytest.mark.parametrize('kind', ['eps', 'v', 'y0'])
def test_targets_round_trip(kind):
  y0, gamma, eps = _example()
  y = diffusion.q_sample(y0, gamma, eps)
  target = diffusion.target(kind, y0, eps, gamma)
  np.testing.assert_allclose(
    diffusion.predict_y0(kind, target, y, gamma), y0, atol=2e-5
  )
  if kind != 'v':
    np.testing.assert_array_equal(target, {'eps': eps, 'y0': y0}[kind])


def test_v_is_the_velocity_along_the_angle():
  """arXiv:2202.00512: y = cos(phi) y0 + sin(phi) eps, and v is dy / dphi."""
  y0, gamma, eps = _example()
  phi = np.arccos(np.sqrt(gamma))

  def path(phi):
    return diffusion.q_sample(y0, jnp.cos(phi) ** 2, eps)

  y, velocity = jax.jvp(path, (phi,), (np.ones_like(phi),))
  v = diffusion.target('v', y0, eps, gamma)
  np.testing.assert_allclose(v, velocity, atol=1e-5)
  # Both ends of the rotation come back from (y, v): y0, and the noise.
  cos, sin = np.cos(phi)[:, None, None, None], np.sin(phi)[:, None, None, None]
  np.testing.assert_allclose(diffusion.predict_y0('v', v, y, gamma), y0, atol=1e-5)
  np.testing.assert_allclose(sin * y + cos * v, eps, atol=1e-5)


def test_v_is_well_conditioned_where_eps_is_not():
  """At gamma_T a small error of eps is one of y0 151 times larger; that of v stays."""
  y0, _, eps = _example(1)
  gamma = jnp.full((1,), diffusion.linear_gammas(2000)[-1], jnp.float32)
  y = diffusion.q_sample(y0, gamma, eps)
  amplified = {}
  for kind in ('eps', 'v'):
    prediction = diffusion.target(kind, y0, eps, gamma) + 0.01
    predicted = diffusion.predict_y0(kind, prediction, y, gamma)
    amplified[kind] = np.abs(predicted - y0).mean() / 0.01
  np.testing.assert_allclose(amplified['eps'], 151, rtol=0.01)
  np.testing.assert_allclose(amplified['v'], 1, rtol=0.01)
