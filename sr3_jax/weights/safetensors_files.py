"""Opens .safetensors files of strangers."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import safetensors
from etils import epath

from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import UserError, line

_MAX_HEADER = 2**25  # bytes; that of a network of ten thousand tensors has a megabyte


@contextlib.contextmanager
def opened(
  path: epath.PathLike, error: type[UserError] = foreign_files.FileError
) -> Iterator[Any]:
  """Yield an open file of this machine, as `safetensors.safe_open` does.

  Raises:
    UserError: of the kind `error`: it is no regular file, damaged, or none of this
      format; inside, too.
  """
  with foreign_files.explained(path, 'a whole safetensors file', error):
    _check_header(path)
    try:
      with safetensors.safe_open(os.fspath(path), framework='numpy') as file:
        yield file
    # TypeError: a type that NumPy lacks, as floats of 8 bits.
    except (safetensors.SafetensorError, TypeError) as trouble:
      raise ValueError(line(trouble)) from None


def _check_header(path: epath.PathLike) -> None:
  """Refuse a header that is longer than its file, or names a tensor twice."""
  with foreign_files.open_file(path) as file:
    start = file.read(8)
    size = file.seek(0, os.SEEK_END)
    length = int.from_bytes(start, 'little')
    if len(start) < 8 or length > min(size - 8, _MAX_HEADER):
      raise ValueError(f'its {size} bytes begin with no header')
    file.seek(8)
    header = file.read(length)
  try:
    json.loads(header, object_pairs_hook=_once)
  except RecursionError:
    raise ValueError('its header is nested too deeply') from None
  except UnicodeDecodeError:
    raise ValueError('its header is no text in UTF-8') from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Return an object of JSON whose keys are there once."""
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError('its header has a name twice')
  return found
