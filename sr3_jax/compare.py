"""Differences between reports, with intervals: numbers only.

Where two reports measured the same images, differences are taken image by image and
resampled in pairs, which removes what the images have in common: most of the variation.
Otherwise, and for metrics of whole sets (FID and the like), the interval follows from
those of the two values (Zou and Donner, 2008, "MOVER"), as if they were independent;
for the same images that is wider than it need be.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sr3_jax import distributions
from sr3_jax.report_data import Report, flat, plain, values

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Difference:
  """Other minus first, of one metric.

  Attributes:
    value: of the means.
    interval: 95 %, or None where none is known.
    images: number of pairs; 0 if unpaired.
    better: +1 or -1 if the other is better or worse and the interval excludes 0,
      else 0.
  """

  value: float
  interval: tuple[float, float] | None
  images: int = 0
  better: int = 0

  @property
  def differs(self) -> bool:
    """Whether the interval excludes 0."""
    return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

  @property
  def same(self) -> bool:
    """Whether there is none at all."""
    return self.value == 0 and self.interval in (None, (0.0, 0.0))


@dataclasses.dataclass(frozen=True)
class Pair:
  """A method of the first report, one of another, and how they differ."""

  run: str
  method: str
  first_run: str
  first_method: str
  metrics: Mapping[str, Difference]

  @property
  def title(self) -> str:
    """'B: sr3 − A: sr3'."""
    return f'{self.run}: {self.method} − {self.first_run}: {self.first_method}'


def metrics_of(reports: Sequence[Report]) -> list[dict[str, Any]]:
  """Descriptions of all metrics, in order; where two know one, the first says it."""
  found: dict[str, dict[str, Any]] = {}
  for report in reports:
    found = report.metrics() | found if found else report.metrics()
  order = {key: i for r in reversed(reports) for i, key in enumerate(r.metrics())}
  return sorted(found.values(), key=lambda metric: order[metric['key']])


def protocol_differences(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
  """Keys of protocol, images and code that aren't the same in all, with the values."""
  flats = [
    dict(flat(r.data['protocol']))
    | {'number of images': plain(r.data['images'])}
    | dict(flat({'code': r.data.get('code') or {}}))
    for r in reports
  ]
  keys = dict.fromkeys(key for found in flats for key in found)
  rows = [(key, [found.get(key, 'not stated') for found in flats]) for key in keys]
  return [(key, texts) for key, texts in rows if len(set(texts)) > 1]


def why_unpaired(first: Report, other: Report) -> str:
  """Why the images of two reports can't be compared one by one; '' if they can."""
  ours, theirs = (r.data['protocol'] for r in (first, other))
  for key in ('image list', 'truth'):
    if ours.get(key) != theirs.get(key):
      return f'their protocols name another {key}'
  if ours.get('image list') is None:
    return 'their protocols do not say which images'
  for report in (first, other):
    if not (report.folder / 'values.npz').exists():
      return f'{report.name} has no values.npz'
  return ''


def differences(first: Report, other: Report) -> list[Pair]:
  """How the methods of another report differ from those of the first.

  Methods go together by name; and the last ones of both, which are what reports are
  about, go together under any name.

  Raises:
    ReportError: a damaged values.npz.
  """
  # The truth is in tables for its classification only.
  ours, theirs = ([n for n in r.methods() if n != 'truth'] for r in (first, other))
  together = [(name, name) for name in theirs if name in ours]
  if ours and theirs and ours[-1] != theirs[-1]:
    together.append((ours[-1], theirs[-1]))
  paired = not why_unpaired(first, other)
  arrays = (values(first), values(other)) if paired else ({}, {})
  rows = tuple(_common(*arrays)) if all(arrays) else ()
  found = []
  for a, b in together:
    by_metric = {}
    for metric in metrics_of([first, other]):
      key = metric['key']
      entries = [
        r.data['table'].get(n, {}).get(key) for r, n in ((first, a), (other, b))
      ]
      if not all(entries):
        continue
      difference = None
      if rows and f'{a}/{key}' in arrays[0] and f'{b}/{key}' in arrays[1]:
        columns = arrays[0][f'{a}/{key}'][rows[0]], arrays[1][f'{b}/{key}'][rows[1]]
        difference = paired_difference(*columns)
      difference = difference or unpaired_difference(*entries)
      if difference is not None:
        by_metric[key] = _judged(difference, metric['better'])
    found.append(Pair(other.name, b, first.name, a, by_metric))
  return found


def paired_difference(first: np.ndarray, other: np.ndarray) -> Difference | None:
  """Mean of other - first over images, with a bootstrap interval over pairs.

  Args:
    first: [n], one value an image.
    other: [n], of the same images. Pairs that aren't finite don't count.

  Returns:
    None for less than two pairs.
  """
  with np.errstate(invalid='ignore'):
    change = np.asarray(other, np.float64) - np.asarray(first, np.float64)
  change = change[np.isfinite(change)]
  if len(change) < 2:
    return None
  low, high = distributions.bootstrap_means(change[:, None], resamples=RESAMPLES)
  return Difference(float(change.mean()), (float(low[0]), float(high[0])), len(change))


def unpaired_difference(
  first: Mapping[str, Any], other: Mapping[str, Any]
) -> Difference | None:
  """Other - first of two entries of tables, as if they were independent.

  Args:
    first: 'value' and, maybe, 'low' and 'high'.
    other: the same.

  Returns:
    None if a value isn't finite.
  """
  a, b = first['value'], other['value']
  if not math.isfinite(a) or not math.isfinite(b):
    return None
  limits = [e.get(k) for e in (first, other) for k in ('low', 'high')]
  if any(limit is None or not math.isfinite(limit) for limit in limits):
    return Difference(b - a, None)
  a_low, a_high, b_low, b_high = limits
  down = math.hypot(b - b_low, a_high - a)
  up = math.hypot(b_high - b, a - a_low)
  return Difference(b - a, (b - a - down, b - a + up))


def _common(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]):
  """Rows of the images that both have."""
  return np.intersect1d(a['index'], b['index'], return_indices=True)[1:]


def _judged(difference: Difference, goal: str) -> Difference:
  sign = {'higher': 1, 'lower': -1}.get(goal, 0) if difference.differs else 0
  return dataclasses.replace(difference, better=sign * int(np.sign(difference.value)))
