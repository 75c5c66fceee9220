"""Writes files of pictures for tests: by other programs than ours, and by hand."""

import io
import struct
import zlib

import tifffile
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
SETTINGS = {'steps': 3, 'model': 'abc', 'note': 'Größe 日本'}


def file_of(format_, image, **options):
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, format_, **options)
  return buffer.getvalue()


def png_chunk(kind, body):
  checksum = struct.pack('>I', zlib.crc32(kind + body))
  return struct.pack('>I', len(body)) + kind + body + checksum


def png_of(stored, *chunks, interlace=0):
  """Write a PNG by hand, from big-endian rows without filters."""
  height, width, channels = stored.shape
  depth = 8 * stored.dtype.itemsize
  kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
  header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, interlace)
  rows = b''.join(b'\0' + row.astype(f'>u{depth // 8}').tobytes() for row in stored)
  return (
    b'\x89PNG\r\n\x1a\n'
    + png_chunk(b'IHDR', header)
    + b''.join(chunks)
    + png_chunk(b'IDAT', zlib.compress(rows))
    + png_chunk(b'IEND', b'')
  )


def tiff_of(stored, **options):
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, stored, metadata=None, **options)
  return buffer.getvalue()
