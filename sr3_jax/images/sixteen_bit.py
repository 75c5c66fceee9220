"""16-bit pixels, which Pillow has not: PNG by libpng (imagecodecs), TIFF by tifffile.

Arrays are uint16 [h, w, 1 to 4]: grey or RGB, then alpha if there is any.
"""

import contextlib
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # TIFF's photometric interpretations
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
ALPHAS = {_PREMULTIPLIED, _ALPHA}


def read_png(data: bytes) -> np.ndarray:
  """Decodes a 16-bit PNG file; a transparent colour becomes alpha."""
  import imagecodecs

  stored = imagecodecs.png_decode(data)
  return stored if stored.ndim == 3 else stored[..., None]


def encode_png(
  stored: np.ndarray, texts: dict[str, str], icc: bytes | None, exif: bytes | None
) -> bytes:
  """The bytes of a PNG file: pixels by libpng, what it leaves out put in between.

  Args:
    stored: the pixels.
    texts: keyword (ASCII) -> text, as iTXt.
    icc: colour profile.
    exif: block, with or without 'Exif' in front.
  """
  import imagecodecs

  data = imagecodecs.png_encode(np.ascontiguousarray(stored))
  chunks = b''
  if icc:  # must stand before the pixels
    chunks += _chunk(b'iCCP', b'ICC profile\0\0' + zlib.compress(icc))
  if exif:
    chunks += _chunk(b'eXIf', exif.removeprefix(b'Exif\0\0'))
  for keyword, text in texts.items():
    # Not compressed, no language, no translated keyword.
    chunks += _chunk(b'iTXt', keyword.encode() + b'\0\0\0\0\0' + text.encode())
  end = 8 + 25  # signature and header chunk
  return data[:end] + chunks + data[end:]


def _chunk(kind: bytes, body: bytes) -> bytes:
  checksum = struct.pack('>I', zlib.crc32(kind + body))
  return struct.pack('>I', len(body)) + kind + body + checksum


@contextlib.contextmanager
def tiff_page(file: BinaryIO) -> Iterator[Any]:
  """The unread first page of a TIFF of 16-bit grey or RGB pixels; None if it isn't."""
  start = file.read(4)
  file.seek(0)
  if start[:2] not in (b'II', b'MM') or not {42, 43} & set(start[2:]):
    yield None
    return
  import tifffile

  logging.getLogger('tifffile').setLevel(logging.CRITICAL)  # what matters, it raises
  with tifffile.TiffFile(file) as tiff:
    page = tiff.pages[0]
    deep = (page.bitspersample, page.sampleformat) == (16, 1)
    plain = page.imagedepth == 1 and page.samplesperpixel <= 8
    if deep and plain and page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
      yield page
      return
  file.seek(0)
  yield None


def orientation(page: Any) -> int:
  """That of `upright`, of a `tiff_page`."""
  tag = page.tags.get('Orientation')
  return int(tag.value) if tag else 1


def read_tiff(page: Any) -> np.ndarray:
  """Decodes a `tiff_page`; damage raises whatever it provokes.

  Premultiplied colours are divided by their alpha; channels beyond it are left out.
  """
  stored = page.asarray()
  if page.axes.startswith('S'):  # one plane after the other
    stored = np.moveaxis(stored, 0, -1)
  stored = stored.reshape(page.imagelength, page.imagewidth, -1)
  colours = 3 if page.photometric == _RGB else 1
  pixels, alpha = stored[..., :colours], stored[..., colours : colours + 1]
  if page.photometric == _WHITE_IS_ZERO:
    pixels = 65535 - pixels
  kind = page.extrasamples[0] if page.extrasamples else None
  if kind == _PREMULTIPLIED:
    plain = pixels * (65535 / np.maximum(alpha, 1))
    pixels = np.minimum(np.round(plain), 65535).astype(np.uint16)
  if kind not in ALPHAS:
    return pixels
  return np.concatenate([pixels, alpha], -1)


def encode_tiff(stored: np.ndarray, texts: dict[int, str], icc: bytes | None) -> bytes:
  """The bytes of a TIFF file, deflated.

  Args:
    stored: the pixels; uint8 too.
    texts: tag -> ASCII text.
    icc: colour profile.
  """
  import tifffile

  channels = stored.shape[-1]
  several = channels > 1
  buffer = io.BytesIO()
  tifffile.imwrite(
    buffer,
    stored if several else stored[..., 0],
    photometric='rgb' if channels > 2 else 'minisblack',
    planarconfig='contig' if several else None,
    extrasamples=['unassalpha'] if channels in (2, 4) else None,
    compression='zlib',
    predictor=True,
    iccprofile=icc,
    extratags=[(tag, 's', 0, text, True) for tag, text in texts.items()],
    software=False,
    metadata=None,
  )
  return buffer.getvalue()


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
  """Turns an array as its EXIF orientation (tag 274, 1 to 8) says."""
  if orientation in (5, 6, 7, 8):
    stored = stored.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    stored = stored[::-1]
  if orientation in (2, 3, 6, 7):
    stored = stored[:, ::-1]
  return stored
