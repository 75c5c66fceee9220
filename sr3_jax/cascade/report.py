"""Writes the report of a cascade: pictures, protocol, the paper's tables beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from sr3_jax.cascade.cascade import Stage
from sr3_jax.cascade.measurement import Measurement, row_name
from sr3_jax.config import as_json
from sr3_jax.evaluation import report_writer, summary
from sr3_jax.images import image_files
from sr3_jax.metrics import bootstrap
from sr3_jax.reports import paper
from sr3_jax.reports.data import Sheet, SheetRow
from sr3_jax.restoration.restorer import TRUTH
from sr3_jax.weights import hub


def write(made: Measurement, rows: dict[str, summary.Row], folder: epath.Path) -> None:
  """Write the report and a sheet of sampled images.

  Args:
    made: the measurement.
    rows: the table, result of `evaluate.table`.
    folder: of the report; its pictures are there already.
  """
  cascade = made.cascade
  parts, abouts = {}, {}
  for stage in cascade.stages:
    name = row_name(stage, 'sampled')
    parts[name] = [row_name(stage, 'drawn')]
    abouts[name] = _about(stage, 'in the cascade')
    if stage.place:
      name = row_name(stage, 'true')
      parts[name] = [name]
      abouts[name] = _about(stage, 'alone, on downsampled true images')
  sheets = _sheets(made)
  image_files.write(
    folder / 'samples.png', report_writer.contact_sheet(folder, sheets[0])
  )
  generated = cascade.side == 256 and cascade.num_classes == 1000
  report_writer.write(
    folder,
    title=f'{folder.parent.name}, a cascade of {len(cascade.stages)} stages',
    records=made.records,
    methods={name: parts[name] for name in rows if name in parts},
    scale=paper.GENERATED if generated else None,
    image_size=cascade.side,
    rows=rows,
    sheets=sheets,
    left_out=made.evaluators.left_out,
    protocol=_protocol(made),
    abouts=abouts,
    curves={},
  )


def _sheets(made: Measurement) -> list[Sheet]:
  """Return the sheets of sampled images, and of stages alone if there are several."""
  cascade, count = made.cascade, made.config.sample.num_images
  first = made.records.scalars(TRUTH)['index'][:count].tolist()
  sampled = {row_name(s, 'sampled'): row_name(s, 'drawn') for s in cascade.stages}
  sheets = [_sheet('Sampled, stage by stage', sampled, first)]
  names = [f'true {cascade.stages[0].side}']
  for stage in cascade.stages[1:]:
    names += [row_name(stage, 'true'), f'true {stage.side}']
  if len(names) > 1:
    alone = {name: name for name in names}
    sheets.append(_sheet('Stages alone, on true inputs', alone, first))
  return sheets


def _sheet(title: str, pictures: Mapping[str, str], numbers: Sequence[int]) -> Sheet:
  """Return a sheet of report.json with a row for each number of an image.

  `pictures` has the title of each column and the name of its pictures.
  """
  rows: list[SheetRow] = []
  for i in numbers:
    cells: list[str | None] = [
      f'pictures/{i:05d}_{name}.png' for name in pictures.values()
    ]
    rows.append({'label': f'image {i}', 'cells': cells, 'index': i})
  return {'title': title, 'columns': list(pictures), 'rows': rows}


def _about(stage: Stage, how: str) -> str:
  """Return a sentence about what made a row."""
  levels = ''
  if stage.place:
    levels = f', blur {stage.levels.blur:g}, noise {stage.levels.noise:g}'
  return (
    f'{stage.name} {how}: {stage.num_steps} steps, guidance {stage.guidance:g}{levels}.'
  )


def _protocol(made: Measurement) -> dict[str, Any]:
  """Return all that somebody needs to measure the same again."""
  config, cascade, d = made.config, made.cascade, made.config.data
  name = epath.Path(d.eval_path or d.path).name or d.source
  sides = ' to '.join(str(stage.side) for stage in cascade.stages)
  photographs = made.records.photographs(TRUTH)
  counted = bootstrap.counted(len(photographs), len(np.unique(photographs)))
  classes = len(config.cascade.classes) or cascade.num_classes
  in_turn = f', of {classes} classes in turn' if classes else ''
  return {
    'task': f'cascade, {sides}',
    'degradation': 'true inputs and truths of smaller stages by means of blocks, '
    'rounded to 8 bits, as images between stages are',
    'images': f'{counted} of {name}, {cascade.side} x {cascade.side}, crop {d.crop!r}; '
    f'as many sampled{in_turn}',
    'image list': report_writer.list_hash(made.records),
    **report_writer.CONVENTIONS,
    'border': f'{config.eval.border} pixels left out by PSNR and SSIM',
    'cascade': made.made_by['cascade'],
    'seeds': str(cascade.seed),
    **made.evaluators.protocol(),
    'machine': report_writer.machine(),
    'configuration': as_json(hub.publishable(config)),
  }
