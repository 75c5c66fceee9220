"""Writes and reads the metrics of a run: metrics.jsonl, and loggers if asked.

`metrics.jsonl` is always written and is what reports are made from; `loggers` has the
others. Numbers are converted only when they are written, so that a metric still being
computed on a device isn't waited for early.
"""

import json
import math
import os
import time
from typing import Any, SupportsFloat, TextIO

import numpy as np
from etils import epath

from sr3_jax.runtime import atomic_files, foreign_files
from sr3_jax.runtime.loggers import Loggers, Settings

_MOST = 2**30  # bytes of a log: a line has about 300


class MetricsWriter:
  """A writer of metrics to WORKDIR/metrics.jsonl, and to loggers.

  Every line is one JSON object: {"step": 100, "time": Unix seconds, name: number or
  null, ...}; null stands for nan, infinities and None. On a local disk every line is
  there as soon as it is written. Object stores (gs://) can't append: there the whole
  file is written by `flush` and `close`, so flush before every checkpoint, or a kill
  loses the lines in between.

  Args:
    workdir: folder of the run, made if it is missing; local or gs://.
    resume_step: the step that a run resumes from. Lines of later steps are dropped, as
      they will be written again; None keeps them all. A line that a kill cut off is
      dropped in any case.
    settings: of the loggers; by default there are none.
    enabled: False writes nothing, for processes other than 0.
  """

  def __init__(
    self,
    workdir: epath.PathLike,
    *,
    resume_step: int | None = None,
    settings: Settings = Settings(),  # noqa: B008
    enabled: bool = True,
  ):
    self._enabled = enabled
    self._file: TextIO | None = None
    self._loggers: Loggers | None = None
    if not enabled:
      return
    workdir = epath.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / 'metrics.jsonl'
    self._lines = _kept_lines(self._path, resume_step)
    self._unsaved = False
    if '://' not in os.fspath(workdir):
      self._file = open(self._path, 'a', encoding='utf-8')  # noqa: SIM115
    self._loggers = Loggers(workdir, settings, resume_step)

  def write(self, step: int, /, **scalars: SupportsFloat | None) -> None:
    """Append one line; scalars are anything that `float` takes, or None."""
    if not self._enabled:
      return
    numbers = {name: _number(value) for name, value in scalars.items()}
    # The stamp goes last, too, so that no scalar can take its place.
    stamp = {'step': int(step), 'time': round(time.time(), 3)}
    line = json.dumps({'step': 0} | numbers | stamp, allow_nan=False) + '\n'
    if self._file:
      self._file.write(line)
      self._file.flush()
    else:
      self._lines.append(line)
      self._unsaved = True
    if self._loggers:
      finite = {k: v for k, v in numbers.items() if v is not None}
      self._loggers.scalars(int(step), finite)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """Hand a uint8 [H, W, C] image to the loggers."""
    if self._loggers:
      self._loggers.image(int(step), name, image)

  def flush(self) -> None:
    """Make everything written so far safe, on object stores too."""
    if self._enabled and self._unsaved:
      self._path.write_text(''.join(self._lines))
      self._unsaved = False
    if self._loggers:
      self._loggers.flush()

  def close(self) -> None:
    """Flush, and close the files."""
    self.flush()
    if self._file:
      self._file.close()
    if self._loggers:
      self._loggers.close()

  def __enter__(self) -> 'MetricsWriter':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
  """Return the lines of a run's metrics.jsonl; [] without one, and no damaged lines.

  Every line is an object with a whole number "step".

  Raises:
    FileError: it is no regular file, or larger than 1 GiB.
  """
  path = epath.Path(workdir) / 'metrics.jsonl'
  found = (_parsed(line) for line in _text(path).splitlines())
  return [row for row in found if row is not None]


def training_seconds(workdir: epath.PathLike, batch_size: int) -> float:
  """Return the seconds that a run's steps took, each once, without compilation."""
  seconds, done = 0.0, 0
  for row in read_metrics(workdir):
    rate = row.get('images_per_second')  # missing in lines before the second step
    if isinstance(rate, int | float) and rate > 0 and row['step'] > done:
      seconds += (row['step'] - done) * batch_size / rate
      done = row['step']
  return seconds


def _number(value: SupportsFloat | None) -> int | float | None:
  """Return a number of 7 digits, all that float32 has; None if it is not finite."""
  if value is None:
    return None
  if isinstance(value, int | np.integer):
    return int(value)
  value = float(value)
  return float(f'{value:.7g}') if math.isfinite(value) else None


def _kept_lines(path: epath.Path, resume_step: int | None) -> list[str]:
  """Return the whole lines up to a step; rewrite the file if it has others."""
  text = _text(path)
  kept = []
  for line in text.splitlines(keepends=True):
    row = _parsed(line) if line.endswith('\n') else None
    if row is not None and (resume_step is None or row['step'] <= resume_step):
      kept.append(line)
  if ''.join(kept) != text:
    atomic_files.write_bytes(path, ''.join(kept).encode())
  return kept


def _text(path: epath.Path) -> str:
  """Return what the log has; '' if there is none."""
  if not foreign_files.exists(path):
    return ''
  return foreign_files.read_text(path, _MOST, replace=True)


def _parsed(line: str) -> dict[str, Any] | None:
  """Return the object in a line; None if a kill tore it, or it is damaged."""
  try:
    return foreign_files.checked(foreign_files.parse_json(line), {'step': int})
  except ValueError:
    return None
