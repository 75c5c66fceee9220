"""Puts pictures together: frames to animated WebP and PNG, pages to a TIFF.

Each frame is encoded as a still picture first. Here the compressed pixels of these
files are taken over as they are, so that the memory that is needed is that of the file.
What is beside the pixels (profile, EXIF, settings) comes from the first frame, in TIFFs
from each page.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction

from PIL import TiffImagePlugin
from PIL.PngImagePlugin import putchunk

from sr3_jax.images import png_chunks
from sr3_jax.images.pixels import ImageError

ANIMATED = ('.webp', '.png')  # endings of files that hold frames
PAGED = '.tif'  # that of files that hold pages

_PNG_START = b'\x89PNG\r\n\x1a\n'
_WEBP_PIXELS = (b'ALPH', b'VP8 ', b'VP8L')
_MOST_MS = 2**24 - 1  # what WebP can say
# Flags of a WebP file.
_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02
_NO_BLENDING = 0x02  # of a frame


def assemble(
  extension: str, stills: Sequence[bytes], seconds: Sequence[Fraction], plays: int
) -> bytes:
  """Return the bytes of a file of all frames or pages.

  Args:
    extension: one of ANIMATED for frames, which all have the same size and channels;
      PAGED for pages.
    stills: each frame as a file with this extension, made by `picture_codec.encode`.
    seconds: how long each frame is shown.
    plays: how often the animation is shown; 0 is for ever.

  Raises:
    ImageError: another extension, or frames that differ in more than their pixels.
  """
  if extension == '.png':
    return _png(stills, seconds, plays)
  if extension == '.webp':
    return _webp(stills, seconds, plays)
  if extension == PAGED:
    return _tiff(stills)
  raise ImageError(f'{extension} files hold one picture')


def _png(stills: Sequence[bytes], seconds: Sequence[Fraction], plays: int) -> bytes:
  """Return an animated PNG; its header and texts are those of the first still."""
  out, number = io.BytesIO(), 0
  first = {chunk.kind: chunk.data for chunk in png_chunks.read(stills[0])}
  width, height = struct.unpack('>II', first[b'IHDR'][:8])
  out.write(_PNG_START)
  for still, shown in zip(stills, seconds, strict=True):
    is_first = number == 0
    pixels = []
    for kind, body in png_chunks.read(still, pixels=True):
      if kind == b'IHDR' and body != first[b'IHDR']:
        raise ImageError('frames of a PNG have one size and kind of pixels')
      if kind == b'IDAT':
        pixels.append(body)
      elif is_first and kind != b'IEND':
        putchunk(out, kind, body)
        if kind == b'IHDR':
          putchunk(out, b'acTL', struct.pack('>II', len(stills), plays))
    delay = shown.limit_denominator(1000)
    while max(delay.numerator, delay.denominator) > 65535:
      delay = Fraction(round(delay)) if delay < 65535 else Fraction(65535)
    # At the place 0, 0; no disposal, no blending: each frame replaces all pixels.
    control = width, height, 0, 0, delay.numerator, delay.denominator, 0, 0
    putchunk(out, b'fcTL', struct.pack('>IIIIIHHBB', number, *control))
    number += 1
    for body in pixels:
      if is_first:
        putchunk(out, b'IDAT', body)
      else:
        putchunk(out, b'fdAT', struct.pack('>I', number), body)
        number += 1
  putchunk(out, b'IEND', b'')
  return out.getvalue()


def _webp(stills: Sequence[bytes], seconds: Sequence[Fraction], plays: int) -> bytes:
  """Return an animated WebP; profile and EXIF are those of the first still."""
  first = dict(_webp_chunks(stills[0]))
  size, frames, transparent = None, [], False
  for still, shown in zip(stills, seconds, strict=True):
    pixels = [chunk for chunk in _webp_chunks(still) if chunk[0] in _WEBP_PIXELS]
    own, alpha = _webp_header(dict(pixels))
    if size not in (None, own):
      raise ImageError('frames of a WebP have one size')
    size, transparent = own, transparent or alpha
    ms = min(max(round(shown * 1000), 1), _MOST_MS)
    head = bytes(6) + _size24(own) + ms.to_bytes(3, 'little') + bytes([_NO_BLENDING])
    frames.append(_riff(b'ANMF', head + b''.join(_riff(*chunk) for chunk in pixels)))
  assert size is not None
  beside = {b'ICCP': _ICC, b'EXIF': _EXIF, b'XMP ': _XMP}
  flags = _ANIMATION | (_ALPHA if transparent else 0)
  flags |= sum(flag for kind, flag in beside.items() if kind in first)
  chunks = [_riff(b'VP8X', bytes([flags, 0, 0, 0]) + _size24(size))]
  if b'ICCP' in first:
    chunks.append(_riff(b'ICCP', first[b'ICCP']))
  chunks.append(_riff(b'ANIM', bytes(4) + min(plays, 65535).to_bytes(2, 'little')))
  chunks += frames
  chunks += [_riff(kind, first[kind]) for kind in (b'EXIF', b'XMP ') if kind in first]
  return _riff(b'RIFF', b'WEBP' + b''.join(chunks))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yield kind and content of the chunks of a WebP."""
  place = 12
  while place + 8 <= len(data):
    size = int.from_bytes(data[place + 4 : place + 8], 'little')
    yield data[place : place + 4], data[place + 8 : place + 8 + size]
    place += 8 + size + size % 2


def _webp_header(pixels: dict[bytes, bytes]) -> tuple[tuple[int, int], bool]:
  """Return (width, height) of a frame, and whether it has alpha."""
  if lossless := pixels.get(b'VP8L'):
    bits = int.from_bytes(lossless[1:5], 'little')
    size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return size, bool(bits >> 28 & 1)
  sides = struct.unpack_from('<HH', pixels[b'VP8 '], 6)
  return (sides[0] & 0x3FFF, sides[1] & 0x3FFF), b'ALPH' in pixels


def _size24(size: tuple[int, int]) -> bytes:
  """Return width and height as WebP stores them: less one, in three bytes each."""
  return b''.join((side - 1).to_bytes(3, 'little') for side in size)


def _riff(kind: bytes, body: bytes) -> bytes:
  """Return a chunk of a RIFF file."""
  return kind + len(body).to_bytes(4, 'little') + body + bytes(len(body) % 2)


def _tiff(stills: Sequence[bytes]) -> bytes:
  """Return a TIFF of the pages of others, with all that belongs to each."""
  out = io.BytesIO()
  with TiffImagePlugin.AppendingTiffWriter(out, new=True) as writer:
    for still in stills:
      writer.write(still)
      writer.newFrame()
  return out.getvalue()
