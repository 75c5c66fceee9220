"""Which augmentation a cascade's stages want: --mode=sweep of a cascade.

Stages that enlarge are told how blurred and noisy their input is, and one chooses that
when one samples: nothing, and they take over every flaw of the stage before; much, and
they draw another picture. The search goes stage by stage. Each is given the same drawn
images at every pair of levels of cascade.search_blur and cascade.search_noise, as far
as it was trained on them; the best pair stays, and what the stage makes with it is what
the next one is given. One compiled program of a stage takes all levels.

What is best is told by FID where the weights of Inception are there, else by the
distance of power spectra, which knows blur and grain and needs no network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade.cascade import Cascade, CascadeError, Stage, fits, job, load
from sr3_jax.cascade.evaluate import (
  powers,
  scorer,
  sized,
  truth_name,
  truths,
)
from sr3_jax.config import as_json
from sr3_jax.data import input_pipeline, sources
from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators, load_evaluators
from sr3_jax.evaluation.records import open_records
from sr3_jax.images import image_files
from sr3_jax.metrics import reference_statistics
from sr3_jax.reports import line_plots
from sr3_jax.restoration.restorer import progress
from sr3_jax.runtime import atomic_files, devices
from sr3_jax.runtime.version import __version__

Levels = tuple[float, float]  # blur and noise
Row = dict[str, Any]  # {'stage', 'side', 'blur', 'noise', metric: value, ...}
# The first of these that was measured decides; less is better.
SCORES = {'fid': 'FID', 'spectrum_db': 'spectrum distance, dB'}


def search_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> list[Row]:
  """--mode=sweep: writes search.json and search.png; prints the best levels.

  Args:
    config: of the cascade; its own levels are only used by stages without choice.
    workdir: of the cascade.

  Returns:
    A row for every stage and pair of levels.

  Raises:
    CascadeError: there is nothing to choose.
    sources.DataError, hub.HubError, checkpoint.CheckpointError: as they say.
  """
  workdir = epath.Path(workdir)
  cascade = load(config, workdir)
  config = sized(config, cascade)
  grids = {s.place: grid(config, s) for s in cascade.stages}
  if not any(len(levels) > 1 for levels in grids.values()):
    raise CascadeError(
      'no stage was trained on several of the levels in cascade.search_blur and '
      "cascade.search_noise: only those of the task 'cascade' know of any"
    )
  evaluators = load_evaluators(config)
  held = input_pipeline.held_out(config)
  with fits('eval.batch_size'):
    reader = input_pipeline.evaluation_data(config, config.sweep.num_images, held)
  batches = list(reader)
  reader.close()
  made_by = _made_by(config, cascade, evaluators, held)
  records = open_records(workdir / 'search', made_by)
  # Each stage at all its levels, and once for the stage that follows.
  steps = [s.num_steps * (len(grids[s.place]) + 1) for s in cascade.stages]
  steps[-1] -= cascade.stages[-1].num_steps
  chosen: dict[int, Levels] = {}
  rows: list[Row] = []
  with progress(sum(steps) * len(batches)) as on_steps:
    search = _Search(config, cascade, evaluators, records, batches, on_steps)
    for stage in cascade.stages:
      found = search.stage(stage, grids[stage.place], chosen)
      rows += found
      if found:
        chosen[stage.place] = best(found)
  if jax.process_index() == 0:
    report = {'chosen': _levels(cascade, chosen), 'rows': rows}
    atomic_files.write_json(workdir / 'search.json', {'made_by': made_by} | report)
    image_files.write(workdir / 'search.png', plot(rows))
    print(format_rows(rows, chosen.values()))
    print(f'table: {workdir / "search.json"}, plot: {workdir / "search.png"}')
    print(f'best: {command(_levels(cascade, chosen))}')
  return rows


def grid(config: ml_collections.ConfigDict, stage: Stage) -> list[Levels]:
  """Pairs of levels to try, no augmentation first; none for a stage without levels."""
  if not stage.augmented:
    return []
  kept = []
  for name, most in zip(('blur', 'noise'), stage.trained, strict=True):
    values = sorted({0.0, *map(float, config.cascade[f'search_{name}'])})
    kept.append([value for value in values if 0 <= value <= most])
    if len(kept[-1]) < len(values):
      logging.info('%s: %s was trained up to %g', stage.name, name, most)
  return [(blur, noise) for blur in kept[0] for noise in kept[1]]


class _Search:
  """What the search of every stage shares."""

  def __init__(self, config, cascade: Cascade, evaluators, records, batches, on_steps):
    self.cascade, self.evaluators, self.records = cascade, evaluators, records
    self.batches, self.on_steps = batches, on_steps
    self.labels = cascade.labels(config.cascade.classes)
    # By a stage's place, of every batch the images that it is given, on the host.
    self.given: dict[int, list[np.ndarray]] = {}

  def stage(
    self, stage: Stage, levels: Sequence[Levels], chosen: Mapping[int, Levels]
  ) -> list[Row]:
    """Measures a stage at all levels; rows of them, none if it has no levels."""
    name = ' '.join(
      f'{self.cascade.stages[place].side}_{blur:g}_{noise:g}'
      for place, (blur, noise) in chosen.items()
    )
    parts = {pair: f'{name} {stage.side}_{pair[0]:g}_{pair[1]:g}' for pair in levels}
    parts = {pair: part.strip() for pair, part in parts.items()}
    truth = truth_name(self.cascade, stage.side)
    self._measure_truth(truth, stage)
    for pair, part in parts.items():
      self._measure(stage, pair, part, chosen)
    devices.barrier(f'measured {stage.place}')
    inception = self.evaluators.nets.get('inception')
    against = self.evaluators.reference if stage.side == self.cascade.side else None
    if inception and against is None:
      features = summary.gather_features(self.records, truth)
      against = reference_statistics.of_features(features, {})
    table = summary.table(
      self.records,
      {part: [part] for part in parts.values()},
      scale=None,
      reference=against,
      probabilities=inception.probabilities if inception else None,
      intervals=False,
    )
    values = summary.values(table)
    rows = [
      {'stage': stage.name, 'side': stage.side, 'blur': pair[0], 'noise': pair[1]}
      | values[part]
      for pair, part in parts.items()
    ]
    if rows and not any(math.isfinite(score_of(row)[1]) for row in rows):
      raise CascadeError(f'{stage.name}: no finite score at any level: train it on')
    if stage.place and stage.place not in self.given:  # all was measured before
      self.on_steps(self.cascade.stages[stage.place - 1].num_steps * len(self.batches))
    return rows

  def _measure_truth(self, part: str, stage: Stage) -> None:
    score = scorer(stage.side, self.evaluators)
    for number, host in enumerate(self.batches):
      if not self._has(part, host):
        batch = devices.shard(host)
        values = score.of_set(self._truth(batch, stage), batch)
        self.records.add(part, number, values)

  def _measure(self, stage: Stage, pair: Levels, part: str, chosen) -> None:
    score = scorer(stage.side, self.evaluators)
    for number, host in enumerate(self.batches):
      if self._has(part, host):
        self.on_steps(stage.num_steps)
        continue
      output, drawn = self._output(stage, number, pair, chosen)
      batch = devices.shard(host)
      judged = {k: batch[k] for k in ('mask', 'index')}
      if self.cascade.num_classes:
        judged['label'] = drawn['label']
      values = score.of_set(output, judged)
      values |= powers(output, self._truth(batch, stage), host['mask'])
      self.records.add(part, number, values)

  def _output(self, stage: Stage, number: int, pair: Levels, chosen) -> Any:
    """What a stage makes of batch `number`, and the batch that says what is drawn."""
    host = self.batches[number]
    places = np.where(host['mask'], host['index'], 0).tolist()
    jobs = [job(place, self.labels) for place in places]
    drawn = self.cascade.batch(jobs, len(jobs))
    image = None
    if stage.place:
      image = devices.shard(self._given_to(stage, chosen)[number])
    blur, noise = pair
    return stage(image, drawn, self.on_steps, blur=blur, noise=noise), drawn

  def _given_to(self, stage: Stage, chosen: Mapping[int, Levels]) -> list[np.ndarray]:
    """What the stage before makes with the levels chosen for it, batch by batch."""
    if stage.place not in self.given:
      before = self.cascade.stages[stage.place - 1]
      pair = chosen.get(before.place, (0.0, 0.0))
      made = (
        self._output(before, number, pair, chosen)[0]
        for number in range(len(self.batches))
      )
      self.given[stage.place] = [devices.gather(image) for image in made]
      self.given.pop(before.place, None)
    return self.given[stage.place]

  def _truth(self, batch, stage: Stage) -> jax.Array:
    sides = tuple(s.side for s in self.cascade.stages)
    return truths(self.cascade.stages[0].model, sides)(batch['image'])[stage.side]

  def _has(self, part: str, host: dict[str, np.ndarray]) -> bool:
    index = host['index'][host['mask']]
    return all(devices.everywhere([self.records.has(part, index)]))


def score_of(row: Row) -> tuple[str, float]:
  """Name and value of what decides; a value that is no number counts as infinite."""
  name = next((name for name in SCORES if name in row), 'spectrum_db')
  value = row.get(name, math.nan)
  return name, value if math.isfinite(value) else math.inf


def best(rows: Sequence[Row]) -> Levels:
  """The levels of the least score; of equal ones the first, which is the mildest."""
  row = min(rows, key=lambda row: score_of(row)[1])
  return row['blur'], row['noise']


def _levels(cascade: Cascade, chosen: Mapping[int, Levels]) -> dict[str, list[float]]:
  pairs = [chosen.get(stage.place, (0.0, 0.0)) for stage in cascade.stages]
  return {'blur': [b for b, _ in pairs], 'noise': [n for _, n in pairs]}


def command(levels: Mapping[str, Sequence[float]]) -> str:
  """Levels as one writes them behind a command."""
  values = lambda one: ', '.join(f'{value:g}' for value in one)
  return ' '.join(f'--config.cascade.{k}="({values(v)})"' for k, v in levels.items())


def format_rows(rows: Sequence[Row], chosen: Any) -> str:
  """All rows as text, the best of each stage marked."""
  chosen = list(chosen)
  sides = list(dict.fromkeys(row['side'] for row in rows))
  mark = lambda row: (
    ' *' if (row['blur'], row['noise']) == chosen[sides.index(row['side'])] else ''
  )
  return summary.format_table(
    {
      f'{row["side"]}: blur {row["blur"]:g}, noise {row["noise"]:g}{mark(row)}': {
        key: value for key, value in row.items() if isinstance(value, float)
      }
      for row in rows
    }
  )


def plot(rows: Sequence[Row]) -> np.ndarray:
  """A panel for each stage: the score against the noise, a line for each blur.

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


def _made_by(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  held: input_pipeline.HeldOut,
) -> dict[str, Any]:
  """All that a score depends on, beside levels."""
  whole = as_json(config)
  about = {
    key: {k: v for k, v in part.items() if k not in ('blur', 'noise')}
    if isinstance(part, dict)
    else part
    for key, part in cascade.about.items()
  }
  return {
    'cascade': about,
    'classes': whole['cascade']['classes'],
    'data': whole['data'],
    'num_images': whole['sweep']['num_images'],
    'images': sources.fingerprint(held[0]),
    **evaluators.fingerprints(),
    'sr3_jax': __version__,
  }
