"""Lists what a sweep measures, and chooses from the figures: pure functions.

Two numbers decide whether a setting is as good as the yardstick: PSNR, and a
perceptual measure. PSNR alone would choose blur (it did not track quality in the paper
either). The measure is `spectrum_db`: the distance of the power spectra of outputs and
truth, every frequency counting the same. It sees blur as missing and grain as invented
power; being taken over a whole set of images, it does not ask for the one true picture,
and it needs no trained network. Both PSNR and this measure are in dB; one per cent of
power is 0.043 dB. But grain in the place of detail has the right power:
`sweep.judge` may be LPIPS or DISTS, whose networks tell one from the other.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import scipy.optimize

from sr3_jax.core import diffusion, samplers
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.evaluation import summary
from sr3_jax.reports import line_plots
from sr3_jax.runtime.errors import UserError

Setting = dict[str, Any]  # arguments of `samplers.make_trajectory` by name


Row = dict[str, Any]  # {'setting': Setting, metric: value or None, ...}

PSNR_TOLERANCE = 0.1  # dB
SPECTRUM_TOLERANCE = 10 * math.log10(1.01)  # dB: one per cent of power
# Perceptual measures that config.sweep.judge may name -> the largest difference that
# counts as equal. For all of them lower is better.
TOLERANCES = {'spectrum_db': SPECTRUM_TOLERANCE}
TOLERANCES |= dict.fromkeys(('lpips_alex', 'lpips_vgg', 'dists'), 5e-3)
# Presets and how many steps they may take; 'best' is not about steps.
BUDGETS = {'fast': 20, 'balanced': 100}
# 'trained' differs from 'time' in the last step only.
SPACINGS = tuple(s for s in diffusion.SPACINGS if s != 'trained')
_ORDER = (*SPACINGS, 'linear')
# The search over lines of betas: the first beta, and the level at which the line ends
# (which stands for the last beta: for few steps that has to be near 1).
STARTS = (1e-4, 1e-2)
ENDS = (1e-4, 1e-3, 1e-2)


class SweepError(UserError):
  """One line: what can't be swept, and why."""


def linear_end(num_steps: int, start: float, level: float) -> float | None:
  """Return the last beta of the line that begins with `start` and ends at `level`.

  It solves sum(log(1 - beta_i)) = log(level); None if the line would have to fall.
  """

  def excess(end: float) -> float:
    return np.log1p(-np.linspace(start, end, num_steps)).sum() - math.log(level)

  top = 1 - 1e-9
  if excess(start) < 0 or excess(top) > 0:
    return None
  root = scipy.optimize.brentq(excess, start, top, xtol=1e-15, rtol=1e-14)
  return float(cast(float, root))  # without full_output there is nothing else


def all_settings(
  gammas: np.ndarray,
  counts: Iterable[int],
  search_steps: int,
  learned: bool,
  temperatures: Sequence[float] = (1.0,),
) -> list[Setting]:
  """Return what is measured: the yardstick first, then from few steps to many.

  Args:
    gammas: [T + 1] trained levels.
    counts: numbers of steps; those above T are left out. Only the yardstick takes the
      largest.
    search_steps: up to this many steps, lines of betas are searched too.
    learned: whether the model gives the variance of each step.
    temperatures: of the noise; the yardstick's is 1.

  Returns:
    Settings, no two of which are the same trajectory.

  Raises:
    SweepError: there is no step count that can be taken.
  """
  counts = sorted({n for n in counts if 1 <= n < len(gammas)})
  if not counts:
    raise SweepError(f'no step count from 1 to {len(gammas) - 1} in sweep.num_steps')
  names = [n for n in samplers.SAMPLERS if learned or n != 'ddpm_learned']
  yardstick = 'ddpm_learned' if learned else 'ddpm'
  wanted = [_setting(yardstick, counts.pop(), 'time')]
  for count in counts:
    lines = _betas(count, gammas[-1]) if count <= search_steps else []
    for name in names:
      levels = [_setting(name, count, spacing) for spacing in SPACINGS]
      levels += [_setting(name, count, 'linear') | line for line in lines]
      for setting in levels:
        for temperature in temperatures:
          more = {} if temperature == 1 else {'temperature': temperature}
          wanted.append(setting | more)
  found: dict[tuple[str, float | None, bytes], Setting] = {}
  for setting in wanted:
    levels = make_trajectory(gammas, **setting).gammas
    key = setting['name'], setting.get('temperature'), levels.tobytes()
    found.setdefault(key, setting)
  return list(found.values())


