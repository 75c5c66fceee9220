"""Lays out plain text: aligned columns, and names that are cut to a width."""

from collections.abc import Collection, Sequence

from sr3_jax.runtime.printing import printable


def align(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
  """Return rows of equally many cells as lines with aligned columns.

  The columns of the numbers `left` are flush left, the others flush right. Characters
  that show nothing are written out.
  """
  rows = [[printable(cell) for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) if i in left else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in rows
  ]


def shorten(text: str, most: int) -> str:
  """Return at most `most` characters of a text; an ellipsis stands for the rest."""
  return text if len(text) <= most else text[: most - 1] + '…'
