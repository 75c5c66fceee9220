"""Writes TIFF files with all that belongs to a picture.

tifffile writes the pixels and the main directory, and Pillow the directories of EXIF.
"""

import contextlib
import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from sr3_jax.images import metadata, photoshop, sixteen_bit
from sr3_jax.images.metadata import Metadata


def encode(
  stored: np.ndarray, own: Metadata, settings: str, icc: bytes | None
) -> bytes:
  """Return a deflated TIFF file with all that belongs to it.

  Args:
    stored: uint8 or uint16 [h, w, 1 to 4].
    own: what the owner wrote.
    settings: our text.
    icc: colour profile.
  """
  height, width, channels = stored.shape
  tags, directories = _tiff_tags(own, settings, height, width)
  density: dict[str, Any] = {}
  if own.density:
    unit = 'INCH' if own.density[2] else 'NONE'
    density = {'resolution': own.density[:2], 'resolutionunit': unit}
  data = sixteen_bit.deflate_tiff(
    stored,
    photometric='rgb' if channels > 2 else 'minisblack',
    extrasamples=['unassalpha'] if channels in (2, 4) else None,
    iccprofile=icc,
    extratags=[*tags, *((tag + 1, 'I', 1, 1, True) for tag in directories)],
    **density,
  )
  return _append_directories(data, directories)


def _tiff_tags(
  own: Metadata, settings: str, height: int, width: int
) -> tuple[list[tuple[int, str, int, object, bool]], dict[int, Mapping[int, Any]]]:
  """Return the tags of a TIFF file, for tifffile, and EXIF's directories by tag."""
  known = Image.Exif()
  with contextlib.suppress(Exception):
    known.load(metadata.exif(own, '', height, width))
  tags: list[tuple[int, str, int, object, bool]] = []
  if settings:
    tags.append((metadata.SETTINGS, 's', 0, settings, True))
  for tag in metadata.OWNERS:
    value = known.get(tag)
    if isinstance(value, str) and (words := value.strip('\0 ')):
      tags.append((tag, 's', 0, words.encode('ascii', 'replace').decode(), True))
    elif isinstance(value, int):
      tags.append((tag, 'H', 1, value, True))
    elif isinstance(value, bytes) and value:
      tags.append((tag, 'B', len(value), value, True))
  iptc, xmp = photoshop.iptc(own.photoshop), None
  if own.xmp:
    xmp = metadata.adapted_xmp(own.xmp, height, width)
  blocks = {
    metadata.XMP_TAG: xmp,
    metadata.IPTC_TAG: iptc,
    metadata.PHOTOSHOP_TAG: own.photoshop,
  }
  tags += [(tag, 'B', len(data), data, True) for tag, data in blocks.items() if data]
  directories: dict[int, Mapping[int, Any]] = {}
  for tag in (metadata.EXIF_IFD, metadata.GPS_IFD):
    with contextlib.suppress(Exception):
      if values := known.get_ifd(tag):
        directories[tag] = values
  return tags, directories


def _append_directories(
  data: bytes, directories: Mapping[int, Mapping[int, Any]]
) -> bytes:
  """Return a TIFF file with EXIF's directories behind it, to which tags refer.

  tifffile leaves these tags out, so the file has the numbers after them until now.
  """
  with sixteen_bit.open_tiff(io.BytesIO(data)) as file:
    places = {tag: file.pages.first.tags[tag + 1].offset for tag in directories}
  made = bytearray(data)
  for tag, values in directories.items():
    made += bytes(len(made) % 2)
    start = len(made)
    with contextlib.suppress(Exception):
      ifd = TiffImagePlugin.ImageFileDirectory_v2(b'II*\0\0\0\0\0', group=tag)
      for name, value in values.items():
        ifd[name] = value
      made += ifd.tobytes(start)
    if len(made) == start:  # it can't be written
      made += bytes(6)
    struct.pack_into('<HHII', made, places[tag], tag, 4, 1, start)  # a long number
  return bytes(made)
