"""report.html: one self-contained page from report.json and the pictures beside it."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup

from sr3_jax.reports import charts
from sr3_jax.reports import views as reports_views
from sr3_jax.reports.data import check, number

_MAX_POINTS = 300  # of a curve


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
  sheets, note = reports_views.pictures(report.get('sheets') or [], folder)
  curves, thinned = _curves(report.get('curves') or {}, styles)
  view = {
    'title': report['title'],
    'overline': 'Evaluation report',
    'summary': _summary(report),
    'notes': [note] if note else [],
    'table': reports_views.results(
      report['metrics'],
      [('', report['table'], list(styles))],
      f'Over {_count(report["images"], "image")}. Below a value: its 95 % interval '
      'over images and, if there are several sampling seeds, the lowest and the '
      'highest of them. Where intervals overlap, “best” may be chance.',
    ),
    'metric_terms': [
      (f'{m["title"]}{reports_views.better(m, ", ")}', m.get('about') or '')
      for m in report['metrics']
    ],
    'method_terms': [(m['name'], m.get('about') or '') for m in report['methods']],
    'paper': _paper(report),
    'samples': sheets[0] if sheets else None,
    'extremes': sheets[1:],
    'widest': max((s['columns'] * (s['width'] + 8) for s in sheets[1:]), default=0),
    'plane': reports_views.plane(
      [('', report['table'], list(styles))], report['metrics'], report.get('perceptual')
    ),
    'distributions': _distributions(report, styles),
    'curves': curves,
    'thinned': thinned,
    'left_out': [
      (', '.join(entry['metrics']), entry['why'])
      for entry in report.get('left_out') or []
    ],
    'protocol': reports_views.nested(report['protocol']),
    'code': reports_views.nested(report.get('code') or {}),
    'command': report.get('command') or '',
    'footer': reports_views.footer(report),
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
  return reports_views.fill('report.html', view)


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
  return {
    'note': paper.get('note') or '',
    'table': reports_views.results(metrics, groups, caption),
  }


def _distributions(report: Mapping[str, Any], styles: Mapping[str, int]):
  known, panels = {m['key']: m for m in report['metrics']}, []
  for key, found in (report.get('distributions') or {}).items():
    metric = known.get(key, {'title': key, 'digits': 3, 'better': ''})
    rows = []
    for name in [n for n in styles if n in found['counts']]:
      entry = report['table'].get(name, {}).get(key)
      value = entry['value'] if entry else None
      note = number(value, metric['digits']) if entry else ''
      rows.append(
        charts.Histogram(name, found['counts'][name], value, note, styles[name])
      )
    if not rows:
      continue
    chart = charts.histograms(
      found['edges'],
      rows,
      ident=f'distribution-{len(panels)}',
      title=f'Distribution of {metric["title"]}',
      x_title=f'{metric["title"]}{reports_views.better(metric, ", ")}',
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
      series.append(charts.Line(name, xs, ys, styles.get(name, i)))
      values = [y for _, y in points]
      ends = (values[0], min(values), max(values), values[-1])
      rows.append([name, str(len(points)), *map(_short, ends)])
    if not series:
      continue
    ys = [y for line in series for y in line.ys]
    chart = charts.lines(
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
