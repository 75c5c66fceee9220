"""Finds near copies among many images, from a small grey thumbnail of each.

The signature of an image is made of its 8 x 8 lowest cosine frequencies without the
mean. Each is multiplied by its frequency, because photographs have about as much energy
in every octave (Field 1987, doi:10.1364/JOSAA.4.002379); then the signature is scaled
to length one. Two images are near copies if the product of their signatures, which is a
correlation, is at least CORRELATION.

The signs of the 63 numbers are the hash of an image. All pairs of hashes are compared,
and pairs that differ in more than BITS signs are left out. So no pair is lost to an
index, and up to some millions of images decoding takes longer than comparing.

A mirrored image has the same signature, but for the sign of the frequencies that are
odd across. These come last in a signature, so that one comparison of two images also
tells whether one is mirrored.

Copies are found in other formats, sizes and qualities, with another brightness or
contrast, mirrored, and cropped by about 3 % from every side. They are not found after
larger crops or quarter turns, in frames, or as two parts of one picture. Pictures of
one simple shape on an even ground can be taken for copies of each other. Images with
nearly no pattern (a blank page, an even gradient) are alike without being copies: their
signature is zero and they match none.
"""

import os
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np
import scipy.fft

SIDE = 16  # of a thumbnail in pixels
CORRELATION = 0.85
BITS = 14

_FREQUENCIES = 8  # along each axis
# How many numbers of a signature are of frequencies even across; the rest are odd.
_EVEN = _FREQUENCIES**2 // 2 - 1
# An image has a pattern if its energy is so many times that of rounding to 8 bits ...
_MIN_ENERGY = 20.0
# ... and is spread over so many frequencies.
_MIN_PATTERNS = 4.0
# How many images are compared at a time: by all threads, by one thread, and within its
# cache.
_ROWS, _COLUMNS, _TILE = 64, 32768, (8, 4096)

OnRows = Callable[[int], None]


class Matches(NamedTuple):
  """The images that each of N images is a near copy of, one at most."""

  partner: np.ndarray  # int64 [N], the number of the other image; -1 for none
  correlation: np.ndarray  # float32 [N], CORRELATION to 1; 0 for none
  mirrored: np.ndarray  # bool [N], whether one is the other mirrored left to right

  @property
  def found(self) -> np.ndarray:
    """Numbers of the images that are near copies, by falling correlation."""
    found = np.flatnonzero(self.partner >= 0)
    return found[np.argsort(-self.correlation[found], kind='stable')]


def find_identical(digests: np.ndarray, others: np.ndarray | None = None) -> Matches:
  """Find images of the same content; the first of them is the partner of the others.

  Args:
    digests: uint64 [N] of content; images of digest 0 match none.
    others: uint64 [M] of another set, to find partners in; None: the set itself.
  """
  known = digests if others is None else others
  values, first = np.unique(known, return_index=True)
  matches = _no_matches(len(digests))
  if not len(values):
    return matches
  place = np.minimum(np.searchsorted(values, digests), len(values) - 1)
  same = (values[place] == digests) & (digests > 0)
  if others is None:
    same &= first[place] != np.arange(len(digests))
  matches.partner[same] = first[place[same]]
  matches.correlation[same] = 1
  return matches


def merge(sure: Matches, likely: Matches) -> Matches:
  """Return the matches of `sure`, and those of `likely` for all other images."""
  found = sure.partner >= 0
  fields = zip(sure, likely, strict=True)
  return Matches(*(np.where(found, one, other) for one, other in fields))


def make_signatures(thumbnails: np.ndarray) -> np.ndarray:
  """Make the signatures of images from grey thumbnails, uint8 [N, SIDE, SIDE].

  Returns:
    float32 [N, 63] of length one, or zero where an image has nearly no pattern.
  """
  down, across = (axis.ravel()[1:] for axis in np.mgrid[:_FREQUENCIES, :_FREQUENCIES])
  weights = np.hypot(down, across).astype(np.float32)
  order = np.argsort(across % 2, kind='stable')
  found = np.zeros((len(thumbnails), len(order)), np.float32)
  for start in range(0, len(thumbnails), 4096):  # float32 of a million is a gigabyte
    part = thumbnails[start : start + 4096].astype(np.float32)
    waves = scipy.fft.dctn(part, axes=(1, 2), norm='ortho')
    waves = waves[:, :_FREQUENCIES, :_FREQUENCIES]
    waves = (waves.reshape(len(part), -1)[:, 1:] * weights)[:, order]
    energy = np.square(waves)
    total = energy.sum(1)
    # Rounding adds 1/12 to the energy of every frequency.
    evident = total > _MIN_ENERGY * np.square(weights).sum() / 12
    patterned = np.square(total) > _MIN_PATTERNS * np.square(energy).sum(1)
    useful = evident & patterned
    found[start : start + 4096][useful] = waves[useful] / np.sqrt(total[useful, None])
  return found


def find_within(signatures: np.ndarray, on_rows: OnRows = lambda rows: None) -> Matches:
  """Find near copies within a set.

  Images are taken in turn. Later images that resemble one, and aren't copies of an
  earlier one yet, are its copies; nothing is compared with them any more. So each image
  has at most one partner, an earlier image that has none itself.
  `on_rows` is called with the number of images that are done.
  """
  matches = _no_matches(len(signatures))
  numbers, images = _hash_patterned(signatures)
  partner, done = np.full(len(numbers), -1), 0
  with _pool(len(numbers)) as pool:
    while len(rows := done + np.flatnonzero(partner[done:] < 0)[:_ROWS]):
      pairs = _search(pool, images, rows, images, first=int(rows[0]) + 1)
      for row in np.unique(pairs.row):
        if partner[row] < 0:
          later = (pairs.row == row) & (pairs.column > row)
          new = pairs.choose(later & (partner[pairs.column] < 0))
          partner[new.column] = row
          _record(matches, numbers[new.column], numbers[row], new)
      done = int(rows[-1]) + 1
      on_rows(int(numbers[done - 1]) + 1)
  return matches


