"""What a run tells: metrics.jsonl, TensorBoard, a progress line.

`metrics.jsonl` is always written and is what reports are made from; TensorBoard is an
extra (CLU writes it through TensorFlow). Numbers are converted only when they are
written, so that a metric still being computed on a device isn't waited for early.
"""

import collections
import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import numpy as np
from absl import logging
from etils import epath

_ERASE_LINE = '\r\x1b[K'


class MetricsWriter:
  """Writes metrics to `metrics.jsonl` in the workdir, and to TensorBoard if asked.

  Every line is one JSON object: {"step": 100, "time": Unix seconds, name: number or
  null, ...}; null stands for nan, infinities and None. On a local disk every line is
  there as soon as it is written. Object stores (gs://) can't append: there the whole
  file is written by `flush` and `close`, so flush before every checkpoint, or a kill
  loses the lines in between.

  Args:
    workdir: folder, made if it isn't there; local or gs://.
    resume_step: the step a run goes on from; lines of later steps are dropped, they
      will be written again. None keeps them all. A line torn by a kill is dropped
      either way.
    tensorboard: whether to write events to `workdir/tensorboard` too. Without
      TensorFlow a warning says what to install.
    enabled: False makes a writer that does nothing, for processes other than 0.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    resume_step: int | None = None,
    tensorboard: bool = False,
    enabled: bool = True,
  ):
    self._enabled = enabled
    self._file: TextIO | None = None
    self._tensorboard = None
    if not enabled:
      return
    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    self._lines = _kept_lines(self._path, resume_step)
    self._unsaved = False
    if '://' not in os.fspath(workdir):
      self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115
    if tensorboard:
      self._tensorboard = _tensorboard_writer(workdir / 'tensorboard')

  def write(self, step: int, /, **scalars: Any) -> None:
    """Appends one line; scalars are anything that `float` takes, or None."""
    if not self._enabled:
      return
    numbers = {name: _number(value) for name, value in scalars.items()}
    # The stamp goes last so that no scalar can take its place.
    record = {'step': int(step)} | numbers
    record |= {'step': int(step), 'time': round(time.time(), 3)}
    line = json.dumps(record, allow_nan=False) + '\n'
    if self._file:
      self._file.write(line)
      self._file.flush()
    else:
      self._lines.append(line)
      self._unsaved = True
    if self._tensorboard:
      finite = {k: v for k, v in numbers.items() if v is not None}
      self._tensorboard.write_scalars(int(step), finite)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Shows a uint8 [H, W, C] image in TensorBoard; nothing without it."""
    if self._tensorboard:
      self._tensorboard.write_images(int(step), {name: image})

  def flush(self) -> None:
    """Makes everything written so far safe, on object stores too."""
    if self._enabled and self._unsaved:
      self._path.write_text(''.join(self._lines))
      self._unsaved = False
    if self._tensorboard:
      self._tensorboard.flush()

  def close(self) -> None:
    """Flushes and lets go of the files."""
    self.flush()
    if self._file:
      self._file.close()
    if self._tensorboard:
      self._tensorboard.close()

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """The lines of a run's metrics.jsonl; [] if there is none, without torn ones."""
  path = epath.Path(workdir) / 'metrics.jsonl'
  found = []
  for line in path.read_text().splitlines() if path.exists() else ():
    try:
      found.append(json.loads(line))
    except ValueError:  # torn by a kill
      continue
  return found


def training_seconds(workdir: epath.PathLike, batch_size: int) -> float:
  """Time that a run's steps took, each once, without compilation; 0 if not known."""
  seconds, done = 0.0, 0
  for row in read_metrics(workdir):
    rate = row.get('images_per_second')  # of the first lines it may be missing
    if rate and row['step'] > done:
      seconds += (row['step'] - done) * batch_size / rate
      done = row['step']
  return seconds


