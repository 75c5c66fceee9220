"""A report folder: report.json read and checked, its values, its numbers as text.

Everything in the folder may come from anywhere: types are checked before anything is
used, arrays are read without pickle, and whatever is wrong is one line.
"""

import dataclasses
import itertools
import json
import math
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from sr3_jax.runtime.errors import UserError

FORMAT = 1
_LARGEST = 1e100
NAME = 'report.json'
_NUMBER = (int, float)
_INTERVAL = {'value': _NUMBER, 'low?': _NUMBER, 'high?': _NUMBER, 'seeds?': [_NUMBER]}
_METRIC = {'key': str, 'title': str, 'digits': int, 'better': str, 'about?': str}
_SHEET = {
  'title': str,
  'columns': [str],
  'rows': [{'label': str, 'cells': [str | None], 'index?': int}],
}
# What report.json holds; a key with '?' may be missing or null, '*' is any text.
_SCHEMA = {
  'title': str,
  'protocol': dict,
  'metrics': [_METRIC],
  'perceptual?': str,
  'methods': [{'name': str, 'about?': str}],
  'table': {'*': {'*': _INTERVAL}},
  'left_out?': [{'metrics': [str], 'why': str}],
  'images': int,
  'paper?': {
    'title': str,
    'metrics': [str],
    'rows': {'*': {'*': (int, float, types.NoneType)}},
    'note?': str,
  },
  'distributions?': {'*': {'edges': [_NUMBER], 'counts': {'*': [_NUMBER]}}},
  'curves?': {'*': {'*': [[_NUMBER]]}},
  'sheets?': [_SHEET],
  'code?': dict,
  'time?': str,
  'command?': str,
}


class ReportError(UserError):
  """One line: what is wrong with a report, and where."""


@dataclasses.dataclass(frozen=True)
class Report:
  """A checked report.json and the folder that its pictures and values are in."""

  folder: epath.Path
  data: dict[str, Any]
  name: str = ''

  def metrics(self) -> dict[str, dict[str, Any]]:
    """Metric key -> its description, in order."""
    return {metric['key']: metric for metric in self.data['metrics']}

  def methods(self) -> list[str]:
    """Names of methods, in order."""
    return [method['name'] for method in self.data['methods']]


def load(place: epath.PathLike, name: str = '') -> Report:
  """A report by its folder, by a run's workdir with report/ inside, or by its file.

  Args:
    place: one of these.
    name: what to call it beside others.

  Raises:
    ReportError: it isn't one, is damaged, or is of another format.
  """
  place = epath.Path(place)
  candidates = [place / NAME, place / 'report' / NAME]
  try:
    if place.suffix == '.json':
      candidates = [place]
    elif not place.exists():
      raise ReportError(f'{place}: no such file or folder')
    file = next((c for c in candidates if c.is_file()), None)
    if file is None:
      raise ReportError(
        f'{place}: no {NAME} in it; give a folder that --mode=eval or '
        'sr3_jax.evaluation.command wrote, or a workdir with report/ inside'
      )
    text = file.read_text(encoding='utf-8')
  except UnicodeDecodeError:
    raise ReportError(f'{place}: not a report: no UTF-8 text') from None
  except OSError as error:
    raise ReportError(f'{place}: {error.strerror or error}') from None
  try:
    data = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ReportError(f'{file}: damaged JSON: {error}') from None
  try:
    check(data)
  except ReportError as error:
    raise ReportError(f'{file}: {error}') from None
  return Report(file.parent, data, name)


def check(data: Any) -> None:
  """Makes sure that a report has the keys, types and lengths that pages rely on.

  Raises:
    ReportError: it has not.
  """
  if not isinstance(data, dict) or 'format' not in data:
    raise ReportError('not a report: it has no format number')
  if data['format'] != FORMAT:
    raise ReportError(
      f'format {data["format"]!r}, but this version of sr3_jax reads format {FORMAT}; '
      'make the report again, or use the version that wrote it'
    )
  _check(data, _SCHEMA, '')
  for key in ('metrics', 'methods'):
    names = [entry['key' if key == 'metrics' else 'name'] for entry in data[key]]
    if len(set(names)) < len(names):
      raise ReportError(f'{key}: a name is there twice')
  for metric in data['metrics']:
    if not 0 <= metric['digits'] <= 12:
      raise ReportError(f'metrics: digits of {metric["key"]} are not 0 to 12')
  for key, found in (data.get('distributions') or {}).items():
    edges = found['edges']
    rising = all(a < b for a, b in itertools.pairwise(edges))
    if len(edges) < 2 or not rising or not all(map(math.isfinite, edges)):
      raise ReportError(f'distributions.{key}: edges do not rise')
    if any(len(c) != len(edges) - 1 for c in found['counts'].values()):
      raise ReportError(f'distributions.{key}: counts and edges do not fit')
  for key, curves in (data.get('curves') or {}).items():
    if any(len(point) != 2 for curve in curves.values() for point in curve):
      raise ReportError(f'curves.{key}: a point is not [step, value]')
  for sheet in data.get('sheets') or []:
    if any(len(row['cells']) != len(sheet['columns']) for row in sheet['rows']):
      raise ReportError(f'sheet {sheet["title"]!r}: cells and columns do not fit')


