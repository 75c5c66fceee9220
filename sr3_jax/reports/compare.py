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

from sr3_jax.metrics import fid_kid_is
from sr3_jax.reports.data import Report, flat, plain, values

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
    for key, metric in report.metrics().items():
      found.setdefault(key, metric)
  return list(found.values())


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


def other_images(first: Report, other: Report) -> str:
  """Why two reports may be of other images; '' if they are of the same."""
  ours, theirs = (r.data['protocol'] for r in (first, other))
  for key in ('image list', 'truth'):
    if ours.get(key) != theirs.get(key):
      return f'their protocols name another {key}'
  if ours.get('image list') is None:
    return 'their protocols do not say which images'
  return ''


def why_unpaired(first: Report, other: Report) -> str:
  """Why two reports can't be compared image by image; '' if they can."""
  if reason := other_images(first, other):
    return reason
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
  return [
    Pair(other.name, b, first.name, a, _of_methods((first, a), (other, b), arrays))
    for a, b in together
  ]


def _of_methods(first, other, arrays) -> dict[str, Difference]:
  """Metric -> difference of a report's method from that of another."""
  (ours, a), (theirs, b) = first, other
  rows = _common(*arrays) if all(arrays) else None
  entries, changes = {}, {}
  for metric in metrics_of([ours, theirs]):
    key = metric['key']
    found = [r.data['table'].get(n, {}).get(key) for r, n in (first, other)]
    if not all(found):
      continue
    entries[key] = metric['better'], found
    if rows and f'{a}/{key}' in arrays[0] and f'{b}/{key}' in arrays[1]:
      x, y = arrays[0][f'{a}/{key}'][rows[0]], arrays[1][f'{b}/{key}'][rows[1]]
      changes[key] = change(x, y)
  paired = paired_differences(changes)
  differences = {}
  for key, (goal, found) in entries.items():
    difference = paired.get(key) or unpaired_difference(*found)
    if difference is not None:
      differences[key] = _judged(difference, goal)
  return differences


def change(first: np.ndarray, other: np.ndarray) -> np.ndarray:
  """other - first in float64, [n]; nan where both are infinite."""
  with np.errstate(invalid='ignore'):
    return np.asarray(other, np.float64) - np.asarray(first, np.float64)


def paired_differences(changes: Mapping[str, np.ndarray]) -> dict[str, Difference]:
  """Means of changes over images, with bootstrap intervals over images.

  Args:
    changes: metric -> [n], one an image. Images for which it isn't finite don't count.

  Returns:
    Those of metrics with two images or more.
  """
  groups: dict[bytes, list[str]] = {}
  for key, column in changes.items():
    good = np.isfinite(column)
    if good.sum() > 1:
      groups.setdefault(good.tobytes(), []).append(key)
  found = {}
  for keys in groups.values():  # metrics of the same images are resampled together
    good = np.isfinite(changes[keys[0]])
    columns = np.stack([changes[key][good] for key in keys], axis=1)
    if columns.any():
      limits = fid_kid_is.bootstrap_means(columns, resamples=RESAMPLES)
    else:
      limits = np.zeros((2, len(keys)))
    for key, value, low, high in zip(keys, columns.mean(axis=0), *limits, strict=True):
      interval = float(low), float(high)
      found[key] = Difference(float(value), interval, len(columns))
  return found


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
