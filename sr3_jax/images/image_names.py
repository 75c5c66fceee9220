"""Finds the image files of a folder by their names."""

import pathlib

from sr3_jax.images import formats
from sr3_jax.runtime.errors import UserError


class ImageSetError(UserError):
  """One line: which folder, what is wrong with it, what to do."""


def find(folder: pathlib.Path, *, nested: bool = True) -> dict[str, pathlib.Path]:
  """Return image files by their path below a folder, without extension, sorted.

  Hidden ones are left out, and those of folders inside unless `nested`.

  Raises:
    ImageSetError: no such folder, nothing in it, or one name with two extensions.
  """
  if not folder.is_dir():
    what = 'is a file, not a folder' if folder.exists() else 'no such folder'
    raise ImageSetError(f'{folder}: {what}')
  found: dict[str, pathlib.Path] = {}
  for path in sorted(folder.rglob('*') if nested else folder.iterdir()):
    below = path.relative_to(folder)
    hidden = any(part.startswith('.') for part in below.parts)
    is_image = path.suffix.lower() in formats.EXTENSIONS
    if hidden or not is_image or not path.is_file():
      continue
    name = below.with_suffix('').as_posix()
    if name in found:
      other = found[name].name
      raise ImageSetError(f'{path}: {other} has the same name: keep one of the two')
    found[name] = path
  if not found:
    raise ImageSetError(f'{folder}: no image files in this folder')
  return found
