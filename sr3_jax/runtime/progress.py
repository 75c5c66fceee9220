"""Shows how far a long job is: a line with rates and the time to go."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import SupportsFloat, TextIO

from sr3_jax.runtime import activity
from sr3_jax.runtime.activity import Activity, Screen, duration


class Throughput:
  """A rate: units a second over the last `window` seconds, without pauses.

  The clock starts with the first `add`, whose units don't count: it is where the
  compilation ends.
  """

  def __init__(self, window: float = 60.0, clock: Callable[[], float] = time.monotonic):
    self._window, self._clock = window, clock
    self._total, self._paused = 0.0, 0.0
    self._marks: collections.deque[tuple[float, float]] = collections.deque()

  def add(self, units: float) -> None:
    """Count units that are done by now."""
    self._total += units
    now = self._clock() - self._paused
    self._marks.append((now, self._total))
    # One mark from before the window stays, as a slow step may fill the window alone.
    while len(self._marks) > 1 and self._marks[1][0] <= now - self._window:
      self._marks.popleft()

  def per_second(self) -> float | None:
    """Return the rate over the window; None before two calls of `add`."""
    if len(self._marks) < 2:
      return None
    (start, before), (end, after) = self._marks[0], self._marks[-1]
    return (after - before) / (end - start) if end > start else None

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leave the time inside out of the rate."""
    start = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - start


class Progress(Activity):
  """A progress line on stderr: step, percent, rate, time to go, and given values.

  In a terminal one line is rewritten; elsewhere a plain line is printed every
  `interval` seconds, so that log files stay readable. In a command (`activity.shown`)
  the line comes again when no step was done meanwhile. The rate and the time to go
  come from the last minute, without compilation (what precedes the first `update`)
  and without pauses.

  Args:
    total: the step at which the work is done.
    start: the step that a resumed job starts from.
    unit: the name of a step.
    images_per_step: if given, the line shows images/s, else units/s.
    enabled: False writes nothing, for processes other than 0.
    interval: seconds between plain lines.
    stream: where the line goes; None is where the command shows what it does.
    clock: returns monotonic seconds.
  """

  def __init__(
    self,
    total: int,
    *,
    start: int = 0,
    unit: str = 'step',
    images_per_step: int | None = None,
    enabled: bool = True,
    interval: float = activity.EVERY,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    super().__init__(unit)
    self._total, self._unit = total, unit
    self._step: float = start
    self._images_per_step = images_per_step
    self._enabled, self._clock, self.began = enabled, clock, clock()
    self._screen = Screen(stream) if stream else activity.screen()
    self._interval = 0.2 if self._screen.terminal else interval
    self._throughput = Throughput(clock=clock)
    self._place = ''
    self._values: dict[str, SupportsFloat] = {}
    self._read = ''  # the values as they were shown last
    self._shown_at = -math.inf
    self._shown_step: float | None = None
    self._doing = contextlib.ExitStack()

  def update(self, step: float, place: str = '', **values: SupportsFloat) -> None:
    """Say that `step` steps are done, with values that are shown with 4 digits.

    Values may be arrays still being computed: they are read only when a line is due.

    Args:
      step: a number of steps; a part of one needs a place.
      place: what is shown for it; '' shows the number and the total.
      **values: shown by their names.
    """
    self._throughput.add(step - self._step)
    self._step, self._place, self._values = step, place, values
    if self._clock() - self._shown_at >= self._interval:
      self._show()

  @property
  def images_per_second(self) -> float | None:
    """Recent images a second; None before two updates or without `images_per_step`."""
    rate = self._throughput.per_second()
    if rate is None or self._images_per_step is None:
      return None
    return rate * self._images_per_step

  @property
  def seconds_left(self) -> float | None:
    """Time to go at the recent rate; None before two updates."""
    rate = self._throughput.per_second()
    return (self._total - self._step) / rate if rate else None

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leave the time inside (of an evaluation) out of the rate and the time to go."""
    self._show()
    if self._enabled:
      self._screen.keep()  # what happens inside may print
    with self._throughput.pause():
      yield

  def close(self) -> None:
    """Leave the last state on the screen."""
    self._show()
    if self._enabled and self._shown_step is not None:
      self._screen.keep()

  def __enter__(self) -> 'Progress':
    if self._enabled:
      self._doing.enter_context(activity.doing(self))
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
    self._doing.close()

  def _show(self) -> None:
    seen = not self._screen.terminal and self._step == self._shown_step
    if self._enabled and not seen:
      self._shown_at, self._shown_step, self.said = self._clock(), self._step, True
      # Not in `line`, which another thread calls: an array may not be there yet.
      read = [f'{name} {float(value):.4g}' for name, value in self._values.items()]
      self._read = '  '.join(read)
      self._screen.draw(self.line())

  def line(self) -> str:
    """Return the line of this moment."""
    percent = 100 * self._step / self._total if self._total else 100
    place = self._place or f'{self._unit} {self._step}/{self._total}'
    parts = [place, f'{percent:.1f}%']
    rate, unit = self._throughput.per_second(), f'{self._unit}s'
    if self._images_per_step is not None:
      rate, unit = self.images_per_second, 'images'
    left = self.seconds_left
    if rate is not None and not self._place:
      parts.append(f'{rate:.{3 if rate < 1 else 1 if rate < 1000 else 0}f} {unit}/s')
    parts.append(f'{duration(self._clock() - self.began)} so far')
    if left is not None and self._step < self._total:
      parts.append(f'{duration(left)} to go')
    return '  '.join([*parts, self._read]).rstrip()


@contextlib.contextmanager
def counted(
  work: int, num_steps: int, also: Callable[[int], None]
) -> Iterator[Callable[[int], None]]:
  """Yield what is called with work just done: it shows steps, and calls `also`.

  Args:
    work: the sum of what it will be called with in one step.
    num_steps: how many steps there are.
    also: called with the same numbers.
  """
  total, done = work * num_steps, 0
  with activity.shown('upscaling'), Progress(total) as shown:

    def count(steps: int) -> None:
      nonlocal done
      done = min(done + steps, total)
      step = done * num_steps // max(total, 1)
      shown.update(done, f'step {step}/{num_steps}')
      also(steps)

    yield count
