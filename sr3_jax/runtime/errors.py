"""The error that ends a command with one line, and how such lines are made."""

import errno
import sys
from collections.abc import Iterable

from sr3_jax.runtime.printing import one_line

_FOLDER = 'should be a folder'
# Errors of the system whose own words don't say what is wrong.
_REASONS = {
  errno.ELOOP: 'a link that leads to itself',
  errno.ENXIO: 'a socket, should be a file',
  errno.EINVAL: 'damaged',
  errno.EISDIR: 'a folder, should be a file',
  errno.EEXIST: f'a file, or a link that leads nowhere, {_FOLDER}',
  errno.ENOTDIR: f'a part of it is a file, {_FOLDER}',
  errno.ENAMETOOLONG: 'the name is too long',
}


class UserError(ValueError):
  """A mistake of the user, or of a file or place that the user named.

  Its text is one line that says what is wrong, where, and what to do. Commands print
  the line and end; every other exception is a fault of this program and keeps its
  traceback.
  """


class NotFiniteError(UserError):
  """A network gave NaN or infinity; `names` are the images that it gave it for."""

  def __init__(self, names: Iterable[str], what: str):
    self.names = list(names)
    where = f'{some(self.names)}: ' if self.names else ''
    super().__init__(
      f'{where}the output of {what} is not finite (NaN or infinity): its weights are '
      'damaged or training diverged; take another checkpoint or model, or more '
      'sampling steps, and float32 where it is bfloat16'
    )


class Preempted(Exception):
  """A signal ended a run after a save; one line says at what step, and how to go on."""

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.signal = signal  # its number


def line(error: BaseException | str) -> str:
  """Return what an exception says, in at most one line of 300 characters."""
  if isinstance(error, OSError) and error.strerror:
    error = f'{error.filename}: {reason(error)}' if error.filename else reason(error)
  text = one_line(error) or type(error).__name__
  return f'no {text}'[:300] if isinstance(error, KeyError) else text[:300]


def reason(error: OSError) -> str:
  """Return what an error of a file or folder means, without its name."""
  return _REASONS.get(error.errno or 0) or error.strerror or line(error)


def first_line(error: BaseException) -> str:
  """Return the first line of what an exception says.

  Libraries put a page of advice behind it.
  """
  lines = str(error).strip().splitlines()
  return one_line(lines[0]) if lines else type(error).__name__


def some(names: Iterable[str]) -> str:
  """Return the first five names, sorted, and how many more there are."""
  names = sorted(map(one_line, names))
  more = f' and {len(names) - 5} more' if len(names) > 5 else ''
  return ', '.join(names[:5])[:500] + more


def out_of_memory(error: BaseException) -> bool:
  """Return whether an error says that memory ran out, on a device or the host."""
  if _of_jax(error):
    # The status of the error; what wraps it, as autotuning does, comes before it.
    return 'RESOURCE_EXHAUSTED' in str(error)
  return isinstance(error, MemoryError)


def of_machine(error: BaseException, advice: str = '') -> str | None:
  """Return a line about trouble of memory, devices, files or the installation.

  None is returned for every other error: it is a fault of this program. `advice` is
  what needs less memory.
  """
  if isinstance(error, OSError):
    return line(error)
  if isinstance(error, ModuleNotFoundError) and error.name:
    return (
      None
      if error.name.startswith('sr3_jax')
      else (
        f'the package {error.name} is not installed: activate the environment that has '
        'it, or pip install sr3_jax (-e . in a clone)'
      )
    )
  if out_of_memory(error):
    advice = advice or 'end other programs, or give it less at a time'
    said = f' ({first_line(error)[:200]})' if str(error) else ''
    return f'out of memory{said}: {advice}'
  if _of_jax(error):
    return (
      f'JAX or a device failed: {first_line(error)[:200]}; the same command may do '
      'better a second time; if it does not, please report what -v shows'
    )
  return None


def _of_jax(error: BaseException) -> bool:
  """Return whether XLA raised an error; most commands don't import JAX for it."""
  errors = sys.modules.get('jax.errors')
  return errors is not None and isinstance(error, errors.JaxRuntimeError)
