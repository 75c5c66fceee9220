"""Reads and writes 16-bit PNG (by imagecodecs' libpng) and TIFF (by tifffile).

Pillow has no 16-bit colour. Arrays are uint16 [h, w, 1 to 4]: grey or RGB, then alpha
if there is any.
"""

import contextlib
import io
import itertools
import logging
import struct
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile

from sr3_jax.images import png_chunks
from sr3_jax.images.pixels import ImageError

if TYPE_CHECKING:  # imported where a file needs it
  import tifffile

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # TIFF's photometric interpretations
PLAIN = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB)  # without palettes and other colour spaces
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
ALPHAS = {_PREMULTIPLIED, _ALPHA}
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _SAMPLE_FORMAT = 254, 258, 339  # tags of TIFF
_SIGNED = 2  # a sample format


def read_png(data: bytes) -> np.ndarray:
  """Decode a 16-bit PNG file; a transparent colour becomes alpha."""
  import imagecodecs

  stored = imagecodecs.png_decode(data)
  return stored if stored.ndim == 3 else stored[..., None]


def encode_png(stored: np.ndarray, texts: dict[str, str]) -> bytes:
  """Return the bytes of a PNG file.

  Args:
    stored: uint16 [h, w] or [h, w, 1 to 4].
    texts: keyword (ASCII) -> text, written as iTXt.
  """
  import imagecodecs

  data = bytes(imagecodecs.png_encode(np.ascontiguousarray(stored)))
  return png_chunks.insert(data, itertools.starmap(png_chunks.text, texts.items()))


def is_tiff(file: IO[bytes]) -> bool:
  """Return whether a file begins as TIFF or BigTIFF does; leave it at its start."""
  file.seek(0)
  start = file.read(4)
  file.seek(0)
  return start[:2] in (b'II', b'MM') and bool({42, 43} & set(start[2:]))


def open_tiff(file: IO[bytes]) -> 'tifffile.TiffFile':
  """Open a TIFF file to read its pages; use it in a `with` statement."""
  import tifffile

  # tifffile raises errors that matter, so what it logs besides is noise.
  logging.getLogger('tifffile').setLevel(logging.CRITICAL)
  file.seek(0)
  # A file may name others that belong to the same data set: they aren't opened.
  return tifffile.TiffFile(file, _multifile=False)


@contextlib.contextmanager
def tiff_page(
  file: IO[bytes], bits: Sequence[int] = (16,)
) -> 'Iterator[tifffile.TiffPage | None]':
  """Open the first page of a TIFF, undecoded, if its pixels are grey or RGB.

  Both may have alpha; RGB may have other channels, which are left out.

  Args:
    file: seekable.
    bits: how many a channel may have.

  Yields:
    The page; None for any other file, which is left at its start.
  """
  if not is_tiff(file):
    yield None
    return
  with open_tiff(file) as tiff:
    page = tiff.pages.first
    deep = page.bitspersample in bits and page.sampleformat == 1
    plain = page.imagedepth == 1 and page.samplesperpixel <= 8
    # Grey with channels that nothing says the meaning of is a raster: as a picture it
    # would be shown without them.
    unknown = page.extrasamples and page.extrasamples[0] not in ALPHAS
    raster = page.photometric != RGB and unknown
    if deep and plain and page.photometric in PLAIN and not raster:
      yield page
      return
  file.seek(0)
  yield None


