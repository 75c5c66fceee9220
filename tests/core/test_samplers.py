"""Coefficients against theory, and sampling of data whose denoiser is known exactly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sr3_jax.core import diffusion, samplers
from sr3_jax.core.samplers import Prediction

ALL = {**samplers.SAMPLERS, 'ddim_eta': lambda gammas: samplers.ddim(gammas, eta=0.5)}
del ALL['ddpm_learned']  # five columns; its ends are two of the others
GAMMAS = diffusion.linear_gammas(2000)
MEAN, STD = 0.4, 0.25


def gaussian(y, gamma, mean=MEAN, std=STD, variance=None):
  """E[y0 | y] for data N(mean, std^2)."""
  g = gamma[:, None, None, None]
  gain = std**2 * jnp.sqrt(g) / (std**2 * g + 1 - g)
  if variance is not None:
    variance = jnp.full_like(y, variance)
  return Prediction(mean + gain * (y - jnp.sqrt(g) * mean), variance)


def even_log_snr(num_steps):
  """Levels in even steps of log-SNR over SR3's range, then the clean image."""
  first, last = diffusion.log_snr(GAMMAS[[1, -1]])
  return np.r_[1, 1 / (1 + np.exp(-np.linspace(first, last, num_steps + 1)))]


def sample(denoise, key, y, gammas, coefficients):
  """Run a whole trajectory from noise y; `key` is one key, or one for each example."""
  noise = partial(
    samplers.normal, samplers.example_keys(key, len(y)), shape=y.shape[1:]
  )
  noise = noise if samplers.is_stochastic(coefficients) else None
  steps = samplers.steps(gammas, coefficients)
  return samplers.advance(denoise, noise, (y, jnp.zeros_like(y)), steps)[0]


@partial(jax.jit, static_argnums=(0, 4))
def _advance(denoise, key, carry, steps, stochastic):
  def noise(i):
    return samplers.normal(key, i, carry[0].shape[1:])

  return samplers.advance(denoise, noise if stochastic else None, carry, steps)


def run(denoise, key, y, gammas, coefficients):
  """`sample`, but samplers with as many steps share a compilation."""
  key = samplers.example_keys(key, len(y))
  stochastic = samplers.is_stochastic(coefficients)
  steps = samplers.steps(gammas, coefficients)
  return _advance(denoise, key, (y, jnp.zeros_like(y)), steps, stochastic)[0]


# -------------------------------------------------------------- coefficients


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('num_steps', [1, 2, 3, 20, 2000])
def test_coefficients(name, num_steps):
  """float64, finite, and the last row returns the prediction without noise."""
  gammas = diffusion.respace(GAMMAS, num_steps, 'log_snr')
  coefficients = ALL[name](gammas)
  assert coefficients.shape == (num_steps, 4) and coefficients.dtype == np.float64
  assert np.all(np.isfinite(coefficients))
  np.testing.assert_allclose(coefficients[-1], [0, 1, 0, 0], atol=1e-12)
  # Without noise to remove, y = sqrt(gamma_t) y0 must become sqrt(gamma_s) y0.
  a, b, c, _ = coefficients.T
  g_t, g_s = gammas[:0:-1], gammas[-2::-1]
  np.testing.assert_allclose(a * np.sqrt(g_t) + b + c, np.sqrt(g_s), rtol=1e-9)


@pytest.mark.parametrize('name', ['ddim', 'ddim_eta', 'ddpm_posterior'])
def test_exact_marginals(name):
  """With the true y0 these keep y ~ N(sqrt(gamma) y0, 1 - gamma) at every level."""
  gammas = diffusion.respace(GAMMAS, 30)
  a, _, _, d = ALL[name](gammas).T
  np.testing.assert_allclose(
    a**2 * (1 - gammas[:0:-1]) + d**2, 1 - gammas[-2::-1], rtol=1e-9, atol=1e-15
  )


