"""Parses command lines: what the commands of this package have in common."""

import argparse
import pathlib
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from sr3_jax.runtime import activity
from sr3_jax.runtime.printing import guard, one_line
from sr3_jax.runtime.values import Kind, Name, shown
from sr3_jax.runtime.version import __version__


class Parser(argparse.ArgumentParser):
  """A parser that keeps the lines of its help, and says what is wrong in one line.

  Long options may be written with hyphens or underscores. --version is there always.
  """

  def __init__(self, **options):
    super().__init__(
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
      **options,
    )
    version, about = version_of(self.prog), 'print the version and end'
    self.add_argument('--version', action='version', version=version, help=about)

  def parse_known_args(self, args=None, namespace=None):
    """Parse the arguments; from here on nothing that is printed steers the terminal."""
    guard()  # every way of parsing comes here first
    args = sys.argv[1:] if args is None else args
    args = as_spelled(args, self._option_string_actions)
    found, rest = super().parse_known_args(args, namespace)
    activity.tell_all(getattr(found, 'verbose', False))
    return found, rest

  def error(self, message: str) -> NoReturn:
    """End the program with one line and exit code 2."""
    self.exit(2, f'error: {one_line(message)}; --help shows all options\n')


def add_quiet(parser: argparse.ArgumentParser) -> None:
  """Add the options -q, for `activity.shown`, and -v, which the parser obeys."""
  group = parser.add_mutually_exclusive_group()
  about = 'say nothing of what is being done: only warnings, errors and results'
  group.add_argument('-q', '--quiet', action='store_true', help=about)
  about = 'say how long each part took, and what libraries log'
  group.add_argument('-v', '--verbose', action='store_true', help=about)


def version_of(program: str) -> str:
  """Return what --version prints."""
  return f'{program} (sr3_jax) {__version__}'


def as_spelled(args: Sequence[str], known: Collection[str]) -> list[str]:
  """Return arguments with the names of long options spelled as they are known.

  So --num-samples=2 is --num_samples=2. What stands behind '--' stays as it is, and so
  does what is no option in either spelling.
  """
  known = {name.replace('-', '_'): name for name in known if name.startswith('--')}
  spelled, options = [], True
  for argument in args:
    options &= argument != '--'
    if options and argument.startswith('--'):
      name, equals, value = argument.partition('=')
      argument = known.get(name.replace('-', '_'), name) + equals + value
    spelled.append(argument)
  return spelled


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