class TiffPageFile(ImageFile.ImageFile):
  """The first page of a TIFF that Pillow can't read, decoded by tifffile to 8 bits.

  These are grey with alpha in 16 bits, and compressions that Pillow hasn't.
  """

  format = 'TIFF'
  tile: list = []  # noqa: RUF012 (Pillow's convention: there is nothing to decode)

  def _open(self) -> None:
    """Read the header, as Pillow asks for."""
    assert self.fp is not None
    self._data = self.fp.read()
    with tiff_page(io.BytesIO(self._data), (8, 16)) as page:
      if page is None:
        raise SyntaxError('not such a TIFF')
      self._size = page.imagewidth, page.imagelength
      alpha = bool(ALPHAS & set(page.extrasamples[:1]))
      modes = ('RGB', 'RGBA') if page.photometric == RGB else ('L', 'LA')
      self._mode = modes[alpha]
      if (turned := orientation(page)) >= 5:  # a quarter turn
        self._size = self._size[::-1]
      self._turned = turned

  def load(self) -> 'Image.core.PixelAccess | None':
    """Decode the pixels."""
    if self._data:
      with tiff_page(io.BytesIO(self._data), (8, 16)) as page:
        assert page is not None
        stored = upright(read_tiff(page), self._turned)
      self._data = b''
      if stored.dtype == np.uint16:
        eight = (stored.astype(np.uint32) * 255 + 32767) // 65535
        stored = eight.astype(np.uint8)
      stored = np.ascontiguousarray(stored)
      self.im = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored).im
    return super().load()


def describe_tiff(file: IO[bytes]) -> str:
  """Return why a TIFF at the start of `file` can't be shown; '' for other files."""
  if not is_tiff(file):
    return ''
  try:
    with open_tiff(file) as tiff:
      page = tiff.pages.first
      if page.dtype is not None and page.dtype not in ('bool', 'uint8', 'uint16'):
        return describe_pixels(page.dtype)
      colours, compression = (
        getattr(value, 'name', str(value)).lower().replace('_', ' ')
        for value in (page.photometric, page.compression)
      )
      return (
        f'a TIFF of {page.samplesperpixel} channel(s) of {page.bitspersample} bits, '
        f'{colours}, compression {compression}, which is not read: convert it'
      )
  except Exception:  # a damaged file may raise anything
    return 'a damaged TIFF'


def describe_pixels(dtype: np.dtype) -> str:
  """Return what is wrong with pixels of a type that has no defined range."""
  kind = {'i': 'signed integers', 'u': 'integers'}.get(dtype.kind, 'floating point')
  return (
    f'pixels of {8 * dtype.itemsize} bits, {kind}, have no defined range: convert '
    'to 8 or 16 bits'
  )


def check_opened(image: Image.Image) -> None:
  """Refuse a TIFF that Pillow opens, but not as the picture that it is.

  Raises:
    ImageError: its first image is a smaller version of another, as in files of cameras;
      or its numbers are signed, which Pillow doesn't look at.
  """
  tags = getattr(image, 'tag_v2', {})
  kind = tags.get(_SUBFILE_TYPE, 0)
  if isinstance(kind, int) and kind & 1:
    raise ImageError('the first image in it is a thumbnail (camera raw?): convert it')
  if image.mode not in ('I', 'F') and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
    bits = tags.get(_BITS_PER_SAMPLE, (8,))[0]
    raise ImageError(describe_pixels(np.dtype(np.int16 if bits > 8 else np.int8)))


def _stored(image: Image.Image) -> np.dtype:
  """Return the type of the pixels in a file that Pillow reads as 'I' or 'F'."""
  tags = getattr(image, 'tag_v2', {})
  kind = 'f' if image.mode == 'F' else 'i'
  if image.mode == 'I' and _SIGNED not in tags.get(_SAMPLE_FORMAT, (1,)):
    kind = 'u'
  bits = tags.get(_BITS_PER_SAMPLE, (32,))[0]
  return np.dtype(f'{kind}{bits // 8 if bits in (16, 32, 64) else 4}')


def from_pillow(image: Image.Image) -> np.ndarray | None:
  """Return the pixels of Pillow's deep grey modes: uint16 [h, w, 1 or 2].

  A level that is transparent (PNG's tRNS) becomes alpha. Other modes give None.

  Raises:
    ImageError: 32 bits, of which nobody knows what black and white are.
  """
  scaled = image.mode == 'I' and image.format in ('PNG', 'PPM')  # 0 to 65535
  if image.mode in ('I', 'F') and not scaled:
    raise ImageError(describe_pixels(_stored(image)))
  if not image.mode.startswith('I'):
    return None
  grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
  level = image.info.get('transparency')
  if not isinstance(level, int):
    return grey[..., None]
  return np.stack([grey, np.where(grey == level, 0, 65535).astype(np.uint16)], -1)