@pytest.mark.parametrize('num_steps', [2, 20, 2000])
def test_the_papers_reverse_step(num_steps):
  """Algorithm 2, written with eps, is our form, written with y0."""
  gammas = diffusion.respace(GAMMAS, num_steps)
  y, eps = np.random.default_rng(0).standard_normal((2, num_steps))
  gamma, alpha = gammas[:0:-1], gammas[:0:-1] / gammas[-2::-1]
  mean = (y - (1 - alpha) / np.sqrt(1 - gamma) * eps) / np.sqrt(alpha)
  y0 = (y - np.sqrt(1 - gamma) * eps) / np.sqrt(gamma)
  for name in ('ddpm', 'ddpm_posterior'):
    a, b, c, d = ALL[name](gammas).T
    np.testing.assert_allclose(a * y + b * y0, mean, rtol=1e-7, atol=1e-9)
    assert np.all(c == 0)
    variance = 1 - alpha
    if name == 'ddpm_posterior':
      variance = variance * (1 - gammas[-2::-1]) / (1 - gamma)
    np.testing.assert_allclose(d[:-1] ** 2, variance[:-1], rtol=1e-9)


def test_ratio_of_the_two_variances():
  """At T = 2000, from an independent computation: 0.14, 0.80 and 0.99."""
  t = [-2, -10, -200]
  small, large = samplers.ddpm_posterior(GAMMAS)[t, 3], samplers.ddpm(GAMMAS)[t, 3]
  np.testing.assert_allclose((small / large) ** 2, [0.14, 0.80, 0.99], atol=0.006)


def test_ddim_with_eta_1_is_the_posterior():
  for spacing in ('time', 'log_snr'):
    gammas = diffusion.respace(GAMMAS, 50, spacing)
    np.testing.assert_allclose(
      samplers.ddim(gammas, eta=1.0), samplers.ddpm_posterior(gammas), atol=1e-9
    )

    # In between, the noise is in proportion to eta.
    def noise(eta, g=gammas):
      return samplers.ddim(g, eta)[:, 3]

    np.testing.assert_allclose(noise(0.3), 0.3 * noise(1.0), rtol=1e-12)


def test_2m_starts_and_ends_as_ddim():
  """Both ends are of first order; between, it extrapolates in log-SNR."""
  gammas = diffusion.respace(GAMMAS, 12)
  multistep, first_order = samplers.dpmpp_2m(gammas), samplers.ddim(gammas)
  np.testing.assert_allclose(multistep[[0, -1]], first_order[[0, -1]], atol=1e-12)
  snr = diffusion.log_snr(gammas)[:0:-1]
  for k in range(1, 11):
    # Half-way to the next level, on the line through the last two predictions.
    ahead = (snr[k + 1] - snr[k]) / 2 / (snr[k] - snr[k - 1])
    weight = first_order[k, 1]
    np.testing.assert_allclose(
      multistep[k],
      [first_order[k, 0], weight * (1 + ahead), -weight * ahead, 0],
      rtol=1e-9,
    )


def test_errors():
  with pytest.raises(ValueError, match=r'3 steps need coefficients \[3, 4\]: \(2, 4\)'):
    samplers.steps(np.array([1, 0.9, 0.5, 0.1]), np.zeros((2, 4)))
  for gammas in ([0.9, 0.5], [1, 0.5, 0.6], [1, 0.5, 0]):
    for sampler in ALL.values():
      with pytest.raises(ValueError, match='fall from 1'):
        sampler(np.array(gammas))


@pytest.mark.parametrize('temperature', [0, -1, 1.5, np.nan])
def test_temperatures_out_of_range(temperature):
  with pytest.raises(ValueError, match='not above 0 and at most 1'):
    samplers.scale_temperature(samplers.ddim(np.array([1, 0.5])), temperature)


# ------------------------------------------------------------------ sampling


@pytest.mark.parametrize(
  ('name', 'num_steps', 'std'),
  [
    ('ddpm', 100, 0.262),
    ('ddpm_posterior', 100, 0.223),
    ('ddpm', 20, 0.316),
    ('ddpm_posterior', 20, 0.167),
  ],
)
def test_the_two_variances_bracket_the_truth(name, num_steps, std):
  """Spread of samples where data has 0.25, from an independent simulation."""
  line = {100: (1e-6, 0.2), 20: (1e-4, 0.8)}[num_steps]
  gammas = diffusion.linear_gammas(num_steps, *line)
  y = jax.random.normal(jax.random.key(1), (64, 32, 32, 1))
  samples = run(gaussian, jax.random.key(2), y, gammas, ALL[name](gammas))
  # The spread of 65536 samples is known to 0.0007.
  np.testing.assert_allclose(samples.std(), std, atol=0.002)
  np.testing.assert_allclose(samples.mean(), MEAN, atol=0.004)


