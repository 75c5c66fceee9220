"""Records what a run does and for how long, in its workdir.

  timing/process_00000.json    seconds of steps, of waiting for data, saving, evaluating
  heartbeat/process_00000.json when the process last did a step, and which
  profile/                     a trace of some steps, for TensorBoard or Perfetto

Every process writes its own files, so that a slow one among many can be found.
"""

import collections
import contextlib
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence

import jax
from absl import logging
from etils import epath

from sr3_jax.runtime import activity, atomic_files

# Seconds between two writings: often enough for a watchdog, too rare to slow a run.
HEARTBEAT, TIMING = 10.0, 60.0
_BINS_AN_OCTAVE = 4
# What is done beside steps, as the screen says it.
_SAID = {
  'input': 'waiting for images',
  'save': 'writing a checkpoint',
  'evaluation': 'measuring held-out images',
}


class Histogram:
  """A histogram of durations, in bins a quarter of an octave wide."""

  def __init__(self):
    self.count, self.total, self.longest = 0, 0.0, 0.0
    self._bins: collections.Counter[int] = collections.Counter()

  def add(self, seconds: float) -> None:
    """Count one duration."""
    self._bins[math.ceil(_BINS_AN_OCTAVE * math.log2(max(seconds, 1e-6)))] += 1
    self.count += 1
    self.total += seconds
    self.longest = max(self.longest, seconds)

  def quantile(self, share: float) -> float:
    """Return the seconds that this share of the durations does not exceed, to 19 %."""
    left = share * self.count
    for place in sorted(self._bins):
      left -= self._bins[place]
      if left <= 0:
        return min(2 ** (place / _BINS_AN_OCTAVE), self.longest)
    return self.longest

  def as_json(self) -> dict[str, object]:
    """Return sums, quantiles, and [upper edge in seconds, count] of every bin."""
    return {
      'count': self.count,
      'seconds': round(self.total, 3),
      'median': round(self.quantile(0.5), 6),
      'p99': round(self.quantile(0.99), 6),
      'longest': round(self.longest, 6),
      'bins': [
        [round(2 ** (place / _BINS_AN_OCTAVE), 6), count]
        for place, count in sorted(self._bins.items())
      ],
    }


class Monitor:
  """A monitor of a training loop, and of its steps `profile[0]` to `profile[1]`."""

  def __init__(self, workdir: epath.Path, profile: Sequence[int] = ()):
    name = f'process_{jax.process_index():05d}.json'
    self._timing = workdir / 'timing' / name
    self._heartbeat = workdir / 'heartbeat' / name
    self._trace = workdir / 'profile'
    self._profile = tuple(profile) if jax.process_index() == 0 else ()
    self._tracing = False
    self._seconds = collections.defaultdict(Histogram)  # by what was done
    self._last_beat = self._last_write = -math.inf
    self._waited = 0.0  # seconds for data, since `waited` was called
    self._inside = 0.0  # seconds since the step began that were not part of it
    self._began = time.monotonic()

  @contextlib.contextmanager
  def doing(self, what: str) -> Iterator[None]:
    """Time something that is not a step: 'input', 'save', 'evaluation'."""
    began = time.monotonic()
    if what != 'input':
      self._beat(None, what)
    try:
      with activity.doing(_SAID[what]):
        yield
    finally:
      took = time.monotonic() - began
      self._seconds[what].add(took)
      self._inside += took
      if what == 'input':
        self._waited += took

  def waited(self) -> float:
    """Return the seconds of waiting for data since the last call."""
    seconds, self._waited = self._waited, 0.0
    return seconds

  def step(self, step: int) -> None:
    """Count a step that was started; the first includes compilation."""
    now = time.monotonic()
    kind = 'step' if 'first step' in self._seconds else 'first step'
    self._seconds[kind].add(now - self._began - self._inside)
    self._began, self._inside = now, 0.0
    first, last = self._profile or (math.inf, math.inf)
    if not self._tracing and first - 1 <= step < last:
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # it would slow the steps that it looks at
      jax.profiler.start_trace(os.fspath(self._trace), profiler_options=options)
      self._tracing = True
    elif self._tracing and step >= last:
      self._stop()
    if now - self._last_beat > HEARTBEAT:
      self._beat(step, 'training')
    if now - self._last_write > TIMING:
      self.write()

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._tracing = False
    logging.info('a trace of steps %d to %d is in %s', *self._profile, self._trace)

  def _beat(self, step: int | None, doing: str) -> None:
    self._last_beat = time.monotonic()
    beat = {'time': time.time(), 'step': step, 'doing': doing}
    beat |= {'host': socket.gethostname(), 'pid': os.getpid()}
    atomic_files.write_json(self._heartbeat, beat)

  def write(self) -> None:
    """Write the durations since this start of the run."""
    self._last_write = time.monotonic()
    seconds = {name: h.as_json() for name, h in self._seconds.items()}
    atomic_files.write_json(self._timing, seconds)

  def close(self, step: int) -> None:
    """Stop the trace, and write what there is."""
    if self._tracing:
      self._stop()
    self._beat(step, 'ended')
    self.write()
    if 'step' in self._seconds:
      logging.info('%s', self.summary())

  def summary(self) -> str:
    """Return where the time went, in a line."""
    total = sum(h.total for h in self._seconds.values()) or 1.0
    shares = [f'{name} {h.total / total:.1%}' for name, h in self._seconds.items()]
    median, p99 = (self._seconds['step'].quantile(share) for share in (0.5, 0.99))
    return (
      f'time: {", ".join(shares)}; a step took {median:.3g} s (median), {p99:.3g} s '
      '(99 %)'
    )