def _check(value: Any, wanted: Any, where: str) -> None:
  if isinstance(wanted, list):
    _expect(isinstance(value, list), where, 'a list')
    for i, entry in enumerate(value):
      _check(entry, wanted[0], f'{where}[{i}]')
  elif isinstance(wanted, dict):
    _expect(isinstance(value, dict), where, 'an object')
    if '*' in wanted:
      for key, entry in value.items():
        _check(entry, wanted['*'], f'{where}.{key}')
      return
    for key, kind in wanted.items():
      name = key.removesuffix('?')
      inside = f'{where}.{name}'.removeprefix('.')
      if value.get(name) is None and key.endswith('?'):
        continue
      _expect(name in value, inside, 'a value')
      _check(value[name], kind, inside)
  else:
    known = {str: 'a text', int: 'a whole number', dict: 'an object'}
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    if isinstance(value, int | float):
      fits &= not _LARGEST < abs(value) < math.inf  # axes have to be computed
    _expect(fits, where, known.get(wanted, 'a number'))


def _expect(true: bool, where: str, what: str) -> None:
  if not true:
    raise ReportError(f'not a report: {where or "the whole"} is not {what}')


def values(report: Report) -> dict[str, np.ndarray]:
  """values.npz of a report: 'index' [n] and 'METHOD/METRIC' [n]; {} if there is none.

  Raises:
    ReportError: damaged, or arrays that don't fit each other.
  """
  file = report.folder / 'values.npz'
  if not file.exists():
    return {}
  try:
    with file.open('rb') as stream, np.load(stream, allow_pickle=False) as archive:
      found = {key: archive[key] for key in archive.files}
  except Exception as error:  # zip and array headers fail in any way
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise ReportError(f'{file}: {reason}') from None
  index = found.get('index')
  if index is None or index.ndim != 1 or index.dtype.kind not in 'iu':
    raise ReportError(f"{file}: no whole numbers 'index' [n]")
  if len(np.unique(index)) < len(index):
    raise ReportError(f'{file}: an image is there twice')
  for key, array in found.items():
    if array.shape != index.shape or array.dtype.kind not in 'iuf':
      raise ReportError(f'{file}: {key} is not one number an image')
  return found


def flat(protocol: Mapping[str, Any], above: str = '') -> Iterator[tuple[str, str]]:
  """Nested keys joined by ' / ', with the text of each value."""
  for key, value in protocol.items():
    name = f'{above} / {key}' if above else str(key)
    if isinstance(value, Mapping):
      yield from flat(value, name)
    else:
      yield name, plain(value)


def plain(value: Any) -> str:
  """A value of a protocol as text: lists in one line, yes and no, no quotes."""
  if value is None:
    return 'none'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list | tuple):
    return ', '.join(plain(v) for v in value)
  if isinstance(value, float):
    return f'{value:.10g}'
  return str(value)


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
  """A value with so many digits after the point; a dash for none."""
  if value is None or math.isnan(value):
    return '–'
  if math.isinf(value):
    return '∞' if value > 0 else '−∞'
  text = f'{value:{"+" if sign else ""}.{digits}f}'
  if float(text) == 0:  # no minus, no plus
    text = f'{0:.{digits}f}'
  return text.replace('-', '−')


def best(
  entries: Mapping[str, Mapping[str, Any]], metric: Mapping[str, Any]
) -> set[str]:
  """Names with the best value of a metric, as far as its digits show.

  Args:
    entries: name -> {'value': number}; those that have the metric.
    metric: with 'better' and 'digits'.

  Returns:
    Empty for less than two values, or where nothing is said to be better.
  """
  goal = metric['better']
  value = {
    name: round(entry['value'], metric['digits'])
    for name, entry in entries.items()
    if not math.isnan(entry['value'])
  }
  ranks = {
    'higher': lambda v: -v,
    'lower': lambda v: v,
    '1 is right': lambda v: abs(v - 1),
  }
  if goal not in ranks or len(value) < 2:
    return set()
  score = {name: ranks[goal](v) for name, v in value.items()}
  return {name for name, s in score.items() if s == min(score.values())}
