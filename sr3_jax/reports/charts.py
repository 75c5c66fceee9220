"""Draws the charts of reports as inline SVG: scatter, histograms, lines and forest.

Marks have a shape of their series as well as a colour, and every series has its name
beside it: nothing is told by colour alone. Numbers that aren't finite are left out.

matplotlib says where everything lies. Colours, fonts and line widths are the page's
(templates/style.css), so that one style sheet serves light, dark and print: every
element has a class that says what it is, and one of series i has class `s0` to `s5`,
too. Charts are WIDTH units wide, readable at a phone's width. All text is escaped.
"""

import contextlib
import dataclasses
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sr3_jax.runtime import text

WIDTH = 360
COLOURS = 6  # classes s0 to s5
CHARACTER = 6.3  # mean width of a character at the style sheet's 12 units
_LINE = 14  # height of a line of text
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten
# Classes of elements; matplotlib itself names those of ticks.
_KINDS = re.compile(
  '(area|axis|base|hint|label|line|mark|marker|whisker|zero)( s[0-5])?|[xy]tick'
)
# Control characters and others that XML can't hold, and new lines.
_NO_XML = re.compile('[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')

Range = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class Names:
  """What a chart is called."""

  ident: str  # begins the ids of the chart's elements; unique on the page
  title: str  # what it shows, for those who don't see it
  x_title: str  # below the x axis, with the unit
  y_title: str = ''  # above the y axis; '' for charts with a row for each series


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


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
  """Keep the settings of a user's matplotlibrc, LaTeX for one, out of charts."""
  import matplotlib

  # The backend stays: charts are drawn by none that opens windows.
  defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != 'backend'}
  with matplotlib.rc_context(defaults):
    yield


@default_settings()
def scatter(
  points: Sequence[Point], names: Names, better: tuple[int, int] = (0, 0)
) -> str:
  """Draw points with intervals as crosses and their names beside them.

  At least one point is finite. `better` has the signs of the directions of better x and
  better y, for a hint in a corner, or 0 where there is none.
  """
  points = [p for p in points if _finite(p.x, p.y)]
  chart = _Chart(310, (44, 30, WIDTH - 10, 266), margins=(0.14, 0.1))
  for p in points:
    if ends := _ends(p.x_range):
      chart.draw('whisker', ends, (p.y, p.y), p.style)
    if ends := _ends(p.y_range):
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
  chart = _rows_chart(row_height * len(rows), margin=0)
  most = max((c for row in rows for c in row.counts if _finite(c)), default=0) or 1
  for r, row in enumerate(rows):
    base = 8 + row_height * (r + 1)
    counts = [count if _finite(count) else 0 for count in row.counts]
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
  chart = _Chart(250, (48, 26, WIDTH - 16, 206), margins=(0, 0.12), log=log)
  ends = []
  for line in series:
    pairs = zip(line.xs, line.ys, strict=True)
    points = [(x, y) for x, y in pairs if _finite(x, y) and (y > 0 or not log)]
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
  chart = _rows_chart(row_height * len(rows), margin=0.06)
  chart.draw('zero', (0, 0), (8, 8 + row_height * len(rows)))
  for r, row in enumerate(rows):
    y = 8 + row_height * r
    if ends := _ends(row.interval):
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


