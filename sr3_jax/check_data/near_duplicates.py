"""Near copies among many images, from a small grey thumbnail of each.

The signature of an image is its 8 x 8 lowest cosine frequencies without the mean, each
multiplied by its frequency, for photographs have about as much energy in every octave
(Field 1987, doi:10.1364/JOSAA.4.002379), and scaled to length one. Two images are near
copies if their signatures have a product (a correlation) of at least CORRELATION.
Signs of the 63 numbers are the hash of an image; pairs of hashes that differ in more
than BITS of them aren't looked at further. All pairs of hashes are compared: nothing is
lost to an index, and decoding takes longer up to some millions of images.

To mirror an image is to change the sign of its odd frequencies across. They come last
in a signature, so that one comparison of two images sees them mirrored, too.

Found: other formats, sizes and qualities, brightness, contrast, mirrored images, crops
of about 3 % from every side. Not found: larger crops, quarter turns, frames, parts of
one picture beside each other. Pictures of one simple shape on an even ground can be
taken for copies of each other. Images with hardly any pattern (a blank page, an even
gradient) are alike without being copies: their signature is zero and they match none.
"""

import dataclasses
import os
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import numpy as np
import scipy.fft

SIDE = 16  # of a thumbnail, pixels
CORRELATION = 0.85
BITS = 14

_KEPT = 8  # frequencies along each axis
_EVEN = _KEPT**2 // 2 - 1  # of a signature, even across; the rest are odd
_EVIDENT = 20.0  # least energy over that of rounding to 8 bits
_PATTERNS = 4.0  # least number of frequencies that have a part in the energy
# How many are compared at a time: what one thread does, and what its cache holds.
_ROWS, _COLUMNS, _TILE = 64, 32768, (8, 4096)

OnRows = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Matches:
  """For each of N images, what it is a near copy of.

  Attributes:
    partner: int64 [N], the number of the other image, -1 for none.
    correlation: float32 [N], CORRELATION to 1; 0 for none.
    mirrored: bool [N], whether it is the other one mirrored, left to right.
  """

  partner: np.ndarray
  correlation: np.ndarray
  mirrored: np.ndarray

  @property
  def found(self) -> np.ndarray:
    """Numbers of the images that are near copies, the surest first."""
    found = np.flatnonzero(self.partner >= 0)
    return found[np.argsort(-self.correlation[found], kind='stable')]

  def numbered(self, mine: np.ndarray, theirs: np.ndarray, count: int) -> 'Matches':
    """The same for `count` images, of which `mine` [N] were compared with `theirs`."""
    whole, found = _none(count), self.partner >= 0
    whole.partner[mine[found]] = theirs[self.partner[found]]
    whole.correlation[mine], whole.mirrored[mine] = self.correlation, self.mirrored
    return whole


def identical(digests: np.ndarray, others: np.ndarray | None = None) -> Matches:
  """Images of the same content: the first such image is the partner.

  Args:
    digests: uint64 [N] of content.
    others: uint64 [M] of another set, to find partners in; None: the set itself.
  """
  known = digests if others is None else others
  values, first = np.unique(known, return_index=True)
  matches = _none(len(digests))
  if not len(values):
    return matches
  place = np.minimum(np.searchsorted(values, digests), len(values) - 1)
  same = values[place] == digests
  if others is None:
    same &= first[place] != np.arange(len(digests))
  matches.partner[same] = first[place[same]]
  matches.correlation[same] = 1
  return matches


def joined(sure: Matches, likely: Matches) -> Matches:
  """`likely` where there is nothing `sure`."""
  choose = lambda a, b: np.where(sure.partner >= 0, a, b)
  return Matches(
    choose(sure.partner, likely.partner),
    choose(sure.correlation, likely.correlation),
    choose(sure.mirrored, likely.mirrored),
  )


def signatures(thumbnails: np.ndarray) -> np.ndarray:
  """Signatures of images; zeros where an image has hardly any pattern.

  Args:
    thumbnails: uint8 [N, SIDE, SIDE], the whole images made small, in grey.

  Returns:
    float32 [N, 63], of length one or zero.
  """
  down, across = (axis.ravel()[1:] for axis in np.mgrid[:_KEPT, :_KEPT])
  weights = np.hypot(down, across).astype(np.float32)
  order = np.argsort(across % 2, kind='stable')
  found = np.zeros((len(thumbnails), len(order)), np.float32)
  for start in range(0, len(thumbnails), 4096):  # float32 of a million is a gigabyte
    part = thumbnails[start : start + 4096].astype(np.float32)
    waves = scipy.fft.dctn(part, axes=(1, 2), norm='ortho')[:, :_KEPT, :_KEPT]
    waves = (waves.reshape(len(part), -1)[:, 1:] * weights)[:, order]
    energy = np.square(waves)
    total = energy.sum(1)
    # Rounding adds 1/12 to the energy of every frequency.
    evident = total > _EVIDENT * np.square(weights).sum() / 12
    patterned = np.square(total) > _PATTERNS * np.square(energy).sum(1)
    keep = evident & patterned
    found[start : start + 4096][keep] = waves[keep] / np.sqrt(total[keep, None])
  return found


