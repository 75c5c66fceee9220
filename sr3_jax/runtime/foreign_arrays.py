"""Reads .npz files that others wrote: without pickles, within memory."""

import contextlib
import zipfile
from collections.abc import Iterator

import numpy as np
from etils import epath

from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import UserError

_MAX_ENTRIES = 100_000  # files in an archive


def read_npz(
  path: epath.PathLike,
  wanted: tuple[str, ...] = (),
  *,
  what: str = 'the .npz file that it should be',
  only: tuple[str, ...] | None = None,
  finite: bool = True,
  error: type[UserError] = foreign_files.FileError,
) -> dict[str, np.ndarray]:
  """Return the arrays of an .npz file, without pickles and within memory.

  Args:
    path: of the file, local or gs://.
    wanted: names of arrays that must be there.
    what: what the file should be, for messages: 'reference statistics'.
    only: names of the arrays that are read; None for all.
    finite: whether NaN and infinities are refused.
    error: the kind of error that is raised.

  Raises:
    UserError: of the kind `error`: no file, no .npz file, damaged, too large for this
      machine's memory, an array is missing or holds objects.
  """
  with (
    foreign_files.explained(path, what, error),
    _archive(path, wanted) as (archive, entries),
  ):
    if missing := [name for name in wanted if name not in entries]:
      there = ', '.join([*entries][:8]) + (', ...' if len(entries) > 8 else '')
      raise ValueError(
        f'lacks {", ".join(missing)}; it holds {there or "nothing"}{_names(wanted)}'
      )
    if only is not None:
      entries = {name: entry for name, entry in entries.items() if name in only}
    foreign_files.check_memory(path, sum(entry.file_size for entry in entries.values()))
    arrays = {name: _array(archive, entry, name) for name, entry in entries.items()}
    for name, array in arrays.items():
      if finite and array.dtype.kind in 'fc' and not np.isfinite(array).all():
        raise ValueError(f'{name} holds values that are not finite')
    return arrays


def npz_names(path: epath.PathLike) -> list[str]:
  """Return the names of the arrays in an .npz file; errors are those of zip files."""
  with _archive(path, ()) as (_, entries):
    return list(entries)


@contextlib.contextmanager
def _archive(
  path: epath.PathLike, wanted: tuple[str, ...]
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
  """Yield an .npz file and its entries by the names of arrays; refuse other files."""
  with foreign_files.open_file(path) as file:
    if not file.read(1):
      raise ValueError(f'zero bytes{_names(wanted)}')
    if not zipfile.is_zipfile(file):
      raise ValueError(f'no .npz archive{_names(wanted)}')
    with zipfile.ZipFile(file) as archive:
      entries = {e.filename.removesuffix('.npy'): e for e in archive.infolist()}
      if len(entries) < len(archive.infolist()) or len(entries) > _MAX_ENTRIES:
        raise ValueError('an array is there twice, or there are too many')
      yield archive, entries


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> np.ndarray:
  """Return an array of an archive, after its header was compared with its size."""
  with archive.open(entry) as file:
    version = np.lib.format.read_magic(file)
    readers = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
      raise ValueError(f'{name} holds Python objects, which are not read')
    count = 1
    for side in shape:  # Python's integers do not overflow
      count *= side
    if (
      min(shape, default=1) < 0
      or count * dtype.itemsize > entry.file_size - file.tell()
    ):
      raise ValueError(f'{name} is cut: {list(shape)} of {dtype} do not fit its bytes')
  with archive.open(entry) as file:
    return np.lib.format.read_array(file, allow_pickle=False)


def _names(wanted: tuple[str, ...]) -> str:
  """Return a hint about the arrays that are wanted."""
  return f'; wanted are {", ".join(wanted)}' if wanted else ''
