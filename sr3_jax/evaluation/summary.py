"""From values of single images to a table: means, distances of sets, and how sure.

Intervals are of 95 %. Means and spectra are bootstrapped over images: each image counts
Poisson(1) times in each of 1,000 resamples, which needs one pass and no memory. Weights
are a function of (seed, image), so methods that saw the same images can be compared in
pairs. Those of feature distributions are in `distributions`.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sr3_jax.evaluation.records import Records
from sr3_jax.evaluation.scoring import FEATURES
from sr3_jax.metrics import fid_kid_is as d
from sr3_jax.metrics import image_metrics
from sr3_jax.metrics.reference_statistics import MOST_KID, Reference, choose, moments_of

Row = dict[str, dict[str, Any]]  # metric -> {'value', 'low', 'high', 'seeds'}

RESAMPLES, IS_SPLITS = 1000, 10


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a number is shown.

  Attributes:
    title: with its unit.
    digits: after the point.
    better: 'higher', 'lower' or '1 is right'.
    about: one sentence.
  """

  title: str
  digits: int
  better: str
  about: str


METRICS = {
  'psnr': Metric(
    'PSNR dB', 2, 'higher', 'Peak signal-to-noise ratio over RGB, mean over images.'
  ),
  'ssim': Metric(
    'SSIM', 3, 'higher', 'Structural similarity, Gaussian window of 11, mean over RGB.'
  ),
  'psnr_y': Metric('PSNR Y dB', 2, 'higher', 'PSNR of the luma of BT.601 (16 to 235).'),
  'ssim_y': Metric('SSIM Y', 3, 'higher', 'SSIM of the same luma.'),
  'consistency': Metric(
    'consistency 1e-5',
    2,
    'lower',
    'Mean square between the input and the output made small again, in 1e-5 of the '
    'squared range.',
  ),
  'detail': Metric(
    'detail',
    2,
    '1 is right',
    'Power of the outputs above what the input can show, over that of the truth.',
  ),
  'spectrum_db': Metric(
    'spectrum dB',
    2,
    'lower',
    'Distance of the power spectra of outputs and truth, all frequencies alike.',
  ),
  'colour_drift': Metric(
    'colour drift', 2, 'lower', 'Shift of the mean colour, in levels of 255.'
  ),
  'lpips_alex': Metric(
    'LPIPS alex', 3, 'lower', 'Learned perceptual distance to the truth, AlexNet.'
  ),
  'lpips_vgg': Metric(
    'LPIPS vgg', 3, 'lower', 'Learned perceptual distance to the truth, VGG-16.'
  ),
  'fid': Metric(
    'FID', 2, 'lower', 'Frechet distance of Inception features to the reference set.'
  ),
  'kid': Metric(
    'KID 1e-3',
    2,
    'lower',
    'Kernel distance of Inception features, in 1e-3; unbiased for small sets too.',
  ),
  'is': Metric('IS', 1, 'higher', 'Inception score: sure of each, varied in all.'),
  'top1_error': Metric('top-1 error', 3, 'lower', "The classifier's first guess."),
  'top5_error': Metric('top-5 error', 3, 'lower', "The classifier's first five."),
}
# What is printed; a report has everything.
_PRINTED = (
  'psnr',
  'ssim',
  'consistency',
  'detail',
  'spectrum_db',
  'colour_drift',
  'lpips_alex',
  'fid',
  'kid',
  'is',
  'top1_error',
  'top5_error',
)
_MEANS = [m for m in METRICS if m not in ('detail', 'spectrum_db', 'fid', 'kid', 'is')]


def table(
  records: Records,
  methods: dict[str, Sequence[str]],
  *,
  scale: float | None,
  reference: Reference | None = None,
  probabilities: Callable[[np.ndarray], np.ndarray] | None = None,
  intervals: bool = True,
) -> dict[str, Row]:
  """Every metric of every method.

  Args:
    records: of single images.
    methods: name -> its parts, one for each seed.
    scale: magnification, for `detail`; None leaves it out.
    reference: what FID and KID compare with; None leaves both out.
    probabilities: of classes, from Inception's features [n, 2048] -> [n, classes].
    intervals: False for values only.
  """
  rows = {}
  for name, parts in methods.items():
    seeds = []
    for part in parts:
      row = _pixel_scores(records, part, scale, RESAMPLES if intervals else 0)
      features = gather_features(records, part)
      if features is not None:
        row |= _set_scores(features, reference, probabilities, intervals)
      seeds.append(row)
    rows[name] = {key: _over_seeds([row[key] for row in seeds]) for key in seeds[0]}
  return rows


def values(rows: dict[str, Row]) -> dict[str, dict[str, float]]:
  """The table without its intervals."""
  return {
    name: {key: entry['value'] for key, entry in row.items()}
    for name, row in rows.items()
  }


