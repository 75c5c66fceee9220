"""Ends a command that a signal meets while it starts, before `interruption` is there.

It imports nothing that takes time: `_signal` is the built-in half of `signal`.
"""

import _signal  # pyrefly: ignore[missing-import]
import os


def install() -> None:
  """Take over SIGINT and SIGTERM until `interruption.install` does."""
  for number in (_signal.SIGINT, _signal.SIGTERM):
    _signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
  """End the process with one line."""
  del frame
  os.write(2, b'interrupted\n' if number == _signal.SIGINT else b'stopped by SIGTERM\n')
  os._exit(128 + number)
