"""Lists the formats of pictures that can be read, by name ending and by content.

This is the only such list: upscaling, evaluation, training and the check of images take
it from here. A file is decoded as what its content is, whatever its name ends with. The
ending only decides whether a file that lies in a folder is taken for a picture.
"""

from typing import NamedTuple


class Format(NamedTuple):
  """What is known of a format that Pillow knows under some name."""

  endings: tuple[str, ...]  # of file names, in small letters
  output: str = '.png'  # ending under which the output of such a file is written


FORMATS = {
  'JPEG': Format(('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.mpo'), '.jpg'),
  'MPO': Format((), '.jpg'),  # several pictures of a camera in one JPEG file
  'PNG': Format(('.png', '.apng')),
  'WEBP': Format(('.webp',), '.webp'),
  'TIFF': Format(('.tif', '.tiff'), '.tif'),
  'BMP': Format(('.bmp', '.dib')),
  'GIF': Format(('.gif',)),
  'AVIF': Format(('.avif', '.avifs')),
  'HEIF': Format(('.heic', '.heif', '.hif')),
  'JXL': Format(('.jxl',)),
  'JPEG2000': Format(('.jp2', '.j2k', '.jpx', '.jpf', '.j2c')),
  'PPM': Format(('.pnm', '.pbm', '.pgm', '.ppm')),
  'TGA': Format(('.tga',)),
}
EXTENSIONS = tuple(ending for format_ in FORMATS.values() for ending in format_.endings)
ARRAY = '.npy'  # of arrays: models of rasters read and write them like pictures
# What messages call them.
NAMES = 'JPEG, PNG, WebP, AVIF, TIFF, GIF, JPEG XL, JPEG 2000, BMP, PNM, TGA or HEIC'
# The bytes of the beginning that `describe` and `is_tga` look at.
HEAD = 512

_HEIF_BRANDS = (b'heic', b'heix', b'hevc', b'hevx', b'heim', b'heis', b'hevm', b'hevs')
_AVIF_BRANDS = (b'avif', b'avis')
# Beginnings of files that are often given a picture's name.
_OTHERS = {
  b'%PDF': 'a PDF',
  b'8BPS': 'a Photoshop document',
  b'PK\3\4': 'a ZIP archive',
  b'version https://git-lfs': 'a pointer of git-lfs (git lfs pull fetches the file)',
  b'\x1aE\xdf\xa3': 'a video',
  b'\0\0\1\0': 'an icon',
  b'\x93NUMPY': 'a NumPy array',
  b'gimp xcf': 'a GIMP document',
  b'%!PS': 'PostScript',
}
_PAGE = 'a web page'
_MARKUP = {b'<svg': 'an SVG drawing', b'<html': _PAGE, b'<!doctype': _PAGE}


def output_ending(format_: str) -> str:
  """Return the ending under which a still picture of a format is written."""
  return FORMATS[format_].output if format_ in FORMATS else '.png'


def written_as(ending: str) -> str:
  """Return the ending by which a writer of files knows an ending: '.jpg' for '.JPEG'.

  '' means that files with this ending aren't written.
  """
  ending = ending.lower()
  if ending == ARRAY:
    return ARRAY
  for format_ in FORMATS.values():
    if ending in format_.endings and format_.output in format_.endings:
      return format_.output
  return ''


def is_heif(head: bytes) -> bool:
  """Return whether a file that begins so holds HEVC pictures (HEIC)."""
  if head[4:8] != b'ftyp':
    return False
  size = min(int.from_bytes(head[:4]), HEAD)
  brands = {head[8:12], *(head[at : at + 4] for at in range(16, size, 4))}
  return bool(brands & set(_HEIF_BRANDS)) and not brands & set(_AVIF_BRANDS)


def is_tga(head: bytes) -> bool:
  """Return whether a file may be a TGA, which has no mark: all fields make sense."""
  if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
    return False
  mapped = head[2] in (1, 9)
  bits = (1, 8, 16) if head[2] in (1, 3, 9, 11) else (15, 16, 24, 32)
  return (head[1] == 1 or not mapped) and head[16] in bits and not head[17] & 0xC0


def describe(head: bytes) -> str:
  """Return what a file is that can't be read, in a few words; '' if that is unknown."""
  for start, what in _OTHERS.items():
    if head.startswith(start):
      return what
  text = head.lstrip().lower()
  for start, what in _MARKUP.items():
    if text.startswith(start) or (text.startswith(b'<?xml') and start in text):
      return what
  if head[4:8] == b'ftyp':
    return 'a video, or another file of its kind'
  is_text = head.isascii() and all(c >= 32 or c in b'\t\r\n\f' for c in head)
  return 'a text' if is_text else ''
