"""Line charts drawn with Pillow: numbers in, a uint8 picture out."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's colours, which colour-blind people can tell apart, too.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
# Lengths of dash and gap in pixels; () is a solid line.
DASHES = ((), (9, 5), (2, 4), (9, 4, 2, 4))
_INK, _GREY, _GRID = '#202020', '#707070', '#e4e4e4'
_SMOOTH = 3  # drawn this many times larger, then reduced


@dataclasses.dataclass(frozen=True)
class Panel:
  """One set of axes.

  Attributes:
    title: above it.
    lines: label -> (x, y), of one length. Labels tell styles apart, in all panels
      alike.
    y_range: lowest and highest y shown; lines leave the panel where they exceed it.
    mark: a value of y to compare with, and its name.
    linear: x is not logarithmic, so it may be 0.
  """

  title: str
  lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
  y_range: tuple[float, float]
  mark: tuple[float, str] | None = None
  linear: bool = False


def chart(
  panels: Sequence[Panel],
  styles: Mapping[str, tuple[int, int]],
  *,
  x_title: str,
  size: tuple[int, int] = (340, 480),
) -> np.ndarray:
  """Panels side by side, with one legend below.

  Args:
    panels: at least one.
    styles: label -> numbers of a colour and a dash, for every line.
    x_title: below the axes.
    size: height and width of each set of axes in pixels.

  Returns:
    uint8 [H, W, 3].
  """
  height, width = (side * _SMOOTH for side in size)
  left, right, top, below = (pixels * _SMOOTH for pixels in (58, 14, 34, 52))
  font = ImageFont.load_default(size=13 * _SMOOTH)
  columns = max(1, len(panels) * 2)
  rows = -(-len(styles) // columns)
  row_height = 20 * _SMOOTH
  pitch = left + width + right
  canvas = Image.new(
    'RGB',
    (pitch * len(panels), top + height + below + rows * row_height + row_height // 2),
    'white',
  )
  draw = ImageDraw.Draw(canvas)
  for p, panel in enumerate(panels):
    at = p * pitch + left, top
    canvas.paste(_axes(panel, styles, (height, width), font), at)
    _labels(draw, panel, at, (height, width), font, x_title)
  cell = canvas.width // columns
  for k, (label, style) in enumerate(styles.items()):
    column, row = divmod(k, rows)
    x = column * cell + left // 3
    y = top + height + below + row * row_height + row_height // 2
    end = x + 44 * _SMOOTH
    _line(draw, [(x, y), (end, y)], style)
    _dot(draw, ((x + end) / 2, y), style)
    draw.text((end + 8 * _SMOOTH, y), label, _INK, font=font, anchor='lm')
  reduced = canvas.width // _SMOOTH, canvas.height // _SMOOTH
  return np.array(canvas.resize(reduced, Image.Resampling.LANCZOS))


def _axes(panel: Panel, styles, size, font) -> Image.Image:
  """The inside of the axes: grid, mark and lines."""
  height, width = size
  image = Image.new('RGB', (width, height), 'white')
  draw = ImageDraw.Draw(image)
  at = _scale(panel, size)
  for x in _x_ticks(panel):
    draw.line([at(x, 0)[0], 0, at(x, 0)[0], height], _GRID, _SMOOTH)
  for y in _y_ticks(panel.y_range):
    draw.line([0, at(1, y)[1], width, at(1, y)[1]], _GRID, _SMOOTH)
  if panel.mark:
    y = at(1, panel.mark[0])[1]
    draw.line([0, y, width, y], _GREY, 2 * _SMOOTH)
  for label, (xs, ys) in panel.lines.items():
    points = [at(x, y) for x, y in zip(xs, ys, strict=True)]
    _line(draw, points, styles[label])
    for point in points:
      _dot(draw, point, styles[label])
  if panel.mark:  # over the lines, on white, so that it can be read
    place = width - 5 * _SMOOTH, y - 3 * _SMOOTH
    box = draw.textbbox(place, panel.mark[1], font=font, anchor='rs')
    draw.rectangle(box, 'white')
    draw.text(place, panel.mark[1], _GREY, font=font, anchor='rs')
  draw.rectangle([0, 0, width - 1, height - 1], outline=_GREY, width=_SMOOTH)
  return image


def _labels(draw, panel: Panel, corner, size, font, x_title) -> None:
  """What stands around the axes."""
  left, top = corner
  height, width = size
  at = _scale(panel, size)
  space = 6 * _SMOOTH
  title = ImageFont.load_default(size=15 * _SMOOTH)
  place = left + width / 2, top - space
  draw.text(place, panel.title, _INK, font=title, anchor='ms')
  free_from = -math.inf
  for x in _x_ticks(panel):
    middle, text = left + at(x, 0)[0], f'{x:g}'
    half = font.getlength(text) / 2
    if middle - half > free_from:  # numbers that would touch are left out
      place = middle, top + height + space
      draw.text(place, text, _INK, font=font, anchor='mt')
      free_from = middle + half + space
  for y in _y_ticks(panel.y_range):
    place = left - space, top + at(1, y)[1]
    draw.text(place, f'{y:g}', _INK, font=font, anchor='rm')
  place = left + width / 2, top + height + 4 * space
  draw.text(place, x_title, _INK, font=font, anchor='mt')


def _scale(panel: Panel, size):
  """(x, y) -> pixels inside the axes."""
  height, width = size
  ticks = _x_ticks(panel)
  along = (lambda x: x) if panel.linear else math.log
  low, high = along(ticks[0]), along(ticks[-1])
  bottom, top = panel.y_range
  margin = 0.04
  across = lambda x: (along(x) - low) / (high - low or 1)
  return lambda x, y: (
    width * (margin + (1 - 2 * margin) * across(x)),
    height * (1 - (y - bottom) / (top - bottom)),
  )


def _x_ticks(panel: Panel) -> list[float]:
  """Every x that has a point."""
  return sorted({x for xs, _ in panel.lines.values() for x in xs})


def _y_ticks(limits: tuple[float, float]) -> list[float]:
  """Round numbers inside the range, four to nine of them."""
  low, high = limits
  step = 10.0 ** math.floor(math.log10((high - low) / 4))
  step *= max(k for k in (1, 2, 2.5, 5) if k * step <= (high - low) / 4 * (1 + 1e-9))
  first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  return [round(k * step, 10) for k in range(first, last + 1)]


def _line(draw: ImageDraw.ImageDraw, points, style: tuple[int, int]) -> None:
  """A line through points, dashed along its whole length."""
  colour, dash = COLOURS[style[0] % len(COLOURS)], DASHES[style[1] % len(DASHES)]
  width = 2 * _SMOOTH
  if not dash:
    draw.line(points, colour, width, joint='curve')
    return
  lengths = itertools.cycle(d * _SMOOTH for d in dash)
  left, drawing = next(lengths), True
  for (x, y), (to_x, to_y) in itertools.pairwise(points):
    length, done = math.hypot(to_x - x, to_y - y), 0.0
    while done < length:
      step = min(left, length - done)
      part = [done / length, (done + step) / length]
      if drawing:
        draw.line(
          [(x + (to_x - x) * t, y + (to_y - y) * t) for t in part], colour, width
        )
      done, left = done + step, left - step
      if left <= 1e-9:
        left, drawing = next(lengths), not drawing


def _dot(draw: ImageDraw.ImageDraw, point, style: tuple[int, int]) -> None:
  radius = 3 * _SMOOTH
  box = [point[0] - radius, point[1] - radius, point[0] + radius, point[1] + radius]
  draw.ellipse(box, COLOURS[style[0] % len(COLOURS)])
