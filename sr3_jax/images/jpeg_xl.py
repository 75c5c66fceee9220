"""Opens JPEG XL files with Pillow: its header is read here, imagecodecs decodes.

imagecodecs (libjxl) gives pixels and nothing else. Size, alpha and colours are taken
from the header, as ISO/IEC 18181-1 lays it out: a stream of bits, lowest first. A file
whose pixels would need more than that to be understood is refused, not guessed at.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

_START = b'\xff\x0a'
_CONTAINER = b'\0\0\0\x0cJXL \r\n\x87\n'
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA = 0  # kinds of extra channels
_GREY, _LINEAR, _SRGB_CURVE = 1, 8, 13  # colour spaces and transfer functions
_UNREADABLE = 'JPEG XL colours other than sRGB: convert to PNG first'


class _Bits:
  """Reads numbers of a few bits from the beginning of a codestream."""

  def __init__(self, data: bytes):
    self._value, self._left = int.from_bytes(data, 'little'), 8 * len(data)

  def read(self, count: int) -> int:
    """Return the next `count` bits; raise SyntaxError behind the end."""
    if count > self._left:
      raise SyntaxError('the header of a JPEG XL file is cut off')
    number = self._value & ((1 << count) - 1)
    self._value >>= count
    self._left -= count
    return number

  def choose(self, *choices: tuple[int, int]) -> int:
    """Return a number whose first two bits choose (least value, bits to add)."""
    least, count = choices[self.read(2)]
    return least + self.read(count)

  def enum(self) -> int:
    """Return a number of a list of names."""
    return self.choose((0, 0), (1, 0), (2, 4), (18, 6))


class _Facts(NamedTuple):
  """What the header of a codestream says."""

  width: int  # in pixels, upright
  height: int
  bits: int  # of a channel
  grey: bool
  alpha: bool  # is there an alpha channel?
  premultiplied: bool  # are colours multiplied with it?
  linear: bool  # are pixels proportional to light, not sRGB?
  animated: bool


class JpegXlImageFile(ImageFile.ImageFile):
  """A JPEG XL file; `stored` has its pixels with all their bits."""

  format = 'JXL'
  format_description = 'JPEG XL'
  stored: np.ndarray | None = None  # uint8 or uint16 [h, w, 1 to 4], once loaded
  tile: list = []  # noqa: RUF012 (Pillow's convention: there is nothing to decode)

  def _open(self) -> None:
    """Read the header, as Pillow asks for."""
    assert self.fp is not None
    self._data = self.fp.read()
    self._facts = facts = _facts(_codestream(self._data))
    self._size = facts.width, facts.height
    modes = ('L', 'LA') if facts.grey else ('RGB', 'RGBA')
    self._mode = modes[facts.alpha]
    self.n_frames = 1
    self.is_animated = facts.animated

  def load(self) -> 'Image.core.PixelAccess | None':
    """Decode the pixels; those of more than 8 bits are rounded for Pillow."""
    if self.stored is None:
      self.stored = _decode(self._data, self._facts)
      eight = self.stored
      if eight.dtype == np.uint16:
        eight = ((eight.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
      pixels = eight[..., 0] if eight.shape[-1] == 1 else eight
      self.im = Image.fromarray(pixels).im
    return super().load()


def register() -> None:
  """Let Pillow open JPEG XL files, as format 'JXL'."""
  Image.register_open('JXL', JpegXlImageFile, _accept)


def _accept(prefix: bytes) -> bool:
  return prefix.startswith((_START, _CONTAINER))


def _codestream(data: bytes) -> bytes:
  """Return the beginning of the codestream of a file, bare or in boxes."""
  if data.startswith(_START):
    return data[:512]
  place, found = 0, b''
  while place + 8 <= len(data) and len(found) < 512:
    size, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
    head = 8
    if size == 1:
      size, head = int.from_bytes(data[place + 8 : place + 16]), 16
    size = size or len(data) - place  # 0: to the end of the file
    if size < head:
      break
    if kind in (b'jxlc', b'jxlp'):  # whole, or a part behind its number of 4 bytes
      begin = place + head + (4 if kind == b'jxlp' else 0)
      found += data[begin : min(place + size, begin + 512)]
    place += size
  if not found.startswith(_START):
    raise SyntaxError('no codestream in a JPEG XL file')
  return found


def _facts(stream: bytes) -> _Facts:
  """Read size and image metadata; raise SyntaxError for damage or unknown colours."""
  bits = _Bits(stream[2:])
  height, width = _size(bits)
  found = _Facts(width, height, 8, *[False] * 5)
  if bits.read(1):  # all as usual: 8 bits, sRGB, no alpha
    return found
  orientation, animated = 1, False
  if bits.read(1):
    orientation, animated = _extra_fields(bits)
  depth = _bit_depth(bits)
  bits.read(1)  # whether 16 bits are enough to decode
  channels = [
    _extra_channel(bits) for _ in range(bits.choose((0, 0), (1, 0), (2, 4), (1, 12)))
  ]
  bits.read(1)  # whether the pixels are stored in XYB: decoded all the same
  grey, linear = _colours(bits)
  if orientation >= 5:  # a quarter turn
    width, height = height, width
  alphas = [premultiplied for kind, premultiplied in channels if kind == _ALPHA]
  if len(channels) > 1 or len(alphas) != len(channels):
    raise OSError('JPEG XL files with channels beyond alpha are not read')
  alpha = bool(alphas), alphas == [True]
  return _Facts(width, height, depth, grey, *alpha, linear, animated)


def _size(bits: _Bits) -> tuple[int, int]:
  """Read height and width as they are stored."""

  def side(small: int) -> int:
    if small:
      return 8 * (1 + bits.read(5))
    return bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

  small = bits.read(1)
  height, ratio = side(small), bits.read(3)
  if ratio:
    across, down = _RATIOS[ratio - 1]
    return height, height * across // down
  return height, side(small)


def _extra_fields(bits: _Bits) -> tuple[int, bool]:
  """Read orientation, 1 to 8, and whether there is an animation."""
  orientation = 1 + bits.read(3)
  if bits.read(1):  # the size at which it should be shown
    _size(bits)
  if bits.read(1):
    raise OSError('JPEG XL files with a preview are not read: convert to PNG first')
  animated = bool(bits.read(1))
  if animated:
    bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))  # ticks per second, over ...
    bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
    bits.choose((0, 0), (0, 3), (0, 16), (0, 32))  # loops
    bits.read(1)  # timecodes
  return orientation, animated


def _bit_depth(bits: _Bits) -> int:
  """Read the bits of a channel; raise OSError for floating point."""
  if bits.read(1):
    raise OSError('floating-point pixels have no defined range: use 8 or 16 bits')
  return bits.choose((8, 0), (10, 0), (12, 0), (1, 6))


def _extra_channel(bits: _Bits) -> tuple[int, bool]:
  """Read the kind of an extra channel, and whether it is premultiplied alpha."""
  if bits.read(1):
    return _ALPHA, False
  kind = bits.enum()
  _bit_depth(bits)
  bits.choose((0, 0), (3, 0), (4, 0), (1, 3))  # how much coarser it is
  bits.read(8 * bits.choose((0, 0), (0, 4), (16, 5), (48, 10)))  # its name
  if kind != _ALPHA:
    raise OSError('JPEG XL files with channels beyond alpha are not read')
  return kind, bool(bits.read(1))


def _colours(bits: _Bits) -> tuple[bool, bool]:
  """Return whether pixels are grey, and linear; raise OSError for unknown colours."""
  if bits.read(1):
    return False, False
  if bits.read(1):  # a profile, which imagecodecs doesn't give
    raise OSError(_UNREADABLE)
  space = bits.enum()
  white = bits.enum()
  primaries = bits.enum() if space != _GREY else 1
  if bits.read(1):  # a power as transfer function
    raise OSError(_UNREADABLE)
  curve = bits.enum()
  known = curve in (_LINEAR, _SRGB_CURVE)
  if space > _GREY or (white, primaries) != (1, 1) or not known:
    raise OSError(_UNREADABLE)
  return space == _GREY, curve == _LINEAR


def _decode(data: bytes, facts: _Facts) -> np.ndarray:
  """Return the pixels of the first frame: uint8 or uint16 [h, w, 1 to 4], upright."""
  import imagecodecs

  stored = imagecodecs.jpegxl_decode(data, index=0 if facts.animated else None)
  stored = stored.reshape(facts.height, facts.width, -1)
  if stored.dtype not in (np.uint8, np.uint16):
    raise OSError(f'{stored.dtype} pixels in a JPEG XL file')
  if stored.shape[-1] != (1 if facts.grey else 3) + facts.alpha:
    raise OSError('not the channels that the header of the JPEG XL file announces')
  top = np.iinfo(stored.dtype).max if facts.bits in (8, 16) else 2**facts.bits - 1
  if top in (255, 65535) and not (facts.premultiplied or facts.linear):
    return stored
  pixels = stored / top  # libjxl leaves 10 bits as they are: 0 to 1023
  colours = pixels[..., : 1 if facts.grey else 3]  # a view
  if facts.premultiplied:
    colours /= np.maximum(pixels[..., -1:], 1 / top)
  if facts.linear:
    colours[:] = _to_srgb(colours)
  deep = np.uint8 if facts.bits <= 8 else np.uint16
  return np.round(np.clip(pixels, 0, 1) * np.iinfo(deep).max).astype(deep)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
  """Return sRGB values in [0, 1] of values that are proportional to light."""
  powers = 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055
  return np.where(linear <= 0.0031308, 12.92 * linear, powers)


def as_stored(image: Image.Image) -> np.ndarray | None:
  """Return the pixels of an opened JPEG XL file with all bits; None for others."""
  if not isinstance(image, JpegXlImageFile):
    return None
  image.load()
  return image.stored
