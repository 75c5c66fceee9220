"""Finds the augmentation that a cascade's stages need: `--mode=sweep` of a cascade.

Stages that upsample are told how blurred and noisy their input is, and one chooses that
when one samples. Without augmentation they copy every flaw of the stage before; with
much of it they invent another picture. The search goes stage by stage. Each stage is
given the same sampled images at every pair of levels of cascade.search_blur and
cascade.search_noise that it was trained on. The best pair is chosen, and the next stage
is given what this one makes with it. One compiled program of a stage takes all levels.

The best pair has the lowest FID if the weights of Inception are there, else the lowest
distance of power spectra, which shows blur and grain and needs no network.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade.cascade import Cascade, CascadeError, Levels, Stage, load
from sr3_jax.cascade.measurement import Measurement, truth_part, with_size
from sr3_jax.config import ConfigDict
from sr3_jax.data.input_pipeline import held_out
from sr3_jax.evaluation import summary
from sr3_jax.images import image_files
from sr3_jax.reports import line_plots
from sr3_jax.restoration.restorer import progress
from sr3_jax.runtime import activity, atomic_files, devices

Row = dict[str, Any]  # {'stage': str, 'side': int, 'blur', 'noise', metric: float, ...}
# The first of these metrics that was measured decides; less is better.
SCORES = {'fid': 'FID', 'spectrum_db': 'spectrum distance, dB'}


def search_run(config: ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """Search (`--mode=sweep`): write search.json and search.png, print the best levels.

  The configured levels are only used for stages without a choice.

  Returns:
    A row for every stage and pair of levels.

  Raises:
    CascadeError: there is nothing to choose.
    UserError: a model, the images, statistics or a classifier cannot be read.
  """
  workdir = epath.Path(workdir)
  cascade = load(config, workdir)
  grids = {s.place: grid(config, s) for s in cascade.stages}
  if not any(len(levels) > 1 for levels in grids.values()):
    raise CascadeError(
      'no stage was trained on several of the levels in cascade.search_blur and '
      "cascade.search_noise: only those of the task 'cascade' are given any"
    )
  config = with_size(config, cascade)
  held, count = held_out(config), config.sweep.num_images
  more = {'cascade': _without_levels(cascade), 'num_images': count}
  search = _Search.open(config, cascade, held, workdir / 'search', count, more)
  with activity.doing('reading the held-out images'):
    search.hosts = list(search.batches)
  search.batches.close()
  # Each stage samples at all its levels, and once more for the stage that follows.
  steps = [s.num_steps * (len(grids[s.place]) + 1) for s in cascade.stages]
  steps[-1] -= cascade.stages[-1].num_steps
  rows: list[Row] = []
  with progress(sum(steps) * len(search.hosts)) as search.on_steps:
    for stage in cascade.stages:
      rows += search.measure(stage, grids[stage.place])
  if jax.process_index() == 0:
    _write(workdir, search, rows)
  return rows


def _without_levels(cascade: Cascade) -> dict[str, object]:
  """Return what a cascade's images depend on, beside the levels that are searched."""
  found = {}
  for key, part in cascade.made_by.items():
    if isinstance(part, dict):
      part = {k: v for k, v in part.items() if k not in Levels._fields}
    found[key] = part
  return found


def grid(config: ConfigDict, stage: Stage) -> list[Levels]:
  """Return the pairs of levels to try, no augmentation first.

  A stage that is not given levels has none.
  """
  if not stage.augmented:
    return []
  axes = []
  for name, most in zip(Levels._fields, stage.max_levels, strict=True):
    values = sorted({0.0, *map(float, config.cascade[f'search_{name}'])})
    axes.append([value for value in values if 0 <= value <= most])
    if len(axes[-1]) < len(values):
      logging.info('%s: %s was trained up to %g', stage.name, name, most)
  return [Levels(*pair) for pair in itertools.product(*axes)]


