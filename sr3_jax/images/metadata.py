"""Carries what a picture's file holds beside pixels from the input to the output.

That is EXIF, XMP, IPTC (in Photoshop's resources), comments, texts, resolution, and
what PNG files say about colours. It is kept as the bytes that its owner wrote, but for
what would be wrong of the output: size, orientation and thumbnails. The resolution
stays as it is, in pixels per inch, so that an output is printed larger. Damaged blocks
are left out, and never cost the picture.

`read` takes it from a file. `png`, `pillow_options` with `jpeg`, and `tiff_metadata`
put it into one, each as far as the format can hold it; `not_kept` says what it can't.
"""

import contextlib
import dataclasses
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from sr3_jax.images import (
  exif_block,
  photoshop,
  png_chunks,
  simple_profile,
)
from sr3_jax.images.png_chunks import Chunk

# In EXIF and TIFF, the tag under which our settings stand beside what the owner wrote.
SETTINGS = exif_block.SOFTWARE_OF_PROCESSING
_XMP_START = b'http://ns.adobe.com/xap/1.0/\0'
_PHOTOSHOP_START = b'Photoshop 3.0\0'
_SEGMENT = 65533  # the most bytes of data in a segment of a JPEG file
XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG = 700, 33723, 34377
EXIF_IFD, GPS_IFD = 0x8769, 0x8825
# Texts of PNG files that EXIF has a tag for.
_EXIF_TEXTS = {
  'Author': exif_block.ARTIST,
  'Copyright': exif_block.COPYRIGHT,
  'Description': exif_block.DESCRIPTION,
  'Title': exif_block.DESCRIPTION,
  'Software': exif_block.SOFTWARE,
}
# Tags of the main directory of a TIFF file that belong to the owner, not the pixels:
# description, maker, software, times, people, rating, XP*, copyright.
OWNERS = (0x010D, 0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746)
OWNERS += (0x4749, 0x8298, 0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F)


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What a file holds beside pixels, as its owner wrote it."""

  exif: bytes | None = None
  xmp: bytes | None = None
  photoshop: bytes | None = None  # image resources, IPTC among them
  comments: tuple[bytes, ...] = ()
  texts: tuple[Chunk, ...] = ()  # of a PNG file
  colours: Mapping[bytes, bytes] = dataclasses.field(default_factory=dict)
  # Pixels along width and height per inch, or, if the last is False, their proportion.
  density: tuple[float, float, bool] | None = None


def read(data: bytes, image: Image.Image, orientation: int) -> Metadata:
  """Return what the file of an opened picture holds beside its pixels.

  Args:
    data: the whole file.
    image: the same, opened by Pillow.
    orientation: EXIF's, by which the picture will be turned upright.
  """
  readers = {'JPEG': _of_jpeg, 'MPO': _of_jpeg, 'PNG': _of_png, 'TIFF': _of_tiff}
  found: dict[str, Any] = {}
  with contextlib.suppress(Exception):  # nothing here may cost the picture
    found = readers.get(str(image.format), _of_others)(data, image)
  density = found.pop('density', None)
  if density is None and len(dpi := image.info.get('dpi', ())) == 2:
    density = *dpi, True
  if density is None and found.get('exif'):
    with contextlib.suppress(ValueError, struct.error):
      density = exif_block.Block(found['exif']).density()
  with contextlib.suppress(Exception):
    across, along, inch = density
    across, along = float(across), float(along)
    if exif_block.is_ratio(across) and exif_block.is_ratio(along):
      turned = orientation in (5, 6, 7, 8)
      sides = (along, across) if turned else (across, along)
      found['density'] = *sides, inch
  return Metadata(**found)


def _of_jpeg(data: bytes, image: Image.Image) -> dict[str, Any]:
  found: dict[str, Any] = {}
  comments, resources = [], b''
  for name, segment in getattr(image, 'applist', ()):
    if name == 'COM':
      comments.append(segment)
    elif name == 'APP1' and segment.startswith(exif_block.PREFIX):
      found.setdefault('exif', segment)
    elif name == 'APP1' and segment.startswith(_XMP_START):
      found.setdefault('xmp', segment.removeprefix(_XMP_START))
    elif name == 'APP13' and segment.startswith(_PHOTOSHOP_START):
      resources += segment.removeprefix(_PHOTOSHOP_START)
  unit = image.info.get('jfif_unit')
  if unit == 0 and len(set(image.info['jfif_density'])) > 1:
    found['density'] = *image.info['jfif_density'], False
  return found | {
    'comments': tuple(comments),
    'photoshop': photoshop.without_thumbnails(resources),
  }


def _of_png(data: bytes, image: Image.Image) -> dict[str, Any]:
  found: dict[str, Any] = {}
  texts, colours = [], {}
  for chunk in png_chunks.read(data):
    word = png_chunks.keyword(chunk) if chunk.kind in png_chunks.TEXTS else ''
    if chunk.kind == b'eXIf':
      found['exif'] = chunk.data
    elif chunk.kind in png_chunks.COLOURS:
      colours[chunk.kind] = chunk.data
    elif chunk.kind == b'pHYs' and len(chunk.data) == 9:
      across, along, unit = struct.unpack('>IIB', chunk.data)
      inch = 0.0254 if unit else 1.0
      found['density'] = across * inch, along * inch, bool(unit)
    elif word == png_chunks.XMP:
      found['xmp'] = png_chunks.value(chunk)
    elif word in ('Raw profile type exif', 'Raw profile type APP1'):
      # Pillow turns pictures as these say: they must not say it again.
      raw = _raw_profile(png_chunks.value(chunk) or b'')
      if raw.startswith(exif_block.PREFIX):
        found.setdefault('exif', raw)
    elif word not in ('', 'sr3_jax'):
      texts.append(chunk)
  return found | {'texts': tuple(texts), 'colours': colours}


def _of_tiff(data: bytes, image: Image.Image) -> dict[str, Any]:
  found: dict[str, Any] = {'exif': None}
  tags = getattr(image, 'tag_v2', {})
  kept = Image.Exif()
  exif = image.getexif()
  kept.update({tag: exif[tag] for tag in OWNERS if tag in exif})
  for directory in (EXIF_IFD, GPS_IFD):
    if values := dict(exif.get_ifd(directory)):
      values.pop(0xA005, None)  # the place of a directory in the old file
      kept[directory] = values
  if len(kept):
    with contextlib.suppress(Exception):  # Pillow reads some tags that it can't write
      found['exif'] = kept.tobytes()
  resources = bytes(tags.get(PHOTOSHOP_TAG, b''))
  iptc = tags.get(IPTC_TAG, b'')
  if not resources and isinstance(iptc, bytes) and iptc:
    resources = photoshop.resource(photoshop.IPTC, iptc)
  if isinstance(xmp := tags.get(XMP_TAG), bytes):
    found['xmp'] = xmp
  return found | {'photoshop': photoshop.without_thumbnails(resources)}


def _of_others(data: bytes, image: Image.Image) -> dict[str, object]:
  """Take what Pillow found in WebP, AVIF, GIF and others."""
  exif, xmp = image.info.get('exif'), image.info.get('xmp')
  if image.format == 'JXL':
    boxes = dict(_boxes(data))
    exif, xmp = boxes.get(b'Exif', b'')[4:] or None, boxes.get(b'xml ')
  comment = image.info.get('comment')
  comments = (comment,) if isinstance(comment, bytes) else ()
  return {'exif': exif, 'xmp': xmp, 'comments': comments}


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Yield the boxes of a JPEG XL file."""
  place = 0
  while place + 8 <= len(data) and data[4:8] == b'JXL ':
    size, kind = struct.unpack_from('>I4s', data, place)
    size = size or len(data) - place
    if size < 8:
      return
    yield kind, data[place + 8 : place + size]
    place += size