def image_weights(index: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
  """How often each image counts in each resample: [n] -> [n, resamples] float32."""
  draw = lambda i: np.random.default_rng((seed, int(i))).poisson(1.0, resamples)
  return np.stack([draw(i) for i in index]).astype(np.float32)


def interval(samples: np.ndarray) -> tuple[float, float]:
  """The middle 95 % of bootstrap values."""
  low, high = np.nanquantile(samples, (0.025, 0.975))
  return float(low), float(high)


def gather_features(records: Records, part: str) -> np.ndarray | None:
  """Inception's features of a part, [n, 2048], in a temporary file, sorted by image."""
  index = records.scalars(part).get('index', np.empty(0, int))
  place = {image: row for row, image in enumerate(index.tolist())}
  features = None
  for batch in records.stream(part):
    if FEATURES not in batch:
      return None
    if features is None:
      shape = len(index), batch[FEATURES].shape[1]
      with tempfile.TemporaryFile() as file:
        features = np.memmap(file, np.float32, 'w+', shape=shape)
    features[[place[i] for i in batch['index'].tolist()]] = batch[FEATURES]
  return features


def _pixel_scores(
  records: Records, part: str, scale: float | None, resamples: int
) -> dict[str, dict[str, Any]]:
  """Means and spectra of a part; 'samples' holds bootstrap values [resamples]."""
  total: dict[str, np.ndarray] = {}  # [1 + resamples, ...]: all images, then resampled
  for batch in records.stream(part):
    # [1 + resamples, n]
    weights = np.ones((1, len(batch['index'])))
    if resamples:
      weights = np.concatenate([weights, image_weights(batch['index'], resamples).T])
    sums = {'weight': weights.sum(1)}
    for key in (*_MEANS, 'power', 'power_truth'):
      if key in batch:
        sums[key] = weights @ batch[key].astype(np.float64)
    # Images of other sizes may lack a value (SSIM) or have another number of rings.
    common = [k for k in sums if not total or np.shape(total.get(k)) == sums[k].shape]
    total = {k: total[k] + sums[k] if total else sums[k] for k in common}
  # A resample of very few images may have none.
  with np.errstate(invalid='ignore'):
    found = {key: total[key] / total['weight'] for key in _MEANS if key in total}
    if 'power' in total:
      power, truth = total['power'], total['power_truth']
      if scale is not None and scale > 1:
        found['detail'] = np.asarray(image_metrics.detail(power, truth, scale))
      found['spectrum_db'] = np.asarray(image_metrics.spectrum_distance(power, truth))
  return {
    key: {'value': float(value[0]), 'samples': value[1:]}
    for key, value in found.items()
  }


def _set_scores(
  features: np.ndarray,
  reference: Reference | None,
  probabilities: Callable[[np.ndarray], np.ndarray] | None,
  intervals: bool,
) -> dict[str, dict[str, Any]]:
  """FID, KID and IS of [n, 2048] features."""
  found: dict[str, dict[str, Any]] = {}
  several = len(features) > 1
  if reference is not None and several:
    found['fid'] = {
      'value': d.frechet_distance(moments_of(features), reference.moments)
    }
    if intervals:
      _put(found['fid'], d.frechet_interval(features, reference.moments))
  if reference is not None and several and reference.features is not None:
    pair = features[choose(len(features), MOST_KID)], reference.features
    value = d.kid(*pair)[0]
    found['kid'] = {'value': 1e3 * value}
    if intervals:
      _put(found['kid'], [1e3 * edge for edge in d.kid_interval(*pair, value)])
  if probabilities is not None:
    classes = probabilities(features)
    value = d.inception_score(classes, splits=min(IS_SPLITS, len(features)))[0]
    found['is'] = {'value': value}
    if intervals and several:
      _put(found['is'], d.score_interval(classes, value))
  return found


def _put(entry: dict[str, Any], edges: Sequence[float]) -> None:
  entry['low'], entry['high'] = (float(edge) for edge in edges)


def _over_seeds(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The mean over seeds, its interval over images, and what each seed gave."""
  seeds = [entry['value'] for entry in entries]
  result: dict[str, Any] = {'value': float(np.mean(seeds))}
  if len(entries[0].get('samples', ())):
    _put(result, interval(np.mean([e['samples'] for e in entries], axis=0)))
  elif 'low' in entries[0]:
    _put(result, [np.mean([e[edge] for e in entries]) for edge in ('low', 'high')])
  if len(seeds) > 1:
    result['seeds'] = seeds
  return result


def format_table(rows: dict[str, dict[str, float]]) -> str:
  """Values (method -> metric -> value) as aligned text, a method a line."""
  keys = [key for key in _PRINTED if any(key in row for row in rows.values())]
  columns = [METRICS[key] for key in keys]
  head = ['', *(m.title for m in columns)]
  lines = [head, ['', *(f'({m.better})' for m in columns)]]
  for name, row in rows.items():
    cells = [
      f'{row[key]:.{metric.digits}f}' if key in row else '-'
      for key, metric in zip(keys, columns, strict=True)
    ]
    lines.append([name, *cells])
  widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
  aligned = []
  for line in lines:
    cells = [line[0].ljust(widths[0])]
    cells += [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]
    aligned.append('  '.join(cells))
  return '\n'.join(aligned)
