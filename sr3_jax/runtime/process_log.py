"""Messages: on the screen, and of every process of a run in a file of its own.

WORKDIR/logs/process_00003.log has what process 3 said, and how it ended. Every start
adds to it. A start whose end is missing was killed, or crashed below Python: the next
one says so, and the launcher's copy of stderr may say more. Of several processes with a
workdir on a disk, it has where Python was when a crash came; JAX ends a process so when
another one died.
"""

import contextlib
import faulthandler
import logging as python_logging
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags, logging
from etils import epath

LIMIT = 1_000_000  # bytes, then the file becomes NAME.old; on gs:// half of it goes
UPLOAD = 10.0  # seconds: objects on gs:// are written whole, so not for each message

_ERASE_LINE = '\r\x1b[K'
_STARTED = re.compile(r' \[(\d+)\] started on ')


def setup() -> None:
  """Short log lines on stderr, this package's only.

  Orbax writes some fifty INFO lines a checkpoint, through the same absl logger as
  everybody else; JAX and Grain add theirs. So below WARNING only records that come
  from this package pass. `--verbosity=1` shows everything, `--verbosity=-1` only
  warnings.
  """
  # TensorFlow and XLA print from C++; 1 leaves their warnings and errors.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1')
  # Of a write that fails, Orbax leaves many tasks behind that nobody asks any more.
  python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
  sys.unraisablehook = _unraisable
  logging.use_absl_handler()
  if flags.FLAGS['verbosity'].using_default_value:  # no absl app, say a notebook
    logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  handler.setFormatter(_ScreenFormatter('%H:%M:%S'))
  for old in [f for f in handler.filters if isinstance(f, _OwnRecords)]:
    handler.removeFilter(old)
  handler.addFilter(_OwnRecords())


def _unraisable(trouble: Any) -> None:
  """What TensorStore's threads find when nobody waits for them any more is no news."""
  if str(trouble.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(trouble)


class _OwnRecords(python_logging.Filter):
  """Lets warnings pass, and below them only this package's records."""

  _FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

  def filter(self, record: python_logging.LogRecord) -> bool:
    return record.levelno >= python_logging.WARNING or self.is_own(record)

  @classmethod
  def is_own(cls, record: python_logging.LogRecord) -> bool:
    """Whether this package wrote it, or everything is asked for."""
    everything = logging.get_verbosity() > logging.INFO  # absl counts upwards
    return everything or os.path.abspath(record.pathname).startswith(cls._FOLDER)


class _LineFormatter(python_logging.Formatter):
  """`STAMP message`, with the level named from warnings on.

  Args:
    stamp: of the time, as `time.strftime` takes it.
  """

  def __init__(self, stamp: str):
    super().__init__()
    self._stamp = stamp

  def format(self, record: python_logging.LogRecord) -> str:
    stamp = time.strftime(self._stamp, time.localtime(record.created))
    level = record.levelname.lower() + ': ' if record.levelno >= 30 else ''
    line = f'{stamp} {level}{record.getMessage()}'
    # Traces of other packages, of threads too: what matters is raised, and told.
    if record.exc_info and _OwnRecords.is_own(record):
      line += '\n' + self.formatException(record.exc_info)
    return line


class _ScreenFormatter(_LineFormatter):
  def format(self, record: python_logging.LogRecord) -> str:
    # In a terminal a progress line may stand here.
    return (_ERASE_LINE if sys.stderr.isatty() else '') + super().format(record)


@contextlib.contextmanager
def kept(workdir: epath.PathLike, make: bool = False) -> Iterator[None]:
  """Writes this process's messages to its file, and at the end how it ended.

  Args:
    workdir: of the run; while there is none, nothing is written.
    make: makes it at once.
  """
  index, pid = jax.process_index(), os.getpid()
  file = _File(epath.Path(workdir), f'process_{index:05d}.log', make)
  file.setFormatter(_LineFormatter(f'%Y-%m-%d %H:%M:%S [{pid}]'))
  file.addFilter(_OwnRecords())
  lost = _unfinished(file.text())
  command = ' '.join(sys.argv)
  file.say(
    f'started on {socket.gethostname()}, process {index} of {jax.process_count()}: '
    f'{command}'
  )
  if lost is not None:
    file.say(f'of process [{lost}] there is no end: killed, crashed, or still running')
  python_logging.root.addHandler(file)
  try:
    with file.crashes() if make else contextlib.nullcontext():
      yield
    file.say('ended: finished')
  except BaseException as error:
    file.say(f'ended: {_told(error)}')
    raise
  finally:
    python_logging.root.removeHandler(file)
    file.close()


def _told(error: BaseException) -> str:
  """An exception that ends the program, as the screen has it."""
  if not isinstance(error, SystemExit):
    return ''.join(traceback.format_exception(error)).strip()
  if isinstance(error.code, str):
    return error.code
  return f'{error.__context__ or ""} (exit code {error.code or 0})'.strip()


def _unfinished(text: str) -> str | None:
  """Number of the process that began last, if its end is missing."""
  for start in list(_STARTED.finditer(text))[-1:]:
    if f' [{start[1]}] ended: ' not in text[start.end() :]:
      return start[1]
  return None


class _File(python_logging.Handler):
  """Appends lines to a file of bounded size. What goes wrong with it ends no run."""

  def __init__(self, workdir: epath.Path, name: str, make: bool):
    super().__init__()
    self._workdir, self._make = workdir, make
    self._path = workdir / 'logs' / name
    self._remote = '://' in os.fspath(workdir)
    self._before = self.text() if self._remote else ''
    self._lines: list[str] = []  # to be written
    self._due: threading.Timer | None = None

  def text(self) -> str:
    """What is there so far."""
    try:
      return self._path.read_text()
    except Exception:
      return ''

  def say(self, message: str) -> None:
    """Writes a line that the screen doesn't get."""
    record = {'msg': message, 'levelno': python_logging.INFO, 'pathname': __file__}
    self.handle(python_logging.makeLogRecord(record))

  def emit(self, record: python_logging.LogRecord) -> None:
    self._lines.append(self.format(record) + '\n')
    if not self._remote:
      self._write()
    elif self._due is None:  # nothing waits for a bucket
      self._due = threading.Timer(UPLOAD, self._upload)
      self._due.daemon = True
      self._due.start()

  @contextlib.contextmanager
  def crashes(self) -> Iterator[None]:
    """Stacks that Python shows at a crash go to the file, not to the screen."""
    if self._remote or not self._path.exists():
      yield
      return
    with self._path.open('a') as file:
      faulthandler.enable(file)
      try:
        yield
      finally:
        faulthandler.enable(sys.__stderr__)

  def close(self) -> None:
    if self._due:
      self._due.cancel()
    self._write()
    super().close()

  def _upload(self) -> None:
    self._due = None
    with self.lock:
      self._write()

  def _write(self) -> None:
    if not self._lines or not (self._make or self._workdir.exists()):
      return
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      if self._remote:
        text = self._before + ''.join(self._lines)
        if len(text) > LIMIT:
          text = text[text.index('\n', len(text) - LIMIT // 2) + 1 :]
        self._path.write_text(text)
        self._before = text
      else:
        if self._path.exists() and self._path.stat().length > LIMIT:
          self._path.replace(self._path.with_name(self._path.name + '.old'))
        with self._path.open('a') as file:
          file.write(''.join(self._lines))
      self._lines.clear()
    except Exception:  # a full disk, say: told where it matters
      del self._lines[:-1000]