def split_pages(file: IO[bytes]) -> list[bytes]:
  """Return where the pages of a TIFF begin, as the bytes with which its header says it.

  Smaller versions of a page and masks are left out.
  """
  with open_tiff(file) as tiff:
    pages = [page for page in tiff.pages if _is_whole(page)]
    # A file that has nothing else is left to the reader, which says what is wrong.
    pages = pages or [tiff.pages.first]
    form = '>' if tiff.byteorder == '>' else '<'
    form += 'Q' if tiff.is_bigtiff else 'I'
    return [struct.pack(form, page.offset) for page in pages]


def _is_whole(page: 'tifffile.TiffPage | tifffile.TiffFrame') -> bool:
  """Return whether a page is no smaller version of another, and no mask."""
  return not page.aspage().subfiletype & 5


def orientation(page: 'tifffile.TiffPage') -> int:
  """Return the EXIF orientation of a page, 1 to 8, as `upright` takes it."""
  tag = page.tags.get('Orientation')
  return int(tag.value) if tag else 1


def read_tiff(page: 'tifffile.TiffPage') -> np.ndarray:
  """Decode a `tiff_page` as uint8 or uint16 [h, w, 1 to 4].

  Premultiplied colours are divided by their alpha; channels beyond it are left out. A
  damaged page raises whatever its damage provokes.
  """
  stored = page.asarray()
  top = np.iinfo(stored.dtype).max
  if page.axes.startswith('S'):  # one plane after the other
    stored = np.moveaxis(stored, 0, -1)
  stored = stored.reshape(page.imagelength, page.imagewidth, -1)
  colours = 3 if page.photometric == RGB else 1
  pixels, alpha = stored[..., :colours], stored[..., colours : colours + 1]
  if page.photometric == WHITE_IS_ZERO:
    pixels = top - pixels
  kind = page.extrasamples[0] if page.extrasamples else None
  if kind == _PREMULTIPLIED:
    divided = pixels * (top / np.maximum(alpha, 1))
    pixels = np.minimum(np.round(divided), top).astype(stored.dtype)
  if kind not in ALPHAS:
    return pixels
  return np.concatenate([pixels, alpha], -1)


def deflate_tiff(
  array: np.ndarray,
  *,
  photometric: str,
  description: str | None = None,
  extrasamples: Sequence[str] | None = None,
  iccprofile: bytes | None = None,
  extratags: Sequence[tuple[int, str, int, object, bool]] = (),
  resolution: tuple[float, float] | None = None,
  resolutionunit: str | None = None,
) -> bytes:
  """Return the bytes of a deflated TIFF file of [h, w, C], pixel by pixel.

  Args:
    array: uint8, uint16 or float32.
    photometric: what the numbers mean; all options are those of `tifffile.imwrite`.
    description: a text.
    extrasamples: what channels beyond grey or RGB are.
    iccprofile: colour profile.
    extratags: other tags.
    resolution: pixels per unit along width and height.
    resolutionunit: of `resolution`.
  """
  import tifffile

  one, buffer = array.shape[-1] == 1, io.BytesIO()
  tifffile.imwrite(
    buffer,
    array[..., 0] if one else array,
    planarconfig=None if one else 'contig',
    compression='zlib',
    predictor=True,
    software=False,
    metadata=None,
    photometric=photometric,
    description=description,
    extrasamples=extrasamples,
    iccprofile=iccprofile,
    extratags=extratags,
    resolution=resolution,
    resolutionunit=resolutionunit,
  )
  return buffer.getvalue()


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
  """Turn [h, w, ...] as its EXIF orientation (tag 274, 1 to 8) says."""
  if orientation in (5, 6, 7, 8):
    stored = stored.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    stored = stored[::-1]
  if orientation in (2, 3, 6, 7):
    stored = stored[:, ::-1]
  return stored
