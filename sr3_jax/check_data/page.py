"""Makes the page of `--mode=check-data`: findings, pictures, distributions, advice."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from sr3_jax.check_data.findings import CheckedSet
from sr3_jax.reports import charts
from sr3_jax.reports import views as reports_views
from sr3_jax.reports.inline_images import Picture

_BINS = 24  # of a histogram
_LISTED = 50  # broken files and classes on the page; check.json has all
_SIDE = 256  # the longest side of a picture on the page in pixels
_EXACT = 128  # the longest side of one that is stored without loss
_METHOD = {
  'Broken': 'Every file is decoded to its end, not only its header, so truncated ones '
  'are found. JPEG files are decoded at a reduced size, which reads all of the file.',
  'Near copies': 'Two images are near copies if their 16 x 16 thumbnails correlate by '
  '0.85 or more over their 63 lowest frequencies. Copies are found in other sizes, '
  'formats and qualities, with another brightness or contrast, mirrored, and cropped '
  'by about 3 % from every side. They are not found after larger crops or turns, in '
  'frames, or as two parts of one photograph. Pictures of one simple shape on an even '
  'ground may be taken for copies: look at them.',
  'Fine detail': 'Energy at 0.25 to 0.5 cycles a pixel over that at 0.125 to 0.25, the '
  'median over up to 128 images. Sharp photographs have 0.3 to 1. Photographs '
  'upsampled 1.5 times have 0.10 to 0.17, two times 0.05 to 0.08. Below 0.2 they are '
  'called soft. Noise counts as detail.',
  'JPEG quality': 'From the tables in the file, on the scale of libjpeg. An image '
  'that was saved twice shows the quality of the second time only.',
}

Row = tuple[str, Sequence[np.ndarray | None]]  # a label, and pictures or gaps

View = dict[str, Any]  # a part of the page, as the template takes it


def sheets_section(
  ident: str, name: str, text: str, columns: Sequence[str], rows: Sequence[Row]
) -> View:
  """Make a section of pictures.

  Args:
    ident: name of the section in links.
    name: title of the section.
    text: the sentence above the pictures.
    columns: names of the pictures of a row.
    rows: label and uint8 pictures [H, W, 3]; None if a picture is missing.
  """
  views = []
  for label, images in rows:
    pictures = [None if image is None else _embed(image) for image in images]
    views.append(reports_views.sheet_view('', columns, [label], [pictures]))
  wide = max((view['columns'] * (view['width'] + 8) for view in views), default=0)
  return {'ident': ident, 'name': name, 'text': text, 'sheets': views, 'wide': wide}


def render(
  report: Mapping[str, Any],
  sets: Sequence[CheckedSet],
  copies: Sequence[View],
  crops: View | None,
) -> str:
  """Make the page: HTML that loads nothing else.

  Args:
    report: what check.json holds.
    sets: the training set and, if there is another, the evaluation set.
    copies: sections of near copies, from `sheets_section`.
    crops: the section of training examples.
  """
  counts = [f'{len(checked.scan)} images for {checked.name}' for checked in sets]
  settings = [[a['setting'], a['value'], a['why']] for a in report['advice']]
  view = {
    'title': report['title'],
    'overline': 'Check of the data',
    'summary': f'{", ".join(counts)}.',
    'notes': [],
    'findings': report['findings'],
    'copies': copies,
    'crops': crops,
    'sizes': _sizes(sets),
    'charts': _charts(sets),
    'kinds': _kinds(sets),
    'details': _details(sets),
    'broken': _broken(sets),
    'labels': _labels(sets),
    'advice': _table(
      'Settings for the training set', ['Setting', 'Value', 'Rule'], settings
    ),
    'method': list(_METHOD.items()),
    'footer': reports_views.footer(report.get('code'), report.get('time')),
  }
  return reports_views.fill('check.html', view)


def _embed(image: np.ndarray) -> Picture:
  """Encode uint8 [H, W, 3] as WebP of at most _SIDE pixels; small ones without loss."""
  shown = Image.fromarray(image)
  shown.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
  buffer = io.BytesIO()
  shown.save(buffer, 'WEBP', lossless=max(image.shape) <= _EXACT, quality=85)
  text = base64.b64encode(buffer.getvalue()).decode()
  return Picture(f'data:image/webp;base64,{text}', *shown.size)


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> View:
  """Return a table as the template takes it."""
  return {'caption': caption, 'columns': columns, 'rows': rows}


def _sizes(sets: Sequence[CheckedSet]) -> View:
  rows = []
  for checked in sets:
    sides = checked.scan.side[checked.scan.decodable]
    spread = np.percentile(sides, [0, 5, 50, 95, 100]) if len(sides) else []
    cells = [f'{side:.0f}' for side in spread] or [''] * 5
    counts = [len(checked.scan), len(checked.usable), len(checked.scan.broken)]
    counts += [len(checked.too_small), len(checked.not_square)]
    rows.append([checked.name, *map(str, counts), *cells])
  columns = 'Set,Images,Usable,Broken,Too small,Not square'
  columns += ',Shortest side,5 %,Median,95 %,Longest'
  return _table('Images, and their shorter sides in pixels', columns.split(','), rows)


def _charts(sets: Sequence[CheckedSet]) -> list[View]:
  sides = {c.name: c.scan.side[c.scan.decodable] for c in sets}
  quality = {c.name: c.scan.quality[c.scan.quality > 0] for c in sets}
  marks = {c.name: (c.min_size, f'at least {c.min_size}') for c in sets}
  panels = [
    _histogram('Shorter sides', 'pixels', sides, marks),
    _histogram('JPEG quality', 'quality', quality, {}),
  ]
  return [panel for panel in panels if panel]


def _histogram(
  title: str,
  unit: str,
  columns: Mapping[str, np.ndarray],
  marks: Mapping[str, tuple[int, str]],
) -> View | None:
  """Draw how values are distributed in each set; None if they are all the same."""
  values = np.concatenate([*columns.values()])
  if not len(values) or values.min() == values.max():
    return None
  # A few huge values would push all others into one bin, so they join the last one.
  top = max(np.percentile(values, 99), values.min() + 1)
  edges = np.histogram_bin_edges(np.minimum(values, top), _BINS)
  rows = []
  for i, (name, column) in enumerate(columns.items()):
    counts, _ = np.histogram(np.minimum(column, top), edges)
    mark, note = marks.get(name, (None, ''))
    rows.append(charts.Histogram(name, counts.tolist(), mark, note, i))
  ident = f'histogram-{title.lower().replace(" ", "-")}'
  names = charts.Names(ident, f'{title} of the images', unit)
  svg = charts.histograms(edges.tolist(), rows, names)
  return {'title': title, 'svg': Markup(svg), 'table': None}


def _kinds(sets: Sequence[CheckedSet]) -> View:
  kinds = [c.scan.kinds for c in sets]
  traits = [{trait: len(of) for trait, of in c.scan.traits.items()} for c in sets]
  rows = [
    [key, *(str(found.get(key, 0)) for found in counts)]
    for counts in (kinds, traits)
    for key in sorted(set().union(*counts))
  ]
  caption = 'Formats and colours; below, how files are converted when they are read'
  return _table(caption, ['', *(c.name for c in sets)], rows)


def _details(sets: Sequence[CheckedSet]) -> View:
  rows = []
  for factor in sorted(set().union(*(c.details for c in sets))):
    values = (c.details.get(factor) for c in sets)
    shown = ('–' if value is None else f'{value:.2f}' for value in values)
    rows.append([f'{factor} x', *shown])
  caption = 'Fine detail of images, as they are and downsampled: below 0.2 is soft'
  return _table(caption, ['Downsampled', *(c.name for c in sets)], rows)


def _broken(sets: Sequence[CheckedSet]) -> View:
  rows = [
    [c.scan.names[i], c.name, why] for c in sets for i, why in c.scan.broken.items()
  ]
  more = f'; the first {_LISTED} of {len(rows)}' if len(rows) > _LISTED else ''
  return _table(f'Broken files{more}', ['File', 'Set', 'Reason'], rows[:_LISTED])


def _labels(sets: Sequence[CheckedSet]) -> View:
  names = sorted(set().union(*(c.scan.labels for c in sets)))
  # The smallest classes of the training set come first.
  names.sort(key=lambda name: sets[0].scan.labels.get(name, 0))
  more = f'; the {_LISTED} smallest of {len(names)}' if len(names) > _LISTED else ''
  caption = f'Images of each class, smallest first{more}'
  rows = [
    [name, *(str(c.scan.labels.get(name, 0)) for c in sets)] for name in names[:_LISTED]
  ]
  return _table(caption, ['Class', *(c.name for c in sets)], rows)
