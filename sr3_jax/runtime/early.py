"""Does what must be done before anything else of a command is imported.

A signal that meets it while it starts ends it in one line, before `interruption` is
there. Standard streams that are closed lead nowhere: else the next file that is opened
would take the number of one, and get what is meant for the terminal. This module
imports nothing that takes time: `_signal` is the built-in half of `signal`.
"""

import _signal  # pyrefly: ignore[missing-import]
import os
import sys

_STREAMS = ('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')


def install() -> None:
  """Take over SIGINT and SIGTERM until `interruption.install` does; open streams."""
  for number, (name, mode) in enumerate(_STREAMS):
    try:
      os.fstat(number)
    except OSError:
      # It takes the lowest number that is free; worker processes inherit it.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
      setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
  if '--multiprocessing-fork' in sys.orig_argv:
    return  # a worker process: its parent has the word
  for number in (_signal.SIGINT, _signal.SIGTERM):
    _signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
  """End the process with one line."""
  del frame
  os.write(2, b'interrupted\n' if number == _signal.SIGINT else b'stopped by SIGTERM\n')
  os._exit(128 + number)
