"""Writes files that readers see whole or not at all."""

import errno
import json
import uuid

from etils import epath


def write_bytes(path: epath.PathLike, data: bytes) -> None:
  """Write a file under a temporary name and rename it; make missing folders.

  Args:
    path: where the file will be; local or gs://.
    data: its content.

  Raises:
    OSError: the place can't be written; its `filename` is `path`.
  """
  path = epath.Path(path)
  temporary = path.parent / f'.{uuid.uuid4().hex}.tmp'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      temporary.write_bytes(data)
      temporary.replace(path)
    except BaseException:
      temporary.unlink(missing_ok=True)
      raise
  # Object stores raise errors of their own, which are no OSError.
  except Exception as error:
    number = getattr(error, 'errno', None) or errno.EIO
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    raise OSError(number, reason, str(path)) from error


def write_json(path: epath.PathLike, value: object) -> None:
  """Write `value` as indented JSON, as `write_bytes` does.

  Raises:
    OSError: the place can't be written.
  """
  write_bytes(path, (json.dumps(value, indent=2) + '\n').encode())
