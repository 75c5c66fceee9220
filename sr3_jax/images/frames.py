"""Reads the frames of animations and the pages of TIFFs, one at a time.

Pillow composes the frames of GIF, WebP, PNG and AVIF: each comes whole, as a viewer
shows it. `animations` puts restored frames together again.
"""

import dataclasses
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import Image

from sr3_jax.images import image_files, picture_codec, png_chunks, sixteen_bit
from sr3_jax.images.picture_codec import Picture

# How long a frame is shown if its file says nothing, or 0: browsers take as long.
_USUAL = Fraction(1, 10)
_FOR_EVER = 0


class Frame(NamedTuple):
  """A frame of an animation, or a page."""

  picture: Picture
  seconds: Fraction  # for which it is shown; 0 for pages


class Facts(NamedTuple):
  """What is the same for all frames."""

  count: int
  pages: bool  # are they pages, each of its own size, rather than frames?
  plays: int = 1  # how often the animation is shown; 0 is for ever


def facts(data: bytes, name: str = '') -> Facts:
  """Return how many frames or pages a file has, and how often they are played.

  Raises:
    ImageError: the file can't be read.
  """
  with image_files.errors(data, name):
    if sixteen_bit.is_tiff(io.BytesIO(data)):
      return Facts(len(sixteen_bit.split_pages(io.BytesIO(data))), True)
    with image_files.open_image(io.BytesIO(data)) as image:
      count = picture_codec.count_frames(image)
      return Facts(count, image.format == 'HEIF', _plays(image))


def read(data: bytes, name: str = '') -> Iterator[Frame]:
  """Yield the frames or pages of a file; only one is in memory at a time.

  All frames of an animation have the same channels: if one is in colour or has alpha,
  all have. Pages are as they are.

  Raises:
    ImageError: one can't be read; it says which.
  """
  if sixteen_bit.is_tiff(io.BytesIO(data)):
    yield from _pages(data, name)
    return
  if facts(data, name).pages:
    yield from _decode(data, name, 'picture')
    return
  colours, transparent = 1, False
  for frame in _decode(data, name, 'frame'):
    colours = max(colours, frame.picture.pixels.shape[-1])
    transparent |= frame.picture.alpha is not None
  for frame in _decode(data, name, 'frame'):
    yield frame._replace(picture=_like(frame.picture, colours, transparent))


def _pages(data: bytes, name: str) -> Iterator[Frame]:
  """Yield the pages of a TIFF, each with what belongs to it."""
  with image_files.errors(data, name):
    pages = sixteen_bit.split_pages(io.BytesIO(data))
  for number, start in enumerate(pages, 1):
    # The same file with another page in front.
    page = data[:4] + start + data[4 + len(start) :]
    if data[2:4] in (b'+\0', b'\0+'):  # BigTIFF
      page = data[:8] + start + data[8 + len(start) :]
    with image_files.errors(data, f'{name}: page {number}'):
      yield Frame(picture_codec.read(page), Fraction(0))


def _decode(data: bytes, name: str, kind: str) -> Iterator[Frame]:
  """Yield what Pillow makes of the frames of a file."""
  first = picture_codec.read(data, name)
  with image_files.open_image(io.BytesIO(png_chunks.harmless(data))) as image:
    # A PNG may hold a picture for programs that know no animations, seen by no other.
    start = 1 if getattr(image, 'default_image', False) else 0
    for number in range(picture_codec.count_frames(image)):
      with image_files.errors(data, f'{name}: {kind} {number + 1}'):
        image.seek(start + number)
        image.load()
        picture = picture_codec.from_opened(image.copy(), first)
      yield Frame(picture, _seconds(image))


def _like(picture: Picture, colours: int, transparent: bool) -> Picture:
  """Return a picture with so many colours, and with alpha if others have it."""
  pixels, alpha = picture.pixels, picture.alpha
  if pixels.shape[-1] < colours:
    pixels = np.repeat(pixels, colours, axis=-1)
  if transparent and alpha is None:
    alpha = np.ones(pixels.shape[:2], np.float32)
  return dataclasses.replace(picture, pixels=pixels, alpha=alpha)


def _seconds(image: Image.Image) -> Fraction:
  """Return how long the current frame is shown; Pillow says it in milliseconds."""
  duration = image.info.get('duration') or 0
  if not 0 < duration < 1e9:
    return _USUAL
  return Fraction(duration).limit_denominator(1000) / 1000


def _plays(image: Image.Image) -> int:
  """Return how often an animation is played; 0 is for ever."""
  loop = image.info.get('loop')
  if image.format == 'GIF':
    # A GIF says how often it is repeated, and plays once if it says nothing.
    return 1 if loop is None else loop + 1 if loop else _FOR_EVER
  return int(loop or _FOR_EVER)
