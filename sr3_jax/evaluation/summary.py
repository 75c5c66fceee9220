"""Makes a table from values of single images: means, distances of sets, intervals.

Intervals are of 95 %. Means and spectra are bootstrapped over images: each image counts
Poisson(1) times in each of 1,000 resamples, which needs one pass and no memory. Weights
are a function of (seed, image), so methods that saw the same images can be compared in
pairs. Intervals of feature distributions are those of `metrics.fid_kid_is`.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from sr3_jax.evaluation.records import Records
from sr3_jax.evaluation.scoring import FEATURES
from sr3_jax.metrics import fid_kid_is as d
from sr3_jax.metrics import image_metrics
from sr3_jax.metrics.reference_statistics import MOST_KID, Reference, choose, moments_of
from sr3_jax.reports.data import Entry
from sr3_jax.reports.data import Metric as ShownMetric
from sr3_jax.runtime import text

Row = dict[str, Entry]  # metric -> value with its interval and seeds
Means = dict[str, dict[str, float]]  # method -> metric -> mean
Probabilities = Callable[[np.ndarray], np.ndarray]  # features -> of classes

RESAMPLES, IS_SPLITS = 1000, 10


class Metric(NamedTuple):
  """How a number is shown."""

  title: str  # with its unit
  digits: int  # after the point
  better: str  # 'higher', 'lower' or '1 is right'
  about: str  # one sentence


class Score(NamedTuple):
  """One seed's value of a metric over all images."""

  value: float
  samples: np.ndarray | None = None  # bootstrap values [resamples], if there are any
  interval: tuple[float, float] | None = None  # where it is known without samples


