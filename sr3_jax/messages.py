"""Errors and lists as they fit into one line."""

from collections.abc import Iterable


def line(error: BaseException | str) -> str:
  """What an exception says, in at most a line."""
  text = ' '.join(str(error).split()) or type(error).__name__
  return f'no {text}'[:300] if isinstance(error, KeyError) else text[:300]


def first_line(error: BaseException) -> str:
  """The first line of what an exception says: libraries go on with a page of advice."""
  lines = str(error).strip().splitlines()
  return lines[0] if lines else type(error).__name__


def some(names: Iterable[str]) -> str:
  """The first few names, sorted, and how many more there are."""
  names = sorted(names)
  more = f' and {len(names) - 5} more' if len(names) > 5 else ''
  return ', '.join(names[:5])[:500] + more