class _Chart:
  """A chart while it is drawn; its units are the SVG's, y runs downwards.

  The box is that of the axes, margins are free at the ends of the x and the y axis, as
  shares of their ranges.
  """

  def __init__(
    self, height: float, box: Box, margins: tuple[float, float], log: bool = False
  ):
    # This import takes half a second, so only commands that draw do it.
    from matplotlib.figure import Figure

    self.height, self._box = height, box
    left, top, right, bottom = box
    self._figure = Figure((WIDTH / 72, height / 72), dpi=72)
    self._figure.subplots_adjust(
      left / WIDTH, 1 - bottom / height, right / WIDTH, 1 - top / height
    )
    self.axes = self._figure.add_subplot(yscale='log' if log else 'linear')
    self.axes.margins(*margins)
    self._obstacles: list[tuple[Sequence[float], Sequence[float], float]] = []
    self._texts: list[Box] = []

  def draw(
    self, kind: str, xs: Sequence[float], ys: Sequence[float], style: int | None = None
  ) -> None:
    """Draw a line through points, of a kind and maybe of a series."""
    gid = kind if style is None else _of_series(kind, style)
    self.axes.plot(xs, ys, 'k-', gid=gid, clip_on=False)
    if kind == 'line':
      self._obstacles += [((x,), (y,), 2) for x, y in zip(xs, ys, strict=True)]
    else:
      self._obstacles.append((xs, ys, 1))

  def area(
    self, edges: Sequence[float], tops: Sequence[float], base: float, style: int
  ) -> None:
    """Draw steps between edges, filled down to a base."""
    look = {'fill': True, 'clip_on': False, 'gid': _of_series('area', style)}
    self.axes.stairs(tops, edges, baseline=base, **look)

  def marker(self, x: float, y: float, style: int) -> None:
    """Draw a shape that goes with the number of the series, over all lines."""
    shape, size = (('o', 10), ('s', 9), ('D', 9), ('^', 11), ('v', 11))[style % 5]
    look = {'ms': size, 'ls': 'none', 'zorder': 3, 'clip_on': False}
    self.axes.plot(x, y, f'k{shape}', gid=_of_series('marker', style), **look)
    self._obstacles.append(((x,), (y,), 6))

  def finish(self, names: Names) -> None:
    """Fix the limits of the axes, and draw ticks and titles.

    All data are drawn before this, and all labels after it.
    """
    from matplotlib import ticker

    axes = self.axes
    axes.autoscale_view()
    axes.minorticks_off()
    axes.set_axisbelow(True)
    axes.grid(clip_on=False)
    axes.tick_params(length=0, pad=5, labelsize=11)
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter('{x:.6g}')
      if axis.get_scale() == 'log':
        low, high = axis.get_view_interval()
        steps = (1, 2, 5) if high < 100 * low else (1,)
        axis.set_major_locator(ticker.LogLocator(subs=steps, numticks=6))
      else:
        axis.set_major_locator(ticker.MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_visible(bool(names.y_title))
    if names.y_title:
      axes.spines[['left', 'bottom']].set_gid('base')
      self.text(0, 14, names.y_title, 'axis')
    right = self._box[2] if names.y_title else WIDTH
    self.text(right, self.height - 6, names.x_title, 'axis', 'right')

  def text(
    self, x: float, y: float, words: str, kind: str, anchor: str = 'left'
  ) -> None:
    """Write a line of text; y is its baseline, anchor 'left', 'center' or 'right'."""
    place = x / WIDTH, 1 - y / self.height
    words = _NO_XML.sub(' ', words)
    self._figure.text(*place, words, gid=kind, ha=anchor, size=11, parse_math=False)
    self._texts.append(_text_box(x, y, words, anchor))

  def label(self, x: float, y: float, words: str) -> None:
    """Write the name of a point beside it, where it hides least."""
    hidden = self._boxes()

    def cost(place: tuple[float, float, str]) -> float:
      """Return how bad a place is: what it hides, and what leaves the axes."""
      box = _text_box(*place[:2], words, place[2])
      outside = (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, self._box)
      return sum(_overlap(box, other) for other in hidden) + 4 * outside

    x, y, anchor = min(_beside(*self._place(x, y)), key=cost)
    self.text(x, y, words, 'label', anchor)

  def hint(self, x_sign: int, y_sign: int) -> None:
    """Say in a corner that values there are better, if that hides nothing."""
    left, top, right, bottom = self._box
    x, anchor = (left + 8, 'left') if x_sign < 0 else (right - 8, 'right')
    y = top + 16 if y_sign > 0 else bottom - 8
    arrow = {(-1, 1): '↖', (1, 1): '↗', (-1, -1): '↙', (1, -1): '↘'}[x_sign, y_sign]
    words = f'{arrow} better' if x_sign < 0 else f'better {arrow}'
    box = _text_box(x, y, words, anchor)
    if not any(_overlap(box, other) for other in self._boxes()):
      self.text(x, y, words, 'hint', anchor)

  def _boxes(self) -> list[Box]:
    """Return where there is something already."""
    found = list(self._texts)
    for xs, ys, half in self._obstacles:
      (a, b), (c, d) = self._place(xs[0], ys[-1]), self._place(xs[-1], ys[0])
      # A line is as wide as it is drawn, and as long as it is.
      wide, high = half if a == c else 0, half if b == d else 0
      found.append((a - wide, b - high, c + wide, d + high))
    return found

  def _place(self, x: float, y: float) -> tuple[float, float]:
    """Return where a value of both axes lies, in units."""
    right, up = self.axes.transData.transform((x, y))
    return float(right), self.height - float(up)

  def svg(self, names: Names, desc: str) -> str:
    """Return the SVG element with a title, and a description for those who can't see.

    The same chart gives the same text.
    """
    import matplotlib

    options = {'path.simplify': False, 'svg.fonttype': 'none'}
    options['svg.hashsalt'] = names.ident
    buffer = io.BytesIO()
    with matplotlib.rc_context(options), warnings.catch_warnings():
      # The browser has other fonts.
      warnings.filterwarnings('ignore', 'Glyph .* missing')
      self._figure.savefig(buffer, format='svg', metadata={'Date': None})
    root = ET.Element('svg', viewBox=f'0 0 {WIDTH} {self.height}', role='img')
    root.set('class', 'chart')
    root.set('aria-labelledby', f'{names.ident}-title {names.ident}-desc')
    for name, words in (('title', names.title), ('desc', desc)):
      node = ET.SubElement(root, name, id=f'{names.ident}-{name}')
      node.text = _NO_XML.sub(' ', words)
    for group in ET.fromstring(buffer.getvalue()).iter():
      if group.tag.endswith('}g') and _class_of(group):
        root.append(_plain(group))
    return ET.tostring(root, 'unicode')


def _rows_chart(height: float, margin: float) -> _Chart:
  """Return a chart of rows, with units of the chart on its y axis."""
  chart = _Chart(height + 48, (14, 8, WIDTH - 14, height + 8), (margin, 0))
  chart.axes.set_ylim(height + 8, 8)
  return chart


def _plain(node: ET.Element) -> ET.Element:
  """Return an element of matplotlib's without its looks: places and classes only."""
  plain = ET.Element(node.tag.rpartition('}')[2], _attributes(node))
  plain.text = node.text if plain.tag == 'text' else None
  plain.extend(map(_plain, node))
  return plain


def _attributes(node: ET.Element) -> dict[str, str]:
  """Return the attributes that place an element, and its class."""

  def rounded(number: re.Match[str]) -> str:  # no eye sees more than one digit
    return f'{float(number[0]):.1f}'.removesuffix('.0')

  found = {}
  if kind := _class_of(node):
    found['class'] = kind
  elif node.tag.endswith('path') and 'id' in node.attrib:
    found['id'] = node.attrib['id']  # of a marker, which is used by its id
  for name, value in node.attrib.items():
    if name in ('d', 'x', 'y'):
      found[name] = re.sub(r'-?\d+\.\d+', rounded, ' '.join(value.split()))
    elif name.endswith('href'):
      found['href'] = value
    elif anchor := re.search('text-anchor: (middle|end)', value):
      found['text-anchor'] = anchor[1]
  return found


def _class_of(node: ET.Element) -> str:
  """Return the class of an element, '' if it has none."""
  name = re.sub('_[0-9]+$', '', node.get('id', ''))
  return name if _KINDS.fullmatch(name) else ''


def fit(label: str, width: float) -> str:
  """Return a text cut to about a width in units."""
  return text.shorten(label, max(3, int(width / CHARACTER)))


def _finite(*values: float) -> bool:
  """Return whether all are finite."""
  return all(map(math.isfinite, values))


def _ends(interval: Range | None) -> Range | tuple[()]:
  """Return an interval if both ends are finite, else nothing."""
  return interval if interval and _finite(*interval) else ()


def _beside(x: float, y: float) -> list[tuple[float, float, str]]:
  """Return where a point's name may stand: x, y (baseline) and anchor, best first."""
  sides = ((x + 9, 'left'), (x - 9, 'right'))
  return [
    *((side, y + dy, anchor) for dy in (-5, 14) for side, anchor in sides),
    *((x, y - 12, 'center'), (x, y + 21, 'center')),
    *(
      (side, y - 5 + k * _LINE, anchor)
      for side, anchor in sides
      for k in (-1, 2, -2, 3)
    ),
  ]


def _overlap(a: Box, b: Box) -> float:
  """Return the area that two boxes share."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(0.0, width) * max(0.0, height)


def _of_series(kind: str, style: int) -> str:
  """Return the class of an element of a kind and of a series."""
  return f'{kind} s{style % COLOURS}'


def _text_box(x: float, y: float, words: str, anchor: str) -> Box:
  """Return about where a text lies."""
  width = CHARACTER * len(words)
  left = x - width * {'left': 0, 'center': 0.5, 'right': 1}[anchor]
  return left, y - 10, left + width, y + 3