@pytest.mark.parametrize(
  ('name', 'errors'),
  [
    ('ddim', [0.084, 0.045, 0.023, 0.012]),
    ('dpmpp_2m', [0.013, 0.0062, 0.0017, 0.00045]),
  ],
)
def test_order_of_convergence(name, errors):
  """Error of 10, 20, 40 and 80 steps against the exact solution of the ODE.

  On Gaussian data the flow maps quantiles to quantiles: a start 1.3 above the mean of
  pure noise ends at the matching place of the data. First order halves the error with
  twice the steps, second order quarters it. The figures come from another program.
  """
  start = 1.3
  g = GAMMAS[-1]
  quantile = (start - np.sqrt(g) * MEAN) / np.sqrt(STD**2 * g + 1 - g)
  truth = MEAN + STD * quantile
  y = jnp.full((1, 1, 1, 1), start)
  found = []
  for num_steps in (10, 20, 40, 80):
    gammas = even_log_snr(num_steps)
    end = run(gaussian, jax.random.key(0), y, gammas, ALL[name](gammas))
    found.append(abs(float(end[0, 0, 0, 0]) - truth))
  np.testing.assert_allclose(found, errors, rtol=0.04)
  order = np.log2(found[2] / found[3])
  assert (0.9 < order < 1.1) if name == 'ddim' else (1.8 < order < 2.2)


def mixture(y, gamma):
  """E[y0 | y] for 30 % N(-0.7, 0.1^2) and 70 % N(0.5, 0.1^2)."""
  g = gamma[:, None, None, None]
  variance = 0.1**2 * g + 1 - g

  def evidence(share, mean):
    return share * jnp.exp(-((y - jnp.sqrt(g) * mean) ** 2) / 2 / variance)

  low, high = evidence(0.3, -0.7), evidence(0.7, 0.5)
  weight = (low + 1e-30) / (low + high + 2e-30)
  low, high = (gaussian(y, gamma, mean, 0.1).y0 for mean in (-0.7, 0.5))
  return Prediction(weight * low + (1 - weight) * high)


@pytest.mark.parametrize('name', ALL)
def test_two_modes(name):
  """Modes have shares, places and widths; a mean alone is easily right by luck."""
  gammas = diffusion.respace(GAMMAS, 150, 'cosine')
  y = jax.random.normal(jax.random.key(1), (8, 32, 32, 1))
  samples = run(mixture, jax.random.key(2), y, gammas, ALL[name](gammas))
  low = samples < -0.1
  np.testing.assert_allclose(low.mean(), 0.3, atol=0.02)
  for inside, mean in ((low, -0.7), (~low, 0.5)):
    np.testing.assert_allclose(samples[inside].mean(), mean, atol=0.02)
    np.testing.assert_allclose(samples[inside].std(), 0.1, rtol=0.15)


@pytest.mark.parametrize('name', ALL)
def test_sampling_meets_every_level_once(name):
  """`denoise` gets gamma_T first and gamma_1 last; its answer there is the output."""
  gammas = diffusion.respace(GAMMAS, 4)
  met = []

  def denoise(y, gamma):
    met.append(float(gamma[0]))
    assert gamma.shape == y.shape[:1]
    return Prediction(jnp.full_like(y, 0.5))

  y = jnp.zeros((2, 2, 2, 1))
  with jax.disable_jit():
    end = sample(denoise, jax.random.key(0), y, gammas, ALL[name](gammas))
  np.testing.assert_allclose(met, gammas[:0:-1], rtol=1e-6)
  np.testing.assert_allclose(end, 0.5, atol=1e-6)


# --------------------------------------------------------------------- noise


def test_noise_is_new_at_every_step_and_for_every_example():
  """Adding up n independent noises has variance n; one repeated would have n^2."""
  num_steps = 8
  gammas = diffusion.linear_gammas(num_steps, 0.1, 0.5)
  coefficients = np.tile([1.0, 0, 0, 1.0], (num_steps, 1))
  y = jnp.zeros((6, 32, 32, 1))
  end = run(lambda y, gamma: Prediction(y), jax.random.key(0), y, gammas, coefficients)
  np.testing.assert_allclose(end.var((1, 2, 3)), num_steps, rtol=0.15)
  correlation = np.corrcoef(end.reshape(6, -1)) - np.eye(6)
  assert np.abs(correlation).max() < 0.15


