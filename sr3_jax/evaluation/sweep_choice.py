"""What a sweep measures, and what it chooses from the figures: pure functions.

Two numbers decide whether a setting is as good as the yardstick: PSNR, and a
perceptual measure. PSNR alone would choose blur (it did not track quality in the paper
either). The measure is `spectrum_db`: the distance of the power spectra of outputs and
truth, every frequency counting the same. It sees blur as missing and grain as invented
power; being taken over a whole set of images, it does not ask for the one true picture,
and it needs no trained network. Both are logarithmic: one per cent of it is one per
cent of power, 0.043 dB. But grain in the place of detail has the right power:
`sweep.judge` may be LPIPS, whose network tells one from the other.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy.optimize

from sr3_jax.core import diffusion, samplers
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.evaluation import summary
from sr3_jax.reports import line_plots
from sr3_jax.runtime.errors import UserError

Setting = dict[str, Any]  # as `samplers.make_trajectory` takes it
Row = dict[str, Any]  # {'setting': Setting, metric: value or None, ...}

PSNR_TOLERANCE = 0.1  # dB
SPECTRUM_TOLERANCE = 10 * math.log10(1.01)  # dB: one per cent of power
# Perceptual measures, lower is better -> what counts as the same.
JUDGES = {'spectrum_db': SPECTRUM_TOLERANCE, 'lpips_alex': 0.005, 'lpips_vgg': 0.005}
# Presets and how many steps they may take; 'best' is not about steps.
BUDGETS = {'fast': 20, 'balanced': 100}
# 'trained' differs from 'time' in the last step only.
SPACINGS = tuple(s for s in diffusion.SPACINGS if s != 'trained')
# The search over lines of betas: the first beta, and the level at which the line ends
# (which stands for the last beta: for few steps that has to be near 1).
STARTS = (1e-4, 1e-2)
ENDS = (1e-4, 1e-3, 1e-2)


class SweepError(UserError):
  """One line: what can't be swept, and why."""


# ------------------------------------------------------------------------ settings


def linear_end(num_steps: int, start: float, level: float) -> float | None:
  """The last beta of the line that begins with `start` and ends at `level`.

  Solves sum(log(1 - beta_i)) = log(level); None if the line would have to fall.
  """
  excess = lambda end: (
    np.log1p(-np.linspace(start, end, num_steps)).sum() - math.log(level)
  )
  top = 1 - 1e-9
  if excess(start) < 0 or excess(top) > 0:
    return None
  return float(scipy.optimize.brentq(excess, start, top, xtol=1e-15, rtol=1e-14))


def all_settings(
  gammas: np.ndarray,
  counts: Iterable[int],
  search_steps: int,
  learned: bool,
  temperatures: Iterable[float] = (1.0,),
) -> list[Setting]:
  """What is measured: the yardstick first, then from few steps to many.

  Args:
    gammas: [T + 1] trained levels.
    counts: of steps; those above T are left out. The largest is the yardstick's alone.
    search_steps: up to this many steps, lines of betas are searched too.
    learned: whether the model gives the variance of each step.
    temperatures: of the noise; the yardstick's is 1.

  Returns:
    No two settings are the same trajectory.
  """
  counts = sorted({n for n in counts if 1 <= n < len(gammas)})
  if not counts:
    raise SweepError(f'no step count from 1 to {len(gammas) - 1} in sweep.num_steps')
  names = [n for n in samplers.SAMPLERS if learned or n != 'ddpm_learned']
  yardstick = 'ddpm_learned' if learned else 'ddpm'
  wanted = [{'name': yardstick, 'num_steps': counts.pop(), 'spacing': 'time'}]
  for count in counts:
    levels = [{'spacing': spacing} for spacing in SPACINGS]
    for start in STARTS if count <= search_steps else ():
      for level in ENDS:
        end = linear_end(count, start, max(level, gammas[-1]))
        if end is not None:
          levels.append({'spacing': 'linear', 'start': start, 'end': end})
    for name in names:
      wanted += [{'name': name, 'num_steps': count, **one} for one in levels]
  found = {}
  cool = [{} if t == 1 else {'temperature': t} for t in temperatures]
  wanted[1:] = [one | other for one in wanted[1:] for other in cool]
  for setting in wanted:
    setting['eta'] = 0.0
    levels = make_trajectory(gammas, **setting).gammas
    key = setting['name'], setting.get('temperature'), levels.tobytes()
    found.setdefault(key, setting)
  return list(found.values())


def describe(setting: Setting) -> str:
  """A setting in a few words, one line."""
  spacing = setting['spacing']
  if spacing == 'linear':
    spacing = f'betas {setting["start"]:.0e} to {setting["end"]:.4g}'
  text = f'{setting["name"]}, {setting["num_steps"]} steps, {spacing}'
  if 'temperature' in setting:
    text += f', temperature {setting["temperature"]:g}'
  return text


# ------------------------------------------------------------------------ choosing


def shortfall(row: Row, yardstick: Row, judge: str = 'spectrum_db') -> float:
  """How much worse than the yardstick, in tolerances: up to 1 is as good.

  The larger of two numbers, of PSNR and of the judge; negative if both are better.
  """
  if row['psnr'] is None or row[judge] is None:
    return math.inf
  return max(
    (yardstick['psnr'] - row['psnr']) / PSNR_TOLERANCE,
    (row[judge] - yardstick[judge]) / JUDGES[judge],
  )


