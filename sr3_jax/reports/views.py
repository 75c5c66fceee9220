"""Makes what the pages of reports have in common: tables, sheets and protocols.

A view is what the templates in templates/ take: dicts and lists of finished texts.
Texts come from anywhere: Jinja escapes all of them, `charts` escapes its own, and a
page's content security policy lets nothing in but its own script and pictures.
"""

import base64
import functools
import hashlib
import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from sr3_jax.reports import charts, inline_images
from sr3_jax.reports.data import (
  Entry,
  Metric,
  Protocol,
  Sheet,
  Table,
  best,
  number,
  plain,
)
from sr3_jax.reports.inline_images import Picture

_CELL = 128  # pixels on the screen, about
_MANY = 8  # entries of a protocol that are folded
# These are no methods, so they can't be the best ones.
_REFERENCES = ('truth', 'Reference', 'Original images')

View = dict[str, Any]
Group = tuple[str, Table, Sequence[str]]  # title, table, and methods in order


def fill(template: str, view: View) -> str:
  """Return the page that a template of this room makes of a view.

  The page has the template's only script, and allows it by its hash.
  """
  environment = _environment()
  script = source('viewer.js')
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  return environment.get_template(template).render(
    view, script=Markup(script), script_hash=f'sha256-{digest}'
  )


def source(name: str) -> str:
  """Return the text of a file in templates/."""
  return (importlib.resources.files('sr3_jax.reports') / 'templates' / name).read_text()


@functools.cache
def _environment() -> jinja2.Environment:
  """Return what renders templates: all texts are escaped, none may be missing."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader('sr3_jax.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def results(
  metrics: Sequence[Metric], groups: Iterable[Group], caption: str, *, mark: bool = True
) -> View:
  """Return a table of methods and metrics, as the templates take it.

  Args:
    metrics: the columns.
    groups: title, method -> metric -> entry, and methods in order.
    caption: what the numbers are.
    mark: whether the best of a column is marked in each group.
  """
  groups = list(groups)
  used = [
    m
    for m in metrics
    if any(m['key'] in table.get(n, {}) for _, table, names in groups for n in names)
  ]
  view = []
  for title, table, names in groups:
    winners = {m['key']: _best(table, names, m) if mark else set() for m in used}
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


def _best(table: Table, names: Sequence[str], metric: Metric) -> set[str]:
  """Return the names of the best methods; the truth and the like can't be the best."""
  key = metric['key']
  rows = {n: table[n] for n in names if n in table and not n.endswith(_REFERENCES)}
  return best({n: row[key] for n, row in rows.items() if key in row}, metric)


def columns(metrics: Sequence[Metric]) -> list[dict[str, str]]:
  """Return the head of a table of metrics, as the templates take it."""
  return [{'title': m['title'], 'better': better(m)} for m in metrics]


def _entry(entry: Entry | None, metric: Metric, is_best: bool) -> View:
  """Return a cell of a table: the value, and lines of its interval and its seeds."""
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
  groups: Iterable[Group], metrics: Sequence[Metric], perceptual: str | None
) -> Markup | None:
  """Draw PSNR against a perceptual distance, if there are two methods that have both.

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
  chart_names = charts.Names(
    'plane-chart',
    f'{y["title"]} against {x["title"]}',
    f'{x["title"]}{better(x, ", ")}',
    f'{y["title"]}{better(y, ", ")}',
  )
  directions = signs.get(x['better'], 0), signs.get(y['better'], 0)
  return Markup(charts.scatter(points, chart_names, directions))


def _interval(entry: Entry) -> tuple[float, float] | None:
  """Return the interval of an entry, if it has one."""
  low, high = entry.get('low'), entry.get('high')
  return None if low is None or high is None else (low, high)


def pictures(sheets: Sequence[Sheet], folder: epath.PathLike) -> tuple[list[View], str]:
  """Return sheets with their pictures, as templates take them, and a note on these."""
  files = [
    [
      [cell and inline_images.locate(folder, cell) for cell in row['cells']]
      for row in s['rows']
    ]
    for s in sheets
  ]
  found, note = inline_images.embed(files)
  made = []
  for sheet, rows in zip(sheets, found, strict=True):
    labels = [row['label'] for row in sheet['rows']]
    made.append(sheet_view(sheet['title'], sheet['columns'], labels, rows))
  return made, note


def sheet_view(
  title: str,
  names: Sequence[str],
  labels: Sequence[str],
  found: Sequence[Sequence[Picture | None]],
) -> View:
  """Return one sheet with embedded pictures, as the templates take it.

  Args:
    title: of the sheet.
    names: of the columns.
    labels: of the rows.
    found: rows of pictures; there may be fewer than labels.
  """
  width = max((p.width for row in found for p in row if p), default=_CELL)
  # Whole multiples keep pixels even.
  width = width * max(1, round(_CELL / width)) if width <= 1.5 * _CELL else _CELL * 1.5
  rows: list[View] = []
  for label, cells in zip(labels, found, strict=False):
    named = zip(names, cells, strict=True)
    view = [
      {'name': n, 'picture': p, 'pixelated': p is not None and p.width < width}
      for n, p in named
    ]
    rows.append({'label': label, 'cells': view})
  return {'title': title, 'width': round(width), 'columns': len(names), 'rows': rows}


def nested(protocol: Protocol) -> list[View]:
  """Return the entries of a protocol for definition lists; large ones are folded."""
  entries: list[View] = []
  for key, value in protocol.items():
    inner = nested(value) if isinstance(value, Mapping) else []
    text = '' if inner else 'none' if isinstance(value, Mapping) else plain(value)
    size = sum(entry['size'] for entry in inner) or 1
    folded = size > _MANY
    entries.append(
      {'name': key, 'text': text, 'inner': inner, 'size': size, 'folded': folded}
    )
  return entries


def better(metric: Metric, before: str = '') -> str:
  """Return 'higher is better' and the like after a text; '' where nothing is."""
  goal = metric['better']
  if not goal:
    return ''
  return before + (f'{goal} is better' if goal in ('higher', 'lower') else goal)


def footer(code: Protocol | None, time: str | None = None) -> str:
  """Return which version made a report, and when."""
  version = plain((code or {}).get('sr3_jax') or '')
  return f'Made by sr3_jax {version}'.strip() + f'. {time or ""}'.rstrip()
