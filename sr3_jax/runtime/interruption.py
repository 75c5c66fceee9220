"""Ends a command by SIGINT (Ctrl-C), SIGTERM or SIGHUP, at any moment, in one way.

Python's own way raises KeyboardInterrupt in the main thread. It waits while the thread
is inside of a compiler, prints pages in the middle of an import, and then destroys
native threads that are still at work, which may crash. Here a thread of its own waits
for the signals. It prints one line, lets files that are being written become whole,
says in the log how the process ended, and leaves with exit code 128 + signal. A second
Ctrl-C does not wait for any of that. A training loop asks for `deferred`, and saves.

This module is the first that a command imports, so it imports little itself.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_WORDS = {
  signal.SIGINT: 'interrupted',
  signal.SIGTERM: 'stopped by SIGTERM',
  signal.SIGHUP: 'stopped by SIGHUP, the terminal is gone',
}
_PATIENCE = 5.0  # seconds for files that are being written, and again for all else
_advice = ''
_installed = False
_noted: int | None = None  # the signal that a `deferred` block was told
_note: Callable[[int], None] | None = None
_ending = False
_last_acts: list[Callable[[int], None]] = []


class _Gate:
  """A gate that many writers pass at a time, until it is closed for good."""

  def __init__(self):
    self._change = threading.Condition()
    self._inside, self._closed = 0, False
    self._own = threading.local()  # whether this thread is inside already

  @contextlib.contextmanager
  def passing(self) -> Iterator[None]:
    """Count as a writer; wait for ever if the gate is closed, as the process ends."""
    if getattr(self._own, 'inside', False):
      yield
      return
    with self._change:
      self._change.wait_for(lambda: not self._closed)
      self._inside += 1
    self._own.inside = True
    try:
      yield
    finally:
      self._own.inside = False
      with self._change:
        self._inside -= 1
        self._change.notify_all()

  def close(self, seconds: float) -> None:
    """Let nobody in, and wait so long at most for those inside."""
    with self._change:
      self._closed = True
      self._change.wait_for(lambda: not self._inside, seconds)


_gate = _Gate()


def install(advice: str = '') -> None:
  """Take over the signals for the rest of this process; its main thread must call it.

  A SIGINT that the shell of a script ignores for its background jobs is taken too.

  Args:
    advice: what the line says after what happened, such as how to go on.
  """
  global _advice, _installed
  _advice, _installed = advice, True
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  # The thread starts before anything can arrive, and is the only one that SIGINT may
  # interrupt: other threads inherit the mask below, and so do worker processes, which
  # a terminal sends the signal as well and which would print tracebacks.
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  for number in _WORDS:
    if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
      signal.signal(number, _do_nothing)
  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
  os.register_at_fork(after_in_child=_release)
  # The first function that is registered is called last.
  atexit.register(_close)


def shield_workers() -> None:
  """Keep Ctrl-C from the worker processes that this thread starts from now on.

  The first of them starts the resource tracker of multiprocessing, which then takes
  the mask of `install` from this thread. So it starts here, and the mask comes back.
  """
  if not _installed:
    return
  from multiprocessing import resource_tracker

  resource_tracker.ensure_running()
  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def _close() -> None:
  """Ignore signals from now on: the work is done, and Python closes down.

  It would give them back to the system, which ends a process without its exit code.
  """
  for number in _WORDS:
    signal.signal(number, signal.SIG_IGN)


def _do_nothing(*_: object) -> None:
  """Be a handler: with one, Python writes the signal's number to the pipe."""


def _release() -> None:
  """Give the signals back, in the child of a fork: its parent's pipe is not its own."""
  signal.set_wakeup_fd(-1)
  for number in _WORDS:
    if signal.getsignal(number) is _do_nothing:
      signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def writing() -> Iterator[None]:
  """Let what is written inside become whole before a signal ends the process."""
  with _gate.passing():
    yield


@contextlib.contextmanager
def at_end(act: Callable[[int], None]) -> Iterator[None]:
  """Call `act` with the signal's number if a signal ends the process meanwhile."""
  _last_acts.append(act)
  try:
    yield
  finally:
    _last_acts.remove(act)


@contextlib.contextmanager
def deferred(note: Callable[[int], None]) -> Iterator[None]:
  """Call `note` with the number of the first signal inside, instead of ending.

  Whoever asks for it ends the process soon and by itself; `noted` says whether it has
  to. From then on only Ctrl-C ends it at once.
  """
  global _note
  _note = note
  try:
    yield
  finally:
    _note = None


def noted() -> int | None:
  """Return the number of the signal that a `deferred` block was told; None: none."""
  return _noted


def _watch(reader: int) -> None:
  """Wait for signals, and answer them."""
  signal.pthread_sigmask(signal.SIG_UNBLOCK, list(_WORDS))
  while numbers := os.read(reader, 64):
    for number in numbers:
      if number in _WORDS:
        _answer(number)


def _answer(number: int) -> None:
  """Answer one signal."""
  global _noted, _ending
  if _ending:
    if number == signal.SIGINT:
      os._exit(128 + number)
  elif _noted is not None:
    if number == signal.SIGINT:
      _say('interrupted again: ended without waiting')
      os._exit(128 + number)
  elif _note is not None:
    _noted = number
    _note(number)
  else:
    _ending = True
    try:
      # Not a daemon: Python's main thread, should it end now, waits for the exit code.
      threading.Thread(target=_end, args=(number,)).start()
    except RuntimeError:  # Python is closing down already
      os._exit(128 + number)


def _say(text: str) -> None:
  """Write one line to stderr, below a progress line if there is one."""
  # Not by `sys.stderr`: the main thread may hold its lock for ever.
  line = f'\n{text}\n' if _is_terminal(2) else f'{text}\n'
  with contextlib.suppress(OSError):
    os.write(2, line.encode())


def _silence(number: int) -> None:
  """Send what is written to a file descriptor nowhere."""
  with contextlib.suppress(OSError):
    os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _is_terminal(number: int) -> bool:
  with contextlib.suppress(OSError):
    return os.isatty(number)
  return False


def _end(number: int) -> None:
  """End the process because of a signal."""
  _say('; '.join(filter(None, [_WORDS[signal.Signals(number)], _advice])))
  # What other threads say from now on, as their work is cut off, is no news to anybody.
  _silence(2)
  _gate.close(_PATIENCE)
  last = threading.Thread(target=_do_last, args=(number,), daemon=True)
  last.start()
  last.join(_PATIENCE)
  os._exit(128 + number)


def _do_last(number: int) -> None:
  """Do what is left to do, each thing even if another fails."""
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  _silence(1)
  for act in reversed(_last_acts):
    with contextlib.suppress(Exception):
      act(number)
  if 'multiprocessing' in sys.modules:
    for worker in sys.modules['multiprocessing'].active_children():
      with contextlib.suppress(Exception):
        worker.terminate()
