"""Reads report folders: report.json, values of images, and numbers as text.

Everything in a folder may come from anywhere: types are checked before anything is
used, arrays are read without pickle, and whatever is wrong is told in one line.
"""

import functools
import itertools
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

import numpy as np
from etils import epath

from sr3_jax.runtime import foreign_arrays, foreign_files
from sr3_jax.runtime.errors import UserError

FORMAT = 1
_LARGEST = 1e100
NAME = 'report.json'
# What JSON may hold for it, and what it is called.
_SCALARS = {
  str: (str, 'a text'),
  int: (int, 'a whole number'),
  float: ((int, float), 'a number'),
}
_keys = functools.cache(typing.get_type_hints)  # of a TypedDict
Protocol = Mapping[str, object]  # of texts, numbers, lists, or such mappings


class Entry(TypedDict):
  """A value of a table, maybe with its 95 % interval and the values of seeds."""

  value: float
  low: NotRequired[float | None]
  high: NotRequired[float | None]
  seeds: NotRequired[list[float] | None]


Row = Mapping[str, Entry]  # metric -> entry
Table = Mapping[str, Row]  # method -> row


class Metric(TypedDict):
  """How a metric is shown; `better` is 'higher', 'lower', '1 is right' or ''."""

  key: str
  title: str
  digits: int
  better: str
  about: NotRequired[str | None]


class Method(TypedDict):
  """A method's name and a sentence about it."""

  name: str
  about: NotRequired[str | None]


class SheetRow(TypedDict):
  """A row of pictures: paths below the report's folder, None for an empty cell."""

  label: str
  cells: list[str | None]
  index: NotRequired[int | None]


class Sheet(TypedDict):
  """Rows of pictures below names of columns."""

  title: str
  columns: list[str]
  rows: list[SheetRow]


class LeftOut(TypedDict):
  """Metrics that are missing, and why."""

  metrics: list[str]
  why: str


class PaperTable(TypedDict):
  """Figures of a paper: method -> metric -> value."""

  title: str
  metrics: list[str]
  rows: Mapping[str, Mapping[str, float | None]]
  note: NotRequired[str | None]


class Distribution(TypedDict):
  """Limits of n bins [n + 1], and the counts [n] of each method."""

  edges: list[float]
  counts: dict[str, list[float]]


Curves = dict[str, dict[str, list[list[float]]]]  # title -> series -> [step, value]


class ReportData(TypedDict):
  """What report.json holds."""

  format: int
  title: str
  protocol: Protocol
  metrics: list[Metric]
  perceptual: NotRequired[str | None]
  methods: list[Method]
  table: Table
  left_out: NotRequired[list[LeftOut] | None]
  images: int
  photographs: NotRequired[int | None]  # that the images are crops of
  paper: NotRequired[PaperTable | None]
  distributions: NotRequired[dict[str, Distribution] | None]
  curves: NotRequired[Curves | None]
  sheets: NotRequired[list[Sheet] | None]
  code: NotRequired[Protocol | None]
  time: NotRequired[str | None]
  command: NotRequired[str | None]


class ReportError(UserError):
  """One line: what is wrong with a report, and where."""


class Report(NamedTuple):
  """A checked report.json and the folder that its pictures and values are in."""

  folder: epath.Path
  data: ReportData
  name: str = ''

  def photographs(self) -> int:
    """Return how many photographs the images are of."""
    found = self.data.get('photographs')
    return self.data['images'] if found is None else found

  def metrics(self) -> dict[str, Metric]:
    """Return metric key -> its description, in order."""
    return {metric['key']: metric for metric in self.data['metrics']}

  def methods(self) -> list[str]:
    """Return the names of methods, in order."""
    return [method['name'] for method in self.data['methods']]


def load(place: epath.PathLike, name: str = '') -> Report:
  """Load a report by its folder, by a workdir with report/ inside, or by its file.

  `name` is what it is called beside others.

  Raises:
    ReportError: it isn't one, is damaged, or is of another format.
  """
  with foreign_files.explained(place, 'a report', ReportError):
    place = foreign_files.place(place)
  files = [place / NAME, place / 'report' / NAME]
  if place.suffix == '.json':
    files = [place]
  with foreign_files.explained(place, 'a report', ReportError):
    if place not in files and not place.exists():
      raise ReportError(f'{place}: no such file or folder')
    file = next((file for file in files if foreign_files.exists(file)), None)
  if file is None:
    raise ReportError(
      f'{place}: no {NAME} in it; give a folder that --mode=eval or sr3-evaluate '
      'wrote, or a workdir with report/ inside'
    )
  value = foreign_files.read_json(file, what='a report', error=ReportError)
  try:
    return Report(file.parent, checked(value), name)
  except ReportError as error:
    raise ReportError(f'{file}: {error}') from None