def _raw_profile(value: bytes) -> bytes:
  """Return the bytes of a profile that ImageMagick wrote as a text."""
  return bytes.fromhex(''.join(value.decode('latin-1').split()[2:]))


# ---------------------------------------------------------------------------- writing


def png(
  data: bytes, own: Metadata, settings: str, icc: bytes | None, keyword: str
) -> bytes:
  """Return a PNG file with all that belongs to it.

  Args:
    data: the file without.
    own: what the owner wrote.
    settings: our text, under `keyword`; '' for none.
    icc: colour profile.
    keyword: of our text.
  """
  height, width = _size(data)
  chunks = []
  if icc:
    chunks.append(Chunk(b'iCCP', b'ICC profile\0\0' + zlib.compress(icc)))
  chunks += [Chunk(kind, value) for kind, value in own.colours.items()]
  if own.density:
    across, along, inch = own.density
    unit = 0.0254 if inch else 1.0
    numbers = round(across / unit), round(along / unit), inch
    chunks.append(Chunk(b'pHYs', struct.pack('>IIB', *numbers)))
  if own.exif:
    chunks.append(Chunk(b'eXIf', exif_block.block(own.exif, height, width, {})))
  if settings:
    chunks.append(png_chunks.text(keyword, settings))
  if own.xmp:
    packet = adapted_xmp(own.xmp, height, width)
    chunks.append(Chunk(b'iTXt', png_chunks.XMP.encode() + bytes(5) + packet))
  if iptc := photoshop.iptc(own.photoshop):
    stored = photoshop.resource(photoshop.IPTC, iptc)
    digits = '\n'.join(re.findall('.{1,72}', stored.hex()))
    value = f'\niptc\n{len(stored):8}\n{digits}\n'
    chunks.append(png_chunks.text('Raw profile type iptc', value))
  for comment in own.comments:
    words = comment.decode('utf-8', 'replace').replace('\0', '')
    chunks.append(png_chunks.text('Comment', words))
  return png_chunks.insert(data, [*chunks, *own.texts])