@dataclasses.dataclass
class _Search(Measurement):
  """The search over the levels of all stages."""

  # All batches of held-out images, on the host.
  hosts: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
  # Number of a stage -> the images it is given, batch by batch, on the host.
  inputs: dict[int, list[np.ndarray]] = dataclasses.field(default_factory=dict)

  # Number of a stage -> its best levels, of the stages that have been measured.
  chosen: dict[int, Levels] = dataclasses.field(default_factory=dict)

  def measure(self, stage: Stage, levels: Sequence[Levels]) -> list[Row]:
    """Measure a stage at all pairs of levels, and choose the best.

    The stages before it have been measured. A stage without levels has no rows.

    Raises:
      CascadeError: the images are broken at all levels.
    """
    self._add_truth(stage)
    parts = {pair: self._part(stage, pair) for pair in levels}
    for pair, part in parts.items():
      self._add(stage, pair, part)
    devices.barrier(f'measured {stage.place}')
    methods = {part: [part] for part in parts.values()}
    values = summary.values(self.rows(stage, methods, intervals=False))
    about = {'stage': stage.name, 'side': stage.side}
    rows = [about | pair._asdict() | values[part] for pair, part in parts.items()]
    if rows and not any(math.isfinite(score_of(row)[1]) for row in rows):
      raise CascadeError(f'{stage.name}: no finite score at any level: train it on')
    if stage.place and stage.place not in self.inputs:  # all was measured before
      self.on_steps(self.cascade.stages[stage.place - 1].num_steps * len(self.hosts))
    if rows:
      self.chosen[stage.place] = best(rows)
    return rows

  def _part(self, stage: Stage, pair: Levels) -> str:
    """Return the part of the records: SIDE_BLUR_NOISE of all stages up to this one."""
    pairs = self.chosen | {stage.place: pair}
    sides = {at.place: at.side for at in self.cascade.stages}
    return ' '.join(f'{sides[k]}_{p.blur:g}_{p.noise:g}' for k, p in pairs.items())

  def _add_truth(self, stage: Stage) -> None:
    """Measure true images of the stage's size."""
    part = truth_part(self.cascade, stage.side)
    for number, host in enumerate(self.hosts):
      if not self.is_done([part], host):
        batch = self.batch(number, host)
        truth = batch.truth[stage.side]
        values = self.scorers[stage.side].of_set(truth, batch.sharded)
        self.records.add(part, number, values)

  def _add(self, stage: Stage, pair: Levels, part: str) -> None:
    """Measure what a stage makes at a pair of levels."""
    for number, host in enumerate(self.hosts):
      if self.is_done([part], host):
        self.on_steps(stage.num_steps)
      else:
        output = self._sample(stage, number, pair)
        self.add_sampled(part, stage, output, self.batch(number, host))

  def _sample(self, stage: Stage, number: int, pair: Levels) -> jax.Array:
    """Return what a stage makes for batch `number`, after the others at their best."""
    if stage.place and stage.place not in self.inputs:
      before = self.cascade.stages[stage.place - 1]
      levels = self.chosen.get(before.place, Levels())
      made = (self._sample(before, k, levels) for k in range(len(self.hosts)))
      self.inputs[stage.place] = list(map(devices.gather, made))
      self.inputs.pop(before.place, None)
    image = devices.shard(self.inputs[stage.place][number]) if stage.place else None
    return stage(image, self.wanted(self.hosts[number]), self.on_steps, pair)


def score_of(row: Row) -> tuple[str, float]:
  """Return the name and the value of what decides; infinity for what is no number."""
  name = next((name for name in SCORES if name in row), 'spectrum_db')
  value = row.get(name, math.nan)
  return name, value if math.isfinite(value) else math.inf


def best(rows: Sequence[Row]) -> Levels:
  """Return the levels of the lowest score; of equal ones the first, the mildest."""
  row = min(rows, key=lambda row: score_of(row)[1])
  return Levels(row['blur'], row['noise'])


def _write(workdir: epath.Path, search: _Search, rows: Sequence[Row]) -> None:
  """Write and print what was found."""
  stages = search.cascade.stages
  pairs = [search.chosen.get(stage.place, Levels()) for stage in stages]
  levels = {'blur': [p.blur for p in pairs], 'noise': [p.noise for p in pairs]}
  found = {'made_by': search.made_by, 'chosen': levels, 'rows': rows}
  atomic_files.write_json(workdir / 'search.json', found)
  image_files.write(workdir / 'search.png', plot(rows))
  print(format_rows(rows))
  print(f'table: {workdir / "search.json"}, plot: {workdir / "search.png"}')
  print(f'best: {command(levels)}')


def command(levels: Mapping[str, Sequence[float]]) -> str:
  """Return levels as options for the command line."""
  options = []
  for name, values in levels.items():
    listed = ', '.join(f'{value:g}' for value in values)
    options.append(f'--config.cascade.{name}="({listed})"')
  return ' '.join(options)


def format_rows(rows: Sequence[Row]) -> str:
  """Return rows, stage by stage, as text, with the best of each marked by a star."""
  lines = {}
  for side, group in itertools.groupby(rows, key=lambda row: row['side']):
    own = list(group)
    for row in own:
      star = ' *' if best(own) == (row['blur'], row['noise']) else ''
      name = f'{side}: blur {row["blur"]:g}, noise {row["noise"]:g}{star}'
      lines[name] = {k: value for k, value in row.items() if isinstance(value, float)}
  return summary.format_table(lines)


def plot(rows: Sequence[Row]) -> np.ndarray:
  """Plot the scores: a panel for each stage, with a line for each blur over the noise.

  Returns:
    uint8 [H, W, 3].
  """
  blurs = sorted({row['blur'] for row in rows})
  styles = {
    f'blur {blur:g}': (k, k % len(line_plots.DASHES)) for k, blur in enumerate(blurs)
  }
  panels = []
  for side, group in itertools.groupby(rows, key=lambda row: row['side']):
    own = list(group)
    name = score_of(own[0])[0]
    lines = {}
    for label, blur in zip(styles, blurs, strict=True):
      line = [r for r in own if r['blur'] == blur and math.isfinite(score_of(r)[1])]
      if line:
        lines[label] = ([r['noise'] for r in line], [r[name] for r in line])
    values = [value for _, ys in lines.values() for value in ys]
    margin = 0.05 * (max(values) - min(values)) + 0.01
    limits = min(values) - margin, max(values) + margin
    text = f'{own[0]["stage"]}, {side} x {side}: {SCORES[name]}'
    panels.append(line_plots.Panel(text, lines, limits, linear=True))
  title = 'noise of the input, share in the amplitude'
  return line_plots.chart(panels, styles, x_title=title)
