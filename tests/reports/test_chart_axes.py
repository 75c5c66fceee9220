"""Ticks, limits and texts of charts, read back from their SVG."""

import dataclasses
import math

import matplotlib
import numpy as np
import pytest

from sr3_jax.reports import charts
from tests.support import svg_charts

NAMES = charts.Names('x', 't', 'step', 'y')


def draw(ys, xs=None, log=False):
  """A curve's chart, parsed."""
  line = charts.Line('a', range(len(ys)) if xs is None else xs, ys)
  return svg_charts.read(charts.lines([line], NAMES, log))


@pytest.mark.parametrize(
  'low, high',
  [(0, 1), (17.18, 26.78), (-0.004, 0.0031), (1e6, 3e6), (-3e-9, 2e-9), (99.9, 100.1)],
)
def test_ticks_are_few_round_numbers_within_the_range(low, high):
  root = draw([1, 2], xs=[low, high])
  found = [tick for _, tick in svg_charts.ticks(root, 'xtick')]
  assert 2 <= len(found) <= 6
  assert low <= found[0] and found[-1] <= high
  step = found[1] - found[0]
  np.testing.assert_allclose(np.diff(found), step, rtol=1e-6)
  mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
  assert min(abs(mantissa - k) for k in (1, 2, 2.5, 5)) < 1e-6
  # No other tick would have had a place.
  assert found[0] - step < low and found[-1] + step > high


@pytest.mark.parametrize('low, high', [(0.03, 0.6), (1e-6, 2.0), (19.8, 20.4), (2, 3)])
def test_logarithmic_ticks_lie_within_the_range(low, high):
  root = draw([low, high], log=True)
  found = [tick for _, tick in svg_charts.ticks(root, 'ytick')]
  free = (high / low) ** 0.12  # above and below the curve
  assert 2 <= len(found) <= 8
  assert all(low / free <= tick <= high * free for tick in found)
  assert all(len(f'{tick:.3g}') <= 6 for tick in found)


def test_an_axis_is_linear_in_the_value_or_in_its_logarithm():
  root = draw([1, 2, 3, 1], xs=[10, 20, math.nan, math.inf])
  (line,) = svg_charts.of_class(root, 'line')
  assert [x for x, _ in svg_charts.numbers(line)] == [48, 344]
  root = draw([1, 10, 100], xs=[10, 15, 20], log=True)
  (line,) = svg_charts.of_class(root, 'line')
  xs, ys = zip(*svg_charts.numbers(line), strict=True)
  assert xs == (48, 196, 344)
  assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.15)
  assert ys[0] - ys[2] == pytest.approx((206 - 26) / 1.24, abs=0.2)


@pytest.mark.parametrize(
  'values', [[], [5.0], [0.0, 0.0], [1e15, 1e15 + 1], [math.nan]]
)
def test_a_chart_has_places_and_ticks_even_where_all_values_are_alike(values):
  points = [charts.Point('a', v, v) for v in values]
  root = svg_charts.read(charts.scatter(points, NAMES))
  assert svg_charts.ticks(root, 'xtick') and svg_charts.ticks(root, 'ytick')
  places = svg_charts.markers(root)
  assert len(places) == sum(map(math.isfinite, values))
  assert all(44 <= x <= 350 and 30 <= y <= 266 for x, y in places)


def test_texts_and_names_are_escaped():
  hostile = '</text><script>alert("1")</script>& $\\frac{1$ id="label" \x1b[2J\n'
  whole = charts.lines(
    [charts.Line(hostile, [0, 1], [1, 2])],
    charts.Names('a"b', hostile, hostile, hostile),
  )
  root = svg_charts.read(whole)  # which finds no element that isn't ours
  assert {node.tag for node in root.iter()} <= {
    *('svg', 'title', 'desc', 'g', 'defs', 'path', 'use', 'text'),
  }
  shown = hostile.replace('\x1b', '\\x1b').replace('\n', '\\x0a')
  assert [node.text for node in root[:1]] == [shown]
  assert [text.text for text in svg_charts.texts(root, 'axis')] == [shown] * 2
  assert list(svg_charts.labels(root)) == [charts.fit(shown, 200)]
  assert root[0].get('id') == 'a"b-title'


def test_settings_of_the_user_change_nothing():
  line = charts.Line('a', [0, 1], [1, 2], 1)
  expected = charts.lines([line], NAMES)
  settings = {
    'text.usetex': True,
    'axes.autolimit_mode': 'round_numbers',
    'savefig.bbox': 'tight',
    'figure.autolayout': True,
  }
  with matplotlib.rc_context(settings):
    assert charts.lines([line], NAMES) == expected
    assert matplotlib.rcParams['text.usetex']


def test_a_chart_has_no_colours_and_no_fonts_of_its_own_and_is_always_the_same():
  line = charts.Line('日本', [0, 1], [1, 2], 1)
  first, second = (charts.lines([line], NAMES) for _ in range(2))
  assert first == second
  assert not {'style', 'fill', 'stroke', 'font-family', 'width', 'height'} & {
    name for node in svg_charts.read(first).iter() for name in node.attrib
  }
  other = charts.lines([line], dataclasses.replace(NAMES, ident='y'))
  ids = [
    {node.get('id') for node in svg_charts.read(text).iter()} - {None}
    for text in (first, other)
  ]
  assert not ids[0] & ids[1]  # both may stand on one page
