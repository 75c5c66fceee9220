"""What a sweep would measure and choose, on made-up figures."""

import math

import numpy as np
import pytest

from sr3_jax.core import diffusion
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.evaluation import sweep_choice
from sr3_jax.evaluation.sweep_choice import Row, shortfall, verdicts
from sr3_jax.reports import line_plots

GAMMAS = diffusion.linear_gammas(2000)
YARDSTICK = {'name': 'ddpm', 'num_steps': 1000, 'spacing': 'time', 'eta': 0.0}


# ----------------------------------------------------------------------- settings


@pytest.mark.parametrize('steps', [2, 4, 20, 100])
@pytest.mark.parametrize('start', [1e-6, 1e-2])
@pytest.mark.parametrize('level', [1e-6, 4.4e-5, 1e-2])
def test_a_line_of_betas_ends_at_a_level(steps, start, level):
  end = sweep_choice.linear_end(steps, start, level)
  betas = np.linspace(start, end, steps)
  np.testing.assert_allclose(np.prod(1 - betas), level, rtol=1e-6)
  assert start < end < 1


def test_a_line_that_would_fall_is_none():
  """50 betas of 0.01 leave 0.605 of the signal."""
  assert sweep_choice.linear_end(50, 0.01, 0.61) is None
  assert sweep_choice.linear_end(50, 0.01, 0.60) == pytest.approx(0.01, abs=1e-3)
  assert sweep_choice.linear_end(1, 0.5, 1e-3) is None


def test_the_known_line_for_a_hundred_steps_is_among_the_searched():
  """1e-4 to 0.2 in 100 steps ends at 2.1e-5, by common advice for few steps."""
  end = sweep_choice.linear_end(100, 1e-4, 2.1e-5)
  assert end == pytest.approx(0.2, rel=0.01)


def test_settings_are_trajectories_of_their_own_over_trained_levels():
  settings = sweep_choice.all_settings(GAMMAS, (1000, 4, 100), 4, learned=False)
  assert settings[0] == YARDSTICK
  steps = [s['num_steps'] for s in settings[1:]]
  assert steps == sorted(steps)
  assert set(steps) == {4, 100}  # the most steps are the yardstick's alone
  trajectories = [make_trajectory(GAMMAS, **s) for s in settings]
  for setting, (levels, coefficients) in zip(settings, trajectories, strict=True):
    assert len(coefficients) == setting['num_steps']
    assert levels[0] == 1
    assert levels[-1] >= GAMMAS[-1] * (1 - 1e-6)
  keys = [
    (s['name'], t.gammas.tobytes()) for s, t in zip(settings, trajectories, strict=True)
  ]
  assert len(set(keys)) == len(keys)
  names = {'ddpm', 'ddpm_posterior', 'ddim', 'dpmpp_2m'}
  for count, kinds in (
    (4, {*sweep_choice.SPACINGS, 'linear'}),
    (100, sweep_choice.SPACINGS),
  ):
    of_count = [s for s in settings[1:] if s['num_steps'] == count]
    assert {(s['name'], s['spacing']) for s in of_count} == {
      (name, kind) for name in names for kind in kinds
    }
  searched = {s['end'] for s in settings if s['spacing'] == 'linear'}
  assert len(searched) == len(sweep_choice.STARTS) * len(sweep_choice.ENDS)


def test_temperatures():
  """The yardstick has none; each other setting is there with all of them."""
  settings = sweep_choice.all_settings(GAMMAS, (4, 100), 0, False, (1.0, 0.8))
  assert settings[0] == YARDSTICK | {'num_steps': 100}
  plain = [s for s in settings[1:] if 'temperature' not in s]
  assert settings[1:] == [one for s in plain for one in (s, {**s, 'temperature': 0.8})]
  assert sweep_choice.describe(settings[2]).endswith(', temperature 0.8')
  (cold,) = sweep_choice.all_settings(GAMMAS, (1, 4), 0, False, (0.5,))[1:2]
  assert cold['temperature'] == 0.5


def test_what_the_model_has_bounds_the_settings():
  gammas = diffusion.linear_gammas(50, 1e-4, 0.3)
  settings = sweep_choice.all_settings(gammas, (4, 50, 51, 1000), 0, learned=True)
  assert settings[0] == YARDSTICK | {'name': 'ddpm_learned', 'num_steps': 50}
  assert {s['num_steps'] for s in settings[1:]} == {4}
  assert 'ddpm_learned' in {s['name'] for s in settings[1:]}
  with pytest.raises(sweep_choice.SweepError, match='from 1 to 50 in'):
    sweep_choice.all_settings(gammas, (51, 0), 0, learned=False)
  # All levels are one trajectory, whatever their spacing.
  settings = sweep_choice.all_settings(gammas, (50, 51), 0, learned=False)
  assert len(settings) == 1


# ----------------------------------------------------------------------- choosing


def row(steps: int, psnr: float, spectrum: float, name: str = 'ddim') -> Row:
  setting = {'name': name, 'num_steps': steps, 'spacing': 'time', 'eta': 0.0}
  return {'setting': setting, 'psnr': psnr, 'spectrum_db': spectrum}


REFERENCE = row(1000, 25.0, 2.0, 'ddpm')


def chosen(*rows) -> dict[str, int]:
  presets = sweep_choice.choose([REFERENCE, *rows])
  return {name: setting['num_steps'] for name, setting in presets.items()}


def test_one_per_cent_of_power():
  assert pytest.approx(1.01) == 10 ** (sweep_choice.SPECTRUM_TOLERANCE / 10)


