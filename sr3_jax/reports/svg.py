"""Inline SVG: elements, axes and where numbers lie on them.

Colours, fonts and line widths are the page's (templates/style.css): an element of
series i has class `s0` to `s5`, so that light, dark and print are one style sheet's
business. All text is escaped. Charts are WIDTH units wide, readable at a phone's width.
"""

import html
import math
from collections.abc import Sequence

WIDTH = 360
COLOURS = 6  # classes s0 to s5
CHARACTER = 6.3  # mean width at the style sheet's 12 units


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


class Scale:
  """Numbers -> units of the picture, with the ticks of an axis.

  Args:
    values: all that has to find room; what isn't finite doesn't count.
    start: where the lowest lies.
    end: where the highest lies.
    margin: room on both sides, as a share of the range.
    log: a logarithmic axis, for values above 0.
  """

  def __init__(
    self,
    values: Sequence[float],
    start: float,
    end: float,
    margin: float,
    log: bool = False,
  ):
    values = [v for v in values if finite(v)] or [0.0]
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


def grid_across(across: Scale, top: float, bottom: float) -> list[str]:
  """Vertical lines at the ticks of an axis, and their numbers below."""
  parts = []
  for tick in across.ticks:
    x = across(tick)
    parts.append(path(f'M{coordinate(x)} {top}V{bottom}', 'grid'))
    parts.append(text(x, bottom + 15, _tick(tick), 'tick', 'middle'))
  return parts


def frame(across: Scale, up: Scale, box: Sequence[float]) -> list[str]:
  """Grid and numbers of two axes around a box: left, top, right, bottom."""
  left, top, right, bottom = box
  parts = grid_across(across, top, bottom)
  for tick in up.ticks:
    y = up(tick)
    parts.append(path(f'M{left} {coordinate(y)}H{right}', 'grid'))
    parts.append(text(left - 5, y + 4, _tick(tick), 'tick', 'end'))
  parts.append(path(f'M{left} {top}V{bottom}H{right}', 'base'))
  return parts


def marker(x: float, y: float, style: int) -> str:
  """A shape that goes with the number of the series."""
  shapes = (
    'm-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z',
    'm-4.5 -4.5h9v9h-9z',
    'm0 -6.5l6.5 6.5l-6.5 6.5l-6.5 -6.5z',
    'm0 -6l6 10.5h-12z',
    'm0 6l6 -10.5h-12z',
  )
  return path(
    f'M{coordinate(x)} {coordinate(y)}{shapes[style % len(shapes)]}', 'marker'
  )


def chart(
  parts: Sequence[str], height: float, ident: str, title: str, desc: str
) -> str:
  """The whole element, WIDTH wide.

  Args:
    parts: what is in it, first the lowest.
    height: in the same units.
    ident: begins the ids of title and description.
    title: what it is.
    desc: what it shows, for those who don't see it.
  """
  ident = html.escape(ident)
  return (
    f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
    f'aria-labelledby="{ident}-title {ident}-desc">'
    f'<title id="{ident}-title">{html.escape(title)}</title>'
    f'<desc id="{ident}-desc">{html.escape(desc)}</desc>{"".join(parts)}</svg>'
  )


def group(parts: Sequence[str], style: int) -> str:
  """Elements of series `style`."""
  return f'<g class="s{style % COLOURS}">{"".join(parts)}</g>'


def path(d: str, kind: str) -> str:
  """A path of a class."""
  return f'<path class="{kind}" d="{d}"/>'


def text(x: float, y: float, text: str, kind: str, anchor: str = 'start') -> str:
  """A line of text of a class; y is its baseline, anchor start, middle or end."""
  at = f'x="{coordinate(x)}" y="{coordinate(y)}"'
  end = '' if anchor == 'start' else f' text-anchor="{anchor}"'
  return f'<text class="{kind}" {at}{end}>{html.escape(text)}</text>'


def fit(text: str, width: float) -> str:
  """A text cut to about a width."""
  most = max(3, int(width / CHARACTER))
  return text if len(text) <= most else text[: most - 1] + '…'


def finite(*values: float) -> bool:
  """Whether all are."""
  return all(math.isfinite(v) for v in values)


def coordinate(value: float) -> str:
  """A coordinate, short."""
  return f'{value:.1f}'.removesuffix('.0')


def _tick(value: float) -> str:
  """The number at a tick."""
  return f'{value:.6g}'.replace('-', '−')