class Throughput:
  """Units a second over the recent past, with pauses left out.

  The clock starts with the first `add`, whose units don't count: it is where the
  compilation ends.

  Args:
    window: seconds that "recent" means.
    clock: monotonic seconds.
  """

  def __init__(self, window: float = 60.0, clock: Callable[[], float] = time.monotonic):
    self._window, self._clock = window, clock
    self._total, self._paused = 0.0, 0.0
    self._marks: collections.deque[tuple[float, float]] = collections.deque()

  def add(self, units: float) -> None:
    """Counts units that are done by now."""
    self._total += units
    now = self._clock() - self._paused
    self._marks.append((now, self._total))
    # One mark from before the window stays: a slow step may fill the window alone.
    while len(self._marks) > 1 and self._marks[1][0] <= now - self._window:
      self._marks.popleft()

  def per_second(self) -> float | None:
    """Units a second between the first and last `add` of the window, None so far."""
    if len(self._marks) < 2:
      return None
    (start, before), (end, after) = self._marks[0], self._marks[-1]
    return (after - before) / (end - start) if end > start else None

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves the time inside out of the rate."""
    start = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - start


class Progress:
  """A progress line on stderr: step, percent, rate, time to go, and given values.

  In a terminal one line is rewritten; elsewhere a plain line is printed every
  `interval` seconds, so that log files stay readable. The rate and the time to go
  come from the last minute, without compilation (what precedes the first `update`)
  and without pauses.

  Args:
    total: the step at which the work is done.
    start: the step it starts from, when resumed.
    unit: what a step is called.
    images_per_step: shows images/s if given, else units/s.
    enabled: False makes a silent one, for processes other than 0.
    interval: seconds between plain lines.
    stream: where to write, stderr by default.
    clock: monotonic seconds.
  """

  def __init__(
    self,
    total: int,
    *,
    start: int = 0,
    unit: str = 'step',
    images_per_step: int | None = None,
    enabled: bool = True,
    interval: float = 10.0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total, self._step, self._unit = total, start, unit
    self._images_per_step = images_per_step
    self._enabled, self._clock = enabled, clock
    self._stream = stream or sys.stderr
    self._terminal = self._stream.isatty()
    self._interval = 0.2 if self._terminal else interval
    self._throughput = Throughput(clock=clock)
    self._values: dict[str, Any] = {}
    self._drawn_at, self._drawn_step = -math.inf, None

  def update(self, step: int, **values: Any) -> None:
    """Says that `step` steps are done; values are shown with 4 digits.

    Values may be arrays still being computed: they are read only when a line is due.
    """
    self._throughput.add(step - self._step)
    self._step, self._values = step, values
    if self._clock() - self._drawn_at >= self._interval:
      self._draw()

  @property
  def images_per_second(self) -> float | None:
    """Recent images a second; None before two updates or without images_per_step."""
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
    """Leaves the time inside (evaluation, say) out of the rate and the time to go."""
    self._draw()
    if self._enabled and self._terminal:
      self._stream.write('\n')  # what happens inside may print
    with self._throughput.pause():
      yield

  def close(self) -> None:
    """Leaves the last state on the screen."""
    self._draw()
    if self._enabled and self._terminal and self._drawn_step is not None:
      self._stream.write('\n')
      self._stream.flush()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _draw(self) -> None:
    if not self._enabled or (not self._terminal and self._step == self._drawn_step):
      return
    self._drawn_at, self._drawn_step = self._clock(), self._step
    line = self._line()
    if self._terminal:
      # The cursor goes back to the start, where a log message may erase the line.
      line = _ERASE_LINE + line[: shutil.get_terminal_size().columns - 1] + '\r'
    else:
      line += '\n'
    self._stream.write(line)
    self._stream.flush()

  def _line(self) -> str:
    percent = 100 * self._step / self._total if self._total else 100
    parts = [f'{self._unit} {self._step}/{self._total}', f'{percent:.1f}%']
    rate, left = self._throughput.per_second(), self.seconds_left
    if rate is not None:
      unit = f'{self._unit}s'
      if self._images_per_step is not None:
        rate, unit = rate * self._images_per_step, 'images'
      parts.append(f'{rate:.{3 if rate < 1 else 1 if rate < 1000 else 0}f} {unit}/s')
    if left is not None and self._step < self._total:
      parts.append(f'{duration(left)} to go')
    for name, value in self._values.items():
      parts.append(f'{name} {float(value):.4g}')
    return '  '.join(parts)


def duration(seconds: float) -> str:
  """Seconds as people say them: 45s, 12m05s, 3h20m, 2d04h."""
  seconds = round(seconds)
  for size, name, small, small_name in (
    (86400, 'd', 3600, 'h'),
    (3600, 'h', 60, 'm'),
    (60, 'm', 1, 's'),
  ):
    if seconds >= size:
      return f'{seconds // size}{name}{seconds % size // small:02d}{small_name}'
  return f'{seconds}s'


def write_json(path: epath.Path, value: Any) -> None:
  """Writes JSON so that a reader sees the old file or the new one, never a part."""
  part = path.with_name(path.name + '.part')
  part.write_text(json.dumps(value, indent=2) + '\n')
  part.replace(path)


def _number(value: Any) -> int | float | None:
  """A JSON number of 7 digits, all that float32 has; null if there is none."""
  if value is None:
    return None
  if isinstance(value, int | np.integer):
    return int(value)
  value = float(value)
  return float(f'{value:.7g}') if math.isfinite(value) else None


def _kept_lines(path: epath.Path, resume_step: int | None) -> list[str]:
  """The whole lines up to a step; rewrites the file if there are others."""
  if not path.exists():
    return []
  text = path.read_text()
  kept = []
  for line in text.splitlines(keepends=True):
    try:
      step = json.loads(line)['step'] if line.endswith('\n') else None
    except (ValueError, KeyError, TypeError):
      step = None
    if step is not None and (resume_step is None or step <= resume_step):
      kept.append(line)
  if ''.join(kept) != text:
    # A kill between these two lines leaves the old file whole.
    temporary = path.parent / (path.name + '.tmp')
    temporary.write_text(''.join(kept))
    temporary.replace(path)
  return kept


def _tensorboard_writer(folder: epath.Path) -> Any:
  try:
    from clu import metric_writers  # imports TensorFlow
  except ImportError:
    logging.warning(
      'no TensorBoard: TensorFlow is missing, pip install "sr3_jax[tensorboard]"; '
      'metrics.jsonl is written all the same'
    )
    return None
  return metric_writers.SummaryWriter(os.fspath(folder))