def _setting(name: str, num_steps: int, spacing: str) -> Setting:
  """Return a setting without noise of its own: eta is 0."""
  return {'name': name, 'num_steps': num_steps, 'spacing': spacing, 'eta': 0.0}


def _betas(num_steps: int, lowest: float) -> list[dict[str, float]]:
  """Return first and last beta of the lines that are searched."""
  ends = itertools.product(STARTS, (max(level, lowest) for level in ENDS))
  found = [(start, linear_end(num_steps, start, level)) for start, level in ends]
  return [{'start': start, 'end': end} for start, end in found if end is not None]


def describe(setting: Setting) -> str:
  """Return a setting in a few words, one line."""
  spacing = setting['spacing']
  if spacing == 'linear':
    spacing = f'betas {setting["start"]:.0e} to {setting["end"]:.4g}'
  text = f'{setting["name"]}, {setting["num_steps"]} steps, {spacing}'
  if 'temperature' in setting:
    text += f', temperature {setting["temperature"]:g}'
  return text


def shortfall(row: Row, yardstick: Row, perceptual: str = 'spectrum_db') -> float:
  """Return how much worse than the yardstick a row is, in tolerances.

  It is the larger of two numbers, of PSNR and of the perceptual measure: up to 1 is as
  good, and less than 0 better in both.
  """
  if row['psnr'] is None or row[perceptual] is None:
    return math.inf
  return max(
    (yardstick['psnr'] - row['psnr']) / PSNR_TOLERANCE,
    (row[perceptual] - yardstick[perceptual]) / TOLERANCES[perceptual],
  )


def choose(rows: Sequence[Row], perceptual: str = 'spectrum_db') -> dict[str, Setting]:
  """Choose presets from measured rows, the first of which is the yardstick.

  'fast' and 'balanced' are the fewest steps within the budget that are as good as the
  yardstick: PSNR not lower by more than 0.1 dB, the perceptual measure not higher by
  more than its tolerance; of several with so many steps the best. If none is as good,
  the one that falls short the least. 'best', at any cost: the one with the lowest
  perceptual measure of those whose PSNR is not lower by more than 0.1 dB.

  Raises:
    SweepError: the yardstick itself has no finite values.
  """
  yardstick = rows[0]
  if yardstick['psnr'] is None or yardstick[perceptual] is None:
    raise SweepError(
      f'{describe(yardstick["setting"])} gave no finite picture: train on, or sweep '
      'with fewer steps'
    )
  # Steps, shortfall and row; the first of equal ones is chosen.
  ranked = [
    (row['setting']['num_steps'], shortfall(row, yardstick, perceptual), row)
    for row in rows
  ]
  chosen = {}
  for name, budget in BUDGETS.items():
    within = [entry for entry in ranked if entry[0] <= budget]
    good = [entry for entry in within if entry[1] <= 1]
    if good:
      chosen[name] = min(good, key=lambda entry: entry[:2])
    else:
      chosen[name] = min(within or ranked, key=lambda entry: (entry[1], entry[0]))
  lowest = yardstick['psnr'] - PSNR_TOLERANCE
  faithful = [e for e in ranked if e[1] < math.inf and e[2]['psnr'] >= lowest]
  chosen['best'] = min(faithful, key=lambda entry: (entry[2][perceptual], entry[0]))
  return {name: row['setting'] for name, (_, _, row) in chosen.items()}


def shown(rows: Sequence[Row], perceptual: str) -> dict[str, Row]:
  """Return the best levels of every sampler and number of steps, for the table."""
  best = _best(rows[1:], rows[0], perceptual, ('num_steps', 'name'))
  return {
    describe(row['setting']): {k: math.nan if v is None else v for k, v in row.items()}
    for row in (rows[0], *best.values())
  }


