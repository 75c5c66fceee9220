"""The charts of reports as SVG text: scatter, histograms, lines and forest.

Marks have a shape of their series as well as a colour, and every series has its name
beside it: nothing is told by colour alone. Numbers that aren't finite are left out.
"""

import dataclasses
from collections.abc import Sequence

from sr3_jax.reports import svg
from sr3_jax.reports.svg import WIDTH, Scale, finite, group, marker, path, text
from sr3_jax.reports.svg import coordinate as n

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
  points = [p for p in points if finite(p.x, p.y)]
  left, right, top, bottom, height = 44, 10, 30, 44, 310
  xs = [v for p in points for v in (p.x, *_ends(p.x_range))]
  ys = [v for p in points for v in (p.y, *_ends(p.y_range))]
  across = Scale(xs, left, WIDTH - right, 0.14)
  up = Scale(ys, height - bottom, top, 0.1)
  parts = svg.frame(across, up, (left, top, WIDTH - right, height - bottom))
  parts.append(text(0, 14, y_title, 'axis'))
  parts.append(text(WIDTH - right, height - 6, x_title, 'axis', 'end'))
  places = [(across(p.x), up(p.y)) for p in points]
  boxes = [_around(x, y, 6) for x, y in places]
  for point, (x, y) in zip(points, places, strict=True):
    marks = []
    if ends := _ends(point.x_range):
      a, b = map(across, ends)
      marks.append(path(f'M{n(a)} {n(y)}H{n(b)}', 'whisker'))
      boxes.append((a, y - 1, b, y + 1))
    if ends := _ends(point.y_range):
      a, b = map(up, ends)
      marks.append(path(f'M{n(x)} {n(a)}V{n(b)}', 'whisker'))
      boxes.append((x - 1, b, x + 1, a))
    marks.append(marker(x, y, point.style))
    parts.append(group(marks, point.style))
  limits = (left, top, WIDTH - right, height - bottom)
  if all(better):
    x = left + 8 if better[0] < 0 else WIDTH - right - 8
    y = top + 16 if better[1] > 0 else height - bottom - 8
    arrow = {(-1, 1): '↖', (1, 1): '↗', (-1, -1): '↙', (1, -1): '↘'}[better]
    hint = f'{arrow} better' if better[0] < 0 else f'better {arrow}'
    box = _box(x, y, hint, anchor := 'start' if better[0] < 0 else 'end')
    if not any(_overlap(box, other) for other in boxes):
      parts.append(text(x, y, hint, 'hint', anchor))
      boxes.append(box)
  for point, place in zip(points, places, strict=True):  # over all marks
    x, y, anchor = _free_place(place, point.label, boxes, limits)
    boxes.append(_box(x, y, point.label, anchor))
    parts.append(text(x, y, point.label, 'label', anchor))
  said = '; '.join(f'{p.label}: {p.x:.4g}, {p.y:.4g}' for p in points)
  desc = f'Across: {x_title}. Up: {y_title}. {said}.'
  return svg.chart(parts, height, ident, title, desc)


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
  left, right, row_height, bars = 14, 14, 54, 34
  bottom = 8 + row_height * len(rows)
  across = Scale([edges[0], edges[-1]], left, WIDTH - right, 0)
  most = max((c for row in rows for c in row.counts if finite(c)), default=0) or 1
  parts = svg.grid_across(across, 8, bottom)
  for r, row in enumerate(rows):
    base = 8 + row_height * (r + 1)
    outline = f'M{n(across(edges[0]))} {base}'
    for count, right_edge in zip(row.counts, edges[1:], strict=True):
      count = count if finite(count) else 0
      outline += f'V{n(base - bars * count / most)}H{n(across(right_edge))}'
    marks = [
      path(f'{outline}V{base}', 'area'),
      path(f'M{left} {base}H{WIDTH - right}', 'base'),
    ]
    if row.mark is not None and edges[0] <= row.mark <= edges[-1]:
      x = n(across(row.mark))
      marks.append(path(f'M{x} {base}V{base - bars - 3}', 'mark'))
    parts.append(group(marks, row.style))
    parts.append(text(0, base - bars - 7, svg.fit(row.label, 230), 'label'))
    parts.append(text(WIDTH, base - bars - 7, row.note, 'tick', 'end'))
  parts.append(text(WIDTH, bottom + 33, x_title, 'axis', 'end'))
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return svg.chart(parts, bottom + 40, ident, title, f'A histogram a row. {said}.')


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
      if finite(x, y) and (y > 0 or not log)
    ]
    for line in series
  ]
  every = [point for points in kept for point in points]
  across = Scale([x for x, _ in every], left, WIDTH - right, 0)
  up = Scale([y for _, y in every], height - bottom, top, 0.12, log)
  limits = (left, top, WIDTH - right, height - bottom)
  parts = svg.frame(across, up, limits)
  ends, boxes = [], []
  for line, points in zip(series, kept, strict=True):
    if points:
      outline = 'L'.join(f'{n(across(x))} {n(up(y))}' for x, y in points)
      x, y = across(points[-1][0]), up(points[-1][1])
      marks = [path(f'M{outline}', 'line'), marker(x, y, line.style)]
      parts.append(group(marks, line.style))
      ends.append(((x, y), line.label, points[-1][1]))
      boxes += [_around(across(x), up(y), 2) for x, y in points]
  boxes += [_around(*place, 6) for place, _, _ in ends]
  for place, label, _ in ends:
    x, y, anchor = _free_place(place, svg.fit(label, 200), boxes, limits)
    boxes.append(_box(x, y, svg.fit(label, 200), anchor))
    parts.append(text(x, y, svg.fit(label, 200), 'label', anchor))
  parts.append(text(0, 12, f'{y_title}, logarithmic' if log else y_title, 'axis'))
  parts.append(text(WIDTH - right, height - 6, x_title, 'axis', 'end'))
  said = '; '.join(f'{label} ends at {value:.4g}' for _, label, value in ends)
  return svg.chart(parts, height, ident, title, f'Over {x_title}: {said}.')


