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
from collections.abc import Iterable, Mapping, Sequence
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
from sr3_jax.runtime import atomic_files, devices

Row = dict[str, Any]  # {'stage': str, 'side': int, 'blur', 'noise', metric: float, ...}
# The first of these metrics that was measured decides; less is better.
SCORES = {'fid': 'FID', 'spectrum_db': 'spectrum distance, dB'}


def search_run(config: ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """Search (`--mode=sweep`): write search.json and search.png, print the best levels.

  Args:
    config: of the cascade; its own levels are only used for stages without a choice.
    workdir: of the cascade.

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
  search.hosts = list(search.batches)
  search.batches.close()
  # Each stage samples at all its levels, and once more for the stage that follows.
  steps = [s.num_steps * (len(grids[s.place]) + 1) for s in cascade.stages]
  steps[-1] -= cascade.stages[-1].num_steps
  chosen: dict[int, Levels] = {}
  rows: list[Row] = []
  with progress(sum(steps) * len(search.hosts)) as search.on_steps:
    for stage in cascade.stages:
      found = search.measure(stage, grids[stage.place], chosen)
      rows += found
      if found:
        chosen[stage.place] = best(found)
  if jax.process_index() == 0:
    _write(workdir, search, rows, chosen)
  return rows


def _without_levels(cascade: Cascade) -> dict[str, object]:
  """Return what a cascade's images depend on, beside the levels that are searched."""
  return {
    key: {k: v for k, v in part.items() if k not in ('blur', 'noise')}
    if isinstance(part, dict)
    else part
    for key, part in cascade.made_by.items()
  }


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

  def measure(
    self, stage: Stage, levels: Sequence[Levels], chosen: Mapping[int, Levels]
  ) -> list[Row]:
    """Measure a stage at all levels.

    Args:
      stage: to measure; the stages before it have been measured.
      levels: pairs to try.
      chosen: number of an earlier stage -> the pair that was chosen for it.

    Returns:
      A row for each pair; none for a stage without levels.

    Raises:
      CascadeError: the images are broken at all levels.
    """
    self._add_truth(stage)
    parts = {pair: self._part(stage, pair, chosen) for pair in levels}
    for pair, part in parts.items():
      self._add(stage, pair, part, chosen)
    devices.barrier(f'measured {stage.place}')
    methods = {part: [part] for part in parts.values()}
    table = self.rows(stage, methods, intervals=False)
    values = summary.values(table)
    about = {'stage': stage.name, 'side': stage.side}
    rows = [about | pair._asdict() | values[part] for pair, part in parts.items()]
    if rows and not any(math.isfinite(score_of(row)[1]) for row in rows):
      raise CascadeError(f'{stage.name}: no finite score at any level: train it on')
    if stage.place and stage.place not in self.inputs:  # all was measured before
      self.on_steps(self.cascade.stages[stage.place - 1].num_steps * len(self.hosts))
    return rows

  def _part(self, stage: Stage, pair: Levels, chosen: Mapping[int, Levels]) -> str:
    """Return the part of the records: SIDE_BLUR_NOISE of all stages up to this one."""
    pairs = [(self.cascade.stages[place], levels) for place, levels in chosen.items()]
    return ' '.join(
      f'{at.side}_{blur:g}_{noise:g}' for at, (blur, noise) in [*pairs, (stage, pair)]
    )

  def _add_truth(self, stage: Stage) -> None:
    """Measure true images of the stage's size."""
    part = truth_part(self.cascade, stage.side)
    for number, host in enumerate(self.hosts):
      if not self.is_done([part], host):
        batch = self.batch(number, host)
        truth = batch.truth[stage.side]
        values = self.scorers[stage.side].of_set(truth, batch.sharded)
        self.records.add(part, number, values)

  def _add(
    self, stage: Stage, pair: Levels, part: str, chosen: Mapping[int, Levels]
  ) -> None:
    """Measure what a stage makes at a pair of levels."""
    for number, host in enumerate(self.hosts):
      if self.is_done([part], host):
        self.on_steps(stage.num_steps)
      else:
        output = self._sample(stage, number, pair, chosen)
        self.add_sampled(part, stage, output, self.batch(number, host))

  def _sample(
    self, stage: Stage, number: int, pair: Levels, chosen: Mapping[int, Levels]
  ) -> jax.Array:
    """Return what a stage makes for batch `number`."""
    image, wanted = None, self.wanted(self.hosts[number])
    if stage.place:
      image = devices.shard(self._inputs_of(stage, chosen)[number])
    return stage(image, wanted, self.on_steps, pair)

  def _inputs_of(self, stage: Stage, chosen: Mapping[int, Levels]) -> list[np.ndarray]:
    """Return what the stage before makes at its chosen levels, batch by batch."""
    if stage.place not in self.inputs:
      before = self.cascade.stages[stage.place - 1]
      pair = chosen.get(before.place, Levels())
      self.inputs[stage.place] = [
        devices.gather(self._sample(before, number, pair, chosen))
        for number in range(len(self.hosts))
      ]
      self.inputs.pop(before.place, None)
    return self.inputs[stage.place]


def score_of(row: Row) -> tuple[str, float]:
  """Return the name and the value of what decides; infinity for what is no number."""
  name = next((name for name in SCORES if name in row), 'spectrum_db')
  value = row.get(name, math.nan)
  return name, value if math.isfinite(value) else math.inf


def best(rows: Sequence[Row]) -> Levels:
  """Return the levels of the lowest score; of equal ones the first, the mildest."""
  row = min(rows, key=lambda row: score_of(row)[1])
  return Levels(row['blur'], row['noise'])


def _write(
  workdir: epath.Path,
  search: _Search,
  rows: Sequence[Row],
  chosen: Mapping[int, Levels],
) -> None:
  """Write and print what was found."""
  pairs = [chosen.get(stage.place, Levels()) for stage in search.cascade.stages]
  levels = {'blur': [p.blur for p in pairs], 'noise': [p.noise for p in pairs]}
  found = {'made_by': search.made_by, 'chosen': levels, 'rows': rows}
  atomic_files.write_json(workdir / 'search.json', found)
  image_files.write(workdir / 'search.png', plot(rows))
  print(format_rows(rows, chosen.values()))
  print(f'table: {workdir / "search.json"}, plot: {workdir / "search.png"}')
  print(f'best: {command(levels)}')


def command(levels: Mapping[str, Sequence[float]]) -> str:
  """Return levels as options for the command line."""
  options = []
  for name, values in levels.items():
    listed = ', '.join(f'{value:g}' for value in values)
    options.append(f'--config.cascade.{name}="({listed})"')
  return ' '.join(options)


def format_rows(rows: Sequence[Row], chosen: Iterable[Levels]) -> str:
  """Return all rows as text, with the best of each stage marked by a star.

  Args:
    rows: stage by stage.
    chosen: the best levels of each stage in `rows`.
  """
  sides = dict.fromkeys(row['side'] for row in rows)
  best_of = dict(zip(sides, chosen, strict=True))
  lines = {}
  for row in rows:
    name = f'{row["side"]}: blur {row["blur"]:g}, noise {row["noise"]:g}'
    if (row['blur'], row['noise']) == best_of[row['side']]:
      name += ' *'
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
  for side in dict.fromkeys(row['side'] for row in rows):
    own = [row for row in rows if row['side'] == side]
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
