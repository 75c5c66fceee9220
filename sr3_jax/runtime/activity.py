"""Says on stderr what a command is doing and for how long, so that no minute is silent.

`doing('compiling')` names a part of the work. Commands switch the lines on by `shown`;
elsewhere, in a program that imports this package, `doing` prints nothing. A thread
prints the lines, because compilers and libraries that read files don't come back for
minutes. A terminal has one line that is rewritten. A log has plain lines: one within
a second, one when something has taken a second, then one every `EVERY` seconds.
"""

import contextlib
import io
import math
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, TypeVar, cast

from sr3_jax.runtime.printing import printable, unguarded

T = TypeVar('T')

# Seconds between two lines of a log. Who waits is promised one every ten.
EVERY = 8.0
# Seconds after which a command says its first line: one that ends sooner, with a result
# or with a mistake of the user, says only that.
_FIRST = 0.7
# Seconds after which a log names what has just begun.
_SOON = 1.0
# Seconds between two looks at what is being done.
_TICK = 0.25
_ERASE_LINE = '\r\x1b[K'
# Seconds and name of a unit of time, and of the next smaller one.
_UNITS = (86400, 'd', 3600, 'h'), (3600, 'h', 60, 'm'), (60, 'm', 1, 's')


def duration(seconds: float) -> str:
  """Return seconds as people write them: 45s, 12m05s, 3h20m, 2d04h."""
  seconds = round(seconds)
  for size, name, small, small_name in _UNITS:
    if seconds >= size:
      return f'{seconds // size}{name}{seconds % size // small:02d}{small_name}'
  return f'{seconds}s'


class Activity:
  """Something that is being done; `what` may change while it is."""

  def __init__(self, what: str):
    self.what = what
    self.began = time.monotonic()
    self.said = False  # has it been shown already?

  def line(self) -> str:
    """Return the line that says what is being done at this moment."""
    seconds = time.monotonic() - self.began
    return f'{self.what}, {duration(seconds)} so far' if seconds >= 1 else self.what


class Screen:
  """A stream with one line at its end: rewritten in a terminal, else a new one."""

  def __init__(self, stream: TextIO | None = None):
    # It moves the cursor, and what it shows is printable.
    self.stream = unguarded(stream or sys.stderr or io.StringIO())
    self.terminal = self.stream.isatty()
    self.quiet = False  # writes nothing
    self.lock = threading.RLock()
    self.written_at = time.monotonic()
    self._drawn = False  # is there a line that the next one replaces?

  def draw(self, line: str) -> None:
    """Write a line; in a terminal the next one takes its place."""
    line = printable(line)
    if self.terminal:
      # The cursor goes back to the start, where a log message may erase the line.
      width = shutil.get_terminal_size().columns - 1
      self._write(_ERASE_LINE + line[:width] + '\r', drawn=True)
    else:
      self._write(line + '\n', drawn=False)

  def tell(self, line: str) -> None:
    """Write a line that stays."""
    self.erase()
    self._write(printable(line) + '\n', drawn=False)

  def keep(self) -> None:
    """Leave the line in the terminal, above what comes next."""
    if self._drawn:
      self._write('\n', drawn=False)

  def erase(self) -> None:
    """Take the line from the terminal."""
    if self._drawn:
      self._write(_ERASE_LINE, drawn=False)

  def silence(self) -> None:
    """Take the line from the terminal, and write nothing more."""
    with self.lock:
      self.erase()
      self.quiet = True

  def _write(self, text: str, drawn: bool) -> None:
    with self.lock:
      if self.quiet:
        return
      self._drawn, self.written_at = drawn, time.monotonic()
      # A reader that went away, as `head` does, ends no work.
      with contextlib.suppress(OSError, ValueError):
        self.stream.write(text)
        self.stream.flush()


class _Erasing:
  """A stream of the terminal that erases the line before something else is printed."""

  def __init__(self, stream: TextIO, screen: Screen):
    self._stream, self._screen = stream, screen

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    """Write text where the line was."""
    with self._screen.lock:
      self._screen.erase()
      return self._stream.write(text)


