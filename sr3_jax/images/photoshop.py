"""Reads and writes Photoshop's image resources: IPTC in JPEG and TIFF files."""

import struct
from collections.abc import Iterator

# Kinds of resources.
IPTC = 0x0404
_THUMBNAILS = (0x0409, 0x040C)


def resource(kind: int, data: bytes) -> bytes:
  """Return one of Photoshop's resources."""
  head = struct.pack('>4sHHI', b'8BIM', kind, 0, len(data))
  return head + data + bytes(len(data) % 2)


def walk(resources: bytes) -> Iterator[tuple[int, bytes, bytes]]:
  """Yield kind, data and all bytes of Photoshop's resources, up to where they end."""
  place = 0
  while resources[place : place + 4] == b'8BIM' and place + 12 <= len(resources):
    (kind,), name = struct.unpack_from('>H', resources, place + 4), resources[place + 6]
    at = place + 6 + (name + 2) // 2 * 2
    if at + 4 > len(resources):
      return
    (length,) = struct.unpack_from('>I', resources, at)
    end = at + 4 + length + length % 2
    if at + 4 + length > len(resources):
      return
    yield kind, resources[at + 4 : at + 4 + length], resources[place:end]
    place = end


def without_thumbnails(resources: bytes) -> bytes | None:
  """Return Photoshop's resources without thumbnails; None for none."""
  kept = [whole for kind, _, whole in walk(resources) if kind not in _THUMBNAILS]
  return b''.join(kept) or None


def iptc(resources: bytes | None) -> bytes | None:
  """Return the IPTC data among Photoshop's resources."""
  return next((d for kind, d, _ in walk(resources or b'') if kind == IPTC), None)
