"""Logs messages: on the screen, and of every process of a run in a file of its own.

WORKDIR/logs/process_00003.log has what process 3 logged, and how it ended. Every start
appends to it. A start without an end was killed, or crashed below Python; the next
start says so. Where a run has several processes and a workdir on a disk, the file also
has the Python stack of a crash: JAX ends a process like this when another one died.
"""

import contextlib
import faulthandler
import logging as python_logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler

import jax
from absl import flags, logging
from etils import epath

from sr3_jax.runtime import activity, folder_lock, foreign_files, interruption
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.printing import printable

LIMIT = 1_000_000  # bytes of one file
UPLOAD = 10.0  # seconds from a message to its upload to gs://

_KEPT = '\n\t'  # control characters that logs have
_ERASE_LINE = '\r\x1b[K'
_STARTED = re.compile(r' \[(\d+)\] started on ')


def setup(quiet: bool = False) -> None:
  """Show short log lines on stderr, only those of this package below warnings.

  Orbax writes about fifty INFO lines per checkpoint. `--verbosity=1` shows everything
  and so does the option -v; `--verbosity=-1` and `quiet` show only warnings.
  """
  # TensorFlow and XLA print from C++; 1 leaves their warnings and errors.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '1')
  # When a write fails, Orbax leaves tasks behind whose errors nobody collects.
  python_logging.getLogger('asyncio').setLevel(python_logging.CRITICAL)
  sys.unraisablehook = _unraisable
  logging.use_absl_handler()
  if flags.FLAGS['verbosity'].using_default_value:  # in a notebook absl has no app
    usual = logging.WARNING if quiet else logging.INFO
    logging.set_verbosity(logging.DEBUG if activity.tells_all() else usual)
  handler = logging.get_absl_handler()
  handler.setFormatter(_ScreenFormatter(datefmt='%H:%M:%S'))
  for old in [f for f in handler.filters if isinstance(f, _OwnRecords)]:
    handler.removeFilter(old)
  handler.addFilter(_OwnRecords())


