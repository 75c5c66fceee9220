"""Finds the image files of a folder by their names."""

import pathlib

from absl import logging
from etils import epath

from sr3_jax.images import folder_listing, formats
from sr3_jax.runtime.errors import UserError


class ImageSetError(UserError):
  """One line: which folder, what is wrong with it, what to do."""


def find(folder: pathlib.Path, *, nested: bool = True) -> dict[str, pathlib.Path]:
  """Return image files by their path below a folder, without extension, sorted.

  Hidden ones are left out, and those of folders inside unless `nested`. The log says
  what else is there.

  Raises:
    ImageSetError: no such folder, nothing in it, or one name with two extensions.
  """
  if not folder.is_dir():
    what = 'is a file, not a folder' if folder.exists() else 'no such folder'
    raise ImageSetError(f'{folder}: {what}')
  try:
    listing = folder_listing.list_files(
      epath.Path(folder), formats.EXTENSIONS, nested=nested
    )
  except OSError as error:
    raise ImageSetError(f'{error.filename}: {error.strerror}') from None
  passed = folder_listing.describe(listing.passed)
  if passed:
    logging.info('%s: passed over: %s', folder, passed)
  found: dict[str, pathlib.Path] = {}
  for below in map(pathlib.PurePosixPath, listing.names):
    path, name = folder / below, below.with_suffix('').as_posix()
    if name in found:
      other = found[name].name
      raise ImageSetError(f'{path}: {other} has the same name: keep one of the two')
    found[name] = path
  if not found:
    there = f'; passed over: {passed}' if passed else ''
    raise ImageSetError(f'{folder}: no image files in this folder{there}')
  return found
