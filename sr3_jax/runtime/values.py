"""Says what a value may be: kinds of values, each with its range or its set.

A kind checks a value, and its text says in words what it takes. Options of the
configuration and of all commands have kinds; so a range is written once, and the same
words come out wherever a value is refused.
"""

import abc
import dataclasses
import math
import sys
from typing import Any, NamedTuple

MOST = 2**31 - 1  # of whole numbers: what JAX and NumPy keep in 32 bits


class Kind(abc.ABC):
  """A kind of value."""

  @abc.abstractmethod
  def fits(self, value: Any) -> bool:
    """Return whether a value is of this kind and in its range."""

  def from_json(self, value: Any) -> Any:
    """Return a value that was read from JSON as this kind has it, if it can be that."""
    return value

  def from_text(self, text: str) -> Any:
    """Return the value that a text on a command line stands for, or the text itself."""
    return text


@dataclasses.dataclass(frozen=True)
class Flag(Kind):
  """True or False."""

  def __str__(self):
    return 'True or False'

  def fits(self, value: Any) -> bool:
    """Return whether a value is a truth value."""
    return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Text(Kind):
  """A text; it may be empty."""

  def __str__(self):
    return 'a text'

  def fits(self, value: Any) -> bool:
    """Return whether a value is a text that can be the name of a file."""
    return isinstance(value, str) and '\0' not in value


@dataclasses.dataclass(frozen=True)
class Name(Kind):
  """A text that is not empty."""

  def __str__(self):
    return 'a text that is not empty'

  def fits(self, value: Any) -> bool:
    """Return whether a value is such a text."""
    return Text().fits(value) and bool(value.strip())


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
  """One of a few texts."""

  known: tuple[str, ...]

  def __str__(self):
    return f'one of {", ".join(map(repr, self.known))}'

  def fits(self, value: Any) -> bool:
    """Return whether a value is one of the texts."""
    return isinstance(value, str) and value in self.known


@dataclasses.dataclass(frozen=True)
class Whole(Kind):
  """A whole number in a range, both ends included."""

  low: int = 0
  high: int = MOST

  def __str__(self):
    return f'a whole number from {self.low} to {self.high}'

  def fits(self, value: Any) -> bool:
    """Return whether a value is a whole number in the range."""
    return type(value) is int and self.low <= value <= self.high

  def from_text(self, text: str) -> int | str:
    """Return the number that a text is, or the text."""
    try:
      return int(text)
    except ValueError:
      return text


@dataclasses.dataclass(frozen=True)
class Number(Kind):
  """A finite number in a range, which may leave out one end or both."""

  low: float = 0.0
  high: float = math.inf
  above: bool = False  # `low` itself is left out
  below: bool = False  # `high` itself is left out

  def __str__(self):
    low = f'{"above" if self.above else "from"} {self.low:g}'
    if self.high == math.inf:
      return f'a finite number {low}'
    to = 'below' if self.below else 'to' if not self.above else 'up to'
    return f'a number {low} {to} {self.high:g}'

  def fits(self, value: Any) -> bool:
    """Return whether a value is a finite number in the range."""
    if type(value) not in (int, float):
      return False
    low = self.low < value if self.above else self.low <= value
    high = value < self.high if self.below else value <= self.high
    # A whole number beyond all floats is not finite either.
    return low and high and abs(value) <= sys.float_info.max

  def from_json(self, value: Any) -> Any:
    """Return a float, which JSON may write as 1."""
    return float(value) if type(value) is int and self.fits(value) else value

  def from_text(self, text: str) -> float | str:
    """Return the number that a text is, or the text."""
    try:
      return float(text)
    except ValueError:
      return text


@dataclasses.dataclass(frozen=True)
class Several(Kind):
  """A tuple of so many values of one kind."""

  each: Kind
  least: int = 0
  most: int = 32
  distinct: bool = False  # no value is there twice

  def __str__(self):
    different = 'different ' if self.distinct else ''
    return f'a tuple of {self.least} to {self.most} {different}values, each {self.each}'

  def fits(self, value: Any) -> bool:
    """Return whether a value is such a tuple."""
    if not isinstance(value, tuple) or not self.least <= len(value) <= self.most:
      return False
    if not all(self.each.fits(one) for one in value):
      return False
    return not self.distinct or len(set(value)) == len(value)

  def from_json(self, value: Any) -> Any:
    """Return a tuple, which JSON writes as a list."""
    if not isinstance(value, list):
      return value
    return tuple(self.each.from_json(one) for one in value)


@dataclasses.dataclass(frozen=True)
class Ends(Kind):
  """A tuple of the lower and the upper end of a range, which may be the same."""

  each: Kind
  optional: bool = False  # () is allowed, too

  def __str__(self):
    text = f'a tuple of two values, the lower first, each {self.each}'
    return f'{text}; or ()' if self.optional else text

  def fits(self, value: Any) -> bool:
    """Return whether a value is such a pair."""
    if self.optional and value == ():
      return True
    return Several(self.each, 2, 2).fits(value) and value[0] <= value[1]

  def from_json(self, value: Any) -> Any:
    """Return a tuple, which JSON writes as a list."""
    return Several(self.each).from_json(value)


class Option(NamedTuple):
  """An option: a value that has a name, a default and a meaning."""

  default: Any
  kind: Kind  # what it may be
  about: str  # its meaning


def shown(value: Any) -> str:
  """Return a value as a message shows it: in Python's notation, cut to 80 letters."""
  try:
    text = ' '.join(ascii(value).split())
  except ValueError:  # Python writes no number of more than 4,300 digits
    return 'a number of thousands of digits'
  return cut(text)


def cut(text: str) -> str:
  """Return a text of a stranger, cut to 80 letters."""
  return text if len(text) <= 80 else f'{text[:77]}...'
