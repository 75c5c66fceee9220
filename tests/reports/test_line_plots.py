"""Charts: what is where in the picture."""

import numpy as np
import pytest
from PIL import ImageColor

from sr3_jax.reports import line_plots

LINES = {'rising': ([1, 10, 100], [0.0, 1.0, 2.0]), 'flat': ([1, 100], [1.5, 1.5])}
STYLES = {'rising': (0, 0), 'flat': (1, 1)}


def pixels(image: np.ndarray, colour: str) -> np.ndarray:
  """(y, x) of pixels nearly of a colour, [N, 2]."""
  difference = np.abs(image.astype(int) - ImageColor.getrgb(colour)).max(-1)
  return np.argwhere(difference < 40)


def draw(*panels: line_plots.Panel, size=(200, 300)) -> np.ndarray:
  return line_plots.chart(panels or [panel()], STYLES, x_title='steps', size=size)


def panel(lines=LINES, y_range=(0.0, 2.0), mark=None) -> line_plots.Panel:
  return line_plots.Panel('title', lines, y_range, mark)


def inside(image: np.ndarray) -> np.ndarray:
  """Without what is below the axes."""
  return image[: 34 + 200]


def test_points_lie_where_their_numbers_say():
  """Left edge 58, top 34; 4 % of the width are free on both sides."""
  found = pixels(inside(draw()), line_plots.COLOURS[0])
  left, right = 58 + 0.04 * 300, 58 + 0.96 * 300
  for x, y in ((left, 234), ((left + right) / 2, 134), (right, 34)):
    assert np.min(np.hypot(found[:, 1] - x, found[:, 0] - y)) < 3, (x, y)
  # Ten is halfway between one and a hundred, and so is the line.
  slope = np.polyfit(found[:, 1], found[:, 0], 1)[0]
  assert slope == pytest.approx(-200 / (right - left), rel=0.03)
  flat = pixels(inside(draw()), line_plots.COLOURS[1])
  assert np.abs(flat[:, 0] - (34 + 50)).max() <= 4


def test_a_dashed_line_has_gaps():
  def columns(colour):
    return len(np.unique(pixels(inside(draw()), colour)[:, 1]))

  assert columns(line_plots.COLOURS[0]) > 270
  assert 120 < columns(line_plots.COLOURS[1]) < 250


def test_what_exceeds_the_range_stays_inside_the_axes():
  lines = {'rising': ([1, 100], [-100.0, 100.0])}
  found = pixels(inside(draw(panel(lines))), line_plots.COLOURS[0])
  assert len(found) > 100
  assert found[:, 0].min() >= 34
  assert found[:, 0].max() < 34 + 200
  assert found[:, 1].max() < 58 + 300


def test_panels_stand_side_by_side_and_share_a_legend():
  one, two = draw(), draw(panel(), panel())
  assert one.dtype == two.dtype == np.uint8
  assert two.shape[1] == 2 * one.shape[1]

  def legend(image):
    return image[34 + 200 + 40 :]

  for colour in line_plots.COLOURS[:2]:
    assert len(pixels(legend(one), colour)) > 20
    assert len(pixels(legend(two), colour)) > 20
  width = one.shape[1]
  np.testing.assert_array_equal(inside(two[:, :width]), inside(two[:, width:]))


def test_a_mark_crosses_the_panel():
  lines = {'rising': ([1, 100], [3.0, 4.0])}
  image = inside(draw(panel(lines, (0.0, 4.0), (1.0, 'mark'))))
  row = image[34 + 150, 60:200].astype(int)
  assert np.all(np.abs(row - 0x70) < 60)


def y_ticks(limits) -> list[float]:
  """The numbers that stand beside the y axis."""
  figure = line_plots.figure([panel(y_range=limits)], STYLES, x_title='x', size=(2, 3))
  ticks = figure.axes[0].get_yticks()
  return [tick for tick in ticks if limits[0] - 1e-9 <= tick <= limits[1] + 1e-9]


@pytest.mark.parametrize(
  ('limits', 'ticks'),
  [
    ((0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ((0.0, 4.0), [0, 1, 2, 3, 4]),
    ((-0.1, 0.1), [-0.1, -0.05, 0, 0.05, 0.1]),
    ((23.7, 25.2), [23.75, 24, 24.25, 24.5, 24.75, 25]),
  ],
  ids=str,
)
def test_ticks_are_round_numbers(limits, ticks):
  assert y_ticks(limits) == pytest.approx(ticks)


def test_ticks_are_few_enough_to_read():
  rng = np.random.default_rng(0)
  for _ in range(60):
    low = rng.normal() * 100
    limits = (low, low + 10 ** rng.uniform(-3, 3))
    assert 3 <= len(y_ticks(limits)) <= 9


def test_numbers_that_would_touch_are_left_out():
  made = line_plots.figure(
    [panel({'rising': ([1000, 1001, 1100], [0, 1, 2])})],
    STYLES,
    x_title='x',
    size=(200, 300),
  )
  line_plots.render(made)
  labels = made.axes[0].get_xticklabels()
  assert [label.get_text() for label in labels] == ['1000', '1100']


def test_one_point_is_enough():
  image = draw(panel({'rising': ([8], [1.0])}))
  assert len(pixels(inside(image), line_plots.COLOURS[0])) > 5
