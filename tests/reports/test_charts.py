"""What the charts draw, read back from their SVG."""

import dataclasses
import itertools
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from sr3_jax.reports import charts
from tests.support.svg_charts import (
  axis,
  labels,
  markers,
  numbers,
  of_class,
  read,
  texts,
)

NAMES = charts.Names('x', 'A chart', 'LPIPS, lower is better')


def with_y(title: str) -> charts.Names:
  return dataclasses.replace(NAMES, y_title=title)


def test_scatter_puts_marks_and_whiskers_where_the_axes_say():
  points = [
    charts.Point('bicubic', 0.275, 22.96, (0.26, 0.29), (22.0, 23.8), 0),
    charts.Point('sr3', 0.09, 24.46, None, (21.99, 27.1), 3),
  ]
  root = read(charts.scatter(points, with_y('PSNR dB'), (-1, 1)))
  across, up = axis(root, 'xtick'), axis(root, 'ytick')
  found = [(across(x), up(y)) for x, y in markers(root)]
  np.testing.assert_allclose(found, [(0.275, 22.96), (0.09, 24.46)], rtol=2e-3)
  whiskers = of_class(root, 'whisker')
  assert len(whiskers) == 3
  (x_low, _), (x_high, _) = numbers(whiskers[0])
  np.testing.assert_allclose([across(x_low), across(x_high)], [0.26, 0.29], rtol=2e-3)
  (x, low), (_, high) = numbers(whiskers[2])
  np.testing.assert_allclose([across(x), up(low), up(high)], [0.09, 21.99, 27.1], 2e-3)
  assert [t.text for t in texts(root, 'hint')] == ['↖ better']
  desc = root.find('desc').text
  assert 'bicubic: 0.275, 22.96' in desc and 'sr3: 0.09, 24.46' in desc


def test_names_in_a_scatter_hide_neither_each_other_nor_marks():
  rng = np.random.default_rng(0)
  places = rng.uniform(0, 1, (9, 2))
  places[1] = places[0] + 0.005  # two that lie on each other
  points = [
    charts.Point(f'method {i}', *p, None, None, i) for i, p in enumerate(places)
  ]
  root = read(charts.scatter(points, with_y('PSNR')))
  boxes = []
  for text in texts(root, 'label'):
    x, y, width = float(text.get('x')), float(text.get('y')), 6 * len(text.text)
    left = x - width * {None: 0, 'middle': 0.5, 'end': 1}[text.get('text-anchor')]
    boxes.append((left, y - 9, left + width, y + 2))
    assert left >= 30 and left + width <= charts.WIDTH
  boxes += [(x - 4, y - 4, x + 4, y + 4) for x, y in markers(root)]
  pairs = itertools.combinations(boxes[:9], 2)
  over = [a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for a, b in pairs]
  assert not any(over)


def test_values_that_are_not_finite_are_left_out():
  points = [charts.Point('a', math.nan, 1), charts.Point('b', 1, 2, (math.nan, 2))]
  root = read(charts.scatter(points, with_y('y')))
  assert list(labels(root)) == ['b'] and not of_class(root, 'whisker')
  rows = [charts.Histogram('a', [1, math.nan], math.inf)]
  root = read(charts.histograms([0, 1, 2], rows, NAMES))
  assert 'nan' not in ET.tostring(root).decode() and not of_class(root, 'mark')
  line = charts.Line('a', [0, 1, 2], [1, math.inf, -1])
  root = read(charts.lines([line], with_y('loss'), log=True))
  assert len(markers(root)) == 1


def test_histograms_share_one_scale_and_mark_values():
  edges = [10.0, 20.0, 30.0, 40.0]
  rows = [
    charts.Histogram('a', [1, 2, 4], 35.0, '35.00'),
    charts.Histogram('b', [0, 2, 0], 25.0, '25.00', 1),
  ]
  root = read(charts.histograms(edges, rows, NAMES))
  across = axis(root, 'xtick')
  heights = []
  for area in of_class(root, 'area'):
    (_, base), *steps, (_, end) = numbers(area)
    assert base == end
    heights.append([base - y for _, y in steps[::2]])
    assert heights[-1] == [base - y for _, y in steps[1::2]]
    found = [across(x) for x, _ in [steps[0], *steps[1::2]]]
    np.testing.assert_allclose(found, edges, rtol=5e-3)
  most = heights[0][2]
  np.testing.assert_allclose(np.array(heights) / most, [[0.25, 0.5, 1], [0, 0.5, 0]])
  marks = [across(numbers(m)[0][0]) for m in of_class(root, 'mark')]
  np.testing.assert_allclose(marks, [35, 25], rtol=5e-3)


def test_lines_end_with_their_names_apart():
  steps = list(range(0, 100, 10))
  series = [
    charts.Line(name, steps, [1 / (s + 1) + shift for s in steps], i)
    for i, (name, shift) in enumerate({'a': 0.0, 'b': 0.001, 'c': 0.5}.items())
  ]
  root = read(charts.lines(series, with_y('loss')))
  heights = sorted(y for _, y in labels(root).values())
  assert len(heights) == 3 and min(np.diff(heights)) >= 12
  across, up = axis(root, 'xtick'), axis(root, 'ytick')
  x, y = np.array(numbers(of_class(root, 'line')[2])).T
  np.testing.assert_allclose([across(v) for v in x], steps, atol=0.2)
  np.testing.assert_allclose([up(v) for v in y], series[2].ys, atol=5e-3)


def test_forest_draws_intervals_against_zero():
  rows = [
    charts.Difference('b: sr3', 0.31, (0.12, 0.5), '+0.31 (+0.12 to +0.50)'),
    charts.Difference('c: sr3', 0.2, None, '+0.20', 1),
  ]
  root = read(charts.forest(rows, NAMES))
  across = axis(root, 'xtick')
  (zero,) = of_class(root, 'zero')
  assert across(numbers(zero)[0][0]) == pytest.approx(0, abs=2e-3)
  whisker, *caps = of_class(root, 'whisker')
  (low, _), (high, _) = numbers(whisker)
  assert [{x for x, _ in numbers(cap)} for cap in caps] == [{low}, {high}]
  np.testing.assert_allclose([across(low), across(high)], [0.12, 0.5], atol=2e-3)
  found = [across(x) for x, _ in markers(root)]
  np.testing.assert_allclose(found, [0.31, 0.2], atol=2e-3)
  assert {'b: sr3', '+0.31 (+0.12 to +0.50)', 'c: sr3', '+0.20'} == set(labels(root))
