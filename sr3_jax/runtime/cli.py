"""Parses command lines: what the commands of this package have in common."""

import argparse
import os
import pathlib
from collections.abc import Callable
from typing import Any, NoReturn

from sr3_jax.runtime.printing import guard, one_line
from sr3_jax.runtime.values import Kind, Name, shown

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


def value(kind: Kind) -> Callable[[str], Any]:
  """Return a parser of values of a kind, as `type` of `add_argument`."""

  def parse(given: str) -> Any:
    found = kind.from_text(given)
    if not kind.fits(found):
      raise argparse.ArgumentTypeError(f'{shown(found)} must be {kind}')
    return found

  return parse


def path(given: str) -> pathlib.Path:
  """Return a path, as `type` of `add_argument`; no text is none, not this folder."""
  return pathlib.Path(value(Name())(given))