def exif(own: Metadata, settings: str, height: int, width: int) -> bytes:
  """Return the EXIF block of a file in another format than PNG, with our settings."""
  present = _present(own.exif)
  values: dict[int, str | int | float] = {SETTINGS: settings} if settings else {}
  for chunk in own.texts:
    tag = _EXIF_TEXTS.get(png_chunks.keyword(chunk))
    value = png_chunks.value(chunk)
    if tag and tag not in present and value and len(value) < 2**14:
      values.setdefault(tag, value.decode('utf-8', 'replace'))
  if own.density and own.density[2] and exif_block.X_RESOLUTION not in present:
    across, along, _ = own.density
    values |= {exif_block.X_RESOLUTION: float(across)}
    values |= {exif_block.Y_RESOLUTION: float(along), exif_block.UNIT: 2}
  return exif_block.block(own.exif, height, width, values)


def pillow_options(
  own: Metadata, extension: str, settings: str, height: int, width: int
) -> dict[str, object]:
  """Return options for Pillow to save a JPEG, WebP or AVIF file with EXIF and XMP."""
  block = exif(own, settings, height, width)
  most = _SEGMENT - len(exif_block.PREFIX) if extension == '.jpg' else 2**32
  if len(block) > most:
    block = exif(dataclasses.replace(own, exif=None), settings, height, width)
  options: dict[str, object] = {'exif': exif_block.PREFIX + block}
  if own.xmp and (extension != '.jpg' or _xmp_fits_jpeg(own.xmp)):
    options['xmp'] = adapted_xmp(own.xmp, height, width)
  return options


