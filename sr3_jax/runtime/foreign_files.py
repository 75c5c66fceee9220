"""Opens what others wrote: every file that the package reads is read through here.

A file may come from anybody, and be damaged in any way. Only regular files are opened
(a pipe would be waited for, a device has no end), sizes are bounded before anything is
read, and JSON is checked before it is used; `foreign_arrays` does
so with .npz files. Whatever is wrong is one
line: which file, what it is, what to do.
"""

import contextlib
import functools
import importlib.util
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import IO, Any

from etils import epath

from sr3_jax.runtime import memory
from sr3_jax.runtime.errors import UserError, line, reason

MAX_JSON = 2**26  # bytes of a JSON or text file: the largest, a report, has 10 MB
MAX_STREAM = 2**30  # bytes of a stream, whose size is not known before: a picture
MAX_BYTES = 2**34  # bytes of any file that is read whole, if memory has room for them

_PART = 2**20  # bytes that are read at a time where a file's size is not known
_LARGE = 2**26  # bytes from which a file must fit into the free memory

# What begins like this is something else than it is called.
_MAGIC = {
  b'version https://git-lfs.github.com': 'a git-lfs pointer, not the file itself',
  b'<!doctype html': 'a web page (HTML)',
  b'<html': 'a web page (HTML)',
  b'<?xml': 'an XML file',
  b'PK\x03\x04': 'a zip archive',
  b'\x1f\x8b': 'a gzip archive',
  b'\x89PNG': 'a PNG picture',
  b'\xff\xd8\xff': 'a JPEG picture',
  b'\x89HDF': 'an HDF5 file',
  b'\x93NUMPY': 'a single NumPy array (.npy)',
  b'{"message"': 'the answer of a server that refused (JSON)',
}
FOLDER = 'a folder'
_KINDS = (
  (stat.S_ISDIR, FOLDER),
  (stat.S_ISFIFO, 'a pipe (FIFO)'),
  (stat.S_ISSOCK, 'a socket'),
  (stat.S_ISCHR, 'a device'),
  (stat.S_ISBLK, 'a device'),
)

# Keys of a JSON object with the types of their values.
Wanted = Mapping[str, type | tuple[type, ...]]


class FileError(UserError):
  """One line: which file, what is wrong with it, what to do."""


def place(path: epath.PathLike) -> epath.Path:
  """Return a path, local or gs://, that this machine can reach.

  Raises:
    FileError: another kind of address, or gs:// without gcsfs.
  """
  text = os.fspath(path)
  scheme, found, _ = text.partition('://')
  if found and not (scheme == 'gs' and _has_gcsfs()):
    if scheme == 'gs':
      raise FileError(f"{text}: gs:// needs gcsfs: pip install 'sr3_jax[gcs]'")
    raise FileError(f'{text}: give a path of this machine, or a gs:// address')
  if '\0' in text:
    raise FileError(f'{text}: no path: it has a null character')
  return epath.Path(path)


@functools.cache
def _has_gcsfs() -> bool:
  """Return whether gs:// can be reached."""
  return importlib.util.find_spec('gcsfs') is not None


def kind(mode: int) -> str:
  """Return what a file of a mode is, as 'a pipe (FIFO)'; '' for a regular file."""
  if stat.S_ISREG(mode):
    return ''
  return next((name for test, name in _KINDS if test(mode)), 'no regular file')


def exists(path: epath.PathLike) -> bool:
  """Return whether something is there; a link that leads nowhere is something, too."""
  text = os.fspath(path)
  return epath.Path(path).exists() if '://' in text else os.path.lexists(text)


