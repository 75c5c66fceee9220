"""What the pages of reports have in common: views of tables, sheets and protocols.

A view is what the templates in templates/ take: dicts and lists of finished texts.
Texts come from anywhere: Jinja escapes all of them, charts.py its own, and a page's
content security policy lets nothing in but its own script and pictures.
"""

import base64
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from sr3_jax.reports import charts, inline_images
from sr3_jax.reports.data import best, number, plain

_CELL = 128  # pixels on the screen, about
_MANY = 8  # entries of a protocol that are folded
# No methods: they can't be the best ones.
_REFERENCES = ('truth', 'Reference', 'Original images')

Group = tuple[str, Mapping[str, Any], Sequence[str]]


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
    loader=jinja2.PackageLoader('sr3_jax.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def results(
  metrics: Sequence[Mapping[str, Any]],
  groups: Iterable[Group],
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
        {
          n: table[n][m['key']]
          for n in names
          if m['key'] in table.get(n, {}) and not n.endswith(_REFERENCES)
        },
        m,
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
  groups: Iterable[Group],
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
        points.append(charts.Point(*point))
  if len(points) < 2:
    return None
  x, y = known[perceptual], known['psnr']
  signs = {'higher': 1, 'lower': -1}
  return Markup(
    charts.scatter(
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
      [cell and inline_images.locate(folder, cell) for cell in row['cells']]
      for row in s['rows']
    ]
    for s in sheets
  ]
  found, note = inline_images.embed(files)
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


def nested(protocol: Mapping[str, Any]) -> list[dict[str, Any]]:
  """For definition lists: key, text or the same of what is inside, and how much."""
  entries = []
  for key, value in protocol.items():
    inner = nested(value) if isinstance(value, Mapping) else []
    text = '' if inner else 'none' if isinstance(value, Mapping) else plain(value)
    size = sum(entry['size'] for entry in inner) or 1
    folded = size > _MANY
    entry = {'name': key, 'text': text, 'inner': inner, 'size': size, 'folded': folded}
    entries.append(entry)
  return entries


def better(metric: Mapping[str, Any], before: str = '') -> str:
  """'higher is better' and the like, after a text; '' where nothing is."""
  goal = metric['better']
  if not goal:
    return ''
  return before + (f'{goal} is better' if goal in ('higher', 'lower') else goal)


def footer(report: Mapping[str, Any]) -> str:
  """Which version made a report, and when."""
  version = (report.get('code') or {}).get('sr3_jax') or ''
  time = report.get('time') or ''
  return f'Made by sr3_jax {plain(version)}'.strip() + f'. {time}'.rstrip()