def forest(rows: Sequence[Difference], *, ident: str, title: str, x_title: str) -> str:
  """Differences with intervals, one a row, against a line at zero.

  Args:
    rows: finite values.
    ident: as in `scatter`.
    title: as in `scatter`.
    x_title: below the axis.
  """
  left, right, row_height = 14, 14, 40
  bottom = 8 + row_height * len(rows)
  values = [v for row in rows for v in (row.value, *_ends(row.interval))]
  across = Scale([0.0, *values], left, WIDTH - right, 0.06)
  parts = svg.grid_across(across, 8, bottom)
  parts.append(path(f'M{n(across(0))} 8V{bottom}', 'zero'))
  for r, row in enumerate(rows):
    y = 8 + row_height * r
    middle = y + 29
    marks = []
    if ends := _ends(row.interval):
      a, b = (n(across(v)) for v in ends)
      caps = f'M{a} {middle - 4}v8M{b} {middle - 4}v8'
      marks.append(path(f'M{a} {middle}H{b}{caps}', 'whisker'))
    marks.append(marker(across(row.value), middle, row.style))
    parts.append(group(marks, row.style))
    room = WIDTH - 12 - svg.CHARACTER * len(row.note)
    parts.append(text(0, y + 15, svg.fit(row.label, room), 'label'))
    parts.append(text(WIDTH, y + 15, row.note, 'label', 'end'))
  parts.append(text(WIDTH, bottom + 33, x_title, 'axis', 'end'))
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return svg.chart(parts, bottom + 40, ident, title, f'{x_title}. {said}.')


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
  width = svg.CHARACTER * len(text)
  left = x - width * {'start': 0, 'middle': 0.5, 'end': 1}[anchor]
  return left, y - 10, left + width, y + 3


def _around(x: float, y: float, room: float) -> tuple[float, float, float, float]:
  return x - room, y - room, x + room, y + room


def _ends(interval: Range | None) -> Range | tuple[()]:
  return interval if interval and finite(*interval) else ()
