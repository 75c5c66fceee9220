"""Embeds pictures of report folders as data URIs, within a limit on a page's size."""

import base64
import contextlib
import io
import itertools
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath
from PIL import Image

from sr3_jax.images import image_files, pixels
from sr3_jax.reports.data import ReportError
from sr3_jax.runtime import foreign_files

LIMIT = 15_000_000  # characters of data URIs on a page
_MOST = 2**28  # bytes of a picture file
_QUALITY = 90
_TYPES = {'.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.webp': 'WEBP'}
Rows = Sequence[Sequence[epath.Path | None]]
_PLAIN = re.compile(r'[^\\:\0]+')


class Picture(NamedTuple):
  """A picture inside of a page; width and height in pixels."""

  uri: str
  width: int
  height: int


def locate(folder: epath.PathLike, cell: str) -> epath.Path:
  """Return the file that a cell of a sheet names, relative to the report's folder.

  Raises:
    ReportError: it leads out of the folder, or isn't a .png, .jpg or .webp.
  """
  folder = epath.Path(folder)
  parts = cell.split('/')
  file = folder / cell
  if not _PLAIN.fullmatch(cell) or {'', '.', '..'} & set(parts):
    raise ReportError(f'{cell!r} is not a picture inside of the report folder')
  if file.suffix.lower() not in _TYPES:
    raise ReportError(f'{cell!r} is not a .png, .jpg or .webp picture')
  # Links are followed; epath's resolve() doesn't.
  inside = os.path.join(os.path.realpath(folder), '')
  if not os.path.realpath(file).startswith(inside):
    raise ReportError(f'{cell!r} leads out of the report folder')
  return file


def embed(
  sheets: Sequence[Rows], limit: int = LIMIT
) -> tuple[list[list[list[Picture | None]]], str]:
  """Read the pictures of a page's sheets: rows of files, None where a cell is empty.

  PNG, JPEG and WebP go in as they are. If that is more than `limit` characters, they
  become WebP where it is smaller; if that is still more, the last rows of all sheets
  are left out.

  Returns:
    The same with pictures, maybe fewer rows; and what was done to them, or ''.

  Raises:
    ReportError: a file that isn't there or isn't a picture.
  """
  files = dict.fromkeys(f for rows in sheets for row in rows for f in row if f)
  raw = {file: _read(file) for file in files}
  found, note = {f: _picture(*entry) for f, entry in raw.items()}, ''

  def size(row: Sequence[epath.Path | None]) -> int:
    return sum(len(found[file].uri) for file in row if file)

  if sum(size(row) for rows in sheets for row in rows) > limit:
    found = {f: _smaller(*entry) for f, entry in raw.items()}
    note = (
      f'To keep this page small, its pictures are WebP of quality {_QUALITY}; the '
      'originals are in the report folder.'
    )
  shown: list[list[list[Picture | None]]] = [[] for _ in sheets]
  left_out, free = 0, limit
  # Row by row through all sheets, so that each keeps its first ones.
  for rank in itertools.zip_longest(*sheets):
    for s, row in enumerate(rank):
      if row is None:
        continue
      free -= size(row)
      # All rows after the first that does not fit are left out.
      if free < 0:
        left_out += 1
      else:
        shown[s].append([found[file] if file else None for file in row])
  if left_out:
    note += f' Rows of pictures that did not fit and are left out: {left_out}.'
  return shown, note


def read_bytes(file: epath.Path) -> bytes:
  """Return what is in a file; a ReportError says why it can't be read."""
  with foreign_files.explained(file, 'a picture', ReportError):
    return foreign_files.read_bytes(file, _MOST)


def _read(file: epath.Path) -> tuple[bytes, Image.Image]:
  """Return the bytes of a file, and the image whose header was read from them."""
  data = read_bytes(file)
  try:
    with image_files.errors(file):
      image = image_files.open_image(io.BytesIO(data))
  except pixels.ImageError as error:
    raise ReportError(str(error)) from None
  if image.format not in _TYPES.values():
    raise ReportError(f'{file}: {image.format} under the name of another format')
  return data, image


def _picture(data: bytes, image: Image.Image) -> Picture:
  """Return a picture file as it is, for a page."""
  text = base64.b64encode(data).decode()
  kind = str(image.format).lower()
  return Picture(f'data:image/{kind};base64,{text}', *image.size)


def _smaller(data: bytes, image: Image.Image) -> Picture:
  """Return a picture for a page, as WebP where that is smaller than its file."""
  # Files may be cut, or have sides that WebP can't: the browser may know better.
  with contextlib.suppress(Exception):
    buffer = io.BytesIO()
    image.convert('RGB').save(buffer, 'WEBP', quality=_QUALITY)
    if len(buffer.getvalue()) < len(data):
      with Image.open(buffer) as webp:
        return _picture(buffer.getvalue(), webp)
  return _picture(data, image)
