"""Makes pages of reports again, or of several side by side: `sr3-report A [B ...]`.

This is the command line only: `page` and `compare_page` make the pages, `compare`
computes differences and `compare_text` prints them. Their imports take a second, which
--help does not wait for.
"""

import os
import pathlib
import shutil
from collections.abc import Sequence

from sr3_jax.runtime import activity, errors
from sr3_jax.runtime.cli import Parser, add_quiet, value
from sr3_jax.runtime.values import Name

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


def make_parser() -> Parser:
  """Return the parser of all options."""
  parser = Parser(prog='sr3-report', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument
  about = "a report folder, a run's workdir with report/ inside, or a report.json"
  name = value(Name())
  add('reports', nargs='+', metavar='REPORT', type=name, help=about)
  about = 'for the page; default: the first report'
  add('-o', '--out', metavar='DIR', type=name, help=about)
  about = 'of the reports, in their order, after these; default: names of folders'
  add('-n', '--names', nargs='+', metavar='NAME', type=name, help=about)
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command with `argv`, or the process's arguments; return its exit code.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  args = parser.parse_args(argv)
  names = args.names or names_of(args.reports)
  if len(names) != len(args.reports) or len(set(names)) < len(names):
    parser.error(
      f'--names: {len(args.reports)} different names, one for each report, not '
      f'{", ".join(map(repr, names))}'
    )
  try:
    with activity.shown('sr3-report', quiet=args.quiet):
      _write(args.reports, names, args.out)
  except (errors.UserError, OSError) as error:
    parser.error(errors.line(error))
  return 0


def _write(places: Sequence[str], names: Sequence[str], out: str | None) -> None:
  """Write the page of one report, or compare several."""
  from sr3_jax.reports.data import load
  from sr3_jax.runtime import atomic_files, foreign_files

  with activity.doing('reading the reports'):
    reports = [load(place, name) for place, name in zip(places, names, strict=True)]
  folder = foreign_files.place(out) if out else reports[0].folder
  if len(reports) == 1:
    from sr3_jax.reports import page

    file = folder / 'report.html'
    with activity.doing('drawing the page'):
      html = page.render(reports[0].data, reports[0].folder)
  else:
    from sr3_jax.reports import compare, compare_page, compare_text

    with activity.doing('computing differences and intervals'):
      pairs = [p for r in reports[1:] for p in compare.differences(reports[0], r)]
    file = folder / 'compare.html'
    with activity.doing('drawing the page'):
      html = compare_page.render(reports, pairs)
    width = shutil.get_terminal_size().columns
    for line in compare_text.lines(reports, pairs, width):
      print(compare_text.printable(line))
  atomic_files.write_text(file, html)
  print(f'page: {file}')


def names_of(places: Sequence[str]) -> list[str]:
  """Return short names for folders: as much of each path's end as tells them apart.

  Names that differ in large and small letters only are not told apart, if longer ones
  are. The names report/ and report.json, which all workdirs have, are left out where
  they can be. A report that comes again is 'a (2)'.
  """
  paths = []
  for place in places:
    parts = pathlib.Path(os.path.abspath(place)).parts
    for usual in ('report.json', 'report'):
      if len(parts) > 2 and parts[-1] == usual:
        parts = parts[:-1]
    paths.append(parts)
  different = list(dict.fromkeys(paths))
  longest = max(map(len, different))
  ends = [
    [os.path.join(*parts[-length:]) for parts in different]
    for length in range(1, longest + 1)
  ]
  fitting = (
    found
    for fold in (str.casefold, str)
    for found in ends
    if len(set(map(fold, found))) == len(found)
  )
  of = dict(zip(different, next(fitting), strict=True))
  names: list[str] = []
  for parts in paths:
    name, number = of[parts], 1
    while name in names or (number > 1 and name in of.values()):
      number += 1
      name = f'{of[parts]} ({number})'
    names.append(name)
  return names
