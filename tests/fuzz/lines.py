"""Says what a refusal must look like."""

import contextlib
import io
from collections.abc import Callable, Sequence

from sr3_jax.runtime.errors import UserError


def check(text: str, most: int = 7000) -> None:
  """Check that a message is one line that steers no terminal.

  It may show an argument of 5,000 letters, and no more.
  """
  assert text.strip(), 'an empty message'
  assert '\n' not in text, f'several lines: {text!r}'
  assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text), repr(text)
  assert len(text) <= most, f'{len(text)} letters: {text[:300]!r}'


def refused(error: UserError) -> str:
  """Check that an error has one line; return what it is counted as."""
  text = str(error)  # commands escape what steers terminals where they print
  assert text.strip() and '\n' not in text, repr(text)
  assert len(text) <= 1500, f'{len(text)} letters: {text[:300]!r}'
  return 'refused'


def run(command: Callable, argv: Sequence[str]) -> tuple[int, str]:
  """Run a command in this process; return its exit code and what it printed.

  A code other than 0 comes with one line that says why, and no command does anything
  else than to end.
  """
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      code = command(argv) or 0
    except SystemExit as stop:
      code = stop.code or 0
      if isinstance(code, str):  # the interpreter prints it
        err.write(f'{code}\n')
        code = 1
  said = out.getvalue() + err.getvalue()
  assert code in (0, 1, 2), code
  assert 'Traceback' not in said, said
  if code:
    errors = [line for line in err.getvalue().splitlines() if 'error: ' in line]
    failed = [line for line in err.getvalue().splitlines() if line[:7] == 'failed:']
    assert len(errors) == 1 or (failed and code == 1), f'{code}: {said[:2000]}'
    for line in errors + failed:
      check(line)
  return code, said
