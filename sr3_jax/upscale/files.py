"""Which files a command's inputs mean, and where their outputs go (layer 1: on images).

Folders and patterns are mirrored below the output folder; files go directly into it.
"""

import dataclasses
import glob
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

from sr3_jax.images import rasters

STDIN = '-'


@dataclasses.dataclass(frozen=True)
class Source:
  """An input.

  Attributes:
    name: what messages call it.
    path: the file; None is standard input.
    place: below the output folder, with the input's own name: 'sub/a.png'.
  """

  name: str
  path: pathlib.Path | None
  place: pathlib.PurePath


def find(
  inputs: Sequence[str], is_output: Callable[[pathlib.Path, pathlib.Path], bool]
) -> tuple[list[Source], dict[str, str]]:
  """The files that inputs mean, each once, in the order given; folders sorted.

  Args:
    inputs: files, folders (searched with all below them for images, by extension;
      hidden ones are left out), patterns like 'photos/**/*.jpg', or '-'.
    is_output: says of a file found in a folder, and of that folder, whether the file
      is something that this program wrote there.

  Returns:
    The sources, and for every input that means nothing: why.
  """
  found: dict[pathlib.Path | None, Source] = {}
  missing: dict[str, str] = {}
  for text in inputs:
    path = pathlib.Path(text)
    if text == STDIN:
      found.setdefault(None, Source('standard input', None, pathlib.PurePath('stdin')))
    elif path.is_dir():
      # Of several inputs each folder keeps its name.
      base = pathlib.PurePath(path.resolve().name if len(inputs) > 1 else '')
      files = [file for file in _below(path, missing) if not is_output(file, path)]
      for file in files:
        source = Source(str(file), file, base / file.relative_to(path))
        found.setdefault(file.resolve(), source)
      if not files:
        missing.setdefault(text, 'no image files in this folder')
    elif path.exists() or not glob.has_magic(text):
      if path.exists():
        source = Source(text, path, pathlib.PurePath(path.name))
        found.setdefault(path.resolve(), source)
      else:
        missing[text] = 'no such file or folder'
    else:
      root = _root(text)
      matches = [
        pathlib.Path(match) for match in sorted(glob.glob(text, recursive=True))
      ]
      files = [
        file
        for file in matches
        if _is_image(file) and file.is_file() and not is_output(file, root)
      ]
      for file in files:
        source = Source(str(file), file, pathlib.PurePath(file.relative_to(root)))
        found.setdefault(file.resolve(), source)
      if not files:
        missing[text] = 'no image file matches this pattern'
  return list(found.values()), missing


def stems(
  sources: Sequence[Source],
  outputs: Callable[[int, str], Iterable[str]],
) -> list[str]:
  """A stem for the outputs of every input, so that no two share a file.

  Usually that of the input. Inputs that would write the same file ('a.png' and 'a.jpg',
  both to 'a_out.png') carry their extension in it ('a_png', 'a_jpg'); if that isn't
  enough, a number.

  Args:
    sources: the inputs.
    outputs: what input i writes with a stem.
  """
  places = [source.place for source in sources]
  paths = lambda i, stem: {
    str(places[i].parent / name).casefold()  # as Windows and macOS see it
    for name in outputs(i, stem)
  }
  owners: dict[str, int] = {}
  plain = [place.stem for place in places]
  for i, stem in enumerate(plain):
    for path in paths(i, stem):
      owners[path] = owners.get(path, 0) + 1
  result, taken = list(plain), set()
  # By name, so that it doesn't matter in which order inputs are given.
  order = lambda i: (str(places[i]), str(sources[i].path and sources[i].path.resolve()))
  for i in sorted(range(len(places)), key=order):
    stem = plain[i]
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
  return file.suffix.lower() in rasters.EXTENSIONS and not file.name.startswith('.')


def _below(folder: pathlib.Path, missing: dict[str, str]) -> list[pathlib.Path]:
  """All image files of a folder and of those in it; notes what can't be looked into."""
  files = []
  note = lambda error: missing.update({error.filename: error.strerror})
  for parent, folders, names in os.walk(folder, onerror=note):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    files += [pathlib.Path(parent, name) for name in sorted(names)]
  return [file for file in files if _is_image(file)]


def _root(pattern: str) -> pathlib.Path:
  """The folder in front of the first wildcard."""
  parts = pathlib.Path(pattern).parts
  fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  return pathlib.Path(*parts[:fixed])
