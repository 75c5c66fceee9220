"""Values in command lines."""

import argparse

import pytest

from sr3_jax.runtime.cli import path, value
from sr3_jax.runtime.values import Name, Number, Whole


@pytest.mark.parametrize(
  ('kind', 'good', 'bad', 'what'),
  [
    (Whole(1, 9), '9', ('0', '10', '2.0', 'x', ''), 'a whole number from 1 to 9'),
    (Number(0), '0', ('-1', 'nan', 'inf', 'x'), 'a finite number from 0'),
    (Number(0, above=True), '1e-9', ('0', 'inf'), 'a finite number above 0'),
    (Number(0, 1, above=True), '1', ('0', '1.01'), 'a number above 0 up to 1'),
  ],
)
def test_numbers_outside_their_range_are_refused(kind, good, bad, what):
  assert value(kind)(good) == float(good)
  for text in bad:
    with pytest.raises(argparse.ArgumentTypeError) as error:
      value(kind)(text)
    assert str(error.value).endswith(f' must be {what}')
    assert text in str(error.value)


def test_no_text_is_neither_a_name_nor_this_folder():
  assert path('a/b').name == 'b' and value(Name())('a') == 'a'
  for parse in (path, value(Name())):
    for text in ('', '  ', 'a\0b'):
      with pytest.raises(argparse.ArgumentTypeError, match='not empty'):
        parse(text)
