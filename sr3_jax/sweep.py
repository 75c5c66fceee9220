"""Quality against sampling steps: --mode=sweep finds out how few steps a model needs.

Every sampler of `samplers.SAMPLERS` walks over levels of every family:

  time, log_snr, cosine  trained levels, even in that coordinate (`diffusion.respace`)
  linear                 those of a line of betas, whose ends are searched over a small
                         grid, as the paper did for its at most 100 steps (section 2.4)

on the same held-out images, from the same starting noise. A walk is data, so one
compiled program takes them all, whatever their length.

The yardstick is the paper's sampler, alone with the most steps. Two numbers decide
whether a setting is as good: PSNR, and a perceptual measure. PSNR alone would choose
blur (it did not track quality in the paper either). The measure is `spectrum_db`: the
distance of the power spectra of outputs and truth, every frequency counting the same.
It sees blur as missing and grain as invented power; being taken over a whole set of
images, it does not ask for the one true picture, and it needs no trained network. Both
are logarithmic: one per cent of it is one per cent of power, 0.043 dB. But grain in the
place of detail has the right power: `sweep.judge` may be LPIPS, whose network tells one
from the other.
"""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
import scipy.optimize
from absl import logging
from etils import epath

from sr3_jax import (
  diffusion,
  evaluation,
  hub,
  images,
  logs,
  parallel,
  plots,
  samplers,
  summary,
)
from sr3_jax.config import as_json
from sr3_jax.feature_nets import FeatureNet
from sr3_jax.loading import load_nets
from sr3_jax.restorer import Restorer, progress
from sr3_jax.scoring import Scorer
from sr3_jax.sr3 import SR3, make_walk

Setting = dict[str, Any]  # as `sr3.make_walk` takes it
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


class SweepError(ValueError):
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
    No two settings are the same walk.
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
    walk = make_walk(gammas, **setting)[0]
    key = setting['name'], setting.get('temperature'), walk.tobytes()
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


# ----------------------------------------------------------------------- measuring


def sweep_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """--mode=sweep: measures what sweep.json does not hold yet; chooses presets.

  Writes sweep.json after every setting, then presets.json and sweep.png.

  Args:
    config: of the model.
    workdir: of its run, or its model folder.

  Returns:
    A row for every setting, the yardstick first.

  Raises:
    SweepError: there is nothing to choose from.
    hub.HubError, checkpoint.CheckpointError, sources.DataError: as they say.
  """
  if config.method == 'regression':
    raise SweepError('a regression model takes one step: there is nothing to sweep')
  judge, nets = config.sweep.judge, _nets(config)
  workdir = epath.Path(workdir)
  model = SR3.from_config(config)
  settings = all_settings(
    model.gammas,
    config.sweep.num_steps,
    config.sweep.search_steps,
    model.learned_variance,
    config.sweep.temperatures,
  )
  step, params = hub.load_weights(workdir, model)
  batches = evaluation_batches(config)
  path = workdir / 'sweep.json'
  record = {
    'measured': _measured(config, hub.fingerprint(params), nets),
    'step': step,
    'yardstick': settings[0],
    'rows': [],
  }
  done = _rows_of(path, record['measured'])
  todo = [s for s in settings if parallel.agree(s not in [r['setting'] for r in done])]
  record['rows'] = [row for row in done if row['setting'] in settings]
  logging.info('%d settings, %d of them to measure', len(settings), len(todo))
  scorer = Scorer(nets=nets)
  longest = max(setting['num_steps'] for setting in settings)
  restorer = Restorer(model, params, config.seed, room=longest)
  main_process = jax.process_index() == 0
  total = sum(setting['num_steps'] for setting in todo) * len(batches)
  with progress(total) as on_steps:
    for setting in todo:
      restorer.choose(*make_walk(model.gammas, **setting))
      table = evaluation.evaluate(
        model,
        {'it': restorer},
        batches,
        seed=config.seed,
        scorer=scorer,
        beside=(),
        on_steps=on_steps,
      ).table()
      scores = {k: v if math.isfinite(v) else None for k, v in table['it'].items()}
      record['rows'].append({'setting': setting} | scores)
      if main_process:
        logs.write_json(path, record)
  rows = sorted(record['rows'], key=lambda row: settings.index(row['setting']))
  presets = choose(rows, judge)
  if main_process:
    logs.write_json(path, record | {'rows': rows, 'presets': presets})
    logs.write_json(workdir / 'presets.json', presets)
    images.write(workdir / 'sweep.png', plot(rows, judge))
    print(summary.format_table(_shown(rows, judge)))
    print(verdicts(rows, presets, judge))
    print(f'presets: {workdir / "presets.json"}, plot: {workdir / "sweep.png"}')
  return rows


def _nets(config: ml_collections.ConfigDict) -> dict[str, FeatureNet]:
  """The network that judges, if one does."""
  judge = config.sweep.judge
  if judge not in JUDGES:
    raise SweepError(f'sweep.judge {judge!r}: give {", ".join(JUDGES)}')
  if judge == 'spectrum_db':
    return {}
  side = config.eval.image_size or config.data.image_size
  nets, missing = load_nets([judge], config.eval.weights, side, config.data.channels)
  if missing:
    raise SweepError(f'sweep.judge {judge}: {missing[0]["why"]}')
  return nets


def evaluation_batches(
  config: ml_collections.ConfigDict,
) -> list[dict[str, np.ndarray]]:
  """The held-out images, read once for all settings."""
  reader = evaluation.evaluation_data(config, config.sweep.num_images)
  batches = list(reader)
  reader.close()
  return batches


def _measured(
  config: ml_collections.ConfigDict, weights: str, nets: dict[str, FeatureNet]
) -> dict[str, Any]:
  """All that a row depends on beside its setting."""
  config = as_json(config)
  parts = ('seed', 'method', 'task', 'data', 'model', 'diffusion')
  return {part: config[part] for part in parts} | {
    'weights': weights,
    'clip': config['sampler']['clip'],
    'image_size': config['eval']['image_size'],
    'num_images': config['sweep']['num_images'],
    **{name: net.fingerprint for name, net in nets.items()},
  }


def _rows_of(path: epath.Path, measured: dict[str, Any]) -> list[Row]:
  """The rows of an earlier sweep, if they are of the same weights and images."""
  if not path.exists():
    return []
  try:
    record = json.loads(path.read_text())
    if record['measured'] == measured:
      return record['rows']
  except (ValueError, KeyError, TypeError):
    logging.warning('%s: not a sweep of ours: measuring anew', path)
    return []
  logging.warning('%s is of other weights or images: measuring anew', path)
  return []


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


def _shown(rows: Sequence[Row], judge: str) -> dict[str, Row]:
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
    shown = {}
    for label, (_, line) in zip(styles, lines.items(), strict=True):
      points = [(n, r[key]) for n, r in sorted(line.items()) if r[key] is not None]
      if points:
        shown[label] = tuple(zip(*points, strict=True))
    values = [y for _, ys in shown.values() for y in ys]
    low = max(min(values), yardstick[key] - around)
    high = min(max(values), yardstick[key] + around)
    margin = 0.05 * (high - low + around / 4)
    mark = yardstick[key], describe(yardstick['setting'])
    panels.append(plots.Panel(title, shown, (low - margin, high + margin), mark))
  return plots.chart(panels, styles, x_title='sampling steps')