def find_between(
  signatures: np.ndarray, others: np.ndarray, on_rows: OnRows = lambda rows: None
) -> Matches:
  """Find the most similar image of another set, for images with a near copy there.

  Partners are numbers in the other set, whose signatures are [M, 63]. `on_rows` is
  called with the number of images that are done.
  """
  matches = _no_matches(len(signatures))
  numbers, images = _hash_patterned(signatures)
  other_numbers, other_images = _hash_patterned(others)
  with _pool(len(other_numbers)) as pool:
    for start in range(0, len(numbers), _ROWS):
      rows = np.arange(start, min(start + _ROWS, len(numbers)))
      pairs = _search(pool, images, rows, other_images, first=0)
      # The most similar of several partners is recorded last, so it stays.
      pairs = pairs.choose(np.argsort(pairs.correlation, kind='stable'))
      _record(matches, numbers[pairs.row], other_numbers[pairs.column], pairs)
      on_rows(int(numbers[rows[-1]]) + 1)
  return matches


class _Hashed(NamedTuple):
  """Signatures [N, 63] and their hashes, uint32 [N], of even and odd frequencies."""

  signatures: np.ndarray
  even: np.ndarray
  odd: np.ndarray


class _Pairs(NamedTuple):
  """Pairs of near copies: rows and columns [P], correlation, whether mirrored."""

  row: np.ndarray
  column: np.ndarray
  correlation: np.ndarray
  mirrored: np.ndarray

  def choose(self, chosen: np.ndarray) -> '_Pairs':
    """Return some of the pairs, by numbers or by a mask."""
    return _Pairs(*(column[chosen] for column in self))


def _no_matches(count: int) -> Matches:
  unmatched = np.full(count, -1, np.int64)
  return Matches(unmatched, np.zeros(count, np.float32), np.zeros(count, bool))


def _record(
  matches: Matches, images: np.ndarray, partners: np.ndarray, pairs: _Pairs
) -> None:
  """Write the partners of some images, one for each pair, to matches."""
  matches.partner[images] = partners
  matches.correlation[images] = np.minimum(pairs.correlation, 1)
  matches.mirrored[images] = pairs.mirrored


def _hash_patterned(signatures: np.ndarray) -> tuple[np.ndarray, _Hashed]:
  """Return the numbers of the images with a pattern, and their signatures."""
  numbers = np.flatnonzero(signatures.any(1))
  found = signatures[numbers]
  return numbers, _Hashed(found, _bits(found[:, :_EVEN]), _bits(found[:, _EVEN:]))


def _bits(values: np.ndarray) -> np.ndarray:
  """Pack the signs of [N, 31 or 32] into uint32 [N]."""
  return np.packbits(values > 0, axis=1).view(np.uint32)[:, 0]


def _pool(columns: int) -> futures.ThreadPoolExecutor:
  """Make a pool of threads; NumPy releases the interpreter while it counts bits."""
  threads = min(os.cpu_count() or 1, columns // _COLUMNS)
  return futures.ThreadPoolExecutor(max(1, threads))


def _search(
  pool: futures.Executor, images: _Hashed, rows: np.ndarray, others: _Hashed, first: int
) -> _Pairs:
  """Find near copies of some images among `others[first:]`."""
  queries = _Hashed(*(part[rows] for part in images))
  starts = range(first, len(others.even), _COLUMNS)
  stripes = pool.map(lambda start: _stripe(queries, others, start), starts)
  found = [pairs for stripe in stripes for pairs in stripe]
  found.append(_Pairs(*(np.zeros(0, kind) for kind in (int, int, np.float32, bool))))
  pairs = _Pairs(*map(np.concatenate, zip(*found, strict=True)))
  return pairs._replace(row=rows[pairs.row])


def _stripe(queries: _Hashed, others: _Hashed, start: int) -> list[_Pairs]:
  """Find near copies in a stripe of columns, by tiles that fit into a cache."""
  stop, found = min(start + _COLUMNS, len(others.even)), []
  height, width = _TILE
  for left in range(start, stop, width):
    columns = slice(left, min(left + width, stop))
    for top in range(0, len(queries.even), height):
      rows = slice(top, top + height)
      even = np.bitwise_count(queries.even[rows, None] ^ others.even[columns])
      odd = np.bitwise_count(queries.odd[rows, None] ^ others.odd[columns])
      bits = even + np.minimum(odd, 32 - odd)
      if bits.min() <= BITS:
        row, column = np.nonzero(bits <= BITS)
        found.append(_compare(queries, others, row + top, column + left))
  return found


def _compare(
  queries: _Hashed, others: _Hashed, row: np.ndarray, column: np.ndarray
) -> _Pairs:
  """Return the candidates that are near copies."""
  product = queries.signatures[row] * others.signatures[column]
  even, odd = product[:, :_EVEN].sum(1), product[:, _EVEN:].sum(1)
  correlation = even + np.abs(odd)
  near = correlation >= CORRELATION
  return _Pairs(row[near], column[near], correlation[near], odd[near] < 0)