def checked(data: object) -> ReportData:
  """Return what is a report: with the keys, types and lengths that pages rely on.

  Raises:
    ReportError: it has others.
  """
  if not isinstance(data, dict) or 'format' not in data:
    raise ReportError('not a report: it has no format number')
  if data['format'] != FORMAT:
    raise ReportError(
      f'format {data["format"]!r}, but this version of sr3_jax reads format {FORMAT}; '
      'make the report again, or use the version that wrote it'
    )
  _check(data, ReportData, '')
  report = cast(ReportData, data)
  _check_values(report)
  return report


def _check_values(data: ReportData) -> None:
  """Check what types don't say: names that are unique, lengths that fit."""
  keys = [metric['key'] for metric in data['metrics']]
  methods = [method['name'] for method in data['methods']]
  for part, names in (('metrics', keys), ('methods', methods)):
    if len(set(names)) < len(names):
      raise ReportError(f'{part}: a name is there twice')
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


def _check(value: Any, kind: Any, where: str) -> None:
  """Check that a value is of a kind of ReportData, and what is inside of it."""

  def expect(fits: bool, wanted: str, place: str = where) -> None:
    if not fits:
      raise ReportError(f'not a report: {place or "the whole"} is not {wanted}')

  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin is types.UnionType:  # of something and None
    if value is not None:
      _check(value, inner[0], where)
  elif origin is list:
    expect(isinstance(value, list), 'a list')
    for i, entry in enumerate(value):
      _check(entry, inner[0], f'{where}[{i}]')
  elif kind in _SCALARS:
    accepted, name = _SCALARS[kind]
    expect(isinstance(value, accepted) and not isinstance(value, bool), name)
    if isinstance(value, int | float):
      # Axes have to be computed.
      expect(not _LARGEST < abs(value) < math.inf, name)
  elif kind is not object:
    expect(isinstance(value, dict), 'an object')
    is_typed = typing.is_typeddict(kind)
    kinds = _keys(kind) if is_typed else dict.fromkeys(value, inner[1])
    for key, inside in kinds.items():
      place = f'{where}.{key}'.removeprefix('.')
      if key in value:
        _check(value[key], inside, place)
      else:
        expect(key not in kind.__required_keys__, 'a value', place)


def values(report: Report) -> dict[str, np.ndarray]:
  """Read values.npz: 'index' [n] and 'METHOD/METRIC' [n]; {} if there is none.

  Where 'photograph' [n] is there, it says which images are crops of one photograph.

  Raises:
    ReportError: damaged, or arrays that don't fit each other.
  """
  file = report.folder / 'values.npz'
  if not foreign_files.exists(file):
    return {}
  what = 'the values of a report'
  found = foreign_arrays.read_npz(
    file, ('index',), what=what, finite=False, error=ReportError
  )
  index = found.get('index')
  if index is None or index.ndim != 1 or index.dtype.kind not in 'iu':
    raise ReportError(f"{file}: no whole numbers 'index' [n]")
  if len(np.unique(index)) < len(index):
    raise ReportError(f'{file}: an image is there twice')
  for key, array in found.items():
    kinds = 'iu' if key == 'photograph' else 'iuf'
    if array.shape != index.shape or array.dtype.kind not in kinds:
      raise ReportError(f'{file}: {key} is not one number an image')
  return found


def flat(protocol: Protocol, above: str = '') -> Iterator[tuple[str, str]]:
  """Yield nested keys joined by ' / ', with the text of each value."""
  for key, value in protocol.items():
    name = f'{above} / {key}' if above else str(key)
    if isinstance(value, Mapping):
      yield from flat(value, name)
    else:
      yield name, plain(value)


def plain(value: object) -> str:
  """Return a value of a protocol as text: lists in one line, yes and no, no quotes."""
  if isinstance(value, list | tuple):
    return ', '.join(map(plain, value))
  if isinstance(value, float):
    return f'{value:.10g}'
  words = {None: 'none', True: 'yes', False: 'no'}
  return words[value] if value is None or isinstance(value, bool) else str(value)


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
  """Return a value with so many digits after the point; a dash for none."""
  if value is None or math.isnan(value):
    return '–'
  if math.isinf(value):
    return '∞' if value > 0 else '−∞'
  text = f'{value:{"+" if sign else ""}.{digits}f}'
  if float(text) == 0:  # no minus, no plus
    text = f'{0:.{digits}f}'
  return text.replace('-', '−')


def best(entries: Row, metric: Metric) -> set[str]:
  """Return the names with the best value of a metric, as far as its digits show.

  There are none among less than two entries, or where nothing is said to be better.
  """
  distances = {
    'higher': lambda v: -v,
    'lower': float,
    '1 is right': lambda v: abs(v - 1),
  }
  distance = distances.get(metric['better'])
  values = {n: e['value'] for n, e in entries.items() if not math.isnan(e['value'])}
  if distance is None or len(values) < 2:
    return set()
  found = {n: distance(round(v, metric['digits'])) for n, v in values.items()}
  return {name for name, d in found.items() if d == min(found.values())}