def _best(
  rows: Sequence[Row], yardstick: Row, perceptual: str, keys: Sequence[str]
) -> dict[tuple[Any, ...], Row]:
  """Return the row that falls short least for all values of some keys of settings."""
  groups: dict[tuple[Any, ...], list[Row]] = {}
  for row in rows:
    groups.setdefault(tuple(row['setting'][key] for key in keys), []).append(row)
  return {
    group: min(found, key=lambda row: shortfall(row, yardstick, perceptual))
    for group, found in groups.items()
  }


def verdicts(
  rows: Sequence[Row], presets: dict[str, Setting], perceptual: str = 'spectrum_db'
) -> str:
  """Return how each preset compares with the yardstick, a line each."""
  yardstick, metric = rows[0], summary.METRICS[perceptual]
  lines = [f'against {describe(yardstick["setting"])}:']
  for name, setting in presets.items():
    row = next(row for row in rows if row['setting'] == setting)
    psnr, change = (row[key] - yardstick[key] for key in ('psnr', perceptual))
    good = shortfall(row, yardstick, perceptual) <= 1
    lines.append(
      f'{name}: {describe(setting)}: PSNR dB {psnr:+.2f}, {metric.title} '
      f'{change:+.{metric.digits}f}, {"as good" if good else "not as good"}'
    )
  return '\n'.join(lines)


Curves = dict[tuple[str, str], dict[int, Row]]  # (sampler, spacing) -> steps -> row


def plot(rows: Sequence[Row], perceptual: str = 'spectrum_db') -> np.ndarray:
  """Draw PSNR and the perceptual measure against steps.

  Each sampler and kind of levels has a line. The best of lines of betas and of
  temperatures is shown at each number of steps.

  Returns:
    uint8 [H, W, 3].
  """
  curves = _curves(rows, perceptual)
  names = list(dict.fromkeys(name for name, _ in curves))
  labels = [f'{n}, {"betas" if s == "linear" else s}' for n, s in curves]
  numbers = [(names.index(name), _ORDER.index(spacing)) for name, spacing in curves]
  labelled = dict(zip(labels, curves.values(), strict=True))
  # How far around the yardstick is shown, in the unit of each.
  around = {'psnr': 3.0, perceptual: 4.0 if perceptual == 'spectrum_db' else 0.2}
  panels = [_panel(labelled, rows[0], key, far) for key, far in around.items()]
  styles = dict(zip(labels, numbers, strict=True))
  return line_plots.chart(panels, styles, x_title='sampling steps')


def _curves(rows: Sequence[Row], perceptual: str) -> Curves:
  """Return the lines of the plot, in the order of samplers and levels."""
  curves: Curves = {(name, s): {} for name in samplers.SAMPLERS for s in _ORDER}
  best = _best(rows, rows[0], perceptual, ('name', 'spacing', 'num_steps'))
  for (name, spacing, steps), row in best.items():
    curves[name, spacing][steps] = row
  return {line: curve for line, curve in curves.items() if curve}


def _panel(
  curves: Mapping[str, Mapping[int, Row]], yardstick: Row, key: str, around: float
) -> line_plots.Panel:
  """Return the panel of a metric; it shows at most `around` above and below."""
  metric = summary.METRICS[key]
  lines = {}
  for label, curve in curves.items():
    points = [(n, r[key]) for n, r in sorted(curve.items()) if r[key] is not None]
    if points:
      xs, ys = zip(*points, strict=True)
      lines[label] = xs, ys
  values = [y for _, ys in lines.values() for y in ys]
  low = max(min(values), yardstick[key] - around)
  high = min(max(values), yardstick[key] + around)
  margin = 0.05 * (high - low + around / 4)
  return line_plots.Panel(
    f'{metric.title} ({metric.better} is better)',
    lines,
    (low - margin, high + margin),
    mark=(yardstick[key], describe(yardstick['setting'])),
  )