def open_file(path: epath.PathLike, most: int = MAX_BYTES) -> IO[bytes]:
  """Open a regular file, or a link to one, to read its bytes; local or gs://.

  Args:
    path: of the file.
    most: bytes that it may have.

  Raises:
    FileError: it is no regular file, or larger.
    OSError: it is missing, or can't be opened.
  """
  text = os.fspath(path)
  if '://' in text:
    # Objects are regular; to ask for the size first would take as long as to open it.
    return epath.Path(path).open('rb')
  # Without O_NONBLOCK a pipe would be waited for before its kind is known.
  number = os.open(text, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    status = os.fstat(number)
    if what := kind(status.st_mode):
      raise FileError(f'{text}: {what}, should be a file')
    if status.st_size > most:
      raise FileError(_too_large(text, most))
    # With its name, which readers of TIFFs ask for; os.fdopen would not know it.
    return open(text, 'rb', opener=lambda *_: number)
  except BaseException:
    os.close(number)
    raise


def check_file(path: epath.PathLike, most: int = MAX_BYTES) -> None:
  """Raise what `open_file` raises, for libraries that open files themselves."""
  open_file(path, most).close()


def read_bytes(path: epath.PathLike, most: int = MAX_BYTES) -> bytes:
  """Return what is in a file of at most `most` bytes; errors are those of `open_file`.

  A file that memory has no room for is a FileError.
  """
  with open_file(path, most) as file:
    size = 0
    with contextlib.suppress(OSError):  # files of /proc have no end
      size = file.seek(0, os.SEEK_END)
      file.seek(0)
      if size > _LARGE:
        check_memory(path, size)
    data = _read_to_end(file, size, most + 1)
  if len(data) > most:
    raise FileError(_too_large(os.fspath(path), most))
  return data


def read_stream(stream: IO[bytes], name: str, most: int = MAX_STREAM) -> bytes:
  """Return what a stream gives, up to its end.

  Raises:
    FileError: more than `most` bytes; the line begins with `name`.
    OSError: it can't be read.
  """
  data = _read_to_end(stream, _PART, most + 1)
  if len(data) > most:
    raise FileError(_too_large(name, most))
  return data


def _read_to_end(file: IO[bytes], size: int, most: int) -> bytes:
  """Return what is in a file that should have `size` bytes, at most `most`.

  `read(most)` would take memory for all of them at once. Files of /proc say that they
  have no bytes, so what comes after `size` is read too, in parts.
  """
  parts = [file.read(min(size, most))]
  left = most - len(parts[0])
  while left > 0 and (part := file.read(min(left, _PART))):
    parts.append(part)
    left -= len(part)
  return b''.join(parts)  # of one part it is that part, without a copy


@contextlib.contextmanager
def explained(
  path: object, what: str, kind_of_error: type[UserError] = FileError
) -> Iterator[None]:
  """Turn whatever reading a file raises into one line that names it.

  Args:
    path: of the file; every line begins with it.
    what: what the file should be: 'reference statistics'.
    kind_of_error: the error that is raised instead.
  """
  try:
    yield
  except kind_of_error:
    raise
  except FileNotFoundError:
    raise kind_of_error(f'{path}: no such file') from None
  except OSError as error:
    raise kind_of_error(f'{path}: {reason(error)}') from None
  except ImportError as error:  # of what reaches gs://
    raise kind_of_error(f'{path}: {line(error)}') from None
  except UserError as error:
    text = str(error).removeprefix(f'{path}: ')
    raise kind_of_error(f'{path}: {text}') from None
  # Decoders of archives, arrays and JSON raise nearly anything on hostile bytes.
  except Exception as error:
    ours = '' if type(error) is ValueError else 'damaged: '
    text = f'{path}: not {what} ({ours}{line(error)}){_hint(path)}'
    raise kind_of_error(text) from None


def read_text(
  path: epath.PathLike,
  most: int = MAX_JSON,
  error: type[UserError] = FileError,
  replace: bool = False,
) -> str:
  """Return the text of a file in UTF-8.

  Args:
    path: of the file.
    most: bytes that it may have.
    error: the kind of error that is raised.
    replace: whether bytes that are no UTF-8 become U+FFFD instead of an error.

  Raises:
    UserError: of the kind `error`: no file, too large, or no text in UTF-8.
  """
  with explained(path, 'a text file', error):
    data = read_bytes(path, most)
    try:
      return data.decode('utf-8', 'replace' if replace else 'strict')
    except UnicodeDecodeError:
      raise FileError(f'{path}: not a text in UTF-8{describe(data)}') from None


def read_json(
  path: epath.PathLike,
  wanted: Wanted | None = None,
  *,
  what: str = 'the JSON file that it should be',
  most: int = MAX_JSON,
  error: type[UserError] = FileError,
) -> dict[str, Any]:
  """Return the object in a JSON file.

  Args:
    path: of the file.
    wanted: keys that must be there, with the type of their values, or a tuple of types.
    what: what the file should be, for messages: 'the results of a run'.
    most: bytes that it may have.
    error: the kind of error that is raised.

  Raises:
    UserError: of the kind `error`: no file, too large, no JSON in UTF-8, no object, or
      a key is missing or of another type.
  """
  text = read_text(path, most, error)
  with explained(path, what, error):
    return checked(parse_json(text), wanted or {})


def parse_json(text: str) -> Any:
  """Return the value of a JSON text, however deep or odd it is.

  Raises:
    ValueError: it is no JSON; one line says where.
  """
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError('JSON that is nested too deeply') from None
  except ValueError as error:
    raise ValueError(f'no JSON: {line(error)}') from None


def checked(value: object, wanted: Wanted) -> dict[str, Any]:
  """Return a value that is an object with the keys and types that are wanted.

  Raises:
    ValueError: it is another; one line says what is missing.
  """
  if not isinstance(value, dict):
    raise ValueError(f'holds {_called(value)}, should hold an object')
  for key, types in wanted.items():
    found = value.get(key)
    types = types if isinstance(types, tuple) else (types,)
    # True is an int to Python.
    if not isinstance(found, types) or (isinstance(found, bool) and bool not in types):
      there = f'is {_called(found)}' if key in value else 'is missing'
      raise ValueError(f'"{key}" {there}, should be {_named(types)}')
  return value


def check_numbers(table: Mapping[str, object]) -> None:
  """Raise ValueError if the rows of a table are no objects of numbers."""
  for row in table.values():
    keys = checked(row, {})
    checked(row, dict.fromkeys(keys, (int, float)))


def check_memory(path: object, size: int) -> None:
  """Raise FileError if so many bytes are more than what is free in memory."""
  free = memory.free()
  if free is not None and size > free:
    raise FileError(
      f'{path}: takes {size / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free'
    )


def describe(start: bytes) -> str:
  """Return ': it is a web page (HTML)' for bytes that are something else; or ''."""
  if not start:
    return ': it has zero bytes'
  start = start[:512].lstrip().lower() if start[:1] in b'<{v \r\n' else start
  for magic, name in _MAGIC.items():
    if start.startswith(magic):
      return f': it is {name}'
  return ''


def start_of(path: epath.PathLike, count: int = 512) -> bytes:
  """Return the first bytes of a file; b'' if it can't be read."""
  with contextlib.suppress(Exception), open_file(path) as file:
    return file.read(count)
  return b''


def _hint(path: object) -> str:
  """Return what a file is that isn't what it should be, if that can be told."""
  found = describe(start_of(str(path)))
  usual = ('zip archive', 'zero bytes')
  if not found or any(word in found for word in usual):
    return ''
  return f'{found}; get it again'


def _too_large(path: str, most: int) -> str:
  """Return the text of the error about a file that is too large."""
  return f'{path}: larger than {most / 1e6:,.0f} MB, not read'


def _called(value: object) -> str:
  """Return what a JSON value is called."""
  return {'NoneType': 'null', 'dict': 'an object', 'list': 'a list'}.get(
    type(value).__name__, f'{str(value)[:40]!r}'
  )


def _named(types: tuple[Any, ...]) -> str:
  """Return what types of JSON values are called."""
  names = {dict: 'an object', list: 'a list', str: 'a text', int: 'a whole number'}
  return ' or '.join(
    dict.fromkeys(names.get(t, 'a number' if t is float else t.__name__) for t in types)
  )
