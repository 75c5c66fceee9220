"""Prints how several reports differ, as plain text of any width."""

from collections.abc import Iterator, Sequence

from sr3_jax.metrics import bootstrap
from sr3_jax.reports import compare, compare_page
from sr3_jax.reports.data import Metric, Report, number
from sr3_jax.runtime import printing, text

# Not every terminal has these.
_PLAIN = str.maketrans({'−': '-', '–': '-', '∞': 'inf', '…': '...'})


def lines(
  reports: Sequence[Report], pairs: Sequence[compare.Pair], width: int
) -> Iterator[str]:
  """Yield what the command prints about several reports, `width` characters wide.

  `pairs` are those of `compare.differences` to the first report.
  """
  metrics = compare.metrics_of(reports)
  protocol = compare.protocol_differences(reports)
  if protocol:
    yield 'Protocols differ in:'
    for key, texts in protocol:
      yield f'  {key}: ' + ' | '.join(text.shorten(value, 40) for value in texts)
    yield ''
  table = compare_page.merged(reports)
  used = [m for m in metrics if any(m['key'] in row for row in table.values())]
  rows = [['', *(m['title'] for m in used)]]
  for name, row in table.items():
    entries = [(row.get(m['key']), m['digits']) for m in used]
    rows.append([name, *(number(e['value'], d) if e else '–' for e, d in entries)])
  yield from _folded(rows, width)
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
  title = pair.title
  if pair.images:
    title += f' (in pairs of {bootstrap.counted(pair.images, pair.photographs)})'
  if pair.metrics and all(d.same for d in pair.metrics.values()):
    yield f'{title}: = in all {len(pair.metrics)} metrics'
    return
  yield title
  rows = []
  for metric in metrics:
    difference = pair.metrics.get(metric['key'])
    if difference is not None:
      said = compare_page.said(difference, metric['digits'])
      word = compare_page.verdict(difference)
      star = '*' if difference.differs else ''
      word = ', '.join(
        filter(None, ['' if word == '=' else word, pair.fewer(difference)])
      )
      rows.append(['  ' + metric['title'], said, star, word])
  yield from _folded(rows, width, left=(0, 3))


def _folded(
  rows: Sequence[Sequence[str]], width: int, left: Sequence[int] = (0,)
) -> Iterator[str]:
  """Yield rows as columns; those too many for the width follow below the others."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  rest = list(range(1, len(widths)))
  while rest:
    taken = [0, rest.pop(0)]
    while rest and sum(widths[c] + 2 for c in [*taken, rest[0]]) - 2 <= width:
      taken.append(rest.pop(0))
    cells = [[row[c] for c in taken] for row in rows]
    yield from text.align(cells, [i for i, c in enumerate(taken) if c in left])
    if rest:
      yield ''


def printable(line: str) -> str:
  """Return a stranger's text in plain signs, without what would steer the terminal."""
  return printing.printable(line.translate(_PLAIN))
