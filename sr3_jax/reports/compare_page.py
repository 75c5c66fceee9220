"""compare.html: several reports on one page."""

import re
from collections.abc import Sequence
from typing import Any

from etils import epath
from markupsafe import Markup

from sr3_jax.reports import charts, compare, inline_images
from sr3_jax.reports import views as reports_views
from sr3_jax.reports.data import Report, number

_MOST_ROWS = 12  # of pictures
_NUMBERED = re.compile(r'(?:.*/)?(\d+)_[^/]*')


def render(reports: Sequence[Report], pairs: Sequence[compare.Pair]) -> str:
  """The page.

  Args:
    reports: two or more, each with a name of its own.
    pairs: of `compare.differences` to the first of them.

  Returns:
    HTML that needs nothing else.

  Raises:
    ReportError: a picture is missing, is none, or isn't inside of its folder.
  """
  metrics = compare.metrics_of(reports)
  names = [report.name for report in reports]
  table = merged(reports)
  comparable = not any(compare.other_images(reports[0], r) for r in reports[1:])
  samples, note = _samples(reports) if comparable else (None, '')
  caption = (
    'Below a value: its 95 % interval over images and, if there are several sampling '
    'seeds, the lowest and the highest of them.'
  )
  if not comparable:
    caption += ' No value is called best, for the images are not the same.'
  groups = [('', table, list(table))]
  protocol = compare.protocol_differences(reports)
  view = {
    'title': ', '.join(names),
    'overline': 'Comparison of reports',
    'summary': f'{len(reports)} reports; differences are to {names[0]}.',
    'notes': [*remarks(reports), *([note] if note else [])],
    'runs': {
      'caption': 'What is compared',
      'columns': ['Name', 'Report', 'Images', 'Time'],
      'rows': [
        [r.name, r.data['title'], str(r.data['images']), r.data.get('time') or '']
        for r in reports
      ],
    },
    'protocol': {
      'caption': 'What differs in protocols and code',
      'columns': ['', *names],
      'rows': [[key, *texts] for key, texts in protocol],
    },
    'table': reports_views.results(metrics, groups, caption, mark=comparable),
    'charts': _forests(metrics, pairs),
    'differences': _difference_table(metrics, pairs),
    'marks': chance(pairs),
    'plane': _plane(reports, metrics),
    'samples': samples,
    'footer': reports_views.footer({'code': reports[0].data.get('code')}),
  }
  sections = {
    'what': 'Protocols',
    'results': 'Results',
    'differences': 'Differences',
    'plane': 'PSNR and perception',
    'samples': 'Samples',
  }
  there = view | {'what': True, 'results': True, 'differences': pairs}
  view['sections'] = [(k, name) for k, name in sections.items() if there[k]]
  return reports_views.fill('compare.html', view)


def merged(reports: Sequence[Report]) -> dict[str, Any]:
  """One table of all: 'run: method' -> metric -> entry."""
  return {
    f'{report.name}: {method}': report.data['table'].get(method, {})
    for report in reports
    for method in report.methods()
  }


def _plane(reports: Sequence[Report], metrics) -> Markup | None:
  """PSNR against perceptual distance; methods with the same values in all come once."""
  perceptual = reports[0].data.get('perceptual')
  points: dict[str, Any] = {}
  for method in dict.fromkeys(m for r in reports for m in r.methods()):
    rows = {
      f'{r.name}: {method}': r.data['table'][method]
      for r in reports
      if method in r.data['table']
    }
    places = [
      tuple(row.get(key, {}).get('value') for key in (perceptual, 'psnr'))
      for row in rows.values()
    ]
    if len(places) > 1 and len(set(places)) == 1:
      rows = {method: next(iter(rows.values()))}
    points |= rows
  return reports_views.plane([('', points, list(points))], metrics, perceptual)


def remarks(reports: Sequence[Report]) -> list[str]:
  """What has to be known before differences are read."""
  found = []
  for other in reports[1:]:
    if why := compare.why_unpaired(reports[0], other):
      text = f'{other.name} is not compared image by image, for {why}: intervals are '
      text += 'those of independent images, wider than they need be for the same ones'
      if compare.other_images(reports[0], other):
        text += ', and a difference may come from the images alone'
      found.append(f'{text}.')
  return found


