"""JPEG files by a decoder that is faster than Pillow and has the same pixels.

Both are libjpeg-turbo, but Pillow keeps four bytes for a pixel and copies twice. It
also takes 150 us to see what else is in a file; for most files it is enough to know, in
10 us, that nothing else is. Whatever is unusual is left to Pillow, by returning None.
"""

import numpy as np

try:
  import simplejpeg
except ImportError:  # no wheel for this machine: slower, with the same pixels
  simplejpeg = None

# Enough for all that stands in front of the pixels, mostly.
HEAD_BYTES = 4096
# Baseline, extended and progressive frames; and with these the segments that say
# nothing beyond the pixels: tables, pixels, restarts, JFIF, comments.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PIXELS = 0xDA
_PLAIN = (*_FRAMES, 0xC4, _PIXELS, 0xDB, 0xDD, 0xE0, 0xFE)


def bare(data: bytes, max_pixels: int) -> tuple[int, int, int] | None:
  """(height, width, channels) of a JPEG file in which nothing but its pixels counts.

  Args:
    data: the file, or its first `HEAD_BYTES`.
    max_pixels: a larger image is none of these.

  Returns:
    None if it isn't such a file or is hard to tell: no JPEG, not 8 bits, neither grey
    nor colour, with EXIF or a colour profile, damaged.
  """
  if data[:2] != b'\xff\xd8':
    return None
  known, place = None, 2
  while place + 9 < len(data):
    marker = data[place + 1]
    if data[place] != 0xFF or marker not in _PLAIN:
      return None
    if marker == _PIXELS:
      return known
    if marker in _FRAMES:
      height, width = (int.from_bytes(data[place + k : place + k + 2]) for k in (5, 7))
      known = (height, width, data[place + 9])
      if data[place + 4] != 8 or known[2] not in (1, 3):
        return None
      if not 0 < height * width <= max_pixels:
        return None
    place += 2 + int.from_bytes(data[place + 2 : place + 4])
  return None


def part(shorter: int, decode_side: int) -> int:
  """The largest of 1, 2, 4, 8 by which a side can shrink and keep `decode_side` pixels.

  Args:
    shorter: pixels of the side.
    decode_side: to be left; 0: it is to stay as it is.
  """
  return max(k for k in (1, 2, 4, 8) if k == 1 or 0 < decode_side <= shorter // k)


def decode(
  data: bytes, shape: tuple[int, int, int], decode_side: int = 0
) -> np.ndarray | None:
  """The pixels of a file.

  Args:
    data: the file.
    shape: height, width, and 1 (grey) or 3 channels, from its header.
    decode_side: pixels that are enough of the shorter side; 0 for all. At 1/2, 1/4 or
      1/8 of the size less has to be computed, for almost the means of blocks.

  Returns:
    uint8 array of this shape, or of a `part` of its sides, rounded up; None if the
    decoder isn't there, or has anything to remark (a stream that ends early, bytes that
    don't belong there).
  """
  if simplejpeg is None:
    return None
  by = part(min(shape[:2]), decode_side)
  height, width = (-(-side // by) for side in shape[:2])
  wanted = {'min_height': height, 'min_width': width} if by > 1 else {}
  colour = 'GRAY' if shape[2] == 1 else 'RGB'
  try:
    pixels = simplejpeg.decode_jpeg(data, colour, **wanted)
  except ValueError:
    return None
  return pixels if pixels.shape == (height, width, shape[2]) else None