def within(signatures: np.ndarray, on_rows: OnRows = lambda rows: None) -> Matches:
  """Near copies within a set.

  Images are taken in turn. Those that resemble one and aren't yet copies of an earlier
  one are its copies, and aren't asked for copies of their own. So each image has at
  most one partner, an earlier one that has none itself.

  Args:
    signatures: [N, 63].
    on_rows: called with the number of images that are done.
  """
  matches = _none(len(signatures))
  numbers, whole = _patterned(signatures)
  partner, done = np.full(len(numbers), -1), 0
  with _pool(len(numbers)) as pool:
    while len(rows := done + np.flatnonzero(partner[done:] < 0)[:_ROWS]):
      pairs = _search(pool, whole, rows, whole, first=int(rows[0]) + 1)
      for row in np.unique(pairs.row):
        if partner[row] >= 0:
          continue
        of = (pairs.row == row) & (pairs.column > row) & (partner[pairs.column] < 0)
        partner[pairs.column[of]] = row
        _note(matches, numbers[pairs.column[of]], numbers[row], pairs, of)
      done = int(rows[-1]) + 1
      on_rows(int(numbers[done - 1]) + 1)
  return matches


def between(
  signatures: np.ndarray, others: np.ndarray, on_rows: OnRows = lambda rows: None
) -> Matches:
  """The most similar image of another set, for those that have a near copy there.

  Args:
    signatures: [N, 63].
    others: [M, 63]; partners are their numbers.
    on_rows: called with the number of images that are done.
  """
  matches = _none(len(signatures))
  (numbers, mine), (theirs, whole) = _patterned(signatures), _patterned(others)
  with _pool(len(theirs)) as pool:
    for start in range(0, len(numbers), _ROWS):
      rows = np.arange(start, min(start + _ROWS, len(numbers)))
      pairs = _search(pool, mine, rows, whole, first=0)
      best = np.argsort(pairs.correlation, kind='stable')  # the last one stays
      images, partners = numbers[pairs.row[best]], theirs[pairs.column[best]]
      _note(matches, images, partners, pairs, best)
      on_rows(int(numbers[rows[-1]]) + 1)
  return matches


class _Signed(NamedTuple):
  """Signatures [N, 63] and their hashes, uint32 [N]: even and odd frequencies."""

  signatures: np.ndarray
  even: np.ndarray
  odd: np.ndarray


class _Pairs(NamedTuple):
  """Numbers of rows and columns [P], how alike they are, and whether mirrored."""

  row: np.ndarray
  column: np.ndarray
  correlation: np.ndarray
  mirrored: np.ndarray


def _none(count: int) -> Matches:
  nothing = np.full(count, -1, np.int64)
  return Matches(nothing, np.zeros(count, np.float32), np.zeros(count, bool))


def _note(matches: Matches, images, partners, pairs: _Pairs, chosen) -> None:
  matches.partner[images] = partners
  matches.correlation[images] = np.minimum(pairs.correlation[chosen], 1)
  matches.mirrored[images] = pairs.mirrored[chosen]


def _patterned(signatures: np.ndarray) -> tuple[np.ndarray, _Signed]:
  """Numbers of the images that have a signature, and these."""
  numbers = np.flatnonzero(signatures.any(1))
  kept = signatures[numbers]
  return numbers, _Signed(kept, _bits(kept[:, :_EVEN]), _bits(kept[:, _EVEN:]))


def _bits(values: np.ndarray) -> np.ndarray:
  """Signs of [N, 31 or 32] as uint32 [N]."""
  return np.packbits(values > 0, axis=1).view(np.uint32)[:, 0]


def _pool(columns: int) -> futures.ThreadPoolExecutor:
  """Threads: NumPy lets go of the interpreter while it counts bits."""
  return futures.ThreadPoolExecutor(
    max(1, min(os.cpu_count() or 1, columns // _COLUMNS))
  )


def _search(
  pool: futures.Executor, mine: _Signed, rows: np.ndarray, whole: _Signed, first: int
) -> _Pairs:
  """Near copies of some of `mine` among `whole[first:]`."""
  asked = _Signed(*(part[rows] for part in mine))
  starts = range(first, len(whole.even), _COLUMNS)
  stripes = pool.map(lambda start: _stripe(asked, whole, start), starts)
  found = [pairs for stripe in stripes for pairs in stripe]
  found.append(_Pairs(*(np.zeros(0, kind) for kind in (int, int, np.float32, bool))))
  pairs = _Pairs(*map(np.concatenate, zip(*found, strict=True)))
  return pairs._replace(row=rows[pairs.row])


def _stripe(asked: _Signed, whole: _Signed, start: int) -> list[_Pairs]:
  """Near copies in a stripe of columns, tile by tile, as a cache holds them."""
  stop, found = min(start + _COLUMNS, len(whole.even)), []
  height, width = _TILE
  for left in range(start, stop, width):
    columns = slice(left, min(left + width, stop))
    for top in range(0, len(asked.even), height):
      rows = slice(top, top + height)
      even = np.bitwise_count(asked.even[rows, None] ^ whole.even[columns])
      odd = np.bitwise_count(asked.odd[rows, None] ^ whole.odd[columns])
      bits = even + np.minimum(odd, 32 - odd)
      if bits.min() <= BITS:
        row, column = np.nonzero(bits <= BITS)
        found.append(_compare(asked, whole, row + top, column + left))
  return found


def _compare(asked: _Signed, whole: _Signed, row, column) -> _Pairs:
  """Those of the candidates that are near copies."""
  product = asked.signatures[row] * whole.signatures[column]
  even, odd = product[:, :_EVEN].sum(1), product[:, _EVEN:].sum(1)
  correlation = even + np.abs(odd)
  near = correlation >= CORRELATION
  return _Pairs(row[near], column[near], correlation[near], odd[near] < 0)
