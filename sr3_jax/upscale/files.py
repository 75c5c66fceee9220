"""Finds the files that a command's inputs mean, and names their outputs.

Folders and patterns are mirrored below the output folder; files go directly into it.
"""

import collections
import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from etils import epath

from sr3_jax.images import folder_listing, rasters

STDIN = '-'
# A kind of files in folders that are no inputs.
OWN = 'own output(s) or mask(s)'


class Source(NamedTuple):
  """One file of the input, or standard input."""

  name: str  # what messages call it
  path: pathlib.Path | None  # the file; None is standard input
  # Where it would lie below the output folder, under its own name: 'sub/a.png'.
  place: pathlib.PurePath


class Found(NamedTuple):
  """What inputs mean."""

  sources: list[Source]  # files, each once, in the order given; folders sorted
  missing: dict[str, str]  # input that means no file, or folder in it -> reason
  passed: collections.Counter[str]  # kind -> how many entries of folders are no inputs


def find(
  inputs: Sequence[str], is_output: Callable[[pathlib.Path, pathlib.Path], bool]
) -> Found:
  """Find the files that inputs mean.

  Of a file that has several names, because links lead to it, its own name is taken.

  Args:
    inputs: files; folders, in which images are found by extension at any depth, without
      hidden ones; patterns like 'photos/**/*.jpg'; or '-'.
    is_output: (file, folder that it was found in) -> whether this program wrote the
      file there.
  """
  found: dict[pathlib.Path | None, Source] = {}
  result = Found([], {}, collections.Counter())
  for text in inputs:
    path = pathlib.Path(text)
    if text == STDIN:
      found.setdefault(None, Source('standard input', None, pathlib.PurePath('stdin')))
    elif not text:
      result.missing[text] = 'an input without a name'
    elif os.path.isdir(path):
      # Among several inputs each folder keeps its name.
      base = pathlib.PurePath(real(path).name if len(inputs) > 1 else '')
      files = _below(path, result)
      _add(found, result, text, files, path, base, is_output)
    elif kind := folder_listing.special(path):
      result.missing[text] = f'a {kind.removesuffix("(s)")}, not a file'
    elif os.path.exists(path):
      found.setdefault(real(path), Source(text, path, pathlib.PurePath(path.name)))
    elif os.path.lexists(path):
      result.missing[text] = 'a link that leads nowhere'
    elif not glob.has_magic(text):
      result.missing[text] = 'no such file or folder'
    else:
      files = _matches(text, result)
      _add(found, result, text, files, _root(text), pathlib.PurePath(), is_output)
  result.sources.extend(found.values())
  return result


def _add(
  found: dict[pathlib.Path | None, Source],
  result: Found,
  text: str,
  files: Sequence[pathlib.Path],
  root: pathlib.Path,
  base: pathlib.PurePath,
  is_output: Callable[[pathlib.Path, pathlib.Path], bool],
) -> None:
  """Add the files of a folder or pattern `text` to what was found."""
  inputs = [file for file in files if not is_output(file, root)]
  if len(inputs) < len(files):
    result.passed[OWN] += len(files) - len(inputs)
  if not inputs:
    is_folder = os.path.isdir(text)
    what = 'files in this folder' if is_folder else 'file matches this pattern'
    result.missing.setdefault(text, f'no image {what}')
  for file in inputs:
    source = Source(str(file), file, base / file.relative_to(root))
    before = found.setdefault(real(file), source)
    if before is source or before.path is None:
      continue
    if _directness(file) < _directness(before.path):
      found[real(file)] = source
    if real(file.parent) / file.name != real(before.path.parent) / before.path.name:
      result.passed[folder_listing.SEEN] += 1


def _directness(path: pathlib.Path) -> tuple[bool, int]:
  """Return what is smaller for the better of two names of a file."""
  return path.is_symlink(), len(path.parts)


def real(path: pathlib.Path) -> pathlib.Path:
  """Return where a path leads; of a link that leads nowhere, as far as it leads."""
  return pathlib.Path(os.path.realpath(path))


def stems(
  sources: Sequence[Source], outputs: Callable[[int, str], Iterable[str]]
) -> list[str]:
  """Return a stem for the outputs of every input, so that no two share a file.

  It is usually the input's own. Inputs that would write the same file ('a.png' and
  'a.jpg', both to 'a_out.png') get their extension added ('a_png', 'a_jpg'), and if
  that isn't enough, a number.

  Args:
    sources: the inputs.
    outputs: (number of an input, stem) -> names of the files that it writes.
  """
  places = [source.place for source in sources]

  def paths(i: int, stem: str) -> set[str]:
    # Windows and macOS do not tell small letters from capitals.
    return {str(places[i].parent / name).casefold() for name in outputs(i, stem)}

  def order(i: int) -> tuple[str, str]:
    path = sources[i].path
    return str(places[i]), str(path and real(path))

  result, taken = [place.stem for place in places], set()
  owners = collections.Counter(
    p for i, stem in enumerate(result) for p in paths(i, stem)
  )
  # They are sorted, so that stems don't depend on the order of the inputs.
  for i in sorted(range(len(places)), key=order):
    stem = result[i]
    if any(owners[path] > 1 for path in paths(i, stem)) and places[i].suffix:
      stem = f'{stem}_{places[i].suffix[1:].lower()}'
    candidate, number = stem, 1
    while paths(i, candidate) & taken:
      number += 1
      candidate = f'{stem}_{number}'
    result[i] = candidate
    taken |= paths(i, candidate)
  return result


def _below(folder: pathlib.Path, result: Found) -> list[pathlib.Path]:
  """Return the image files below a folder; say why folders in it can't be read."""

  def note(error: OSError) -> None:
    result.missing[str(error.filename)] = str(error.strerror)

  listing = folder_listing.list_files(
    epath.Path(folder), rasters.EXTENSIONS, on_error=note
  )
  result.passed.update(listing.passed)
  return [folder / name for name in listing.names]


def _matches(pattern: str, result: Found) -> list[pathlib.Path]:
  """Return the image files that match a pattern, sorted."""
  files = []
  for path in map(pathlib.Path, sorted(glob.glob(pattern, recursive=True))):
    if os.path.isdir(path):
      continue
    if kind := folder_listing.special(path):
      result.passed[kind] += 1
    elif path.name.lower().endswith(rasters.EXTENSIONS):
      files.append(path)
    else:
      result.passed[folder_listing.ending(path.name)] += 1
  return files


def _root(pattern: str) -> pathlib.Path:
  """Return the folder in front of the first wildcard of a pattern."""
  parts = pathlib.Path(pattern).parts
  fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  return pathlib.Path(*parts[:fixed])
