"""report.html: one self-contained page from report.json and the pictures beside it.

Texts come from anywhere: Jinja escapes all of them, svg.py its own, and the page's
content security policy lets nothing in but its own script and pictures.
"""

import base64
import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from etils import epath
from markupsafe import Markup

from sr3_jax import embed, svg
from sr3_jax.report_data import best, check, number, plain

_MAX_POINTS = 300  # of a curve
_CELL = 128  # pixels on the screen, about


def render(report: Mapping[str, Any], folder: epath.PathLike) -> str:
  """The page of a report.

  Args:
    report: what report.json holds.
    folder: where its pictures are.

  Returns:
    HTML that needs nothing else: no network, no other file.

  Raises:
    ReportError: keys or types aren't those of a report, or a picture is missing, is
      none, or isn't inside of the folder.
  """
  check(report)
  styles = {method['name']: i for i, method in enumerate(report['methods'])}
  sheets, note = pictures(report.get('sheets') or [], folder)
  curves, thinned = _curves(report.get('curves') or {}, styles)
  view = {
    'title': report['title'],
    'overline': 'Evaluation report',
    'summary': _summary(report),
    'notes': [note] if note else [],
    'table': results(
      report['metrics'],
      [('', report['table'], list(styles))],
      f'Over {_count(report["images"], "image")}. Below a value: its 95 % interval '
      'over images and, if there are several sampling seeds, the lowest and the '
      'highest of them. Where intervals overlap, “best” may be chance.',
    ),
    'metric_terms': [
      (f'{m["title"]}{better(m, ", ")}', m.get('about') or '')
      for m in report['metrics']
    ],
    'method_terms': [(m['name'], m.get('about') or '') for m in report['methods']],
    'paper': _paper(report),
    'samples': sheets[0] if sheets else None,
    'extremes': sheets[1:],
    'plane': plane(
      [('', report['table'], list(styles))], report['metrics'], report.get('perceptual')
    ),
    'distributions': _distributions(report, styles),
    'curves': curves,
    'thinned': thinned,
    'left_out': [
      (', '.join(entry['metrics']), entry['why'])
      for entry in report.get('left_out') or []
    ],
    'protocol': nested(report['protocol']),
    'code': nested(report.get('code') or {}),
    'command': report.get('command') or '',
    'footer': f'Made by sr3_jax{version(report)}. {report.get("time") or ""}'.strip(),
  }
  names = {
    'results': 'Results',
    'paper': 'The paper',
    'samples': 'Samples',
    'plane': 'PSNR and perception',
    'distributions': 'Distributions',
    'extremes': 'Best and worst',
    'training': 'Training',
    'left-out': 'Left out',
    'protocol': 'Protocol',
    'code': 'Code',
    'reproduce': 'Reproduce',
  }
  there = view | {'results': True, 'training': curves, 'reproduce': True}
  there['left-out'] = view['left_out']
  view['sections'] = [(k, name) for k, name in names.items() if there[k]]
  return fill('report.html', view)


