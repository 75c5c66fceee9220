"""Finds the files that a command's inputs mean, and names their outputs.

Folders and patterns are mirrored below the output folder; files go directly into it.
"""

import collections
import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sr3_jax.images import rasters

STDIN = '-'


class Source(NamedTuple):
  """One file of the input, or standard input."""

  name: str  # what messages call it
  path: pathlib.Path | None  # the file; None is standard input
  # Where it would lie below the output folder, under its own name: 'sub/a.png'.
  place: pathlib.PurePath


def find(
  inputs: Sequence[str], is_output: Callable[[pathlib.Path, pathlib.Path], bool]
) -> tuple[list[Source], dict[str, str]]:
  """Return the files that inputs mean, each once, in the order given; folders sorted.

  Args:
    inputs: files; folders, in which images are found by extension at any depth, without
      hidden ones; patterns like 'photos/**/*.jpg'; or '-'.
    is_output: (file, folder that it was found in) -> whether this program wrote the
      file there.

  Returns:
    The sources; and for every input that means none, the reason.
  """
  found: dict[pathlib.Path | None, Source] = {}
  missing: dict[str, str] = {}
  for text in inputs:
    path = pathlib.Path(text)
    base = pathlib.PurePath()
    if text == STDIN:
      found.setdefault(None, Source('standard input', None, pathlib.PurePath('stdin')))
      continue
    if path.is_dir():
      root, reason = path, 'no image files in this folder'
      # Among several inputs each folder keeps its name.
      base = pathlib.PurePath(path.resolve().name if len(inputs) > 1 else '')
      files = [file for file in _below(path, missing) if not is_output(file, path)]
    elif path.exists():
      source = Source(text, path, pathlib.PurePath(path.name))
      found.setdefault(path.resolve(), source)
      continue
    elif not glob.has_magic(text):
      missing[text] = 'no such file or folder'
      continue
    else:
      root, reason = _root(text), 'no image file matches this pattern'
      files = [file for file in _matches(text) if not is_output(file, root)]
    for file in files:
      source = Source(str(file), file, base / file.relative_to(root))
      found.setdefault(file.resolve(), source)
    if not files:
      missing.setdefault(text, reason)
  return list(found.values()), missing


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
    return str(places[i]), str(path and path.resolve())

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


def _is_image(file: pathlib.Path) -> bool:
  """Return whether a file is an image by its name, and not hidden."""
  return file.suffix.lower() in rasters.EXTENSIONS and not file.name.startswith('.')


def _below(folder: pathlib.Path, missing: dict[str, str]) -> list[pathlib.Path]:
  """Return the image files below a folder; `missing` gets why others can't be read."""
  files = []

  def note(error: OSError) -> None:
    missing[str(error.filename)] = str(error.strerror)

  for parent, folders, names in os.walk(folder, onerror=note):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    files += [pathlib.Path(parent, name) for name in sorted(names)]
  return [file for file in files if _is_image(file)]


def _matches(pattern: str) -> list[pathlib.Path]:
  """Return the image files that match a pattern, sorted."""
  paths = map(pathlib.Path, sorted(glob.glob(pattern, recursive=True)))
  return [path for path in paths if _is_image(path) and path.is_file()]


def _root(pattern: str) -> pathlib.Path:
  """Return the folder in front of the first wildcard of a pattern."""
  parts = pathlib.Path(pattern).parts
  fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  return pathlib.Path(*parts[:fixed])
