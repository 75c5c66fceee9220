"""Tests of numbers in command lines."""

import argparse

import pytest

from sr3_jax.runtime.cli import number


@pytest.mark.parametrize(
  'take, good, bad, what',
  [
    (number(int, 1, 9), '9', ('0', '10', '2.0', 'x', ''), 'a whole number from 1 to 9'),
    (number(float, 0), '0', ('-1', 'nan', 'inf', 'x'), 'a number from 0'),
    (number(float, 0, above=True), '1e-9', ('0', 'inf'), 'a number above 0'),
    (
      number(float, 0, 1, above=True),
      '1',
      ('0', '1.01', 'nan'),
      'a number above 0, at most 1',
    ),
  ],
)
def test_numbers_outside_their_range_are_refused(take, good, bad, what):
  assert take(good) == float(good)
  for text in bad:
    with pytest.raises(argparse.ArgumentTypeError) as error:
      take(text)
    assert str(error.value) == f'{text!r} is not {what}'
