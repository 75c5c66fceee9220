"""Reads and writes the chunks of PNG files that hold no pixels.

Texts stay packed as they are: a file of some kilobytes may unpack to gigabytes.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from PIL import PngImagePlugin
from PIL.PngImagePlugin import putchunk

SIGNATURE = b'\x89PNG\r\n\x1a\n'
TEXTS = (b'tEXt', b'zTXt', b'iTXt')
# What says how colours are to be shown, beside profiles.
COLOURS = (b'cICP', b'mDCV', b'cLLI', b'mDCv', b'cLLi', b'gAMA', b'cHRM', b'sRGB')
XMP = 'XML:com.adobe.xmp'
# The most bytes to which a profile or a text that is looked into is unpacked.
MOST = 32 * 2**20
# What Pillow unpacks at most, of one text or profile, and of all texts of a file.
_PILLOW_MOST = PngImagePlugin.MAX_TEXT_CHUNK
_PILLOW_TEXTS = PngImagePlugin.MAX_TEXT_MEMORY


class Chunk(NamedTuple):
  """A chunk of a file."""

  kind: bytes
  data: bytes


def read(data: bytes, pixels: bool = False) -> Iterator[Chunk]:
  """Yield the chunks of a file; stop where it is damaged.

  Those of pixels are left out unless `pixels`.
  """
  place = len(SIGNATURE)
  while data.startswith(SIGNATURE) and place + 12 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, place)
    end = place + 12 + length
    if end > len(data):
      return
    if pixels or kind not in (b'IDAT', b'fdAT'):
      yield Chunk(kind, data[place + 8 : end - 4])
    place = end


def insert(data: bytes, chunks: Iterable[Chunk]) -> bytes:
  """Return a file with further chunks behind its header."""
  added = io.BytesIO()
  for chunk in chunks:
    putchunk(added, *chunk)
  end = len(SIGNATURE) + 25
  return b''.join([data[:end], added.getvalue(), data[end:]])


def without(data: bytes, kinds: Iterable[bytes]) -> bytes:
  """Return a file without chunks of some kinds."""
  parts, place, kinds = [data[:8]], 8, tuple(kinds)
  while place + 12 <= len(data):
    length, kind = struct.unpack_from('>I4s', data, place)
    if kind not in kinds:
      parts.append(data[place : place + 12 + length])
    place += 12 + length
  return b''.join(parts)


def harmless(data: bytes) -> bytes:
  """Return a file without the texts and profiles that Pillow would refuse it for.

  They are those that unpack to more than a megabyte, and damaged ones. Files without
  any, and of other formats, are returned as they are.
  """
  bad, total = set(), 0
  for chunk in read(data):
    if chunk.kind not in (*TEXTS, b'iCCP'):
      continue
    packed = _packed(chunk)
    unpacked = chunk.data if packed is None else unpack(packed, _PILLOW_MOST)
    if unpacked is None:
      bad.add(chunk.kind)
    else:
      total += len(unpacked)
  if total > _PILLOW_TEXTS:
    bad.update(TEXTS)
  return without(data, bad) if bad else data


def _packed(chunk: Chunk) -> bytes | None:
  """Return what a chunk of a text or profile holds packed; None if it is not."""
  rest = chunk.data.split(b'\0', 1)[-1]
  if chunk.kind == b'iTXt':
    return rest[2:].split(b'\0', 2)[-1] if rest[:1] == b'\1' else None
  return None if chunk.kind == b'tEXt' else rest[1:]


def unpack(data: bytes, most: int = MOST) -> bytes | None:
  """Return what zlib packed; None if it is damaged, or if it is more than `most`."""
  try:
    one = zlib.decompressobj()
    unpacked = one.decompress(data, most)
  except zlib.error:
    return None
  return None if one.unconsumed_tail or not one.eof else unpacked


def text(keyword: str, value: str) -> Chunk:
  """Return a chunk of a text in UTF-8, not packed, of no language."""
  return Chunk(b'iTXt', keyword.encode() + b'\0\0\0\0\0' + value.encode())


def keyword(chunk: Chunk) -> str:
  """Return the keyword of a text."""
  return chunk.data.split(b'\0', 1)[0].decode('latin-1')


def value(chunk: Chunk) -> bytes | None:
  """Return a text in UTF-8; None if it is damaged or has more than MOST bytes."""
  rest, packed = chunk.data.split(b'\0', 1)[-1], _packed(chunk)
  if packed is not None:
    rest = unpack(packed)
  elif chunk.kind == b'iTXt':
    rest = rest[2:].split(b'\0', 2)[-1]
  if rest is None or chunk.kind == b'iTXt':
    return rest
  return rest.decode('latin-1').encode()


def profile(data: bytes) -> bytes | None:
  """Return the colour profile of a file; None if there is none that can be unpacked."""
  chunk = next((chunk for chunk in read(data) if chunk.kind == b'iCCP'), None)
  packed = chunk and _packed(chunk)
  return unpack(packed) if packed else None
