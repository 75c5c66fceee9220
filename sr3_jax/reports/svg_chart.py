"""Draws one chart as inline SVG: what the kinds of charts in `charts` are made of.

matplotlib says where everything lies; its colours and fonts are left to the page.
"""

import contextlib
import dataclasses
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from sr3_jax.runtime import text
from sr3_jax.runtime.printing import printable

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


@contextlib.contextmanager
def default_settings() -> Iterator[None]:
  """Keep the settings of a user's matplotlibrc, LaTeX for one, out of charts."""
  import matplotlib

  # The backend stays: charts are drawn by none that opens windows.
  defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != 'backend'}
  with matplotlib.rc_context(defaults):
    yield


@default_settings()
class Chart:
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
    words = _NO_XML.sub(' ', printable(words))
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
      node.text = _NO_XML.sub(' ', printable(words))
    for group in ET.fromstring(buffer.getvalue()).iter():
      if group.tag.endswith('}g') and _class_of(group):
        root.append(_plain(group))
    return ET.tostring(root, 'unicode')


def rows_chart(height: float, margin: float) -> Chart:
  """Return a chart of rows, with units of the chart on its y axis."""
  chart = Chart(height + 48, (14, 8, WIDTH - 14, height + 8), (margin, 0))
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


def finite(*values: float) -> bool:
  """Return whether all are finite."""
  return all(map(math.isfinite, values))


def interval_ends(interval: Range | None) -> Range | tuple[()]:
  """Return an interval if both ends are finite, else nothing."""
  return interval if interval and finite(*interval) else ()


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
