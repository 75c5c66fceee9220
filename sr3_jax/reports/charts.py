"""Draws the charts of reports as inline SVG: scatter, histograms, lines and forest.

Marks have a shape of their series as well as a colour, and every series has its name
beside it: nothing is told by colour alone. Numbers that aren't finite are left out.

matplotlib says where everything lies. Colours, fonts and line widths are the page's
(templates/style.css), so that one style sheet serves light, dark and print: every
element has a class that says what it is, and one of series i has class `s0` to `s5`,
too. Charts are WIDTH units wide, readable at a phone's width. All text is escaped.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from sr3_jax.reports.svg_chart import (
  CHARACTER,
  WIDTH,
  Chart,
  Names,
  Range,
  default_settings,
  finite,
  fit,
  interval_ends,
  rows_chart,
)


class Point(NamedTuple):
  """A method in the plane, with intervals (lowest, highest) where they are known."""

  label: str
  x: float
  y: float
  x_range: Range | None = None
  y_range: Range | None = None
  style: int = 0  # number of the series


class Line(NamedTuple):
  """A series over steps; xs and ys are of one length."""

  label: str
  xs: Sequence[float]
  ys: Sequence[float]
  style: int = 0


class Histogram(NamedTuple):
  """Counts of a method, with a mark at a value and a note on it."""

  label: str
  counts: Sequence[float]
  mark: float | None = None
  note: str = ''
  style: int = 0


class Difference(NamedTuple):
  """A value with its interval (or None), and the text that says both."""

  label: str
  value: float
  interval: Range | None
  note: str
  style: int = 0


def scatter(
  points: Sequence[Point], names: Names, better: tuple[int, int] = (0, 0)
) -> str:
  """Draw points with intervals as crosses and their names beside them.

  At least one point is finite. `better` has the signs of the directions of better x and
  better y, for a hint in a corner, or 0 where there is none.
  """
  points = [p for p in points if finite(p.x, p.y)]
  chart = Chart(310, (44, 30, WIDTH - 10, 266), margins=(0.14, 0.1))
  for p in points:
    if ends := interval_ends(p.x_range):
      chart.draw('whisker', ends, (p.y, p.y), p.style)
    if ends := interval_ends(p.y_range):
      chart.draw('whisker', (p.x, p.x), ends, p.style)
    chart.marker(p.x, p.y, p.style)
  chart.finish(names)
  if all(better):
    chart.hint(*better)
  for p in points:
    chart.label(p.x, p.y, p.label)
  said = '; '.join(f'{p.label}: {p.x:.4g}, {p.y:.4g}' for p in points)
  return chart.svg(names, f'Across: {names.x_title}. Up: {names.y_title}. {said}.')


@default_settings()
def histograms(edges: Sequence[float], rows: Sequence[Histogram], names: Names) -> str:
  """Draw one step histogram a row, all on one x axis and one scale of heights.

  There are n + 1 rising edges, and n counts in each row.
  """
  row_height, bars = 54, 34
  chart = rows_chart(row_height * len(rows), margin=0)
  most = max((c for row in rows for c in row.counts if finite(c)), default=0) or 1
  for r, row in enumerate(rows):
    base = 8 + row_height * (r + 1)
    counts = [count if finite(count) else 0 for count in row.counts]
    tops = [base - bars * count / most for count in counts]
    chart.area(edges, tops, base, row.style)
    chart.draw('base', (edges[0], edges[-1]), (base, base))
    if row.mark is not None and edges[0] <= row.mark <= edges[-1]:
      chart.draw('mark', (row.mark, row.mark), (base, base - bars - 3))
    chart.text(0, base - bars - 7, fit(row.label, 230), 'label')
    chart.text(WIDTH, base - bars - 7, row.note, 'axis', 'right')
  chart.finish(names)
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return chart.svg(names, f'A histogram a row. {said}.')


@default_settings()
def lines(series: Sequence[Line], names: Names, log: bool = False) -> str:
  """Draw curves over steps, named at their ends; the y axis may be logarithmic.

  There is at least one finite point in all series (above 0, where `log`).
  """
  chart = Chart(250, (48, 26, WIDTH - 16, 206), margins=(0, 0.12), log=log)
  ends = []
  for line in series:
    pairs = zip(line.xs, line.ys, strict=True)
    points = [(x, y) for x, y in pairs if finite(x, y) and (y > 0 or not log)]
    if points:
      xs, ys = zip(*points, strict=True)
      chart.draw('line', xs, ys, line.style)
      chart.marker(*points[-1], line.style)
      ends.append((*points[-1], line.label))
  if log:
    names = dataclasses.replace(names, y_title=f'{names.y_title}, logarithmic')
  chart.finish(names)
  for x, y, label in ends:
    chart.label(x, y, fit(label, 200))
  said = '; '.join(f'{label} ends at {y:.4g}' for _, y, label in ends)
  return chart.svg(names, f'Over {names.x_title}: {said}.')


@default_settings()
def forest(rows: Sequence[Difference], names: Names) -> str:
  """Draw finite differences with intervals, one a row, against a line at zero."""
  row_height = 40
  chart = rows_chart(row_height * len(rows), margin=0.06)
  chart.draw('zero', (0, 0), (8, 8 + row_height * len(rows)))
  for r, row in enumerate(rows):
    y = 8 + row_height * r
    if ends := interval_ends(row.interval):
      chart.draw('whisker', ends, (y + 29, y + 29), row.style)
      for end in ends:
        chart.draw('whisker', (end, end), (y + 25, y + 33), row.style)
    chart.marker(row.value, y + 29, row.style)
    free = WIDTH - 12 - CHARACTER * len(row.note)
    chart.text(0, y + 15, fit(row.label, free), 'label')
    chart.text(WIDTH, y + 15, row.note, 'label', 'right')
  chart.finish(names)
  said = '; '.join(f'{row.label}: {row.note}' for row in rows)
  return chart.svg(names, f'{names.x_title}. {said}.')
