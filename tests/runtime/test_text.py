"""Columns are aligned as they are named, and long names are cut."""

from sr3_jax.runtime import text


def test_columns_are_flush_left_or_right():
  rows = [('', 'steps', 'note'), ('fast', '20', ''), ('best of all', '1000', 'slow')]
  assert text.align(rows) == [
    '             steps  note',
    'fast            20',
    'best of all   1000  slow',
  ]
  assert text.align(rows, left=(0, 2))[2] == 'best of all   1000  slow'
  assert text.align(rows, left=(1,))[1] == '       fast  20'


def test_long_texts_end_in_an_ellipsis():
  assert text.shorten('abcdef', 6) == 'abcdef'
  assert text.shorten('abcdefg', 6) == 'abcde…'