def test_a_shortfall_is_the_worse_of_two():
  def short(psnr, spectrum):
    return shortfall(row(4, psnr, spectrum), REFERENCE)

  assert short(25.0, 2.0) == 0
  assert short(24.9, 2.0) == pytest.approx(1)
  assert short(26.0, 2.0 + 0.04321) == pytest.approx(1, abs=1e-3)
  assert short(24.7, 1.0) == pytest.approx(3)
  assert short(26.0, 1.0) < 0
  assert short(None, 2.0) == short(25.0, None) == math.inf


def test_the_fewest_steps_that_are_as_good():
  rows = [row(4, 24.0, 1.0), row(8, 24.95, 2.02), row(12, 25.5, 1.9), row(50, 26, 1.0)]
  assert chosen(*rows) == {'fast': 8, 'balanced': 8, 'best': 50}
  # Of several with as many steps the best.
  presets = sweep_choice.choose([REFERENCE, *rows, row(8, 25.0, 1.9, 'dpmpp_2m')])
  assert presets['fast']['name'] == 'dpmpp_2m'


def test_budgets():
  def good(steps):
    return row(steps, 25.0, 2.0)

  assert chosen(row(20, 20.0, 9.0), good(21), good(100))['fast'] == 20
  assert chosen(row(20, 20.0, 9.0), good(21), good(100))['balanced'] == 21
  assert chosen(good(20), good(100))['fast'] == 20


def test_none_is_as_good_then_the_nearest():
  rows = [row(4, 25.0, 4.0), row(8, 24.7, 2.0), row(20, 23.0, 1.0), row(50, 24.8, 2.0)]
  assert chosen(*rows) == {'fast': 8, 'balanced': 50, 'best': 1000}
  assert chosen() == {'fast': 1000, 'balanced': 1000, 'best': 1000}
  # Blur has the highest PSNR of all; it is not near.
  assert chosen(row(4, 27.0, 9.0), row(8, 24.5, 2.0))['fast'] == 8


def test_best_does_not_give_up_faithfulness():
  rows = [row(50, 24.8, 0.1), row(20, 24.95, 1.0), row(100, 24.95, 1.0)]
  assert chosen(*rows)['best'] == 20


def test_lpips_may_decide():
  """Grain in the place of detail: the right power, the wrong look."""

  def with_lpips(one, lpips):
    return one | {'lpips_alex': lpips}

  yardstick = with_lpips(REFERENCE, 0.3)
  grainy = with_lpips(row(8, 25.0, 1.0), 0.31)
  clean = with_lpips(row(12, 25.0, 3.0), 0.304)
  cleaner = with_lpips(row(50, 24.95, 3.0), 0.25)
  rows = [yardstick, grainy, clean, cleaner]
  presets = sweep_choice.choose(rows, 'lpips_alex')
  steps = {name: setting['num_steps'] for name, setting in presets.items()}
  assert steps == {'fast': 12, 'balanced': 12, 'best': 50}
  lines = verdicts(rows, presets, 'lpips_alex')
  assert lines.endswith('time: PSNR dB -0.05, LPIPS alex -0.050, as good')


def test_samplings_that_broke_are_not_chosen():
  assert chosen(row(4, None, None), row(8, 25.0, 2.0))['fast'] == 8
  with pytest.raises(sweep_choice.SweepError, match='ddpm, 1000 steps'):
    sweep_choice.choose([row(1000, None, None, 'ddpm'), row(4, 25.0, 2.0)])


def test_the_summary_says_whether_it_is_as_good():
  rows = [REFERENCE, row(4, 24.0, 2.5), row(50, 24.95, 1.9)]
  head, fast, balanced, best = verdicts(rows, sweep_choice.choose(rows)).splitlines()
  assert head == 'against ddpm, 1000 steps, time:'
  fast_is = 'PSNR dB -1.00, spectrum dB +0.50, not as good'
  assert fast == f'fast: ddim, 4 steps, time: {fast_is}'
  assert balanced.startswith('balanced: ddim, 50 steps')
  assert balanced.endswith('spectrum dB -0.10, as good')
  assert best.startswith('best: ddim, 50 steps')


def test_the_plot_has_a_line_for_every_sampler_and_kind(monkeypatch):
  """Of several lines of betas the best at each number of steps."""
  drawn = []
  monkeypatch.setattr(
    line_plots,
    'chart',
    lambda panels, styles, **_: drawn.append((panels, styles)),
  )

  def linear(steps, psnr):
    return row(steps, psnr, 2.0) | {
      'setting': row(steps, 0, 0)['setting']
      | {'spacing': 'linear', 'start': psnr / 1000, 'end': 0.5}
    }

  rows = [REFERENCE, row(8, 24.0, 2.1), row(4, 23.0, 2.5), linear(4, 21.0)]
  sweep_choice.plot([*rows, linear(4, 22.0), row(4, None, None, 'dpmpp_2m')])
  ((psnr, spectrum), styles) = drawn[0]
  assert list(styles) == ['ddpm, time', 'ddim, time', 'ddim, betas', 'dpmpp_2m, time']
  assert len(set(styles.values())) == 4
  assert psnr.lines == {
    'ddpm, time': ((1000,), (25.0,)),
    'ddim, time': ((4, 8), (23.0, 24.0)),
    'ddim, betas': ((4,), (22.0,)),
  }
  assert spectrum.lines['ddim, time'] == ((4, 8), (2.5, 2.1))
  for panel, value in ((psnr, 25.0), (spectrum, 2.0)):
    assert panel.y_range[0] < value < panel.y_range[1]
    assert panel.mark == (value, 'ddpm, 1000 steps, time')
