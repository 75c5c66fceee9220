"""Makes a table from values of single images: means, distances of sets, intervals.

Intervals are of 95 %, by the bootstrap over photographs of `metrics.bootstrap`: crops
of one photograph are resampled together. For means and spectra, each photograph counts
Poisson(1) times in each of 1,000 resamples, which needs one pass and no memory. Weights
are a function of (seed, photograph), so methods that saw the same images can be
compared in pairs. Intervals of feature distributions are those of `metrics.fid_kid_is`.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from sr3_jax.evaluation.records import PHOTOGRAPH, Records
from sr3_jax.evaluation.scoring import FEATURES
from sr3_jax.metrics import bootstrap, image_metrics
from sr3_jax.metrics import fid_kid_is as d
from sr3_jax.metrics.bootstrap import Interval
from sr3_jax.metrics.reference_statistics import MOST_KID, Reference, choose, moments_of
from sr3_jax.reports.data import Entry
from sr3_jax.reports.data import Metric as ShownMetric
from sr3_jax.runtime import text

Row = dict[str, Entry]  # metric -> value with its interval and seeds
Means = dict[str, dict[str, float]]  # method -> metric -> mean
Probabilities = Callable[[np.ndarray], np.ndarray]  # features -> of classes

RESAMPLES, IS_SPLITS = 1000, 10


class Metric(NamedTuple):
  """Says how a number is shown."""

  title: str  # with its unit
  digits: int  # after the point
  better: str  # 'higher', 'lower' or '1 is right'
  about: str  # one sentence


class Score(NamedTuple):
  """One seed's value of a metric over all images."""

  value: float
  samples: np.ndarray | None = None  # bootstrap values [resamples], if there are any
  photographs: int = 0  # that `samples` are resamples of
  interval: Interval | None = None  # where it is known without samples


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
  'dists': Metric(
    'DISTS', 3, 'lower', 'Learned distance of structure and texture, VGG-16.'
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
      photographs = records.photographs(part) if intervals else None
      found |= _set_scores(features, reference, probabilities, photographs)
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


def image_weights(photographs: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
  """Return how often each image counts in each resample: float32 [n, resamples].

  Counts are Poisson with mean 1, a function of the seed and the number of the
  photograph that the image is of, [n].
  """
  different, place = np.unique(photographs, return_inverse=True)
  generators = [np.random.default_rng((seed, i)) for i in different.tolist()]
  counts = [generator.poisson(1.0, resamples) for generator in generators]
  return np.stack(counts).astype(np.float32)[place]


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
  # Of each value, by its shape: its sum over the images that have it. Small images lack
  # SSIM, and those of other sizes have another number of rings.
  totals: dict[str, dict[tuple[int, ...], _Total]] = {}
  for batch in records.stream(part):
    photographs = batch.get(PHOTOGRAPH, batch['index'])
    # [1 + resamples, n]
    weights = np.ones((1, len(photographs)))
    if resamples:
      weights = np.concatenate([weights, image_weights(photographs, resamples).T])
    for key in (*_MEANS, 'power', 'power_truth'):
      if key in batch:
        shapes = totals.setdefault(key, {})
        total = shapes.setdefault(batch[key].shape[1:], _Total())
        total.value = total.value + weights @ batch[key].astype(np.float64)
        total.weight = total.weight + weights.sum(1)
        total.photographs.update(photographs.tolist())
  # Spectra are of the size that most images have.
  most = {
    key: shapes[max(shapes, key=lambda shape: (shapes[shape].weight[0], shape))]
    for key, shapes in totals.items()
  }
  # A resample of very few images may hold no image.
  with np.errstate(invalid='ignore'):
    found = {k: most[k].value / most[k].weight for k in _MEANS if k in most}
    if 'power' in most:
      power, truth = most['power'].value, most['power_truth'].value
      if scale is not None and scale > 1:
        found['detail'] = np.asarray(image_metrics.detail(power, truth, scale))
      found['spectrum_db'] = np.asarray(image_metrics.spectrum_distance(power, truth))
  scores = {}
  for key, value in found.items():
    seen = len(most[key if key in most else 'power'].photographs)
    scores[key] = Score(float(value[0]), value[1:] if resamples else None, seen)
  return scores


@dataclasses.dataclass
class _Total:
  """The sum of a value over the images that have it, all, then resampled."""

  value: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
  weight: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
  photographs: set[int] = dataclasses.field(default_factory=set)


def _set_scores(
  features: np.ndarray,
  reference: Reference | None,
  probabilities: Probabilities | None,
  photographs: np.ndarray | None,
) -> dict[str, Score]:
  """Return FID, KID and IS of [n, 2048] features; single images have IS only.

  `photographs` [n] says which images are resampled together; None: without intervals.
  """
  found: dict[str, Score] = {}
  several = len(features) > 1
  intervals = photographs is not None and several
  if reference is not None and several:
    pair = features, reference.moments
    value = d.frechet_distance(moments_of(features), reference.moments)
    edges = d.frechet_interval(*pair, photographs) if intervals else None
    found['fid'] = Score(value, interval=edges)
    if reference.features is not None:
      chosen = choose(len(features), MOST_KID)
      kernels = features[chosen], reference.features
      value, edges = d.kid(*kernels)[0], None
      if photographs is not None:
        limits = d.kid_interval(*kernels, value, photographs[chosen])
        edges = limits and (1e3 * limits[0], 1e3 * limits[1])
      found['kid'] = Score(1e3 * value, interval=edges)
  if probabilities is not None:
    classes = probabilities(features)
    value = d.inception_score(classes, splits=min(IS_SPLITS, len(features)))[0]
    edges = d.score_interval(classes, value, photographs) if intervals else None
    found['is'] = Score(value, interval=edges)
  return found


def _over_seeds(scores: Sequence[Score]) -> Entry:
  """Return the mean over seeds, its interval over images, and what each seed gave."""
  values = [score.value for score in scores]
  entry: Entry = {'value': float(np.mean(values))}
  samples = [score.samples for score in scores if score.samples is not None]
  edges = [score.interval for score in scores if score.interval is not None]
  limits = None
  if samples:
    count = min(score.photographs for score in scores)
    limits = bootstrap.interval(entry['value'], np.mean(samples, axis=0), count)
  elif edges:
    limits = np.mean(edges, axis=0)
  if limits is not None:
    entry['low'], entry['high'] = map(float, limits)
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
