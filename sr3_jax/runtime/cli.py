"""What the commands of this package have in common."""

import argparse
import math
import os
from collections.abc import Callable
from typing import NoReturn

# Where compiled programs are kept between starts.
CACHE = os.path.join(os.path.expanduser('~'), '.cache', 'sr3_jax', 'xla')


class Parser(argparse.ArgumentParser):
  """Keeps the lines of its texts, and says what is wrong in one line."""

  def __init__(self, **options):
    super().__init__(
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
      **options,
    )

  def error(self, message: str) -> NoReturn:
    # A message may quote a stranger's file: nothing in it steers the terminal.
    line = ''.join(c if c.isprintable() else '?' for c in ' '.join(message.split()))
    self.exit(2, f'error: {line}; --help shows all options\n')


def number(
  kind: type, low: float, high: float = math.inf, *, above: bool = False
) -> Callable[[str], float]:
  """What an option takes, as `type` of `add_argument`: a finite number in a range.

  Args:
    kind: int or float.
    low: the least; with `above`, what it must be above.
    high: the greatest.
    above: whether `low` itself is left out.
  """
  text = 'a whole number' if kind is int else 'a number'
  text += f' {"above" if above else "from"} {low}'
  if high < math.inf:
    text += f' to {high}' if not above else f', at most {high}'

  def parse(given: str) -> float:
    try:
      value = kind(given)
    except ValueError:
      value = math.nan
    fits = low < value if above else low <= value
    if not (fits and value <= high and value < math.inf):
      raise argparse.ArgumentTypeError(f'{given!r} is not {text}')
    return value

  return parse
