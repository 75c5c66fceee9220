"""Writes a report folder from records: report.json, values.npz and report.html."""

import datetime
import functools
import hashlib
import io
import platform
from collections.abc import Mapping, Sequence

import flax
import jax
import numpy as np
from etils import epath

from sr3_jax.evaluation import summary
from sr3_jax.evaluation.evaluators import Evaluators
from sr3_jax.evaluation.records import PHOTOGRAPH, Parts, Records
from sr3_jax.evaluation.summary import METRICS, Row
from sr3_jax.images import contact_sheets, image_files
from sr3_jax.metrics import bootstrap
from sr3_jax.metrics.reference_statistics import of_features
from sr3_jax.reports import data, paper
from sr3_jax.reports import page as reports_page
from sr3_jax.restoration.restorer import TRUTH
from sr3_jax.runtime import activity, atomic_files, metrics_log
from sr3_jax.runtime.version import __version__

# How numbers are made, in every protocol.
CONVENTIONS = {
  'resize library': 'jax.image.resize (equals Pillow on floating point)',
  'colour': 'PSNR and SSIM over RGB; those of Y on the luma of BT.601, 16 to 235',
  'value range': 'outputs rounded to 8 bits; peak 255; truth 8 bits',
  'SSIM': 'Gaussian window of 11, sigma 1.5, whole windows, K1 0.01, K2 0.03',
  'consistency': 'mean square on the [0, 1] scale, times 1e5, as the SR3 paper',
  'intervals': '95 %: bootstrap over photographs, each with all of its crops (1,000 '
  'Poisson resamples); FID, KID and IS 1.96 bootstrap standard errors; all widened for '
  f'few photographs, none for fewer than {bootstrap.FEWEST}',
}
_ABOUT = {
  'bicubic': 'The input upsampled by the bicubic kernel.',
  'lanczos': 'The input upsampled by the Lanczos kernel of 3 lobes.',
  'degraded': 'The input as it is.',
}
_PERCEPTUAL = ('lpips_alex', 'lpips_vgg', 'dists', 'fid', 'spectrum_db')  # best first
_RANKED = ('psnr', 'lpips_alex', 'lpips_vgg', 'dists', 'consistency')
_BINS = 24
Columns = Mapping[str, np.ndarray]  # metric, or 'index' -> values of single images


def conventions(channels: int, *, raw: bool) -> dict[str, str]:
  """Return how numbers are made, for pictures or for `raw` numbers in files."""
  if not raw:
    return CONVENTIONS
  return CONVENTIONS | {
    'colour': f'PSNR and SSIM over {channels} channels',
    'value range': "outputs rounded to what the true images' files can hold; the peak "
    'is data.high - data.low, or the range of that type',
  }


def table(
  records: Records, methods: Parts, scale: float | None, evaluators: Evaluators
) -> dict[str, Row]:
  """Return the table of all metrics with intervals.

  FID and KID compare with the evaluators' reference, or the true images without one.
  """
  reference, probabilities = evaluators.reference, None
  if 'inception' in evaluators.nets:
    probabilities = evaluators.nets['inception'].probabilities
    if reference is None:
      features = summary.gather_features(records, 'truth')
      if features is not None:
        reference = of_features(features, {'images': 'the true images themselves'})
  if 'top1_error' in next(records.stream('truth'), {}):
    # The classifier's own errors, the paper's baseline.
    methods = methods | {'truth': ['truth']}
  return summary.table(
    records, methods, scale=scale, reference=reference, probabilities=probabilities
  )


