"""Decodes JPEG files faster than Pillow does, to the same pixels.

Both use libjpeg-turbo, but Pillow keeps four bytes for a pixel and copies twice. It
also takes 150 us to see what else is in a file, where 10 us are enough to see that most
files hold nothing else. Every function here returns None for an unusual file, which is
then left to Pillow.
"""

import numpy as np

try:
  import simplejpeg
except ImportError:  # no wheel for this machine: Pillow is slower, with the same pixels
  simplejpeg = None

# In most files everything that stands in front of the pixels is within these bytes.
HEAD_BYTES = 4096
# Baseline, extended and progressive frames. The other segments that may stand beside
# them don't change pixels: tables, pixels, restarts, JFIF, comments.
_FRAMES = (0xC0, 0xC1, 0xC2)
_PIXELS = 0xDA
_PLAIN = (*_FRAMES, 0xC4, _PIXELS, 0xDB, 0xDD, 0xE0, 0xFE)


def plain_shape(data: bytes, max_pixels: int) -> tuple[int, int, int] | None:
  """Return (height, width, channels) of a JPEG file that holds nothing but pixels.

  Args:
    data: the file, or its first `HEAD_BYTES`.
    max_pixels: larger images give None.

  Returns:
    None if it isn't such a file or is hard to tell: it is no JPEG, hasn't 8 bits, is
    neither grey nor in colour, has EXIF or a colour profile, or is damaged.
  """
  if data[:2] != b'\xff\xd8':
    return None
  shape, place = None, 2
  while place + 9 < len(data):
    marker = data[place + 1]
    if data[place] != 0xFF or marker not in _PLAIN:
      return None
    if marker == _PIXELS:
      return shape
    if marker in _FRAMES:
      height, width = (int.from_bytes(data[place + k : place + k + 2]) for k in (5, 7))
      shape = (height, width, data[place + 9])
      if data[place + 4] != 8 or shape[2] not in (1, 3):
        return None
      if not 0 < height * width <= max_pixels:
        return None
    place += 2 + int.from_bytes(data[place + 2 : place + 4])
  return None


def scale_divisor(side: int, decode_side: int) -> int:
  """Return the largest of 1, 2, 4, 8 that divides a side and leaves enough pixels.

  Args:
    side: pixels of the shorter side of an image.
    decode_side: pixels that must be left; 0 leaves the side as it is.
  """
  return max(k for k in (1, 2, 4, 8) if k == 1 or 0 < decode_side <= side // k)


def decode(
  data: bytes, shape: tuple[int, int, int], decode_side: int = 0
) -> np.ndarray | None:
  """Decode the pixels of a file.

  Args:
    data: the file.
    shape: height, width, and 1 (grey) or 3 channels, from its header.
    decode_side: pixels of the shorter side that are enough; 0 decodes all. A part of
      the size costs less, and its pixels are nearly means of blocks.

  Returns:
    uint8 array of this shape, or with sides divided by `scale_divisor` and rounded up.
    None if the decoder isn't installed or has anything to remark, such as a stream that
    ends early or bytes that don't belong there.
  """
  if simplejpeg is None:
    return None
  divisor = scale_divisor(min(shape[:2]), decode_side)
  height, width = (-(-side // divisor) for side in shape[:2])
  least = (height, width) if divisor > 1 else (0, 0)
  colour = 'GRAY' if shape[2] == 1 else 'RGB'
  try:
    pixels = simplejpeg.decode_jpeg(
      data, colour, min_height=least[0], min_width=least[1]
    )
  except ValueError:
    return None
  return pixels if pixels.shape == (height, width, shape[2]) else None
