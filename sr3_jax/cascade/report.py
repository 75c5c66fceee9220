"""The report of a cascade: its pictures, its protocol, the paper's tables beside it."""

from typing import Any

import ml_collections
from etils import epath

from sr3_jax.cascade.cascade import Cascade, Stage, alone_name, drawn_name
from sr3_jax.config import as_json
from sr3_jax.evaluation import report_writer, summary
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.evaluation.records import Records
from sr3_jax.images import image_files
from sr3_jax.reports import paper
from sr3_jax.restoration.restorer import TRUTH
from sr3_jax.weights import hub


def write(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  records: Records,
  rows: dict[str, summary.Row],
  folder: epath.Path,
  made_by: dict[str, Any],
) -> None:
  """Writes the report and a sheet of drawn images."""
  names = {drawn_name(cascade, s): s for s in cascade.stages}
  alone = {alone_name(cascade, s): s for s in cascade.stages[1:]}
  first = records.scalars(TRUTH)['index'][: config.sample.num_images].tolist()
  sheets = [_sheet('Drawn, stage by stage', list(names), first)]
  if alone:
    columns = [f'true {cascade.stages[0].side}']
    for name, stage in alone.items():
      columns += [name, f'true {stage.side}']
    sheets.append(_sheet('Stages alone, on true inputs', columns, first))
  image_files.write(
    folder / 'samples.png', report_writer.contact_sheet(folder, sheets[0])
  )
  generated = cascade.side == 256 and cascade.num_classes == 1000
  every = {name: [name] for name in (*alone, *names)}
  report_writer.write(
    folder,
    title=f'{folder.parent.name}, a cascade of {len(cascade.stages)} stages',
    records=records,
    methods={name: every[name] for name in rows if name in every},
    scale=paper.GENERATED if generated else None,
    image_size=cascade.side,
    rows=rows,
    sheets=sheets,
    left_out=evaluators.left_out,
    protocol=_protocol(config, cascade, evaluators, records, made_by),
    abouts={n: _about(s, 'in the cascade') for n, s in names.items()}
    | {n: _about(s, 'alone, on true images made small') for n, s in alone.items()},
    curves={},
  )


def _sheet(title: str, columns: list[str], numbers: list[int]) -> dict[str, Any]:
  rows = [
    {
      'label': f'image {i}',
      'cells': [f'pictures/{i:05d}_{column}.png' for column in columns],
      'index': i,
    }
    for i in numbers
  ]
  return {'title': title, 'columns': columns, 'rows': rows}


def _about(stage: Stage, how: str) -> str:
  levels = f', blur {stage.blur:g}, noise {stage.noise:g}' if stage.place else ''
  return (
    f'{stage.name} {how}: {stage.num_steps} steps, guidance {stage.guidance:g}{levels}.'
  )


def _protocol(
  config: ml_collections.ConfigDict,
  cascade: Cascade,
  evaluators: Evaluators,
  records: Records,
  made_by: dict[str, Any],
) -> dict[str, Any]:
  """What somebody needs to measure the same again."""
  d = config.data
  name = epath.Path(d.eval_path or d.path).name or d.source
  sides = ' to '.join(str(stage.side) for stage in cascade.stages)
  count = len(records.scalars(TRUTH)['index'])
  classes = len(config.cascade.classes) or cascade.num_classes
  return {
    'task': f'cascade, {sides}',
    'degradation': 'true inputs and truths of smaller stages by means of blocks, '
    'rounded to 8 bits, as images between stages are',
    'images': f'{count} of {name}, {cascade.side} x {cascade.side}, crop {d.crop!r}; '
    f'as many drawn' + (f', of {classes} classes in turn' if classes else ''),
    'image list': report_writer.list_hash(records),
    **report_writer.CONVENTIONS,
    'border': f'{config.eval.border} pixels left out by PSNR and SSIM',
    'cascade': made_by['cascade'],
    'seeds': str(cascade.seed),
    **evaluators.protocol(),
    'machine': report_writer.machine(),
    'configuration': as_json(hub.publishable(config)),
  }
