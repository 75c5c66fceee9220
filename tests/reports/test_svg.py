"""Ticks, scales and escaping of svg.py."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from sr3_jax.reports import svg


@pytest.mark.parametrize(
  'low, high',
  [(0, 1), (17.18, 26.78), (-0.004, 0.0031), (1e6, 3e6), (-3e-9, 2e-9), (99.9, 100.1)],
)
def test_ticks_are_few_round_numbers_within_the_range(low, high):
  found = svg.ticks(low, high)
  assert 2 <= len(found) <= 6
  assert low <= found[0] and found[-1] <= high
  step = found[1] - found[0]
  np.testing.assert_allclose(np.diff(found), step, rtol=1e-6)
  mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
  assert min(abs(mantissa - k) for k in (1, 2, 2.5, 5)) < 1e-6
  # No other tick would have had room.
  assert found[0] - step < low and found[-1] + step > high


@pytest.mark.parametrize('low, high', [(0.03, 0.6), (1e-6, 2.0), (19.8, 20.4), (2, 3)])
def test_logarithmic_ticks_lie_within_the_range(low, high):
  found = svg.log_ticks(low, high)
  assert 2 <= len(found) <= 8
  assert all(low <= tick <= high for tick in found)
  assert all(len(f'{tick:.3g}') <= 6 for tick in found)


def test_a_scale_is_linear_in_the_value_or_in_its_logarithm():
  linear = svg.Scale([10, 20, math.nan, math.inf], 100, 300, 0)
  assert [linear(v) for v in (10, 15, 20)] == [100, 200, 300]
  log = svg.Scale([1, 100], 300, 100, 0, log=True)
  np.testing.assert_allclose([log(v) for v in (1, 10, 100)], [300, 200, 100])


@pytest.mark.parametrize(
  'values', [[], [5.0], [0.0, 0.0], [1e15, 1e15 + 1], [math.nan]]
)
def test_a_scale_has_room_and_ticks_even_where_all_values_are_alike(values):
  scale = svg.Scale(values, 0, 100, 0.1)
  assert scale.ticks
  assert all(0 <= scale(v) <= 100 for v in values if math.isfinite(v))


def test_texts_and_names_are_escaped():
  hostile = '</text><script>alert("1")</script>&'
  whole = svg.chart([svg.text(1, 2, hostile, 'label')], 10, 'a"b', hostile, hostile)
  root = ET.fromstring(whole)  # which finds no element that isn't ours
  assert {node.tag for node in root.iter()} == {'svg', 'title', 'desc', 'text'}
  assert [node.text for node in root] == [hostile] * 3
  assert root[0].get('id') == 'a"b-title'
