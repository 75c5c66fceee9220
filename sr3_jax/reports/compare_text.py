"""Prints how several reports differ, as plain text of any width."""

from collections.abc import Iterator, Sequence

from sr3_jax.reports import compare, compare_page
from sr3_jax.reports.data import Entry, Metric, Report, number

# Not every terminal has these.
_PLAIN = str.maketrans({'−': '-', '–': '-', '∞': 'inf', '…': '...'})


def lines(
  reports: Sequence[Report], pairs: Sequence[compare.Pair], width: int
) -> Iterator[str]:
  """Yield what the command prints about several reports.

  Args:
    reports: all, the first one first.
    pairs: of `compare.differences` to the first.
    width: of the terminal, in characters.
  """
  metrics = compare.metrics_of(reports)
  protocol = compare.protocol_differences(reports)
  if protocol:
    yield 'Protocols differ in:'
    for key, texts in protocol:
      yield f'  {key}: ' + ' | '.join(_cut(text, 40) for text in texts)
    yield ''
  table = compare_page.merged(reports)
  used = [m for m in metrics if any(m['key'] in row for row in table.values())]
  rows = [
    [name, *(_value(row.get(m['key']), m['digits']) for m in used)]
    for name, row in table.items()
  ]
  yield from _aligned([['', *(m['title'] for m in used)], *rows], width)
  for remark in compare_page.remarks(reports):
    yield f'Note: {remark}'
  for pair in pairs:
    yield ''
    yield from _pair_lines(pair, used, width)
  if pairs:
    yield ''
    yield f'* {compare_page.chance(pairs)}'


def _pair_lines(
  pair: compare.Pair, metrics: Sequence[Metric], width: int
) -> Iterator[str]:
  """Yield the differences of two methods, a metric a line."""
  count = max((d.images for d in pair.metrics.values()), default=0)
  title = f'{pair.title} (in pairs of {count} images)' if count else pair.title
  if pair.metrics and all(d.same for d in pair.metrics.values()):
    yield f'{title}: = in all {len(pair.metrics)} metrics'
    return
  yield title
  rows = []
  for metric in metrics:
    difference = pair.metrics.get(metric['key'])
    if difference is not None:
      text = compare_page.said(difference, metric['digits'])
      word = compare_page.verdict(difference)
      star = '*' if difference.differs else ''
      rows.append(['  ' + metric['title'], text, star, '' if word == '=' else word])
  yield from _aligned(rows, width, left=(0, 3))


def _value(entry: Entry | None, digits: int) -> str:
  """Return the text of a value; a dash for none."""
  return number(entry['value'], digits) if entry else '–'


def _aligned(
  rows: Sequence[Sequence[str]], width: int, left: Sequence[int] = (0,)
) -> Iterator[str]:
  """Yield rows as columns; those too many for the width follow below the others."""
  if not rows:
    return
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  columns = list(range(1, len(widths)))
  while columns:
    taken = [columns.pop(0)]
    while columns and sum(widths[c] + 2 for c in [0, *taken, columns[0]]) - 2 <= width:
      taken.append(columns.pop(0))
    for row in rows:
      cells = [
        row[c].ljust(widths[c]) if c in left else row[c].rjust(widths[c])
        for c in [0, *taken]
      ]
      yield '  '.join(cells).rstrip()
    if columns:
      yield ''


def _cut(text: str, most: int) -> str:
  """Return at most `most` characters of a text."""
  return text if len(text) <= most else text[: most - 1] + '…'


def printable(text: str) -> str:
  """Return a stranger's text in plain signs, without what would steer the terminal."""
  text = text.translate(_PLAIN)
  return ''.join(c if c.isprintable() else '?' for c in text)