def test_an_example_depends_on_its_own_key_only():
  gammas = diffusion.respace(GAMMAS, 2)
  coefficients = samplers.ddpm(gammas)
  keys = samplers.example_keys(jax.random.key(0), 3)
  y = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
  together = run(gaussian, keys, y, gammas, coefficients)
  for b in range(3):
    alone = run(gaussian, keys[b : b + 1], y[b : b + 1], gammas, coefficients)
    np.testing.assert_allclose(together[b : b + 1], alone, atol=1e-6)
  others = keys.at[1].set(jax.random.key(7))
  changed = run(gaussian, others, y, gammas, coefficients)
  np.testing.assert_array_equal(changed[::2], together[::2])
  assert np.abs(changed[1] - together[1]).min() > 0


@pytest.mark.parametrize('name', [*ALL, 'ddpm_learned'])
def test_a_lower_temperature_narrows_outputs_in_proportion(name):
  """For Gaussian data around 0 everything is linear in the noise: exactly 0.3 times."""
  gammas = even_log_snr(10)
  if name == 'ddpm_learned':
    coefficients = samplers.ddpm_learned(gammas)
    denoise = partial(gaussian, mean=0.0, variance=0.3)
  else:
    coefficients = ALL[name](gammas)
    denoise = partial(gaussian, mean=0.0)
  key = jax.random.key(1)
  y = samplers.normal(samplers.example_keys(key, 2), 0, (8, 8, 1))
  warm = sample(denoise, key, y, gammas, coefficients)
  same = sample(denoise, key, y, gammas, samplers.scale_temperature(coefficients, 1.0))
  cold = sample(denoise, key, y, gammas, samplers.scale_temperature(coefficients, 0.3))
  np.testing.assert_array_equal(same, warm)
  np.testing.assert_allclose(cold, 0.3 * warm, atol=1e-6)


def test_example_keys():
  """One key stands for a batch of any size: the first three of five are the three."""
  key = jax.random.key(5)
  three, five = samplers.example_keys(key, 3), samplers.example_keys(key, 5)
  assert three.shape == (3,)
  assert jnp.all(three == five[:3])
  assert len(np.unique(jax.random.key_data(five), axis=0)) == 5
  assert samplers.example_keys(three, 3) is three


@pytest.mark.parametrize('name', ['ddpm', 'dpmpp_2m'])
def test_sampling_can_be_cut_anywhere(name):
  """The noise and the previous prediction survive a cut."""
  gammas = diffusion.respace(GAMMAS, 6)
  coefficients = ALL[name](gammas)
  key = samplers.example_keys(jax.random.key(0), 3)
  y = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
  whole = sample(gaussian, key, y, gammas, coefficients)
  steps = samplers.steps(gammas, coefficients)
  carry = (y, jnp.zeros_like(y))
  for start in (0, 2, 4):  # of one length, to share a compilation
    stretch = jax.tree.map(lambda a: a[start : start + 2], steps)  # noqa: B023
    carry = _advance(gaussian, key, carry, stretch, True)
  np.testing.assert_allclose(carry[0], whole, atol=1e-6)


@pytest.mark.parametrize('variance, same', [(0.0, 'ddpm_posterior'), (1.0, 'ddpm')])
def test_learned_variance_lies_between_two_fixed_ones(variance, same):
  """The network's 0 and 1 are samplers we know, and half is their log mean."""
  gammas = diffusion.respace(GAMMAS, 5)
  key = samplers.example_keys(jax.random.key(0), 3)
  y = jax.random.normal(jax.random.key(1), (3, 4, 4, 1))
  learned = partial(gaussian, variance=variance)
  coefficients = samplers.ddpm_learned(gammas)
  got = sample(learned, key, y, gammas, coefficients)
  want = sample(gaussian, key, y, gammas, samplers.SAMPLERS[same](gammas))
  np.testing.assert_allclose(got, want, atol=1e-5)
  one = jnp.ones((1, 1, 1, 1))
  row = jnp.asarray(coefficients[1], jnp.float32)
  noisy = samplers.next_y(row, 0 * one, 0 * one, 0 * one, one, one / 2)
  np.testing.assert_allclose(noisy.item(), np.sqrt(row[3] * row[4]), rtol=1e-5)
  # Networks may leave [0, 1]; the last step still adds nothing.
  last = jnp.asarray(coefficients[-1], jnp.float32)
  assert samplers.next_y(last, one, 3 * one, one, one, -5 * one).item() == 3
