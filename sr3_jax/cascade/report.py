"""Writes the report of a cascade: pictures, protocol, the paper's tables beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from etils import epath

from sr3_jax.cascade.cascade import Cascade, Stage
from sr3_jax.config import as_json
from sr3_jax.evaluation import report_writer, summary
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.evaluation.records import Records
from sr3_jax.images import image_files
from sr3_jax.reports import paper
from sr3_jax.restoration.restorer import TRUTH
from sr3_jax.weights import hub


def sampled_row(cascade: Cascade, stage: Stage) -> str:
  """Return the name of a stage's row in the cascade: '16 from sampled 8'."""
  return _row(cascade, stage, 'sampled')


def sampled_part(cascade: Cascade, stage: Stage) -> str:
  """Return the part of the records, and name of the pictures, of `sampled_row`.

  It has the word that rows had before, so that records written then are found.
  """
  return _row(cascade, stage, 'drawn')


def alone_row(cascade: Cascade, stage: Stage) -> str:
  """Return the name of a stage's row on true inputs, and of its part of the records."""
  return _row(cascade, stage, 'true')


def _row(cascade: Cascade, stage: Stage, inputs: str) -> str:
  if not stage.place:
    return f'{stage.side} {inputs}'
  return f'{stage.side} from {inputs} {cascade.stages[stage.place - 1].side}'


def write(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  records: Records,
  rows: dict[str, summary.Row],
  folder: epath.Path,
  made_by: Mapping[str, object],
) -> None:
  """Write the report and a sheet of sampled images.

  Args:
    config: of the cascade.
    cascade: the models.
    evaluators: the networks that measured.
    records: of single images.
    rows: the table, result of `evaluate.table`.
    folder: of the report; its pictures are there already.
    made_by: all that the records depend on.
  """
  stages = {sampled_row(cascade, s): s for s in cascade.stages}
  alone = {alone_row(cascade, s): s for s in cascade.stages[1:]}
  parts = {name: [sampled_part(cascade, s)] for name, s in stages.items()}
  parts |= {name: [name] for name in alone}
  abouts = {name: _about(s, 'in the cascade') for name, s in stages.items()}
  abouts |= {
    name: _about(s, 'alone, on downsampled true images') for name, s in alone.items()
  }
  sheets = _sheets(config, cascade, records)
  image_files.write(
    folder / 'samples.png', report_writer.contact_sheet(folder, sheets[0])
  )
  generated = cascade.side == 256 and cascade.num_classes == 1000
  report_writer.write(
    folder,
    title=f'{folder.parent.name}, a cascade of {len(cascade.stages)} stages',
    records=records,
    methods={name: parts[name] for name in rows if name in parts},
    scale=paper.GENERATED if generated else None,
    image_size=cascade.side,
    rows=rows,
    sheets=sheets,
    left_out=evaluators.left_out,
    protocol=_protocol(config, cascade, evaluators, records, made_by),
    abouts=abouts,
    curves={},
  )


def _sheets(
  config: ml_collections.ConfigDict, cascade: Cascade, records: Records
) -> list[dict[str, Any]]:
  """Return the sheets of sampled images, and of stages alone if there are several."""
  first = records.scalars(TRUTH)['index'][: config.sample.num_images].tolist()
  sampled = {sampled_row(cascade, s): sampled_part(cascade, s) for s in cascade.stages}
  sheets = [_sheet('Sampled, stage by stage', sampled, first)]
  names = [f'true {cascade.stages[0].side}']
  for stage in cascade.stages[1:]:
    names += [alone_row(cascade, stage), f'true {stage.side}']
  if len(names) > 1:
    alone = {name: name for name in names}
    sheets.append(_sheet('Stages alone, on true inputs', alone, first))
  return sheets


def _sheet(
  title: str, pictures: Mapping[str, str], numbers: Sequence[int]
) -> dict[str, Any]:
  """Return a sheet of report.json.

  Args:
    title: of the sheet.
    pictures: title of a column -> name of its pictures.
    numbers: of the images, one for each row.
  """
  rows = [
    {
      'label': f'image {i}',
      'cells': [f'pictures/{i:05d}_{name}.png' for name in pictures.values()],
      'index': i,
    }
    for i in numbers
  ]
  return {'title': title, 'columns': list(pictures), 'rows': rows}


def _about(stage: Stage, how: str) -> str:
  """Return a sentence about what made a row."""
  levels = f', blur {stage.blur:g}, noise {stage.noise:g}' if stage.place else ''
  return (
    f'{stage.name} {how}: {stage.num_steps} steps, guidance {stage.guidance:g}{levels}.'
  )


def _protocol(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  records: Records,
  made_by: Mapping[str, object],
) -> dict[str, Any]:
  """Return all that somebody needs to measure the same again."""
  d = config.data
  name = epath.Path(d.eval_path or d.path).name or d.source
  sides = ' to '.join(str(stage.side) for stage in cascade.stages)
  count = len(records.scalars(TRUTH)['index'])
  classes = len(config.cascade.classes) or cascade.num_classes
  in_turn = f', of {classes} classes in turn' if classes else ''
  return {
    'task': f'cascade, {sides}',
    'degradation': 'true inputs and truths of smaller stages by means of blocks, '
    'rounded to 8 bits, as images between stages are',
    'images': f'{count} of {name}, {cascade.side} x {cascade.side}, crop {d.crop!r}; '
    f'as many sampled{in_turn}',
    'image list': report_writer.list_hash(records),
    **report_writer.CONVENTIONS,
    'border': f'{config.eval.border} pixels left out by PSNR and SSIM',
    'cascade': made_by['cascade'],
    'seeds': str(cascade.seed),
    **evaluators.protocol(),
    'machine': report_writer.machine(),
    'configuration': as_json(hub.publishable(config)),
  }