def chance(pairs: Sequence[compare.Pair]) -> str:
  """How many marks there are, and how many to expect by chance."""
  known = [d for p in pairs for d in p.metrics.values() if d.interval and not d.same]
  marked = sum(d.differs for d in known)
  return (
    f'{marked} of {len(known)} intervals exclude 0. Of intervals around no difference, '
    'one in twenty would.'
  )


def said(difference: compare.Difference, digits: int) -> str:
  """'+0.31 (+0.12 to +0.50)', or '=' where there is no difference at all."""
  if difference.same:
    return '='
  text = number(difference.value, digits, sign=True)
  if difference.interval is None:
    return text
  low, high = (number(v, digits, sign=True) for v in difference.interval)
  return f'{text} ({low} to {high})'


def verdict(difference: compare.Difference) -> str:
  """What the interval says, in a word or two."""
  if difference.interval is None:
    return '' if not difference.same else '='
  if not difference.differs:
    return '=' if difference.same else 'includes 0'
  return {1: 'better', -1: 'worse', 0: 'differs'}[difference.better]


def _difference_table(metrics, pairs: Sequence[compare.Pair]) -> dict[str, Any]:
  used = [m for m in metrics if any(m['key'] in p.metrics for p in pairs)]
  rows = []
  for pair in pairs:
    entries = []
    for metric in used:
      difference = pair.metrics.get(metric['key'])
      if difference is None:
        entries.append({'text': '', 'lines': [], 'mark': ''})
        continue
      value, _, interval = said(difference, metric['digits']).partition(' ')
      word = verdict(difference)
      lines = [interval.strip('()')] if interval else []
      lines += [word] if word not in ('', '=') and not difference.differs else []
      mark = word if difference.differs else ''
      entries.append({'text': value, 'lines': lines, 'mark': mark})
    rows.append({'name': pair.title, 'entries': entries})
  return {
    'caption': 'Framed words: the 95 % interval excludes 0. "=": no difference at all.',
    'corner': 'Difference',
    'columns': reports_views.columns(used),
    'groups': [{'title': '', 'rows': rows}],
  }


def _forests(metrics, pairs: Sequence[compare.Pair]) -> list[dict[str, Any]]:
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
        rows.append(
          charts.Difference(label, difference.value, difference.interval, note, i)
        )
    if rows:
      better = reports_views.better(metric, ', ')
      chart = charts.forest(
        rows,
        ident=f'difference-{len(panels)}',
        title=f'Differences of {metric["title"]}',
        x_title=f'difference of {metric["title"]}{better}',
      )
      panels.append({'title': metric['title'], 'svg': Markup(chart), 'table': None})
  return panels


def _samples(reports: Sequence[Report]) -> tuple[dict[str, Any] | None, str]:
  """One sheet of the images that all reports show, and a note on its pictures."""
  found = [_by_image(report) for report in reports]
  shared = [i for i in found[0] if all(i in shown for shown in found)][:_MOST_ROWS]
  # More samples of a method and their spread are on the pages of the reports.
  kept = {'input', 'truth', *(m for report in reports for m in report.methods())}
  seen = dict.fromkeys(t for shown in found for i in shared for t in shown[i])
  titles = [title for title in seen if title in kept]
  columns = {}
  for title in sorted(titles, key=lambda t: t == 'truth'):  # the truth comes last
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
  rows = [{'label': f'image {i}'} for i in shared]
  sheet = {'title': 'Samples', 'columns': list(columns), 'rows': rows}
  (pictures,), note = inline_images.embed([list(zip(*columns.values(), strict=True))])
  return reports_views.sheet_view(sheet, pictures), note


def _by_image(report: Report) -> dict[int, dict[str, epath.Path]]:
  """Number of an image -> title of a column -> file, of a report's samples."""
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
  """Whether columns of files hold the same bytes, row by row."""
  return all(
    all(row) and len({inline_images.read_bytes(file) for file in row}) == 1
    for row in zip(*columns, strict=True)
  )
