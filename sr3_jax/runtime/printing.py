"""Prints what others named: no character of theirs steers a terminal or forges a line.

Names of files, classes and tensors come from anywhere and may hold any character. What
a program prints goes through `guard`; pages, logs and messages use `printable`.
"""

import contextlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast


def printable(text: object, keep: str = '') -> str:
  r"""Return a text in which characters that show nothing are written out: \x1b.

  These are control characters, those that change the direction of a text or hide in it,
  line separators, and bytes of file names that are no UTF-8 (shown as \xff). Spaces of
  every width stay.

  Args:
    text: any text; other objects are converted.
    keep: characters that stay, as '\n' in a text of several lines.
  """
  text = str(text)
  if text.isprintable():
    return text
  return ''.join(
    c if c.isprintable() or c in keep or unicodedata.category(c) == 'Zs' else _code(c)
    for c in text
  )


def one_line(text: object) -> str:
  """Return a text as `printable` does, with single spaces in place of its newlines."""
  return printable(' '.join(str(text).split()))


def _code(character: str) -> str:
  """Return how a character is written out."""
  number = ord(character)
  if 0xDC80 <= number <= 0xDCFF:  # a byte of a name that is not UTF-8
    number -= 0xDC00
  if number < 0x100:
    return f'\\x{number:02x}'
  return f'\\u{number:04x}' if number < 0x10000 else f'\\U{number:08x}'


class _Guarded:
  """A text stream that writes printable characters, newlines and tabs only."""

  def __init__(self, stream: TextIO):
    self.unguarded = stream

  def write(self, text: str) -> int:
    """Write a text; return its length."""
    self.unguarded.write(printable(text, keep='\n\t'))
    return len(text)

  def writelines(self, lines: Iterable[str]) -> None:
    """Write several texts."""
    for line in lines:
      self.write(line)

  def __getattr__(self, name: str) -> Any:
    return getattr(self.unguarded, name)


def guard() -> None:
  """Let standard output and error show printable characters, newlines and tabs only.

  Commands call it first. Characters that the terminal's encoding lacks are written
  out, too. Bytes (`sys.stdout.buffer`) pass.
  """
  for name in ('stdout', 'stderr'):
    stream = getattr(sys, name)
    if stream is None or isinstance(stream, _Guarded):
      continue
    if reconfigure := getattr(stream, 'reconfigure', None):
      reconfigure(errors='backslashreplace')
    setattr(sys, name, _Guarded(stream))


def unguarded(stream: TextIO) -> TextIO:
  """Return the stream behind `guard`, for a progress line that moves the cursor."""
  return cast('TextIO', getattr(stream, 'unguarded', stream))


@contextlib.contextmanager
def unguarded_errors() -> Iterator[None]:
  """Let a library's progress bars move the cursor on standard error meanwhile."""
  before = sys.stderr
  sys.stderr = unguarded(before)
  try:
    yield
  finally:
    sys.stderr = before
