"""Makes report.html: one self-contained page from report.json and its pictures."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from markupsafe import Markup

from sr3_jax.metrics import bootstrap
from sr3_jax.reports import charts, views
from sr3_jax.reports.data import Curves, Metric, ReportData, Table, checked, number
from sr3_jax.reports.views import View

_MAX_POINTS = 300  # of a curve
_CAPTION = (
  'Below a value: its 95 % interval over images and, if there are several sampling '
  'seeds, the lowest and the highest of them. Where intervals overlap, “best” may be '
  'chance.'
)
_WITHOUT = (
  'Below a value, if there are several sampling seeds: the lowest and the highest of '
  'them. “Best” may be chance.'
)


def render(report: object, folder: epath.PathLike) -> str:
  """Return the page of what report.json in a folder holds.

  It is HTML that needs nothing else: no network, no other file.

  Raises:
    ReportError: keys or types aren't those of a report, or a picture is missing, is
      none, or isn't inside of the folder.
  """
  data = checked(report)
  metrics, methods, table = data['metrics'], data['methods'], data['table']
  styles = {method['name']: i for i, method in enumerate(methods)}
  left_out = data.get('left_out') or []
  # The first sheet has samples, the others extremes.
  sheets, note = views.pictures(data.get('sheets') or [], folder)
  curves, thinned = _curves(data.get('curves') or {}, styles)
  counted = {key for row in table.values() for key in row}
  found = data.get('photographs')
  counts = data['images'], data['images'] if found is None else found
  images = bootstrap.counted(*counts)
  caption = _CAPTION if counts[1] >= bootstrap.FEWEST else _WITHOUT
  shown = f'{_count(len(styles), "method")} ({", ".join(styles)})'
  view = {
    'title': data['title'],
    'overline': 'Evaluation report',
    'summary': f'{images}, {shown}, {_count(len(counted), "metric")}.',
    'table': views.results(
      metrics,
      [('', table, list(styles))],
      f'Over {bootstrap.about(*counts)}. {caption}',
    ),
    'metric_terms': [(views.axis_title(m), m.get('about') or '') for m in metrics],
    'method_terms': [(m['name'], m.get('about') or '') for m in methods],
    'paper': _paper(data),
    'left_out': [(', '.join(entry['metrics']), entry['why']) for entry in left_out],
    'protocol': views.nested(data['protocol']),
    'code': views.nested(data.get('code') or {}),
    'command': data.get('command') or '',
    'footer': views.footer(data.get('code'), data.get('time')),
    'notes': [note] if note else [],
    'samples': sheets[0] if sheets else None,
    'extremes': sheets[1:],
    'widest': max((s['columns'] * (s['width'] + 8) for s in sheets[1:]), default=0),
    'plane': views.plane(table, list(styles), metrics, data.get('perceptual')),
    'distributions': _distributions(data, styles),
    'curves': curves,
    'thinned': thinned,
  }
  return views.fill('report.html', view)


def _paper(data: ReportData) -> View | None:
  """Return the paper's table with the report's methods below, if there is one."""
  paper = data.get('paper')
  if not paper:
    return None
  known = {m['key']: m for m in data['metrics']}
  metrics = [known.get(key) or _unknown(key) for key in paper['metrics']]
  theirs: Table = {
    name: {key: {'value': v} for key, v in row.items() if v is not None}
    for name, row in paper['rows'].items()
  }
  ours: Table = {
    name: {key: {'value': e['value']} for key, e in row.items()}
    for name, row in data['table'].items()
  }
  shown = {m['key'] for m in metrics}
  names = [m['name'] for m in data['methods'] if shown & ours.get(m['name'], {}).keys()]
  groups = [(paper['title'], theirs, list(theirs)), ('This report', ours, names)]
  caption = 'The best of a column is marked in each group for itself.'
  table = views.results(metrics, groups, caption)
  return {'note': paper.get('note') or '', 'table': table}


def _unknown(key: str, digits: int = 2) -> Metric:
  """Return how a metric is shown of which only the key is known."""
  return {'key': key, 'title': key, 'digits': digits, 'better': ''}


def _distributions(data: ReportData, styles: Mapping[str, int]) -> list[View]:
  """Return a panel for each metric: a histogram for each method, and its table."""
  known, panels = {m['key']: m for m in data['metrics']}, []
  for key, found in (data.get('distributions') or {}).items():
    metric = known.get(key) or _unknown(key, 3)
    rows = []
    for name in [n for n in styles if n in found['counts']]:
      entry = data['table'].get(name, {}).get(key)
      value = entry['value'] if entry else None
      note = number(value, metric['digits']) if entry else ''
      counts = found['counts'][name]
      rows.append(charts.Histogram(name, counts, value, note, styles[name]))
    if not rows:
      continue
    title = metric['title']
    ident = f'distribution-{len(panels)}'
    names = charts.Names(ident, f'Distribution of {title}', views.axis_title(metric))
    chart = charts.histograms(found['edges'], rows, names)
    bins = [
      [f'{_short(a)} to {_short(b)}', *(_short(row.counts[i]) for row in rows)]
      for i, (a, b) in enumerate(itertools.pairwise(found['edges']))
    ]
    columns = [title, *(row.label for row in rows)]
    table = {'caption': 'Number of images', 'columns': columns, 'rows': bins}
    panels.append({'title': title, 'svg': Markup(chart), 'table': table})
  return panels


def _curves(curves: Curves, styles: Mapping[str, int]) -> tuple[list[View], bool]:
  """Return panels of curves, and whether any was thinned."""
  panels, thinned = [], False
  for key, found in curves.items():
    series, rows = [], []
    for i, (name, points) in enumerate(found.items()):
      points = [p for p in points if all(map(math.isfinite, p))]
      if not points:
        continue
      xs, ys = thin(points)
      thinned |= len(xs) < len(points)
      series.append(charts.Line(name, xs, ys, styles.get(name, i)))
      values = [y for _, y in points]
      ends = (values[0], min(values), max(values), values[-1])
      rows.append([name, str(len(points)), *map(_short, ends)])
    if not series:
      continue
    ys = [y for line in series for y in line.ys]
    names = charts.Names(f'curve-{len(panels)}', f'{key} during training', 'step', key)
    log = min(ys) > 0 and max(ys) > 20 * min(ys)
    chart = charts.lines(series, names, log)
    columns = ['Series', 'Records', 'First', 'Lowest', 'Highest', 'Last']
    table = {'caption': 'Of all records', 'columns': columns, 'rows': rows}
    panels.append({'title': key, 'svg': Markup(chart), 'table': table})
  return panels, thinned


def thin(
  points: Sequence[Sequence[float]], most: int = _MAX_POINTS
) -> tuple[list[float], list[float]]:
  """Return x and y of at most `most` points: means of neighbours."""
  parts = np.array_split(np.array(points, float), min(len(points), most))
  means = np.array([part.mean(axis=0) for part in parts])
  return means[:, 0].tolist(), means[:, 1].tolist()


def _short(value: float) -> str:
  """Return a number with four digits."""
  return f'{value:.4g}'.replace('-', '−')


def _count(number: int, noun: str) -> str:
  """Return '1 image' or '2 images'."""
  return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
