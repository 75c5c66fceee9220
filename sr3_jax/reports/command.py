"""Reports again, or side by side: `sr3-report A [B C ...]`.

The command line and the text that it prints; report_page.py and compare_page.py make
the pages, compare.py the differences.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from sr3_jax.reports import compare, compare_page
from sr3_jax.reports import page as reports_page
from sr3_jax.reports.data import Report, load, number
from sr3_jax.runtime import atomic_files, errors
from sr3_jax.runtime.cli import Parser

DESCRIPTION = """\
One report: makes its page, report.html, again from report.json and the pictures.
Several: prints one table of all methods and their differences to the first report,
with 95 % intervals, and writes one page, compare.html. Reports of the same images are
compared image by image.
"""
EPILOG = """\
examples:
  sr3-report runs/a
  sr3-report runs/a runs/b runs/c --out compared
  sr3-report runs/a/report runs/b/report/report.json --names old new

exit codes: 0 done; 2 a mistake in the command or a damaged report.
"""
# Not every terminal has these.
_PLAIN = str.maketrans({'−': '-', '–': '-', '∞': 'inf', '…': '...'})


def make_parser() -> Parser:
  """All options."""
  parser = Parser(
    prog='sr3-report',
    description=DESCRIPTION,
    epilog=EPILOG,
  )
  add = parser.add_argument
  add(
    'reports',
    nargs='+',
    metavar='REPORT',
    help="a report folder, a run's workdir with report/ inside, or a report.json",
  )
  add('-o', '--out', metavar='DIR', help='for the page; default: the first report')
  add(
    '-n',
    '--names',
    nargs='+',
    metavar='NAME',
    help='of the reports, in their order, after these; default: names of folders',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: arguments, without the name of the program; None takes the process's.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  args = parser.parse_args(argv)
  places = [epath.Path(place) for place in args.reports]
  names = args.names or names_of(places)
  if len(names) != len(places) or len(set(names)) < len(names):
    parser.error(
      f'--names: {len(places)} different names, one for each report, not '
      f'{", ".join(map(repr, names))}'
    )

  try:
    reports = [load(place, name) for place, name in zip(places, names, strict=True)]
    folder = epath.Path(args.out) if args.out else reports[0].folder
    if len(reports) == 1:
      page = folder / 'report.html'
      html = reports_page.render(reports[0].data, reports[0].folder)
    else:
      page = folder / 'compare.html'
      pairs = [p for r in reports[1:] for p in compare.differences(reports[0], r)]
      html = compare_page.render(reports, pairs)
      width = shutil.get_terminal_size().columns
      for line in lines(reports, pairs, width):
        print(printable(line))
    atomic_files.write_bytes(page, html.encode())
  except (errors.UserError, OSError) as error:
    parser.error(errors.line(error))
  print(f'page: {page}')
  return 0


def names_of(places: Sequence[epath.Path]) -> list[str]:
  """Short names for folders: as much of each path's end as tells them apart.

  What all workdirs call alike, report/ and report.json, is left out where it can be.
  """
  parts = []
  for place in places:
    path = place.resolve()
    kept = list(path.parts)
    for usual in ('report.json', 'report'):
      if len(kept) > 2 and kept[-1] == usual:
        kept.pop()
    parts.append(kept)
  for length in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(p[-length:]) for p in parts]
    if len(set(names)) == len(names):
      return names
  return [f'{i}: {name}' for i, name in enumerate(names, 1)]  # a report twice


def lines(
  reports: Sequence[Report], pairs: Sequence[compare.Pair], width: int
) -> Iterator[str]:
  """What the command prints about several reports.

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
    count = max((d.images for d in pair.metrics.values()), default=0)
    paired = f' (in pairs of {count} images)' if count else ''
    if pair.metrics and all(d.same for d in pair.metrics.values()):
      yield f'{pair.title}{paired}: = in all {len(pair.metrics)} metrics'
      continue
    yield f'{pair.title}{paired}'
    rows = []
    for metric in used:
      difference = pair.metrics.get(metric['key'])
      if difference is not None:
        text = compare_page.said(difference, metric['digits'])
        word = compare_page.verdict(difference)
        star = '*' if difference.differs else ''
        rows.append(['  ' + metric['title'], text, star, '' if word == '=' else word])
    yield from _aligned(rows, width, left=(0, 3))
  if pairs:
    yield ''
    yield f'* {compare_page.chance(pairs)}'


def _value(entry: Mapping[str, Any] | None, digits: int) -> str:
  return number(entry['value'], digits) if entry else '–'


def _aligned(
  rows: Sequence[Sequence[str]], width: int, left: Sequence[int] = (0,)
) -> Iterator[str]:
  """Rows as columns; those that don't fit the width go below, with the first again."""
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
  return text if len(text) <= most else text[: most - 1] + '…'


def printable(text: str) -> str:
  """A stranger's text without what would steer the terminal, in plain signs."""
  text = text.translate(_PLAIN)
  return ''.join(c if c.isprintable() else '?' for c in text)


if __name__ == '__main__':
  sys.exit(main())
