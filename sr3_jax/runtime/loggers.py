"""Sends metrics and samples to TensorBoard and Weights & Biases, beside metrics.jsonl.

Start with `Loggers`. A logger that fails is given up with one warning: a full disk or a
broken network must not end a training.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from absl import logging
from etils import epath
from PIL import Image

from sr3_jax.runtime import atomic_files, foreign_files
from sr3_jax.runtime.errors import UserError, first_line

# Seconds that Weights & Biases may take to begin, to ask for a key at a terminal, and
# to send the rest at the end.
_INIT, _LOGIN, _FINISH = 60, 30, 60


class Settings(NamedTuple):
  """Says what is written beside metrics.jsonl."""

  writers: tuple[str, ...] = ()  # 'tensorboard', 'wandb'
  project: str = ''  # of Weights & Biases, as the two below
  entity: str = ''
  name: str = ''  # '' takes the last two parts of the workdir
  config: Mapping[str, Any] = {}  # of the run, as JSON has it


class Logger(Protocol):
  """A place that metrics go to. Each method may raise whatever its library raises."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write finite numbers by name."""

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Write a picture, uint8 [H, W, C] with 1 or 3 channels."""

  def flush(self) -> None:
    """Make what was written safe."""

  def close(self) -> None:
    """End; nothing is written afterwards."""


def check(writers: tuple[str, ...]) -> None:
  """Refuse writers whose library is missing.

  Raises:
    UserError: which, and what to install.
  """
  missing = {
    'tensorboard': not _there('tensorboardX') and not _there('tensorflow'),
    'wandb': not _there('wandb'),
  }
  for name in writers:
    if missing[name]:
      raise UserError(
        f"log.writers: {name!r} is not installed: pip install 'sr3_jax[{name}]'"
      )


def _there(module: str) -> bool:
  """Return whether a module is installed, without importing it."""
  return importlib.util.find_spec(module) is not None


class Loggers:
  """The loggers of a run.

  Args:
    workdir: folder of the run, local or gs://.
    settings: which loggers, and their options.
    resume_step: the step that the run goes on from. What was written of later steps is
      hidden or written once, as far as the loggers can.
  """

  def __init__(self, workdir: epath.Path, settings: Settings, resume_step: int | None):
    makers: dict[str, Callable[[], Logger]] = {
      'tensorboard': lambda: _tensorboard(workdir / 'tensorboard', resume_step),
      'wandb': lambda: _Wandb(workdir, settings),
    }
    self._open: dict[str, Logger] = {}
    for name in settings.writers:
      with self._guard(name):
        self._open[name] = makers[name]()

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write finite numbers by name."""
    self._each(lambda logger: logger.scalars(step, values))

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    """Write a picture, uint8 [H, W, C] with 1 or 3 channels."""
    self._each(lambda logger: logger.image(step, name, image))

  def flush(self) -> None:
    """Make what was written safe."""
    self._each(lambda logger: logger.flush())

  def close(self) -> None:
    """End all loggers."""
    self._each(lambda logger: logger.close())
    self._open.clear()

  def _each(self, call: Callable[[Logger], None]) -> None:
    for name, logger in [*self._open.items()]:
      with self._guard(name):
        call(logger)

  @contextlib.contextmanager
  def _guard(self, name: str):
    """Give a logger up, with a warning, if what is inside fails."""
    try:
      yield
    except Exception as error:  # of libraries, networks and disks
      logging.warning(
        'log.writers: %s failed and is given up: %s; training goes on, and metrics are '
        'in metrics.jsonl',
        name,
        first_line(error),
      )
      if failed := self._open.pop(name, None):
        with contextlib.suppress(Exception):
          failed.close()


def _tensorboard(folder: epath.Path, resume_step: int | None) -> Logger:
  """Return a writer of events: that of tensorboardX, or CLU's, which has TensorFlow.

  tensorboardX writes to disks only.
  """
  if _there('tensorboardX') and '://' not in os.fspath(folder):
    return _TensorBoardX(folder, resume_step)
  return _Clu(folder)


class _TensorBoardX:
  """A writer of TensorBoard's events without TensorFlow.

  The library's `SummaryWriter` is not used: it writes from a thread, and if that fails,
  the next calls wait for it forever.
  """

  def __init__(self, folder: epath.Path, resume_step: int | None):
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    protocol: Any = event_pb2  # its classes are made at import
    self._summary, self._event = summary, protocol.Event
    folder.mkdir(parents=True, exist_ok=True)
    # Names have whole seconds, but files are read by name in the order of their starts,
    # and one that is there would be written over.
    suffix = f'.{time.time_ns()}.{os.getpid()}'
    prefix = os.fspath(folder / 'events')
    self._file = event_file_writer.EventsWriter(prefix, suffix)
    if resume_step is not None:  # TensorBoard hides what older files have from here on
      start = protocol.SessionLog(status=protocol.SessionLog.START)
      self._write(resume_step + 1, session_log=start)
    self.flush()

  def _write(self, step: int, **content: Any) -> None:
    event = self._event(step=step, wall_time=time.time(), **content)
    self._file.write_event(event)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._write(step, summary=self._summary.scalar(name, value))
    self.flush()

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    picture = self._summary.image(name, image, dataformats='HWC')
    self._write(step, summary=picture)
    self.flush()

  def flush(self) -> None:
    self._file.flush()

  def close(self) -> None:
    self._file.close()


class _Clu:
  """CLU's writer of events, which imports TensorFlow and can write to gs://."""

  def __init__(self, folder: epath.Path):
    from clu import metric_writers

    self._writer = metric_writers.SummaryWriter(os.fspath(folder))

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    self._writer.write_scalars(step, values)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    self._writer.write_images(step, {name: image[None]})

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class _Wandb:
  """A run of Weights & Biases, the same one at every start of a workdir.

  WORKDIR/wandb.json has its id. WANDB_MODE=offline writes to WORKDIR/wandb only.
  """

  def __init__(self, workdir: epath.Path, settings: Settings):
    import wandb

    self._wandb = wandb
    local = '://' not in os.fspath(workdir)
    self._run = wandb.init(
      project=settings.project,
      entity=settings.entity or None,
      name=settings.name or '/'.join(workdir.parts[-2:]),
      id=_wandb_id(workdir / 'wandb.json'),
      resume='allow',
      dir=os.fspath(workdir) if local else None,
      config=dict(settings.config),
      allow_val_change=True,  # a run may go on with other options
      settings=wandb.Settings(
        console='off',  # WORKDIR/logs has it, and progress lines are many
        init_timeout=_INIT,
        login_timeout=_LOGIN,
        finish_timeout=_FINISH,
        quiet=True,
      ),
    )
    if not self._run.offline:
      logging.info('Weights & Biases: %s', self._run.url)

  def _log(self, step: int, values: Mapping[str, Any]) -> None:
    # A resumed run has the steps since its checkpoint already: the same numbers.
    if step >= self._run.step:
      self._run.log(dict(values), step=step)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    self._log(step, values)

  def image(self, step: int, name: str, image: np.ndarray) -> None:
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    self._log(step, {name: self._wandb.Image(picture)})

  def flush(self) -> None:
    pass  # another process sends everything as it comes

  def close(self) -> None:
    self._run.finish()


def _wandb_id(path: epath.Path) -> str:
  """Return the id that a file has for a run; write a new one if there is none."""
  if foreign_files.exists(path):
    with contextlib.suppress(UserError):
      return str(foreign_files.read_json(path, {'id': str})['id'])
  new = secrets.token_hex(4)
  atomic_files.write_text(path, json.dumps({'id': new}))
  return new