def _unraisable(trouble: 'sys.UnraisableHookArgs') -> None:
  """Hide the errors of TensorStore's threads after their event loop is closed."""
  if str(trouble.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(trouble)


class _OwnRecords(python_logging.Filter):
  """A filter that passes warnings, and below them only this package's records."""

  _FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

  def filter(self, record: python_logging.LogRecord) -> bool:
    """Return whether a record passes."""
    return record.levelno >= python_logging.WARNING or self.is_own(record)

  @classmethod
  def is_own(cls, record: python_logging.LogRecord) -> bool:
    """Return whether this package logged it, or everything is asked for."""
    everything = logging.get_verbosity() > logging.INFO  # absl counts upwards
    return everything or os.path.abspath(record.pathname).startswith(cls._FOLDER)


def _message(record: python_logging.LogRecord) -> str:
  """Return the message of a record; its later lines are indented.

  So no name with a newline in it looks like a message of its own.
  """
  return record.getMessage().replace('\n', '\n  ')


class _LineFormatter(python_logging.Formatter):
  """A formatter of lines `STAMP message`; warnings and errors name their level."""

  def format(self, record: python_logging.LogRecord) -> str:
    """Return the line of a record."""
    stamp = self.formatTime(record, self.datefmt)
    level = record.levelname.lower() + ': ' if record.levelno >= 30 else ''
    line = f'{stamp} {level}{printable(_message(record), keep=_KEPT)}'
    # Tracebacks of other packages are left out: what matters is raised as well.
    if record.exc_info and _OwnRecords.is_own(record):
      line += '\n' + printable(self.formatException(record.exc_info), keep=_KEPT)
    return line


class _ScreenFormatter(_LineFormatter):
  """A formatter for a terminal, which clears the progress line first."""

  def format(self, record: python_logging.LogRecord) -> str:
    """Return the line of a record."""
    return (_ERASE_LINE if sys.stderr.isatty() else '') + super().format(record)


@contextlib.contextmanager
def in_workdir(workdir: epath.PathLike, make: bool = False) -> Iterator[None]:
  """Log this process's messages to its file, and at the end how it ended.

  Messages wait until the folder of the run exists; `make` makes it at once.
  """
  index, pid = jax.process_index(), os.getpid()
  workdir = epath.Path(workdir)
  path = workdir / 'logs' / f'process_{index:05d}.log'
  remote = '://' in os.fspath(workdir)

  def ready() -> bool:
    return make or (workdir.exists() if remote else _has_files(workdir))

  file = (_BucketFile if remote else _DiskFile)(path, ready)
  file.setFormatter(_LineFormatter(datefmt=f'%Y-%m-%d %H:%M:%S [{pid}]'))
  file.addFilter(_OwnRecords())
  lost = _unfinished(_text(path))
  _say(
    file,
    f'started on {socket.gethostname()}, process {index} of {jax.process_count()}: '
    f'{" ".join(sys.argv)}',
  )
  if lost is not None:
    _say(file, f'process [{lost}] has no end: killed, crashed, or still running')

  def end(number: int) -> None:
    name = signal.Signals(number).name
    _say(file, f'ended: interrupted by {name} (exit code {128 + number})')
    file.close()

  python_logging.root.addHandler(file)
  try:
    with interruption.at_end(end), contextlib.ExitStack() as stack:
      if make and not remote:
        stack.enter_context(_crashes(path))
      yield
    _say(file, 'ended: finished')
  except BaseException as error:
    _say(file, f'ended: {_described(error)}')
    raise
  finally:
    python_logging.root.removeHandler(file)
    file.close()


def _has_files(folder: epath.Path) -> bool:
  """Return whether a folder is there, and has more than the lock of its owner."""
  try:
    return any(not n.startswith(folder_lock.PREFIX) for n in os.listdir(folder))
  except OSError:
    return False


def _say(file: python_logging.Handler, message: str) -> None:
  """Log a line to the file that the screen doesn't show."""
  record = {'msg': message, 'levelno': python_logging.INFO, 'pathname': __file__}
  file.handle(python_logging.makeLogRecord(record))


def _described(error: BaseException) -> str:
  """Return the text of an exception that ends the program, as the screen shows it."""
  if not isinstance(error, SystemExit):
    return ''.join(traceback.format_exception(error)).strip()
  if isinstance(error.code, str):
    cause = error.__context__
    if cause is None or isinstance(cause, (UserError, OSError)):
      return error.code
    return error.code + '\n' + ''.join(traceback.format_exception(cause)).strip()
  return f'{error.__context__ or ""} (exit code {error.code or 0})'.strip()


def _unfinished(text: str) -> str | None:
  """Return the number of the process that started last, if it has no end."""
  for start in list(_STARTED.finditer(text))[-1:]:
    if f' [{start[1]}] ended: ' not in text[start.end() :]:
      return start[1]
  return None


def _text(path: epath.Path) -> str:
  """Return what a log has so far; '' if it can't be read."""
  try:
    return foreign_files.read_text(path, 2 * LIMIT, replace=True)
  except UserError:
    return ''


@contextlib.contextmanager
def _crashes(path: epath.Path) -> Iterator[None]:
  """Send the stacks that Python shows at a crash to a log instead of the screen."""
  if not os.path.isfile(path):
    yield
    return
  with path.open('a') as file:
    faulthandler.enable(file)
    try:
      yield
    finally:
      if sys.__stderr__ is None:  # started without a screen: `file` ends here
        faulthandler.disable()
      else:
        faulthandler.enable(sys.__stderr__)


class _DiskFile(RotatingFileHandler):
  """A log that becomes NAME.old when it is full. Trouble with it ends no run.

  `ready` returns whether the file may be made by now.
  """

  def __init__(self, path: epath.Path, ready: Callable[[], bool]):
    super().__init__(os.fspath(path), maxBytes=LIMIT, backupCount=1, delay=True)
    self.namer = lambda name: name.removesuffix('.1') + '.old'
    self._folder, self._ready = path.parent, ready
    self._early: list[python_logging.LogRecord] = []

  def _open(self) -> TextIOWrapper:
    """Open the file to append to it; a pipe would be waited for."""
    if os.path.lexists(self.baseFilename):
      foreign_files.check_file(self.baseFilename)
    return super()._open()

  def emit(self, record: python_logging.LogRecord) -> None:
    """Write a record, after those that came before there was a folder."""
    self._early.append(record)
    try:
      if self._ready():
        self._folder.mkdir(parents=True, exist_ok=True)
        due, self._early = self._early, []
        for record in due:
          super().emit(record)
    except OSError:
      self.handleError(record)

  def handleError(self, record: python_logging.LogRecord) -> None:
    """Do nothing: a full disk is reported where it matters."""


class _BucketFile(python_logging.Handler):
  """A log on gs://, where a file can't grow: it is written anew every 10 seconds.

  When it is full its older half is dropped. `ready` is that of `_DiskFile`.
  """

  def __init__(self, path: epath.Path, ready: Callable[[], bool]):
    super().__init__()
    self._path, self._ready = path, ready
    self._text = _text(path)
    self._due: threading.Timer | None = None

  def emit(self, record: python_logging.LogRecord) -> None:
    """Take a record; nothing waits for the upload."""
    self._text += self.format(record) + '\n'
    if len(self._text) > LIMIT:
      self._text = self._text[self._text.index('\n', -LIMIT // 2) + 1 :]
    if self._due is None:
      self._due = threading.Timer(UPLOAD, self._upload)
      self._due.daemon = True
      self._due.start()

  def close(self) -> None:
    """Upload what is left."""
    if self._due:
      self._due.cancel()
      self._upload()
    super().close()

  def _upload(self) -> None:
    self._due = None
    with self.lock or contextlib.nullcontext():
      if self._ready():
        with contextlib.suppress(Exception):  # a bucket that is down ends no run
          self._path.parent.mkdir(parents=True, exist_ok=True)
          self._path.write_text(self._text)