def fill(template: str, view: Mapping[str, Any]) -> str:
  """A template of this package with its script and the script's hash."""
  environment = _environment()
  script = environment.loader.get_source(environment, 'viewer.js')[0]
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return environment.get_template(template).render(
    view, script=Markup(script), script_hash=f'sha256-{digest}'
  )


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.PackageLoader('sr3_jax', 'templates'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def results(
  metrics: Sequence[Mapping[str, Any]],
  groups: Iterable[tuple[str, Mapping[str, Any], Sequence[str]]],
  caption: str,
  *,
  mark: bool = True,
) -> dict[str, Any]:
  """A table of methods and metrics, as the templates take it.

  Args:
    metrics: the columns.
    groups: title, method -> metric -> entry, and methods in order.
    caption: what the numbers are.
    mark: the best of a column in each group.
  """
  groups = list(groups)
  used = [
    m
    for m in metrics
    if any(m['key'] in table.get(n, {}) for _, table, names in groups for n in names)
  ]
  view = []
  for title, table, names in groups:
    winners = {
      m['key']: best(
        {n: table[n][m['key']] for n in names if m['key'] in table.get(n, {})}, m
      )
      if mark
      else ()
      for m in used
    }
    rows = [
      {
        'name': name,
        'entries': [
          _entry(table.get(name, {}).get(m['key']), m, name in winners[m['key']])
          for m in used
        ],
      }
      for name in names
    ]
    view.append({'title': title, 'rows': rows})
  head = columns(used)
  return {'caption': caption, 'corner': 'Method', 'columns': head, 'groups': view}


def columns(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
  """The head of a table of metrics, as the templates take it."""
  return [{'title': m['title'], 'better': better(m)} for m in metrics]


def _entry(entry: Mapping[str, Any] | None, metric: Mapping[str, Any], is_best: bool):
  if entry is None:
    return {'text': '', 'lines': [], 'mark': ''}
  show = functools.partial(number, digits=metric['digits'])
  lines = []
  if entry.get('low') is not None and entry.get('high') is not None:
    lines.append(f'{show(entry["low"])} to {show(entry["high"])}')
  seeds = entry.get('seeds') or []
  if len(seeds) > 1:
    span = f'{show(min(seeds))} to {show(max(seeds))}'
    lines.append(f'{len(seeds)} seeds: {span}')
  return {
    'text': show(entry['value']),
    'lines': lines,
    'mark': 'best' if is_best else '',
  }


def plane(
  groups: Iterable[tuple[str, Mapping[str, Any], Sequence[str]]],
  metrics: Sequence[Mapping[str, Any]],
  perceptual: str | None,
) -> Markup | None:
  """PSNR against a perceptual distance, if there are two methods that have both.

  Args:
    groups: as in `results`; a title stands before its methods' names.
    metrics: descriptions.
    perceptual: key of the distance, or None.
  """
  known = {m['key']: m for m in metrics}
  if perceptual not in known or 'psnr' not in known:
    return None
  points = []
  for title, table, names in groups:
    for i, name in enumerate(names):
      x, y = (table.get(name, {}).get(key) for key in (perceptual, 'psnr'))
      if x and y and math.isfinite(x['value']) and math.isfinite(y['value']):
        style = len(points) if title else i
        label = f'{title}: {name}' if title else name
        point = (label, x['value'], y['value'], _interval(x), _interval(y), style)
        points.append(svg.Point(*point))
  if len(points) < 2:
    return None
  x, y = known[perceptual], known['psnr']
  signs = {'higher': 1, 'lower': -1}
  return Markup(
    svg.scatter(
      points,
      ident='plane-chart',
      title=f'{y["title"]} against {x["title"]}',
      x_title=f'{x["title"]}{better(x, ", ")}',
      y_title=f'{y["title"]}{better(y, ", ")}',
      better=(signs.get(x['better'], 0), signs.get(y['better'], 0)),
    )
  )


def _interval(entry: Mapping[str, Any]) -> tuple[float, float] | None:
  low, high = entry.get('low'), entry.get('high')
  return None if low is None or high is None else (low, high)


def pictures(
  sheets: Sequence[Mapping[str, Any]], folder: epath.PathLike
) -> tuple[list[dict[str, Any]], str]:
  """Sheets with their pictures, as the templates take them, and a note on these."""
  files = [
    [
      [cell and embed.locate(folder, cell) for cell in row['cells']]
      for row in s['rows']
    ]
    for s in sheets
  ]
  found, note = embed.embed(files)
  return [sheet_view(s, rows) for s, rows in zip(sheets, found, strict=True)], note


def sheet_view(sheet: Mapping[str, Any], found: Sequence[Sequence[Any]]):
  """One sheet with embedded pictures, as the templates take it."""
  width = max((p.width for row in found for p in row if p), default=_CELL)
  # Whole multiples keep pixels even.
  width = width * max(1, round(_CELL / width)) if width <= 1.5 * _CELL else _CELL * 1.5
  rows = []
  for row, cells in zip(sheet['rows'], found, strict=False):
    named = zip(sheet['columns'], cells, strict=True)
    view = [
      {'name': n, 'picture': p, 'pixelated': p is not None and p.width < width}
      for n, p in named
    ]
    rows.append({'label': row['label'], 'cells': view})
  return {
    'title': sheet['title'],
    'width': round(width),
    'columns': len(sheet['columns']),
    'rows': rows,
  }


def _paper(report: Mapping[str, Any]) -> dict[str, Any] | None:
  paper = report.get('paper')
  if not paper:
    return None
  known = {m['key']: m for m in report['metrics']}
  metrics = [
    known.get(key, {'key': key, 'title': key, 'digits': 2, 'better': ''})
    for key in paper['metrics']
  ]
  theirs = {
    name: {key: {'value': v} for key, v in row.items() if v is not None}
    for name, row in paper['rows'].items()
  }
  ours = {
    name: {key: {'value': e['value']} for key, e in row.items()}
    for name, row in report['table'].items()
  }
  shown = {m['key'] for m in metrics}
  names = [
    m['name'] for m in report['methods'] if shown & ours.get(m['name'], {}).keys()
  ]
  groups = [(paper['title'], theirs, list(theirs)), ('This report', ours, names)]
  caption = 'The best of a column is marked in each group for itself.'
  return {'note': paper.get('note') or '', 'table': results(metrics, groups, caption)}


def _distributions(report: Mapping[str, Any], styles: Mapping[str, int]):
  known, panels = {m['key']: m for m in report['metrics']}, []
  for key, found in (report.get('distributions') or {}).items():
    metric = known.get(key, {'title': key, 'digits': 3, 'better': ''})
    rows = []
    for name in [n for n in styles if n in found['counts']]:
      entry = report['table'].get(name, {}).get(key)
      value = entry['value'] if entry else None
      note = number(value, metric['digits']) if entry else ''
      rows.append(svg.Histogram(name, found['counts'][name], value, note, styles[name]))
    if not rows:
      continue
    chart = svg.histograms(
      found['edges'],
      rows,
      ident=f'distribution-{len(panels)}',
      title=f'Distribution of {metric["title"]}',
      x_title=f'{metric["title"]}{better(metric, ", ")}',
    )
    bins = [
      [f'{_short(a)} to {_short(b)}', *(_short(row.counts[i]) for row in rows)]
      for i, (a, b) in enumerate(itertools.pairwise(found['edges']))
    ]
    table = {
      'caption': 'Number of images',
      'columns': [metric['title'], *(row.label for row in rows)],
      'rows': bins,
    }
    panels.append({'title': metric['title'], 'svg': Markup(chart), 'table': table})
  return panels


def _curves(curves: Mapping[str, Any], styles: Mapping[str, int]):
  """Panels of curves, and whether any was thinned."""
  panels, thinned = [], False
  for key, found in curves.items():
    series, rows = [], []
    for i, (name, points) in enumerate(found.items()):
      points = [p for p in points if all(map(math.isfinite, p))]
      if not points:
        continue
      xs, ys = _thin(points)
      thinned |= len(xs) < len(points)
      series.append(svg.Line(name, xs, ys, styles.get(name, i)))
      values = [y for _, y in points]
      ends = (values[0], min(values), max(values), values[-1])
      rows.append([name, str(len(points)), *map(_short, ends)])
    if not series:
      continue
    ys = [y for line in series for y in line.ys]
    chart = svg.lines(
      series,
      ident=f'curve-{len(panels)}',
      title=f'{key} during training',
      x_title='step',
      y_title=key,
      log=min(ys) > 0 and max(ys) > 20 * min(ys),
    )
    table = {
      'caption': 'Of all records',
      'columns': ['Series', 'Records', 'First', 'Lowest', 'Highest', 'Last'],
      'rows': rows,
    }
    panels.append({'title': key, 'svg': Markup(chart), 'table': table})
  return panels, thinned


def _thin(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
  """At most _MAX_POINTS points: means of neighbours."""
  parts = np.array_split(np.array(points, float), min(len(points), _MAX_POINTS))
  means = np.array([part.mean(axis=0) for part in parts])
  return means[:, 0].tolist(), means[:, 1].tolist()


def nested(protocol: Mapping[str, Any]) -> list[tuple[str, str, list]]:
  """Key, text, and the same of what is inside, for definition lists."""
  return [
    (str(key), '', nested(value))
    if isinstance(value, Mapping) and value
    else (str(key), 'none' if isinstance(value, Mapping) else plain(value), [])
    for key, value in protocol.items()
  ]


def better(metric: Mapping[str, Any], before: str = '') -> str:
  """'higher is better' and the like, after a text; '' where nothing is."""
  goal = metric['better']
  if not goal:
    return ''
  return before + (f'{goal} is better' if goal in ('higher', 'lower') else goal)


def _short(value: float) -> str:
  return f'{value:.4g}'.replace('-', '−')


def _count(number: int, noun: str) -> str:
  return f'{number} {noun}{"" if number == 1 else "s"}'


def _summary(report: Mapping[str, Any]) -> str:
  names = [method['name'] for method in report['methods']]
  methods = f'{_count(len(names), "method")} ({", ".join(names)})'
  metrics = {m for row in report['table'].values() for m in row}
  images, measured = _count(report['images'], 'image'), _count(len(metrics), 'metric')
  return f'{images}, {methods}, {measured}.'


def version(report: Mapping[str, Any]) -> str:
  """Of sr3_jax, after a blank; '' if the report doesn't say."""
  return f' {plain(v)}' if (v := (report.get('code') or {}).get('sr3_jax')) else ''
