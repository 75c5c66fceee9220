"""Makes compare.html: several reports on one page."""

import re
from collections.abc import Sequence

from etils import epath
from markupsafe import Markup

from sr3_jax.metrics import bootstrap
from sr3_jax.reports import charts, compare, inline_images, views
from sr3_jax.reports.data import Metric, Report, Row, number
from sr3_jax.reports.views import View

_MOST_ROWS = 12  # of pictures
_NUMBERED = re.compile(r'(?:.*/)?(\d+)_[^/]*')


def render(reports: Sequence[Report], pairs: Sequence[compare.Pair]) -> str:
  """Return the page of two or more reports: HTML that needs nothing else.

  Their names differ. `pairs` are those of `compare.differences` to the first report.

  Raises:
    ReportError: a picture is missing, is none, or isn't inside of its folder.
  """
  comparable = not any(compare.other_images(reports[0], r) for r in reports[1:])
  samples, note = _samples(reports) if comparable else (None, '')
  metrics = compare.metrics_of(reports)
  differing = compare.protocol_differences(reports)
  table = merged(reports)
  caption = (
    'Below a value: its 95 % interval over images and, if there are several sampling '
    'seeds, the lowest and the highest of them.'
  )
  if not comparable:
    caption += ' No value is called best, for the images are not the same.'
  view: View = {
    'title': ', '.join(report.name for report in reports),
    'overline': 'Comparison of reports',
    'summary': f'{len(reports)} reports; differences are to {reports[0].name}.',
    'notes': [*remarks(reports), *([note] if note else [])],
    'runs': {
      'caption': 'What is compared',
      'columns': ['Name', 'Report', 'Images', 'Time'],
      'rows': [
        [r.name, r.data['title'], _images(r), r.data.get('time') or ''] for r in reports
      ],
    },
    'protocol': {
      'caption': 'What differs in protocols and code',
      'columns': ['', *(report.name for report in reports)],
      'rows': [[key, *texts] for key, texts in differing],
    },
    'table': views.results(
      metrics, [('', table, list(table))], caption, mark=comparable
    ),
    'charts': _forests(metrics, pairs),
    'differences': _difference_table(metrics, pairs),
    'marks': chance(pairs),
    'plane': _plane(reports, metrics),
    'samples': samples,
    'footer': views.footer(reports[0].data.get('code')),
  }
  return views.fill('compare.html', view)


def _images(report: Report) -> str:
  """Return the number of images; '64 crops of 2 photographs' where they are crops."""
  images, photographs = report.data['images'], report.photographs()
  crops = photographs < images
  return bootstrap.counted(images, photographs) if crops else str(images)


def merged(reports: Sequence[Report]) -> dict[str, Row]:
  """Return one table of all: 'run: method' -> metric -> entry."""
  found: dict[str, Row] = {}
  for report in reports:
    for method in report.methods():
      name = f'{report.name}: {method}'
      while name in found:  # 'a: b' and 'c' read as 'a' and 'b: c'
        name += "'"
      found[name] = report.data['table'].get(method, {})
  return found


def _plane(reports: Sequence[Report], metrics: Sequence[Metric]) -> Markup | None:
  """Draw PSNR against perceptual distance.

  Methods with the same values in all reports come once.
  """
  perceptual = reports[0].data.get('perceptual') or ''
  points: dict[str, Row] = {}
  for method in dict.fromkeys(m for r in reports for m in r.methods()):
    tables = [(r.name, r.data['table']) for r in reports]
    rows = {f'{n}: {method}': table[method] for n, table in tables if method in table}
    places = {
      tuple(row.get(key, {}).get('value') for key in (perceptual, 'psnr'))
      for row in rows.values()
    }
    if len(rows) > 1 and len(places) == 1:
      rows = {method: next(iter(rows.values()))}
    points |= rows
  return views.plane(points, list(points), metrics, perceptual)


def remarks(reports: Sequence[Report]) -> list[str]:
  """Return what has to be known before differences are read."""
  found = []
  for report in reports:
    if report.photographs() < bootstrap.FEWEST:
      about = bootstrap.about(report.data['images'], report.photographs())
      found.append(f'{report.name}: {about}.')
  for other in reports[1:]:
    if why := compare.why_unpaired(reports[0], other):
      text = f'{other.name} is not compared image by image, for {why}: intervals are '
      text += 'those of independent images, wider than they need be for the same ones'
      if compare.other_images(reports[0], other):
        text += ', and a difference may come from the images alone'
      found.append(f'{text}.')
  return found


def chance(pairs: Sequence[compare.Pair]) -> str:
  """Return how many marks there are, and how many to expect by chance."""
  known = [d for p in pairs for d in p.metrics.values() if d.interval and not d.same]
  marked = sum(d.differs for d in known)
  return (
    f'{marked} of {len(known)} intervals exclude 0. Of intervals around no difference, '
    'one in twenty would.'
  )