@activity.doing('writing the report')
def write(
  folder: epath.Path,
  *,
  title: str,
  records: Records,
  methods: Parts,
  scale: float | None,
  image_size: int | None,
  rows: dict[str, Row],
  sheets: Sequence[data.Sheet],
  left_out: Sequence[data.LeftOut],
  protocol: data.Protocol,
  abouts: Mapping[str, str],
  curves: data.Curves,
  command: str = '',
) -> None:
  """Write values.npz, report.json and report.html into a folder that has the pictures.

  `rows` is what `table` returns. The scale and the side of the outputs (None if they
  differ) find the paper's table; `abouts` has a sentence for each method. The other
  arguments go into report.json as they are.
  """
  scalars = {name: over_seeds(records, parts) for name, parts in methods.items()}
  keys = [key for key in METRICS if any(key in row for row in rows.values())]
  _write_values(folder / 'values.npz', scalars, records.scalars(TRUTH))
  packages = {'python': platform.python_version()}
  packages |= {m.__name__: m.__version__ for m in (jax, flax, np)}
  report: data.ReportData = {
    'format': data.FORMAT,
    'title': title,
    'protocol': protocol,
    'metrics': [summary.described(key) for key in keys],
    'perceptual': next((key for key in _PERCEPTUAL if key in keys), None),
    'methods': [{'name': n, 'about': abouts.get(n, _ABOUT.get(n, ''))} for n in rows],
    'table': rows,
    'left_out': list(left_out),
    'images': len(next(iter(scalars.values()))['index']),
    'photographs': len(np.unique(records.photographs(next(iter(methods.values()))[0]))),
    'paper': paper.table_for(scale, image_size, classified='top1_error' in keys),
    'distributions': _distributions(scalars, keys),
    'curves': curves,
    'sheets': list(sheets),
    'code': {'sr3_jax': __version__, **packages},
    'time': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ'),
    'command': command,
  }
  finite = without_infinities(report)
  atomic_files.write_json(folder / 'report.json', finite)
  page = reports_page.render(finite, folder)
  atomic_files.write_text(folder / 'report.html', page)


def over_seeds(records: Records, parts: Sequence[str]) -> dict[str, np.ndarray]:
  """Return values of single images, the means over a method's seeds."""
  first, *others = seeds = [records.scalars(part) for part in parts]
  if not others:
    return dict(first)
  means = {key: np.mean([seed[key] for seed in seeds], axis=0) for key in first}
  return means | {'index': first['index']}


def list_hash(records: Records) -> str:
  """Return a hash of the true images in their order.

  Reports with the same hash can be compared image by image.
  """
  hashes = records.scalars('truth')['hash']
  return hashlib.sha256(hashes.astype('<u8').tobytes()).hexdigest()[:16]


def machine() -> str:
  """Return devices and processes in a line."""
  device = jax.devices()[0]
  return (
    f'{jax.device_count()} x {device.device_kind} ({device.platform}), '
    f'{jax.process_count()} process(es), {platform.machine()}'
  )


