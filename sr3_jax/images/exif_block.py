"""Adapts an EXIF block to a picture of another size, and changes nothing else in it.

A block is a small TIFF file: directories of entries of 12 bytes, and values that lie
anywhere, found by their distance from its start. Makers' notes have such distances in a
form that only the maker knows. So nothing is moved: values are changed where they are,
and what is added stands at the end. Whatever is damaged stays as it is.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

PREFIX = b'Exif\0\0'
# Names of tags, of all directories.
SOFTWARE_OF_PROCESSING = 0x000B  # ProcessingSoftware: our settings
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT = 0x0112, 0x011A, 0x011B, 0x0128
DESCRIPTION, SOFTWARE, ARTIST, COPYRIGHT = 0x010E, 0x0131, 0x013B, 0x8298
_EXIF = 0x8769
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_SHORT, _LONG, _RATIONAL, _ASCII = 3, 4, 5, 2


class _Entry(NamedTuple):
  """An entry of a directory."""

  place: int  # of its 12 bytes
  tag: int
  kind: int
  count: int
  value: int  # where its value lies


class Block:
  """An EXIF block that can be changed.

  Args:
    data: the block, with or without PREFIX; b'' for an empty one.

  Raises:
    ValueError: it doesn't begin as a block does.
  """

  def __init__(self, data: bytes = b''):
    data = data.removeprefix(PREFIX) or b'MM\0*\0\0\0\x08\0\0\0\0\0\0'
    if data[:4] not in (b'II*\0', b'MM\0*') or len(data) < 8:
      raise ValueError('not an EXIF block')
    self._order = '<' if data[:2] == b'II' else '>'
    self._data = bytearray(data)

  def tags(self) -> set[int]:
    """Return the tags of the main directory that have a value."""
    return {entry.tag for entry in self._entries(self._first)}

  def orientation(self) -> int:
    """Return how the picture is turned, 1 to 8; 1 if it isn't said."""
    for entry in self._entries(self._first):
      if entry.tag == ORIENTATION and entry.count == 1 and entry.kind == _SHORT:
        return self._unpack('H', entry.value)[0]
    return 1

  def text(self, tag: int) -> str | None:
    """Return the text of a tag of the main directory, None if there is none."""
    for entry in self._entries(self._first):
      if entry.tag == tag and entry.kind == _ASCII:
        stored = self._data[entry.value : entry.value + entry.count]
        return stored.split(b'\0')[0].decode('utf-8', 'replace')
    return None

  def density(self) -> tuple[float, float, bool] | None:
    """Return pixels per inch along width and height, and True; None if not said."""
    found = {entry.tag: entry for entry in self._entries(self._first)}
    ratios = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
      if tag not in found or found[tag][2:4] != (_RATIONAL, 1):
        return None
      over, under = self._unpack('II', found[tag].value)
      ratios.append(over / max(under, 1))
    unit = found.get(UNIT)
    known = unit and unit[2:4] == (_SHORT, 1)
    centimetres = known and self._unpack('H', unit.value)[0] == 3
    across, along = (ratio * (2.54 if centimetres else 1.0) for ratio in ratios)
    return across, along, True

  def turn_upright(self, height: int, width: int) -> None:
    """Say that the picture is upright and of this size in pixels, with no thumbnail."""
    main = list(self._entries(self._first))
    below = [
      entry
      for link in main
      if link.tag == _EXIF and link.kind == _LONG
      for entry in self._entries(self._unpack('I', link.value)[0])
    ]
    turned = self.orientation() in (5, 6, 7, 8)
    for entry in (*main, *below):
      for tags, length in ((_WIDTHS, width), (_HEIGHTS, height), ((ORIENTATION,), 1)):
        if entry.tag in tags and entry.count == 1 and entry.kind in (_SHORT, _LONG):
          self._store(entry, length)
    if turned:
      self._swap(X_RESOLUTION, Y_RESOLUTION)
    self._drop_thumbnail()

  def add(self, values: Mapping[int, str | int | float]) -> None:
    """Set tags of the main directory, as text, short or ratio; others stay.

    The directory is written anew at the end of the block, without damaged entries.
    """
    entries = {
      e.tag: bytes(self._data[e.place : e.place + 12])
      for e in self._entries(self._first)
    }
    for tag, value in values.items():
      if isinstance(value, str):
        stored = value.encode('utf-8') + b'\0'
        kind, count = _ASCII, len(stored)
      elif isinstance(value, int):
        stored, kind, count = struct.pack(self._order + 'H', value), _SHORT, 1
      else:
        ratio = round(value * 10000), 10000
        stored, kind, count = struct.pack(self._order + 'II', *ratio), _RATIONAL, 1
      if len(stored) > 4:
        self._align()
        place = len(self._data)
        self._data += stored
        stored = struct.pack(self._order + 'I', place)
      head = struct.pack(self._order + 'HHI', tag, kind, count)
      entries[tag] = head + stored.ljust(4, b'\0')
    self._align()
    self._data[4:8] = struct.pack(self._order + 'I', len(self._data))
    self._data += struct.pack(self._order + 'H', len(entries))
    self._data += b''.join(entries[tag] for tag in sorted(entries)) + bytes(4)

  def tobytes(self) -> bytes:
    """Return the block without PREFIX."""
    return bytes(self._data)

  @property
  def _first(self) -> int:
    """Where the main directory lies."""
    return self._unpack('I', 4)[0]

  def _unpack(self, form: str, place: int) -> tuple[int, ...]:
    return struct.unpack_from(self._order + form, self._data, place)

  def _count(self, place: int) -> int:
    """Return how many entries of the directory at a place lie inside of the block."""
    if not 8 <= place <= len(self._data) - 2:
      return 0
    return min(self._unpack('H', place)[0], (len(self._data) - place - 2) // 12)

  def _entries(self, place: int) -> Iterator[_Entry]:
    """Yield the entries of the directory at a place that make sense."""
    for k in range(self._count(place)):
      at = place + 2 + 12 * k
      tag, kind, count = self._unpack('HHI', at)
      size = count * _SIZES.get(kind, 0)
      value = at + 8 if size <= 4 else self._unpack('I', at + 8)[0]
      if size and value + size <= len(self._data):
        yield _Entry(at, tag, kind, count, value)

  def _store(self, entry: _Entry, number: int) -> None:
    """Replace the number of an entry; one too large for it becomes a long number."""
    if entry.kind == _SHORT and number > 65535:
      struct.pack_into(self._order + 'H', self._data, entry.place + 2, _LONG)
      entry = entry._replace(kind=_LONG)
    form = 'H' if entry.kind == _SHORT else 'I'
    struct.pack_into(self._order + form, self._data, entry.value, number)

  def _swap(self, one: int, other: int) -> None:
    """Exchange the values of two tags of the main directory of the same type."""
    found = {e.tag: e for e in self._entries(self._first) if e.tag in (one, other)}
    if len(found) == 2 and found[one][2:4] == found[other][2:4]:
      size = found[one].count * _SIZES[found[one].kind]
      first, second = (slice(e.value, e.value + size) for e in found.values())
      self._data[first], self._data[second] = self._data[second], self._data[first]

  def _drop_thumbnail(self) -> None:
    """Cut the directory of the thumbnail off, and blank the thumbnail itself."""
    count = self._count(self._first)
    end = self._first + 2 + 12 * count
    if not count or end + 4 > len(self._data):
      return
    (link,) = self._unpack('I', end)
    found = {}
    for entry in self._entries(link):
      if entry.tag in (_THUMBNAIL, _THUMBNAIL_LENGTH) and entry.kind == _LONG:
        (found[entry.tag],) = self._unpack('I', entry.value)
    start, length = found.get(_THUMBNAIL, 0), found.get(_THUMBNAIL_LENGTH, 0)
    is_jpeg = self._data[start : start + 2] == b'\xff\xd8'
    if is_jpeg and length and start + length <= len(self._data):
      if start + length == len(self._data):
        del self._data[start:]
      else:
        self._data[start : start + length] = bytes(length)
    if end + 4 <= len(self._data):
      self._data[end : end + 4] = bytes(4)

  def _align(self) -> None:
    """End at an even place, where a value or a directory may begin."""
    self._data += bytes(len(self._data) % 2)


def block(
  own: bytes | None, height: int, width: int, values: Mapping[int, str | int | float]
) -> bytes:
  """Return an owner's block for a picture of this size, with further tags.

  What is no EXIF block, or can't be changed, is left out.
  """
  try:
    made = Block(own or b'')
    made.turn_upright(height, width)
    made.add(values)
  except (ValueError, struct.error):
    made = Block()
    made.add(values)
  return made.tobytes()


def is_ratio(value: float) -> bool:
  """Return whether a number of pixels per inch can be stored, and makes sense."""
  return math.isfinite(value) and 0.1 <= value <= 65535