def said(difference: compare.Difference, digits: int) -> str:
  """Return '+0.31 (+0.12 to +0.50)', or '=' where there is no difference at all."""
  if difference.same:
    return '='
  text = number(difference.value, digits, sign=True)
  if difference.interval is None:
    return text
  low, high = (number(v, digits, sign=True) for v in difference.interval)
  return f'{text} ({low} to {high})'


def verdict(difference: compare.Difference) -> str:
  """Return what the interval says, in a word or two."""
  if difference.differs:
    return {1: 'better', -1: 'worse', 0: 'differs'}[difference.better]
  if difference.same:
    return '='
  return '' if difference.interval is None else 'includes 0'


def _difference_table(metrics: Sequence[Metric], pairs: Sequence[compare.Pair]) -> View:
  """Return the table of differences, a pair of methods a row."""
  used = [m for m in metrics if any(m['key'] in p.metrics for p in pairs)]
  rows = []
  for pair in pairs:
    entries = [_difference_entry(pair, m) for m in used]
    rows.append({'name': pair.title, 'entries': entries})
  caption = 'Framed words: the 95 % interval excludes 0. "=": no difference at all.'
  return views.table(caption, 'Difference', used, [{'title': '', 'rows': rows}])


def _difference_entry(pair: compare.Pair, metric: Metric) -> View:
  """Return a cell: the difference, its interval, and in a word what that says."""
  difference = pair.metrics.get(metric['key'])
  if difference is None:
    return {'text': '', 'lines': [], 'mark': ''}
  value, _, interval = said(difference, metric['digits']).partition(' ')
  word = verdict(difference)
  lines = [interval.strip('()')] if interval else []
  if not difference.differs and word not in ('', '='):
    lines.append(word)
  if fewer := pair.fewer(difference):
    lines.append(fewer)
  return {'text': value, 'lines': lines, 'mark': word if difference.differs else ''}


def _forests(metrics: Sequence[Metric], pairs: Sequence[compare.Pair]) -> list[View]:
  """Return a panel for each metric: its differences with their intervals."""
  panels = []
  for metric in metrics:
    rows = []
    for i, pair in enumerate(pairs):
      difference = pair.metrics.get(metric['key'])
      if difference is not None and not difference.same:
        label = f'{pair.run}: {pair.method}'
        if pair.method != pair.first_method:
          label += f' − {pair.first_method}'
        note = said(difference, metric['digits'])
        interval = difference.interval
        rows.append(charts.Difference(label, difference.value, interval, note, i))
    if rows:
      title = metric['title']
      names = charts.Names(
        f'difference-{len(panels)}',
        f'Differences of {title}',
        f'difference of {views.axis_title(metric)}',
      )
      chart = charts.forest(rows, names)
      panels.append({'title': title, 'svg': Markup(chart), 'table': None})
  return panels


def _samples(reports: Sequence[Report]) -> tuple[View | None, str]:
  """Return a sheet of the images that all reports show, and a note on its pictures."""
  found = [_by_image(report) for report in reports]
  shared = [i for i in found[0] if all(i in shown for shown in found)][:_MOST_ROWS]
  # More samples of a method and their spread are on the pages of the reports.
  usual = {'input', 'truth', *(m for report in reports for m in report.methods())}
  seen = dict.fromkeys(t for shown in found for i in shared for t in shown[i])
  columns = {}
  titles = [title for title in seen if title in usual]
  for title in sorted(titles, key=lambda title: title == 'truth'):  # the truth is last
    files = {
      report.name: [shown[i].get(title) for i in shared]
      for report, shown in zip(reports, found, strict=True)
    }
    if _all_equal(list(files.values())):
      columns[title] = files[reports[0].name]
    else:
      columns |= {f'{name}: {title}': own for name, own in files.items() if any(own)}
  if not columns:
    return None, ''
  labels = [f'image {i}' for i in shared]
  (pictures,), note = inline_images.embed([list(zip(*columns.values(), strict=True))])
  return views.sheet_view('Samples', list(columns), labels, pictures), note


def _by_image(report: Report) -> dict[int, dict[str, epath.Path]]:
  """Return number of an image -> title of a column -> file, of a report's samples."""
  found: dict[int, dict[str, epath.Path]] = {}
  for sheet in (report.data.get('sheets') or [])[:1]:
    for row in sheet['rows']:
      cells = [(t, c) for t, c in zip(sheet['columns'], row['cells'], strict=True) if c]
      index = row.get('index')
      if index is None:  # the names of files say it
        numbers = {m[1] for _, c in cells if (m := _NUMBERED.fullmatch(c))}
        if len(numbers) != 1:
          continue
        index = int(numbers.pop())
      for title, cell in cells:
        file = inline_images.locate(report.folder, cell)
        found.setdefault(index, {}).setdefault(title, file)
  return found


def _all_equal(columns: Sequence[Sequence[epath.Path | None]]) -> bool:
  """Return whether columns of files hold the same bytes, row by row."""
  return all(
    all(row) and len({inline_images.read_bytes(file) for file in row}) == 1
    for row in zip(*columns, strict=True)
  )
