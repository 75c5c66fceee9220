"""Parses command lines: what the commands of this package have in common."""

import argparse
import math
import os
from collections.abc import Callable
from typing import NoReturn, TypeVar

from sr3_jax.runtime.printing import guard, one_line

Number = TypeVar('Number', int, float)

# Compiled programs are cached here between starts.
CACHE = os.path.join(os.path.expanduser('~'), '.cache', 'sr3_jax', 'xla')


class Parser(argparse.ArgumentParser):
  """A parser that keeps the lines of its help, and says what is wrong in one line."""

  def __init__(self, **options):
    super().__init__(
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
      **options,
    )

  def parse_known_args(self, args=None, namespace=None):
    """Parse the arguments; from here on nothing that is printed steers the terminal."""
    guard()  # every way of parsing comes here first
    return super().parse_known_args(args, namespace)

  def error(self, message: str) -> NoReturn:
    """End the program with one line and exit code 2."""
    self.exit(2, f'error: {one_line(message)}; --help shows all options\n')


def add_quiet(parser: argparse.ArgumentParser) -> None:
  """Add the option -q, for `activity.shown`."""
  about = 'say nothing of what is being done: only warnings, errors and results'
  parser.add_argument('-q', '--quiet', action='store_true', help=about)


def number(
  kind: type[Number], low: float, high: float = math.inf, *, above: bool = False
) -> Callable[[str], Number]:
  """Return a parser of finite numbers in a range, as `type` of `add_argument`.

  Args:
    kind: int or float.
    low: the least number allowed.
    high: the greatest number allowed.
    above: whether `low` itself is refused.
  """
  text = 'a whole number' if kind is int else 'a number'
  text += f' {"above" if above else "from"} {low}'
  if high < math.inf:
    text += f' to {high}' if not above else f', at most {high}'

  def parse(given: str) -> Number:
    try:
      value = kind(given)
    except ValueError:
      value = None
    fits = value is not None and (low < value if above else low <= value)
    if value is None or not (fits and value <= high and value < math.inf):
      raise argparse.ArgumentTypeError(f'{given!r} is not {text}')
    return value

  return parse
