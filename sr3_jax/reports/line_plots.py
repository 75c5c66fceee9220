"""Draws line plots as pictures: numbers in, uint8 pixels out."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sr3_jax.reports.svg_chart import STEPS, default_settings

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart, too.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')
# Lengths of dash and gap in line widths of 2 pixels; the first is a solid line.
DASHES = ('-', (0, (4.5, 2.5)), (0, (1, 2)), (0, (4.5, 2, 1, 2)))
_INK, _GREY, _GRID = '#202020', '#707070', '#e4e4e4'
Size = tuple[int, int]  # height and width in pixels
Styles = Mapping[str, tuple[int, int]]  # label -> numbers of a colour and a dash


class Panel(NamedTuple):
  """One set of axes."""

  title: str  # above it
  # Label -> (x, y), of one length. Labels tell styles apart, in all panels alike.
  lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
  y_range: tuple[float, float]  # lines leave the panel where they exceed it
  mark: tuple[float, str] | None = None  # a value of y to compare with, and its name
  linear: bool = False  # x may be 0 then; otherwise it is logarithmic


@default_settings()
def chart(
  panels: Sequence[Panel], styles: Styles, *, x_title: str, size: Size = (340, 480)
) -> np.ndarray:
  """Draw panels with axes of a size side by side, and one legend below.

  Every line of a panel has a style. The result is uint8 [H, W, 3].
  """
  return render(figure(panels, styles, x_title=x_title, size=size))


def render(figure: 'Figure') -> np.ndarray:
  """Return the pixels of a figure of `figure`, uint8 [H, W, 3]."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  for axes in canvas.figure.axes:
    _hide_touching(axes)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def figure(
  panels: Sequence[Panel], styles: Styles, *, x_title: str, size: Size
) -> 'Figure':
  """Return the figure of `chart`, of 72 dots an inch, so that a point is a pixel."""
  from matplotlib.figure import Figure
  from matplotlib.lines import Line2D

  (height, width), (left, right, top, below) = size, (58, 14, 34, 52)
  columns = 2 * len(panels)
  whole_width = (left + width + right) * len(panels)
  foot = below + 20 * -(-len(styles) // columns) + 10
  whole_height = top + height + foot
  made = Figure((whole_width / 72, whole_height / 72), dpi=72, facecolor='white')
  all_axes = made.subplots(1, len(panels), squeeze=False)[0]
  made.subplots_adjust(
    left / whole_width,
    foot / whole_height,
    1 - right / whole_width,
    1 - top / whole_height,
    (left + right) / width,
  )
  for axes, panel in zip(all_axes, panels, strict=True):
    _draw(axes, panel, styles, x_title)
  handles = [Line2D([], [], **_look(style)) for style in styles.values()]
  top_edge = (foot - below + 10) / whole_height
  options: dict[str, Any] = {'loc': 'upper center', 'bbox_to_anchor': (0.5, top_edge)}
  options |= {'fontsize': 13, 'labelcolor': _INK, 'frameon': False}
  options |= {'ncols': columns, 'handlelength': 3.4, 'labelspacing': 0.4}
  made.legend(handles, list(styles), **options)
  return made


def _draw(axes: 'Axes', panel: Panel, styles: Styles, x_title: str) -> None:
  """Draw a panel into its axes, with a tick at every x that has a point."""
  from matplotlib.ticker import MaxNLocator

  axes.set_xscale('linear' if panel.linear else 'log')
  axes.set_xmargin(0.04)
  for label, (xs, ys) in panel.lines.items():
    axes.plot(xs, ys, **_look(styles[label]))
  if panel.mark:
    value, name = panel.mark
    axes.axhline(value, color=_GREY, lw=2, zorder=1.5)
    box = {'facecolor': 'white', 'linewidth': 0, 'pad': 0}
    look = {'ha': 'right', 'size': 13, 'color': _GREY, 'bbox': box}
    units = {'xycoords': ('axes fraction', 'data'), 'textcoords': 'offset points'}
    axes.annotate(name, (1, value), (-5, 3), **units, **look)
  axes.minorticks_off()
  x_ticks = sorted({x for xs, _ in panel.lines.values() for x in xs})
  axes.set_xticks(x_ticks, [f'{x:g}' for x in x_ticks])
  axes.set_ylim(*panel.y_range)
  axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
  axes.yaxis.set_major_formatter('{x:g}')
  axes.grid(color=_GRID, lw=1)
  axes.set_axisbelow(True)
  axes.tick_params(length=0, pad=6, labelsize=13, labelcolor=_INK)
  axes.spines[:].set_color(_GREY)
  axes.set_title(panel.title, size=15, color=_INK)
  axes.set_xlabel(x_title, size=13, color=_INK)


def _look(style: tuple[int, int]) -> dict[str, Any]:
  """Return the options of matplotlib for numbers of a colour and a dash."""
  colour, dash = COLOURS[style[0] % len(COLOURS)], DASHES[style[1] % len(DASHES)]
  return {'color': colour, 'ls': dash, 'lw': 2, 'marker': 'o', 'ms': 6}


def _hide_touching(axes: 'Axes') -> None:
  """Leave out those numbers of the x axis that would touch the one before."""
  free_from = -np.inf
  for label in axes.get_xticklabels():
    box = label.get_window_extent()
    label.set_visible(box.x0 > free_from)
    if box.x0 > free_from:
      free_from = box.x1 + 6