def ranked(scalars: Columns) -> dict[str, dict[str, int]]:
  """Return metric -> numbers of its best, median and worst image."""
  found = {}
  for key in _RANKED:
    # Of images that the metric leaves out it is NaN, which sorting puts last.
    count = np.isfinite(scalars[key]).sum() if key in scalars else 0
    if count:
      order = np.argsort(scalars[key], kind='stable')[:count]
      if METRICS[key].better == 'higher':
        order = order[::-1]
      places = {'best': order[0], 'median': order[len(order) // 2], 'worst': order[-1]}
      found[key] = {k: int(scalars['index'][i]) for k, i in places.items()}
  return found


def with_spread(named: dict[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
  """Add 'spread': how samples of a picture differ, as colours; dark is not at all."""
  samples = [p for n, p in named.items() if n == method or n.startswith(f'{method} ')]
  spread = np.std(np.asarray(samples, np.float32), axis=0).mean(-1)
  return named | {'spread': contact_sheets.heat_colours(spread)}


def sheets(
  first: Sequence[int],
  ranked: Mapping[str, Mapping[str, int]],
  methods: Sequence[str],
  main: str,
  samples: int,
  scalars: Columns,
  *,
  inputs: bool = True,
  truth: bool = True,
) -> list[data.Sheet]:
  """Return sheets of the pictures NUMBER_NAME.png: samples, then extremes.

  Samples are the `first` images in all columns: inputs and true images if there are
  any, all methods, and `samples` of the main method. Extremes are the best, the median
  and the worst image of each metric in `ranked`, with the main method's values
  (`scalars`).
  """
  # The degraded input is the input.
  methods = [m for m in methods if not (inputs and m == 'degraded')]
  before, after = ['input'] if inputs else [], ['truth'] if truth else []
  several = [f'{main} {i + 1}' for i in range(1, samples)]
  if several:
    several.append('spread')
  columns = [*before, *methods, *several, *after]
  made = [_sheet('Samples', columns, [(f'image {i}', i) for i in first])]
  place = {int(i): row for row, i in enumerate(scalars['index'])}
  for key, picks in ranked.items():
    metric = METRICS[key]
    rows = [
      (f'{k}: {scalars[key][place[i]]:.{metric.digits}f}, image {i}', i)
      for k, i in picks.items()
    ]
    title = f'{metric.title} of {main}: best, median, worst'
    made.append(_sheet(title, [*before, *methods, *after], rows))
  return made


def _sheet(
  title: str, columns: Sequence[str], rows: Sequence[tuple[str, int]]
) -> data.Sheet:
  """Return a sheet of rows (label, number of the image)."""
  made: data.Sheet = {'title': title, 'columns': list(columns), 'rows': []}
  for text, i in rows:
    cells = [f'pictures/{i:05d}_{column}.png' for column in columns]
    made['rows'].append({'label': text, 'cells': [*cells], 'index': i})
  return made


def contact_sheet(folder: epath.Path, sheet: data.Sheet) -> np.ndarray:
  """Return a sheet of report.json as one picture, uint8 [H, W, 3]."""
  files = ([folder / cell for cell in r['cells'] if cell] for r in sheet['rows'])
  rows = [[image_files.read(file) for file in row] for row in files]
  return contact_sheets.sheet(rows, sheet['columns'])


def curves(workdir: epath.Path) -> data.Curves:
  """Read losses and held-out PSNR of a run and its baseline, from metrics.jsonl."""
  found: data.Curves = {}
  for name, folder in (('sr3', workdir), ('regression', workdir / 'regression')):
    for row in metrics_log.read_metrics(folder):
      for key, title in (('loss', 'loss'), ('eval_psnr', 'held-out PSNR dB')):
        step, value = row.get('step'), row.get(key)
        # A run that diverged has losses that are no numbers.
        if not isinstance(step, int | float) or not isinstance(value, int | float):
          continue
        if np.isfinite([step, value]).all():
          found.setdefault(title, {}).setdefault(name, []).append([step, value])
  return found


def _write_values(
  path: epath.Path, scalars: Mapping[str, Columns], truth: Columns
) -> None:
  """Write 'index', 'photograph' if it is known, and METHOD/METRIC of every image.

  Values that an image lacks are NaN.
  """
  index = functools.reduce(np.union1d, [c['index'] for c in scalars.values()])
  values = {'index': index}
  if PHOTOGRAPH in truth and np.isin(index, truth['index']).all():
    place = np.searchsorted(truth['index'], index)
    values[PHOTOGRAPH] = truth[PHOTOGRAPH][place]
  for name, columns in scalars.items():
    place = np.searchsorted(index, columns['index'])
    for key in METRICS:
      if key in columns:
        values[f'{name}/{key}'] = column = np.full(len(index), np.nan, np.float32)
        column[place] = columns[key]
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **values)
  atomic_files.write_bytes(path, buffer.getvalue())


def _distributions(
  scalars: Mapping[str, Columns], keys: Sequence[str]
) -> dict[str, data.Distribution]:
  """Return histograms of every per-image metric, with the same bins for all methods."""
  found: dict[str, data.Distribution] = {}
  for key in keys:
    columns = {n: c[key] for n, c in scalars.items() if key in c}
    columns = {n: c[np.isfinite(c)] for n, c in columns.items()}
    whole = np.concatenate([*columns.values(), np.zeros(0)])
    if not len(whole) or whole.min() == whole.max() or key.startswith('top'):
      continue
    edges = np.histogram_bin_edges(whole, _BINS)
    counts = {n: np.histogram(c, edges)[0].tolist() for n, c in columns.items()}
    found[key] = {'edges': edges.tolist(), 'counts': counts}
  return found


_MISSING = object()


def without_infinities(value: object) -> object:
  """Return JSON without inf and nan, which it can't hold.

  A number that isn't finite is left out of a list, or with its key of a mapping; an
  entry without its 'value' is left out as a whole.
  """
  if isinstance(value, Mapping):
    kept = {key: without_infinities(inner) for key, inner in value.items()}
    if kept.get('value') is _MISSING:
      return _MISSING
    return {key: inner for key, inner in kept.items() if inner is not _MISSING}
  if isinstance(value, list | tuple):
    return [v for v in map(without_infinities, value) if v is not _MISSING]
  if isinstance(value, float) and not np.isfinite(value):
    return _MISSING
  return value
