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
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from sr3_jax.reports import charts, data, inline_images
from sr3_jax.reports.data import Entry, Metric, Protocol, Sheet, Table
from sr3_jax.reports.inline_images import Picture
from sr3_jax.runtime.printing import printable

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
  script = source('viewer.js')
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  page = _environment().get_template(template)
  return page.render(view, script=Markup(script), script_hash=f'sha256-{digest}')


@functools.cache
def _environment() -> jinja2.Environment:
  """Return what renders templates: all texts are escaped, none may be missing."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader('sr3_jax.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )


def _shown(value: object) -> object:
  """Return what a template shows of a value: a text without control characters."""
  is_text = isinstance(value, str) and not isinstance(value, Markup)
  return printable(value, keep='\n\t') if is_text else value


def source(name: str) -> str:
  """Return the text of a file in templates/."""
  return (importlib.resources.files('sr3_jax.reports') / 'templates' / name).read_text()


def results(
  metrics: Sequence[Metric], groups: Sequence[Group], caption: str, *, mark: bool = True
) -> View:
  """Return a table of methods and metrics, as the templates take it.

  Metrics that no method has are left out. The best method of each group is marked in a
  column, if `mark`.
  """
  rows = [methods.get(n, {}) for _, methods, names in groups for n in names]
  used = [m for m in metrics if any(m['key'] in row for row in rows)]
  view = []
  for title, methods, names in groups:
    columns = {m['key']: _column(methods, names, m, mark) for m in used}
    shown = [
      {'name': n, 'entries': [columns[m['key']][n] for m in used]} for n in names
    ]
    view.append({'title': title, 'rows': shown})
  return table(caption, 'Method', used, view)


def table(
  caption: str, corner: str, metrics: Sequence[Metric], groups: Sequence[View]
) -> View:
  """Return a table with a column for each metric, as the templates take it."""
  columns = [{'title': m['title'], 'better': better(m)} for m in metrics]
  return {'caption': caption, 'corner': corner, 'columns': columns, 'groups': groups}


def _column(
  methods: Table, names: Sequence[str], metric: Metric, mark: bool
) -> dict[str, View]:
  """Return the cells of a metric by method, the best ones maybe marked."""
  entries = {n: methods.get(n, {}).get(metric['key']) for n in names}
  rivals = {n: e for n, e in entries.items() if e and not n.endswith(_REFERENCES)}
  winners = data.best(rivals, metric) if mark else ()
  return {n: _entry(e, metric, n in winners) for n, e in entries.items()}


def _entry(entry: Entry | None, metric: Metric, is_best: bool) -> View:
  """Return a cell of a table: the value, and lines of its interval and its seeds."""
  if entry is None:
    return {'text': '', 'lines': [], 'mark': ''}
  show = functools.partial(data.number, digits=metric['digits'])
  lines = []
  if ends := interval(entry):
    lines.append(f'{show(ends[0])} to {show(ends[1])}')
  seeds = entry.get('seeds') or []
  if len(seeds) > 1:
    lines.append(f'{len(seeds)} seeds: {show(min(seeds))} to {show(max(seeds))}')
  mark = 'best' if is_best else ''
  return {'text': show(entry['value']), 'lines': lines, 'mark': mark}


def plane(
  table: Table, names: Sequence[str], metrics: Sequence[Metric], perceptual: str | None
) -> Markup | None:
  """Draw PSNR against a perceptual distance, if there are two methods that have both.

  A method's place in `names` is the number of its style; `perceptual` is the key of the
  distance, or None.
  """
  known = {m['key']: m for m in metrics}
  if perceptual not in known or 'psnr' not in known:
    return None
  points = []
  for i, name in enumerate(names):
    x, y = (table.get(name, {}).get(key) for key in (perceptual, 'psnr'))
    if x and y and math.isfinite(x['value']) and math.isfinite(y['value']):
      values = x['value'], y['value'], interval(x), interval(y)
      points.append(charts.Point(name, *values, i))
  if len(points) < 2:
    return None
  x, y = known[perceptual], known['psnr']
  title = f'{y["title"]} against {x["title"]}'
  titles = charts.Names('plane-chart', title, axis_title(x), axis_title(y))
  signs = {'higher': 1, 'lower': -1}
  directions = signs.get(x['better'], 0), signs.get(y['better'], 0)
  return Markup(charts.scatter(points, titles, directions))


def interval(entry: Entry) -> tuple[float, float] | None:
  """Return the interval of an entry, if it has one."""
  low, high = entry.get('low'), entry.get('high')
  return None if low is None or high is None else (low, high)


def pictures(sheets: Sequence[Sheet], folder: epath.PathLike) -> tuple[list[View], str]:
  """Return sheets with their pictures, as templates take them, and a note on these."""
  found, note = inline_images.embed(
    [
      [
        [inline_images.locate(folder, c) if c else None for c in r['cells']]
        for r in s['rows']
      ]
      for s in sheets
    ]
  )
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

  `found` has rows of pictures, a column for each of `names`; there may be fewer than
  labels.
  """
  width = max((p.width for row in found for p in row if p), default=_CELL)
  # Whole multiples keep pixels even.
  width = width * max(1, round(_CELL / width)) if width <= 1.5 * _CELL else _CELL * 1.5
  rows: list[View] = []
  for label, cells in zip(labels, found, strict=False):
    view = [
      {'name': name, 'picture': p, 'pixelated': p is not None and p.width < width}
      for name, p in zip(names, cells, strict=True)
    ]
    rows.append({'label': label, 'cells': view})
  return {'title': title, 'width': round(width), 'columns': len(names), 'rows': rows}


def nested(protocol: Protocol) -> list[View]:
  """Return the entries of a protocol for definition lists; large ones are folded."""
  entries: list[View] = []
  for key, value in protocol.items():
    inner = nested(value) if isinstance(value, Mapping) else []
    text = '' if inner else data.plain(None if isinstance(value, Mapping) else value)
    size = sum(entry['size'] for entry in inner) or 1
    view = {'name': key, 'text': text, 'inner': inner, 'size': size}
    entries.append(view | {'folded': size > _MANY})
  return entries


def better(metric: Metric) -> str:
  """Return 'higher is better' and the like; '' where nothing is."""
  goal = metric['better']
  return f'{goal} is better' if goal in ('higher', 'lower') else goal


def axis_title(metric: Metric) -> str:
  """Return the title of a metric, and what is better."""
  return ', '.join(filter(None, (metric['title'], better(metric))))


def footer(code: Protocol | None, time: str | None = None) -> str:
  """Return which version made a report, and when."""
  version = data.plain((code or {}).get('sr3_jax') or '')
  return f'Made by sr3_jax {version}'.strip() + f'. {time or ""}'.rstrip()
