"""Charts as inline SVG: numbers in, the text of one `<svg>` element out.

Colours, fonts and line widths are the page's (templates/style.css): an element of
series i has class `s0` to `s5`, so that light, dark and print are one style sheet's
business. Marks have a shape of their series, too, and every series has its name beside
it: nothing is told by colour alone. All text is escaped. Charts are
WIDTH units wide, readable at a phone's width. Numbers that aren't finite are left out.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

WIDTH = 360
COLOURS = 6  # classes s0 to s5
_CHARACTER = 6.3  # mean width at the style sheet's 12 units
_LINE = 14  # height of a line of text

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Point:
  """A method in the plane, with intervals where they are known.

  Attributes:
    label: beside it.
    x: coordinate.
    y: coordinate.
    x_range: lowest and highest x of its interval, or None.
    y_range: the same of y.
    style: number of the series.
  """

  label: str
  x: float
  y: float
  x_range: Range | None = None
  y_range: Range | None = None
  style: int = 0


@dataclasses.dataclass(frozen=True)
class Line:
  """A series over steps; xs and ys are of one length."""

  label: str
  xs: Sequence[float]
  ys: Sequence[float]
  style: int = 0


@dataclasses.dataclass(frozen=True)
class Histogram:
  """Counts of a method, with a mark at a value and a note on it."""

  label: str
  counts: Sequence[float]
  mark: float | None = None
  note: str = ''
  style: int = 0


@dataclasses.dataclass(frozen=True)
class Difference:
  """A value with its interval (or None), and the text that says both."""

  label: str
  value: float
  interval: Range | None
  note: str
  style: int = 0


def scatter(
  points: Sequence[Point],
  *,
  ident: str,
  title: str,
  x_title: str,
  y_title: str,
  better: tuple[int, int] = (0, 0),
) -> str:
  """Points with intervals as crosses and their names beside them.

  Args:
    points: at least one with finite coordinates.
    ident: begins the ids of this chart; unique on the page.
    title: what it shows, for those who don't see it.
    x_title: below the axis, with the unit.
    y_title: above the axis.
    better: signs of the directions of better x and better y, for a corner's hint;
      0 where there is none.
  """
  points = [p for p in points if _finite(p.x, p.y)]
  left, right, top, bottom, height = 44, 10, 30, 44, 310
  xs = [v for p in points for v in (p.x, *_ends(p.x_range))]
  ys = [v for p in points for v in (p.y, *_ends(p.y_range))]
  across = _Scale(xs, left, WIDTH - right, 0.14)
  up = _Scale(ys, height - bottom, top, 0.1)
  parts = _frame(across, up, (left, top, WIDTH - right, height - bottom))
  parts.append(_text(0, 14, y_title, 'axis'))
  parts.append(_text(WIDTH - right, height - 6, x_title, 'axis', 'end'))
  boxes = []
  if all(better):
    x = left + 8 if better[0] < 0 else WIDTH - right - 8
    y = top + 16 if better[1] > 0 else height - bottom - 8
    arrow = {(-1, 1): '↖', (1, 1): '↗', (-1, -1): '↙', (1, -1): '↘'}[better]
    hint = f'{arrow} better' if better[0] < 0 else f'better {arrow}'
    anchor = 'start' if better[0] < 0 else 'end'
    parts.append(_text(x, y, hint, 'hint', anchor))
    boxes.append(_box(x, y, hint, anchor))
  places = [(across(p.x), up(p.y)) for p in points]
  boxes += [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
  for point, (x, y) in zip(points, places, strict=True):
    group = []
    if point.x_range and _finite(*point.x_range):
      a, b = (across(v) for v in point.x_range)
      group.append(_path(f'M{_n(a)} {_n(y)}H{_n(b)}', 'whisker'))
    if point.y_range and _finite(*point.y_range):
      a, b = (up(v) for v in point.y_range)
      group.append(_path(f'M{_n(x)} {_n(a)}V{_n(b)}', 'whisker'))
    group.append(_marker(x, y, point.style))
    parts.append(_group(group, point.style))
  limits = (left, top, WIDTH - right, height - bottom)
  for point, place in zip(points, places, strict=True):  # over all marks
    x, y, anchor = _free_place(place, point.label, boxes, limits)
    boxes.append(_box(x, y, point.label, anchor))
    parts.append(_text(x, y, point.label, 'label', anchor))
  said = '; '.join(f'{p.label}: {p.x:.4g}, {p.y:.4g}' for p in points)
  desc = f'Across: {x_title}. Up: {y_title}. {said}.'
  return _svg(parts, height, ident, title, desc)


def histograms(
  edges: Sequence[float],
  rows: Sequence[Histogram],
  *,
  ident: str,
  title: str,
  x_title: str,
) -> str:
  """One step histogram a row, all on one x axis and one scale of heights.

  Args:
    edges: n + 1 rising limits of the bins.
    rows: n counts each.
    ident: as in `scatter`.
    title: as in `scatter`.
    x_title: below the axis.
  """
  left, right, row_height, bars = 6, 6, 54, 34
  bottom = 8 + row_height * len(rows)
  across = _Scale([edges[0], edges[-1]], left, WIDTH - right, 0)
  most = max((c for row in rows for c in row.counts if _finite(c)), default=0) or 1
  parts = []
  for tick in across.ticks:
    x = _n(across(tick))
    parts.append(_path(f'M{x} 8V{bottom}', 'grid'))
    parts.append(_text(across(tick), bottom + 15, _number(tick), 'tick', 'middle'))
  for r, row in enumerate(rows):
    base = 8 + row_height * (r + 1)
    path = f'M{_n(across(edges[0]))} {base}'
    for count, right_edge in zip(row.counts, edges[1:], strict=True):
      count = count if _finite(count) else 0
      path += f'V{_n(base - bars * count / most)}H{_n(across(right_edge))}'
    group = [_path(f'{path}V{base}', 'area'), _path(f'M{left} {base}H354', 'base')]
    if row.mark is not None and edges[0] <= row.mark <= edges[-1]:
      x = _n(across(row.mark))
      group.append(_path(f'M{x} {base}V{base - bars - 3}', 'mark'))
    parts.append(_group(group, row.style))
    parts.append(_text(left, base - bars - 7, _fit(row.label, 230), 'label'))
    parts.append(_text(WIDTH - right, base - bars - 7, row.note, 'tick', 'end'))
  parts.append(_text(WIDTH - right, bottom + 33, x_title, 'axis', 'end'))
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return _svg(parts, bottom + 40, ident, title, f'A histogram a row. {said}.')


def lines(
  series: Sequence[Line],
  *,
  ident: str,
  title: str,
  x_title: str,
  y_title: str,
  log: bool = False,
) -> str:
  """Curves over steps, named at their ends; y is logarithmic on request.

  Args:
    series: with at least one finite point in all (above 0, where `log`).
    ident: as in `scatter`.
    title: as in `scatter`.
    x_title: below the axis.
    y_title: above the axis.
    log: a logarithmic y axis.
  """
  left, right, top, bottom, height = 48, 16, 26, 44, 250
  kept = [
    [
      (x, y)
      for x, y in zip(line.xs, line.ys, strict=True)
      if _finite(x, y) and (y > 0 or not log)
    ]
    for line in series
  ]
  every = [point for points in kept for point in points]
  across = _Scale([x for x, _ in every], left, WIDTH - right, 0)
  up = _Scale([y for _, y in every], height - bottom, top, 0.12, log)
  parts = _frame(across, up, (left, top, WIDTH - right, height - bottom))
  ends = []
  for line, points in zip(series, kept, strict=True):
    if points:
      path = 'L'.join(f'{_n(across(x))} {_n(up(y))}' for x, y in points)
      x, y = across(points[-1][0]), up(points[-1][1])
      group = [_path(f'M{path}', 'line'), _marker(x, y, line.style)]
      parts.append(_group(group, line.style))
      ends.append((y - 9, line.label, points[-1][1]))
  lowest = top + _LINE
  for y, label, _ in sorted(ends):  # from the top down, none on another
    y = max(y, lowest)
    lowest = y + _LINE
    parts.append(_text(WIDTH - right - 3, y, _fit(label, 200), 'label', 'end'))
  parts.append(_text(0, 12, f'{y_title}, logarithmic' if log else y_title, 'axis'))
  parts.append(_text(WIDTH - right, height - 6, x_title, 'axis', 'end'))
  said = '; '.join(f'{label} ends at {value:.4g}' for _, label, value in ends)
  return _svg(parts, height, ident, title, f'Over {x_title}: {said}.')


def forest(rows: Sequence[Difference], *, ident: str, title: str, x_title: str) -> str:
  """Differences with intervals, one a row, against a line at zero.

  Args:
    rows: finite values.
    ident: as in `scatter`.
    title: as in `scatter`.
    x_title: below the axis.
  """
  left, right, row_height = 8, 8, 40
  bottom = 8 + row_height * len(rows)
  values = [v for row in rows for v in (row.value, *_ends(row.interval))]
  across = _Scale([0.0, *values], left, WIDTH - right, 0.06)
  parts = []
  for tick in across.ticks:
    parts.append(_path(f'M{_n(across(tick))} 8V{bottom}', 'grid'))
    parts.append(_text(across(tick), bottom + 15, _number(tick), 'tick', 'middle'))
  parts.append(_path(f'M{_n(across(0))} 8V{bottom}', 'zero'))
  for r, row in enumerate(rows):
    y = 8 + row_height * r
    middle = y + 29
    group = []
    if row.interval and _finite(*row.interval):
      a, b = (_n(across(v)) for v in row.interval)
      ends = f'M{a} {middle - 4}v8M{b} {middle - 4}v8'
      group.append(_path(f'M{a} {middle}H{b}{ends}', 'whisker'))
    group.append(_marker(across(row.value), middle, row.style))
    parts.append(_group(group, row.style))
    room = WIDTH - left - right - 12 - _CHARACTER * len(row.note)
    parts.append(_text(left, y + 15, _fit(row.label, room), 'label'))
    parts.append(_text(WIDTH - right, y + 15, row.note, 'label', 'end'))
  parts.append(_text(WIDTH - right, bottom + 33, x_title, 'axis', 'end'))
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return _svg(parts, bottom + 40, ident, title, f'{x_title}. {said}.')


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """At most about `count` round numbers from `low` to `high` (low < high)."""
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(power * k for k in (1, 2, 2.5, 5, 10) if power * k >= rough * (1 - 1e-9))
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  # Through text, so that 3 * 0.1 is 0.3.
  return [float(f'{k * step:.10g}') for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
  """Round numbers between positive `low` and `high` on a logarithmic axis."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
    found = [float(f'{k}e{p}') for p in powers for k in steps]
    found = [v for v in found if low <= v <= high]
    if len(found) >= 3:
      return found[:: -(-len(found) // 7)]
  return ticks(low, high) if high > low else [low]


class _Scale:
  """Numbers -> units of the picture, with the ticks of an axis."""

  def __init__(
    self,
    values: Sequence[float],
    start: float,
    end: float,
    margin: float,
    log: bool = False,
  ):
    values = [v for v in values if _finite(v)] or [0.0]
    turn = math.log if log else float
    low, high = turn(min(values)), turn(max(values))
    # All alike, or apart by rounding only: some room, or there would be no ticks.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
      room = abs(low) * 0.05 or 0.5
      low, high = low - room, high + room
    low, high = low - margin * (high - low), high + margin * (high - low)
    self._low, self._high, self._start, self._end = low, high, start, end
    self._turn = turn
    self.ticks = log_ticks(math.exp(low), math.exp(high)) if log else ticks(low, high)

  def __call__(self, value: float) -> float:
    share = (self._turn(value) - self._low) / (self._high - self._low)
    return self._start + share * (self._end - self._start)


def _frame(across: _Scale, up: _Scale, box: Sequence[float]) -> list[str]:
  """Grid and numbers of two axes around a box: left, top, right, bottom."""
  left, top, right, bottom = box
  parts = []
  for tick in across.ticks:
    x = across(tick)
    parts.append(_path(f'M{_n(x)} {top}V{bottom}', 'grid'))
    parts.append(_text(x, bottom + 15, _number(tick), 'tick', 'middle'))
  for tick in up.ticks:
    y = up(tick)
    parts.append(_path(f'M{left} {_n(y)}H{right}', 'grid'))
    parts.append(_text(left - 5, y + 4, _number(tick), 'tick', 'end'))
  parts.append(_path(f'M{left} {top}V{bottom}H{right}', 'base'))
  return parts


def _free_place(place, label, boxes, limits) -> tuple[float, float, str]:
  """Where a point's name hides least: x, y (baseline) and anchor."""
  x, y = place
  candidates = [
    (x + 9, y - 5, 'start'),
    (x - 9, y - 5, 'end'),
    (x + 9, y + 14, 'start'),
    (x - 9, y + 14, 'end'),
    (x, y - 12, 'middle'),
    (x, y + 21, 'middle'),
    *((x + 9, y - 5 + k * _LINE, 'start') for k in (-1, 2, -2, 3)),
    *((x - 9, y - 5 + k * _LINE, 'end') for k in (-1, 2, -2, 3)),
  ]

  def cost(candidate):
    box = _box(*candidate[:2], label, candidate[2])
    hidden = sum(_overlap(box, other) for other in boxes)
    area = (box[2] - box[0]) * (box[3] - box[1])
    return hidden + 4 * (area - _overlap(box, limits))

  return min(candidates, key=cost)


def _overlap(a, b) -> float:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(0.0, width) * max(0.0, height)


def _box(x, y, text, anchor) -> tuple[float, float, float, float]:
  """About where a text lies: left, top, right, bottom."""
  width = _CHARACTER * len(text)
  left = x - width * {'start': 0, 'middle': 0.5, 'end': 1}[anchor]
  return left, y - 10, left + width, y + 3


def _marker(x: float, y: float, style: int) -> str:
  """A shape that goes with the number of the series."""
  shapes = (
    'm-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z',
    'm-4.5 -4.5h9v9h-9z',
    'm0 -6.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z',
    'm0 -6l6 10.5h-12z',
    'm0 6l6 -10.5h-12z',
  )
  return _path(f'M{_n(x)} {_n(y)}{shapes[style % len(shapes)]}', 'marker')


def _svg(parts, height, ident, title, desc) -> str:
  ident = html.escape(ident)
  return (
    f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
    f'aria-labelledby="{ident}-title {ident}-desc">'
    f'<title id="{ident}-title">{html.escape(title)}</title>'
    f'<desc id="{ident}-desc">{html.escape(desc)}</desc>{"".join(parts)}</svg>'
  )


def _group(parts: Sequence[str], style: int) -> str:
  return f'<g class="s{style % COLOURS}">{"".join(parts)}</g>'


def _path(d: str, kind: str) -> str:
  return f'<path class="{kind}" d="{d}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = 'start') -> str:
  at = f'x="{_n(x)}" y="{_n(y)}"'
  end = '' if anchor == 'start' else f' text-anchor="{anchor}"'
  return f'<text class="{kind}" {at}{end}>{html.escape(text)}</text>'


def _fit(text: str, width: float) -> str:
  """A text cut to about a width."""
  most = max(3, int(width / _CHARACTER))
  return text if len(text) <= most else text[: most - 1] + '…'


def _ends(interval: Range | None) -> Range | tuple[()]:
  return interval if interval and _finite(*interval) else ()


def _finite(*values: float) -> bool:
  return all(math.isfinite(v) for v in values)


def _n(value: float) -> str:
  """A coordinate, short."""
  return f'{value:.1f}'.removesuffix('.0')


def _number(value: float) -> str:
  """The number at a tick."""
  return f'{value:.6g}'.replace('-', '−')
