"""Says how much memory this process has taken, and how much it may take."""

import pathlib
import resource
import sys
from collections.abc import Iterator

_PROC = pathlib.Path('/proc')
_CGROUPS = pathlib.Path('/sys/fs/cgroup')
# A limit of version 1 that is as large as an address space is none.
_NO_LIMIT = 2**60


def resident() -> tuple[int, int]:
  """Return how many bytes this process has in memory now, and had at most.

  These are RSS, as `top` shows it, and its peak. Linux has the peak in VmHWM; ru_maxrss
  begins there with the size of the process that started this one.
  """
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  peak *= 1 if sys.platform == 'darwin' else 1024
  found = _fields(_PROC / 'self' / 'status')
  return found.get('VmRSS', peak), found.get('VmHWM', peak)


def free() -> int | None:
  """Return how many bytes more this process may take; None if not known.

  It is the least of what the machine has available, what the limits of its control
  groups (containers, Slurm) leave, and what `ulimit -v` leaves.
  """
  left = [*_groups_leave()]
  machine = _fields(_PROC / 'meminfo')
  if 'MemAvailable' in machine:
    left.append(machine['MemAvailable'])
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY:
    left.append(limit - _fields(_PROC / 'self' / 'status').get('VmSize', 0))
  return max(0, min(left)) if left else None


def _groups_leave() -> Iterator[int]:
  """Yield what the limits of this process's control groups and their parents leave."""
  for root, place, limit, usage in _own_groups():
    # In a container the place is often that of the host, of which nothing is visible.
    for folder in (root / place, *(root / place).parents):
      if folder != root and root not in folder.parents:
        break
      most, used = _number(folder / limit), _number(folder / usage)
      if most is None or used is None or most > _NO_LIMIT:
        continue
      stat = _fields(folder / 'memory.stat', unit=1)
      # Cached files count as used, and the kernel drops them when memory is short.
      cached = stat.get('total_inactive_file', stat.get('inactive_file', 0))
      yield most - max(0, used - cached)


def _own_groups() -> Iterator[tuple[pathlib.Path, str, str, str]]:
  """Yield root, place and names of files of this process's control groups."""
  try:
    lines = (_PROC / 'self' / 'cgroup').read_text().splitlines()
  except OSError:
    return
  for line in lines:
    _, controllers, place = line.split(':', 2)
    if not controllers:  # version 2
      yield _CGROUPS, place.lstrip('/'), 'memory.max', 'memory.current'
    elif 'memory' in controllers.split(','):
      names = 'memory.limit_in_bytes', 'memory.usage_in_bytes'
      yield _CGROUPS / 'memory', place.lstrip('/'), *names


def _number(path: pathlib.Path) -> int | None:
  """Return the number in a file; None if there is no file, or no number ('max')."""
  try:
    return int(path.read_text())
  except (OSError, ValueError):
    return None


def _fields(path: pathlib.Path, unit: int = 1024) -> dict[str, int]:
  """Return the numbers of a file of lines 'name: number', in bytes; {} without it."""
  try:
    lines = path.read_text().splitlines()
  except OSError:
    return {}
  words = [line.replace(':', ' ').split() for line in lines]
  return {w[0]: int(w[1]) * unit for w in words if len(w) > 1 and w[1].isdigit()}