# What is being done, the innermost last, and where it is shown if it is.
_doing: list[Activity] = []
_screen: Screen | None = None
_telling_all = False


@contextlib.contextmanager
def doing(what: str | Activity) -> Iterator[Activity]:
  """Say what is done inside, if it takes a while and a command has asked for it."""
  activity = what if isinstance(what, Activity) else Activity(what)
  _doing.append(activity)
  try:
    yield activity
  finally:
    _doing.remove(activity)
    if _screen and _telling_all:
      seconds = time.monotonic() - activity.began
      _screen.tell(f'{activity.what}: done in {seconds:.2f} s')
    if _screen and not _doing:
      _screen.erase()


def first_call(what: str, function: Callable[..., T]) -> Callable[..., T]:
  """Return a function whose first call says what it does: it compiles."""
  first = True

  def call(*args: Any) -> T:
    nonlocal first
    with doing(what) if first else contextlib.nullcontext():
      first = False
      return function(*args)

  return call


def tell_all(wanted: bool) -> None:
  """Say of everything that is done how long it took, or not: the option -v."""
  global _telling_all
  _telling_all = wanted


def tells_all() -> bool:
  """Return whether everything is to be said."""
  return _telling_all


def screen() -> Screen:
  """Return where lines are shown: that of the command, or else stderr as it is."""
  return _screen or Screen()


def silence() -> None:
  """Show nothing more: this process is not the first of several."""
  if _screen:
    _screen.silence()


@contextlib.contextmanager
def shown(what: str, *, quiet: bool = False) -> Iterator[None]:
  """Show on stderr what is being done inside, soon and at least every ten seconds.

  Within another `shown` nothing changes.

  Args:
    what: is done where nothing inside says more: the name of the command.
    quiet: show nothing.
  """
  global _screen
  if _screen:
    with doing(what):
      yield
    return
  _screen = Screen()
  _screen.quiet = quiet
  whole, ended = Activity(what), threading.Event()
  args = _screen, whole, ended
  thread = threading.Thread(target=_beat, args=args, name='activity', daemon=True)
  try:
    with _erasing(_screen), doing(whole):
      if not quiet:
        thread.start()
      yield
  finally:
    ended.set()
    if thread.is_alive():
      thread.join(timeout=1)
    _screen.silence()
    _screen = None


@contextlib.contextmanager
def _erasing(screen: Screen) -> Iterator[None]:
  """Erase the line, inside, before anything is printed in its terminal."""
  with contextlib.ExitStack() as stack:
    for redirect, stream in (
      (contextlib.redirect_stdout, sys.stdout),
      (contextlib.redirect_stderr, sys.stderr),
    ):
      if screen.terminal and stream is not None and stream.isatty():
        erasing = cast('TextIO', _Erasing(stream, screen))
        stack.enter_context(redirect(erasing))
    yield


def _beat(screen: Screen, whole: Activity, ended: threading.Event) -> None:
  """Show what is being done until the command, the activity `whole`, has ended."""
  said = {whole.what: math.inf}  # when a log last had these words
  blank = screen.written_at  # until something is written
  last = whole
  while not ended.wait(_TICK):
    with screen.lock:
      now, activity = time.monotonic(), _doing[-1] if _doing else whole
      line, waited = activity.line(), now - screen.written_at
      if screen.written_at == blank:
        due = now - whole.began >= _FIRST
        line = f'{whole.what}: {"starting" if activity is whole else line}'
      elif screen.terminal:
        due = waited >= 1 - _TICK / 2 or activity is not last
      else:
        new = now - said.get(activity.what, -EVERY) >= EVERY and not activity.said
        due = waited >= EVERY or (new and now - activity.began >= _SOON)
      if due:
        said[activity.what], activity.said, last = now, True, activity
        screen.draw(line)