METRICS = {
  'psnr': Metric(
    'PSNR dB',
    2,
    'higher',
    'Peak signal-to-noise ratio over RGB, mean over images; equal '
    'images count as 100 dB.',
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
    'Mean square between the input and the downsampled output, in 1e-5 of the '
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
  'is': Metric(
    'IS', 1, 'higher', 'Inception score: classes clear in each image, varied over all.'
  ),
  'top1_error': Metric('top-1 error', 3, 'lower', "The classifier's first guess."),
  'top5_error': Metric('top-5 error', 3, 'lower', "The classifier's first five."),
}
# What is printed; a report has everything.
_PRINTED = [key for key in METRICS if key not in ('psnr_y', 'ssim_y', 'lpips_vgg')]
_MEANS = [m for m in METRICS if m not in ('detail', 'spectrum_db', 'fid', 'kid', 'is')]


def table(
  records: Records,
  methods: Mapping[str, Sequence[str]],
  *,
  scale: float | None,
  reference: Reference | None = None,
  probabilities: Probabilities | None = None,
  intervals: bool = True,
) -> dict[str, Row]:
  """Return every metric of every method.

  Args:
    records: of single images.
    methods: name -> its parts, one for each seed.
    scale: magnification, for `detail`; None leaves it out.
    reference: what FID and KID compare with; None leaves both out.
    probabilities: of classes, from Inception's features [n, 2048] -> [n, classes].
    intervals: False for values only.
  """

  def scores(part: str) -> dict[str, Score]:
    found = _pixel_scores(records, part, scale, RESAMPLES if intervals else 0)
    features = gather_features(records, part)
    if features is not None:
      found |= _set_scores(features, reference, probabilities, intervals)
    return found

  rows = {}
  for name, parts in methods.items():
    seeds = [scores(part) for part in parts]
    rows[name] = {key: _over_seeds([seed[key] for seed in seeds]) for key in seeds[0]}
  return rows


def described(key: str) -> ShownMetric:
  """Return how a metric is shown, as report.json has it."""
  return cast(ShownMetric, {'key': key, **METRICS[key]._asdict()})


def values(rows: dict[str, Row]) -> Means:
  """Return the table without its intervals."""
  return {
    name: {key: entry['value'] for key, entry in row.items()}
    for name, row in rows.items()
  }


def image_weights(index: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
  """Return how often each image counts in each resample: float32 [n, resamples].

  Counts are Poisson with mean 1, a function of the seed and the image's number.
  """
  generators = [np.random.default_rng((seed, i)) for i in index.tolist()]
  counts = [generator.poisson(1.0, resamples) for generator in generators]
  return np.stack(counts).astype(np.float32)


def interval(samples: np.ndarray) -> tuple[float, float]:
  """Return the middle 95 % of bootstrap values."""
  low, high = np.nanquantile(samples, (0.025, 0.975))
  return float(low), float(high)


def gather_features(records: Records, part: str) -> np.ndarray | None:
  """Return Inception's features of a part, [n, 2048], sorted by image.

  They lie in a temporary file, for memory doesn't hold those of 50,000 images.
  """
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
) -> dict[str, Score]:
  """Return means and spectra of a part, with bootstrap values."""
  # Of each value, by its shape: its sum and the number of images that have it,
  # [1 + resamples, ...]: all images, then resampled. Small images lack SSIM, and those
  # of other sizes have another number of rings.
  totals: dict[str, dict[tuple[int, ...], list[np.ndarray]]] = {}
  for batch in records.stream(part):
    # [1 + resamples, n]
    weights = np.ones((1, len(batch['index'])))
    if resamples:
      weights = np.concatenate([weights, image_weights(batch['index'], resamples).T])
    for key in (*_MEANS, 'power', 'power_truth'):
      if key in batch:
        value = weights @ batch[key].astype(np.float64)
        parts = totals.setdefault(key, {}).setdefault(
          value.shape, [0 * value, 0 * weights.sum(1)]
        )
        parts[0], parts[1] = parts[0] + value, parts[1] + weights.sum(1)
  # Spectra are of the size that most images have.
  total = {
    key: shapes[max(shapes, key=lambda shape: (shapes[shape][1][0], shape))]
    for key, shapes in totals.items()
  }
  # A resample of very few images may hold no image.
  with np.errstate(invalid='ignore'):
    found = {key: total[key][0] / total[key][1] for key in _MEANS if key in total}
    if 'power' in total:
      power, truth = total['power'][0], total['power_truth'][0]
      if scale is not None and scale > 1:
        found['detail'] = np.asarray(image_metrics.detail(power, truth, scale))
      found['spectrum_db'] = np.asarray(image_metrics.spectrum_distance(power, truth))
  return {
    key: Score(float(value[0]), value[1:] if resamples else None)
    for key, value in found.items()
  }


def _set_scores(
  features: np.ndarray,
  reference: Reference | None,
  probabilities: Probabilities | None,
  intervals: bool,
) -> dict[str, Score]:
  """Return FID, KID and IS of [n, 2048] features; single images have IS only."""
  found: dict[str, Score] = {}
  several = len(features) > 1
  intervals &= several
  if reference is not None and several:
    value = d.frechet_distance(moments_of(features), reference.moments)
    edges = d.frechet_interval(features, reference.moments) if intervals else None
    found['fid'] = Score(value, interval=edges)
    if reference.features is not None:
      pair = features[choose(len(features), MOST_KID)], reference.features
      value, edges = d.kid(*pair)[0], None
      if intervals:
        low, high = d.kid_interval(*pair, value)
        edges = 1e3 * low, 1e3 * high
      found['kid'] = Score(1e3 * value, interval=edges)
  if probabilities is not None:
    classes = probabilities(features)
    value = d.inception_score(classes, splits=min(IS_SPLITS, len(features)))[0]
    edges = d.score_interval(classes, value) if intervals else None
    found['is'] = Score(value, interval=edges)
  return found


def _over_seeds(scores: Sequence[Score]) -> Entry:
  """Return the mean over seeds, its interval over images, and what each seed gave."""
  values = [score.value for score in scores]
  entry: Entry = {'value': float(np.mean(values))}
  samples = [score.samples for score in scores if score.samples is not None]
  edges = [score.interval for score in scores if score.interval is not None]
  if samples:
    entry['low'], entry['high'] = interval(np.mean(samples, axis=0))
  elif edges:
    low, high = np.mean(edges, axis=0)
    entry['low'], entry['high'] = float(low), float(high)
  if len(values) > 1:
    entry['seeds'] = values
  return entry


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
  """Return values (method -> metric -> value) as aligned text, a method a line."""
  columns = {
    key: METRICS[key] for key in _PRINTED if any(key in row for row in rows.values())
  }
  lines = [['', *(m.title for m in columns.values())]]
  lines.append(['', *(f'({m.better})' for m in columns.values())])
  for name, row in rows.items():
    cells = [f'{row[k]:.{m.digits}f}' if k in row else '-' for k, m in columns.items()]
    lines.append([name, *cells])
  return '\n'.join(text.align(lines))