def jpeg(data: bytes, own: Metadata) -> bytes:
  """Return a JPEG file of Pillow's with comments, IPTC and resolution."""
  added = []
  if own.photoshop:
    rest = _PHOTOSHOP_START + own.photoshop
    parts = [rest[:_SEGMENT]]
    step, rest = _SEGMENT - len(_PHOTOSHOP_START), rest[_SEGMENT:]
    parts += [_PHOTOSHOP_START + rest[k : k + step] for k in range(0, len(rest), step)]
    added += [(0xED, part) for part in parts]
  comments = list(own.comments)
  comments += [
    words
    for chunk in own.texts
    if png_chunks.keyword(chunk) == 'Comment' and (words := png_chunks.value(chunk))
  ]
  added += [(0xFE, comment[:_SEGMENT]) for comment in comments]
  if own.density and data[6:11] == b'JFIF\0':
    across, along, inch = own.density
    fields = struct.pack('>BHH', inch, *(max(1, round(n)) for n in (across, along)))
    data = data[:13] + fields + data[18:]
  place = 2
  while data[place] == 0xFF and 0xE0 <= data[place + 1] <= 0xE2:
    place += 2 + int.from_bytes(data[place + 2 : place + 4])
  segments = (
    struct.pack('>BBH', 0xFF, marker, len(part) + 2) + part for marker, part in added
  )
  return b''.join([data[:place], *segments, data[place:]])


def colour_profile(own: Metadata, extension: str, grey: bool) -> bytes | None:
  """Return the profile that stands for colours that only PNG files can say."""
  if extension == '.png':
    return None
  with contextlib.suppress(ValueError):
    return simple_profile.of_png(dict(own.colours), grey)
  return None


def not_kept(own: Metadata, extension: str) -> list[str]:
  """Return what a file with this extension can't hold, in the words of messages."""
  lost = []
  if extension == '.png':
    return lost
  known = {*_EXIF_TEXTS, *(['Comment'] if extension == '.jpg' else [])}
  if any(png_chunks.keyword(chunk) not in known for chunk in own.texts):
    lost.append('texts of PNG')
  try:
    simple_profile.of_png(dict(own.colours), False)
  except ValueError:
    lost.append('colours as of a video (cICP)')
  if extension == '.jpg':
    if own.exif and len(own.exif) > _SEGMENT - 4096:
      lost.append('EXIF of 64 kB and more')
    if own.xmp and not _xmp_fits_jpeg(own.xmp):
      lost.append('XMP of 64 kB and more')
    return lost
  if own.comments:
    lost.append('comments')
  if own.photoshop and extension != '.tif':
    lost.append('IPTC')
  return lost


def _present(block: bytes | None) -> set[int]:
  """Return the tags of the main directory of an EXIF block."""
  with contextlib.suppress(ValueError, struct.error):
    return exif_block.Block(block or b'').tags()
  return set()


def _size(data: bytes) -> tuple[int, int]:
  """Return height and width of a PNG file."""
  width, height = struct.unpack_from('>II', data, 16)
  return height, width


def _xmp_fits_jpeg(packet: bytes) -> bool:
  """Return whether XMP fits into one segment, with room for larger sizes."""
  return len(packet) <= _SEGMENT - len(_XMP_START) - 100


def adapted_xmp(packet: bytes, height: int, width: int) -> bytes:
  """Return XMP for an upright picture of this size, without thumbnails."""
  lengths = {b'Width': width, b'PixelXDimension': width, b'Orientation': 1}
  lengths |= {b'Length': height, b'PixelYDimension': height}

  def replace(found: re.Match[bytes]) -> bytes:
    name = found['name'].removeprefix(b'Image')
    return found['before'] + str(lengths[name]).encode()

  names = (
    rb'(?:tiff|exif):(?P<name>Image(?:Width|Length)|Pixel[XY]Dimension|Orientation)'
  )
  packet = re.sub(
    rb'(?P<before>' + names + rb'\s*(?:=\s*["\']|>\s*))\d+', replace, packet
  )
  return re.sub(rb'<(x(?:m|a)p:Thumbnails)\b.*?</\1\s*>', b'', packet, flags=re.DOTALL)
