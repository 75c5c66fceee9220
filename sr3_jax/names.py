"""Many short texts in one block of memory."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Names(Sequence[str]):
  """Texts one after the other, and where each ends.

  A million file names take 40 MB so, and 90 as a list of Python's strings, each of
  which the garbage collector and every worker process would meet again.

  Args:
    block: uint8, the texts in UTF-8, without anything in between.
    ends: int64 [N], where in `block` each text ends.
  """

  def __init__(self, block: np.ndarray, ends: np.ndarray):
    self.block, self.ends = block, ends

  @classmethod
  def of(cls, texts: Iterable[str]) -> 'Names':
    """From single texts, which may be file names that are no proper Unicode."""
    block, ends, end = bytearray(), [], 0
    for text in texts:
      encoded = text.encode('utf-8', 'surrogateescape')
      block += encoded
      end += len(encoded)
      ends.append(end)
    return cls(np.frombuffer(bytes(block), np.uint8), np.array(ends, np.int64))

  def __len__(self) -> int:
    return len(self.ends)

  def __getitem__(self, index: int) -> str:
    index = range(len(self.ends))[index]  # also from behind; IndexError beyond
    start = self.ends[index - 1] if index else 0
    text = self.block[start : self.ends[index]].tobytes()
    return text.decode('utf-8', 'surrogateescape')

  def __iter__(self) -> Iterator[str]:
    whole, start = self.block.tobytes(), 0
    for end in map(int, self.ends):
      yield whole[start:end].decode('utf-8', 'surrogateescape')
      start = end

  def same(self, other: 'Names') -> bool:
    """Whether the texts are those of another."""
    equal = np.array_equal
    return equal(self.ends, other.ends) and equal(self.block, other.block)

  def where(self, wanted: np.ndarray) -> 'Names':
    """The texts where bool [N] `wanted` is true."""
    if wanted.all():
      return self
    lengths = np.diff(self.ends, prepend=0)
    block = self.block[np.repeat(wanted, lengths)]
    return Names(block, np.cumsum(lengths[wanted]))