def choose(rows: Sequence[Row], judge: str = 'spectrum_db') -> dict[str, Setting]:
  """Presets from measured rows; a pure function.

  'fast' and 'balanced' are the fewest steps within the budget that are as good as the
  yardstick: PSNR not lower by more than 0.1 dB, the judge's measure not higher by more
  than its tolerance; of several with so many steps the best. If none is as good, the
  one that falls short the least. 'best', at any cost: the one that the judge likes most
  of those whose PSNR is not lower by more than 0.1 dB.

  Args:
    rows: the yardstick first.
    judge: a key of JUDGES.
  """
  yardstick = rows[0]
  if yardstick['psnr'] is None or yardstick[judge] is None:
    raise SweepError(
      f'{describe(yardstick["setting"])} gave no finite picture: train on, or sweep '
      'with fewer steps'
    )
  steps = lambda row: row['setting']['num_steps']
  short = lambda row: shortfall(row, yardstick, judge)
  chosen = {}
  for name, budget in BUDGETS.items():
    within = [row for row in rows if steps(row) <= budget]
    good = [row for row in within if short(row) <= 1]
    if good:
      chosen[name] = min(good, key=lambda row: (steps(row), short(row)))
    else:
      chosen[name] = min(within or rows, key=lambda row: (short(row), steps(row)))
  faithful = [
    row
    for row in rows
    if None not in (row['psnr'], row[judge])
    and row['psnr'] >= yardstick['psnr'] - PSNR_TOLERANCE
  ]
  chosen['best'] = min(faithful, key=lambda row: (row[judge], steps(row)))
  return {name: row['setting'] for name, row in chosen.items()}


# ------------------------------------------------------------------------- showing


def shown(rows: Sequence[Row], judge: str) -> dict[str, Row]:
  """Of every sampler and number of steps the best levels, for the table."""
  best: dict[tuple[int, str], Row] = {}
  short = lambda row: shortfall(row, rows[0], judge)
  for row in rows[1:]:
    key = row['setting']['num_steps'], row['setting']['name']
    if key not in best or short(row) < short(best[key]):
      best[key] = row
  nan = lambda row: {k: math.nan if v is None else v for k, v in row.items()}
  return {describe(row['setting']): nan(row) for row in (rows[0], *best.values())}


def verdicts(
  rows: Sequence[Row], presets: dict[str, Setting], judge: str = 'spectrum_db'
) -> str:
  """What the presets are, and how they compare with the yardstick; a line each."""
  yardstick, metric = rows[0], summary.METRICS[judge]
  lines = [f'against {describe(yardstick["setting"])}:']
  for name, setting in presets.items():
    row = next(row for row in rows if row['setting'] == setting)
    psnr = row['psnr'] - yardstick['psnr']
    change = row[judge] - yardstick[judge]
    verdict = 'as good' if shortfall(row, yardstick, judge) <= 1 else 'not as good'
    lines.append(
      f'{name}: {describe(setting)}: PSNR dB {psnr:+.2f}, {metric.title} '
      f'{change:+.{metric.digits}f}, {verdict}'
    )
  return '\n'.join(lines)


def plot(rows: Sequence[Row], judge: str = 'spectrum_db') -> np.ndarray:
  """PSNR and the judge's measure against steps, a line per sampler and kind of levels.

  Of lines of betas and of temperatures the best at each number of steps is shown.

  Returns:
    uint8 [H, W, 3].
  """
  yardstick = rows[0]
  order = [*SPACINGS, 'linear']
  by_line = lambda row: (
    list(samplers.SAMPLERS).index(row['setting']['name']),
    order.index(row['setting']['spacing']),
  )
  short = lambda row: shortfall(row, yardstick, judge)
  lines: dict[tuple[str, str], dict[int, Row]] = {}
  for row in sorted(rows, key=by_line):
    s = row['setting']
    line = lines.setdefault((s['name'], s['spacing']), {})
    old = line.get(s['num_steps'])
    if old is None or short(row) < short(old):
      line[s['num_steps']] = row
  names = list(dict.fromkeys(name for name, _ in lines))
  styles = {
    f'{name}, {"betas" if spacing == "linear" else spacing}': (
      names.index(name),
      order.index(spacing),
    )
    for name, spacing in lines
  }
  panels = []
  # How far around the yardstick, in what each is counted in.
  for key, around in (('psnr', 3.0), (judge, 4.0 if judge == 'spectrum_db' else 0.2)):
    metric = summary.METRICS[key]
    title = f'{metric.title} ({metric.better} is better)'
    curves = {}
    for label, (_, line) in zip(styles, lines.items(), strict=True):
      points = [(n, r[key]) for n, r in sorted(line.items()) if r[key] is not None]
      if points:
        curves[label] = tuple(zip(*points, strict=True))
    values = [y for _, ys in curves.values() for y in ys]
    low = max(min(values), yardstick[key] - around)
    high = min(max(values), yardstick[key] + around)
    margin = 0.05 * (high - low + around / 4)
    mark = yardstick[key], describe(yardstick['setting'])
    panels.append(line_plots.Panel(title, curves, (low - margin, high + margin), mark))
  return line_plots.chart(panels, styles, x_title='sampling steps')
