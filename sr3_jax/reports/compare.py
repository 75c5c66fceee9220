"""Computes differences between reports, with intervals: numbers only.

Where two reports measured the same images, differences are taken image by image and
resampled in pairs, which removes what the images have in common: most of the variation.
Crops of one photograph are resampled together.
Otherwise, and for metrics of whole sets (FID and the like), the interval follows from
those of the two values (Zou and Donner, 2008, "MOVER"), as if they were independent;
for the same images that is wider than it need be.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sr3_jax.metrics import bootstrap
from sr3_jax.reports.data import Entry, Metric, Report, flat, values

RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Difference:
  """A difference of one metric: other minus first."""

  value: float  # of the means
  interval: tuple[float, float] | None  # 95 %, or None where none is known
  images: int = 0  # number of pairs; 0 if unpaired
  photographs: int = 0  # that these are crops of
  # +1 or -1 if the other is better or worse and the interval excludes 0, else 0.
  better: int = 0

  @property
  def differs(self) -> bool:
    """Return whether the interval excludes 0."""
    return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

  @property
  def same(self) -> bool:
    """Return whether there is no difference at all."""
    # Without an interval, changes of several images may have a mean of 0.
    alone = not self.images and self.interval is None
    return self.value == 0 and (alone or self.interval == (0.0, 0.0))


class Pair(NamedTuple):
  """A method of the first report, one of another, and how they differ."""

  run: str
  method: str
  first_run: str
  first_method: str
  metrics: Mapping[str, Difference]

  @property
  def title(self) -> str:
    """Return a text like 'B: sr3 − A: sr3'."""
    return f'{self.run}: {self.method} − {self.first_run}: {self.first_method}'

  @property
  def images(self) -> int:
    """Return the largest number of images that a metric compares in pairs."""
    return max((d.images for d in self.metrics.values()), default=0)

  @property
  def photographs(self) -> int:
    """Return the largest number of photographs that these are crops of."""
    return max((d.photographs for d in self.metrics.values()), default=0)

  def fewer(self, difference: Difference) -> str:
    """Return how many images a metric compares, if others compare more; else ''."""
    if not 0 < difference.images < self.images:
      return ''
    return bootstrap.counted(difference.images, difference.photographs)


def metrics_of(reports: Sequence[Report]) -> list[Metric]:
  """Return all metrics in order, each as the first report that has it describes it."""
  found: dict[str, Metric] = {}
  for report in reports:
    found |= {k: m for k, m in report.metrics().items() if k not in found}
  return list(found.values())


def protocol_differences(reports: Sequence[Report]) -> list[tuple[str, list[str]]]:
  """Return keys of protocol, images and code that differ, with the values of each."""
  flats = []
  for report in reports:
    data = report.data
    parts = {'number of images': data['images'], 'code': data.get('code') or {}}
    flats.append(dict(flat({**data['protocol'], **parts})))
  keys = dict.fromkeys(key for found in flats for key in found)
  rows = [(key, [found.get(key, 'not stated') for found in flats]) for key in keys]
  return [(key, texts) for key, texts in rows if len(set(texts)) > 1]


def other_images(first: Report, other: Report) -> str:
  """Return why two reports may be of other images; '' if they are of the same."""
  ours, theirs = (r.data['protocol'] for r in (first, other))
  for key in ('image list', 'truth'):
    if ours.get(key) != theirs.get(key):
      return f'their protocols name another {key}'
  if ours.get('image list') is None:
    return 'their protocols do not say which images'
  return ''


def why_unpaired(first: Report, other: Report) -> str:
  """Return why two reports can't be compared image by image; '' if they can."""
  if reason := other_images(first, other):
    return reason
  for report in (first, other):
    if not (report.folder / 'values.npz').exists():
      return f'{report.name} has no values.npz'
  return ''


def differences(first: Report, other: Report) -> list[Pair]:
  """Return how the methods of another report differ from those of the first.

  Methods go together by name; and the last ones of both, which are what reports are
  about, go together under any name.

  Raises:
    ReportError: a damaged values.npz.
  """
  # Tables have the truth for its classification only: it is no method.
  ours, theirs = ([n for n in r.methods() if n != 'truth'] for r in (first, other))
  together = [(name, name) for name in theirs if name in ours]
  if ours and theirs and ours[-1] != theirs[-1]:
    together.append((ours[-1], theirs[-1]))
  paired = not why_unpaired(first, other)
  arrays = (values(first), values(other)) if paired else ({}, {})
  metrics = metrics_of([first, other])
  signs = {'higher': 1, 'lower': -1}
  found = []
  for a, b in together:
    rows = first.data['table'].get(a, {}), other.data['table'].get(b, {})
    paired_ones = paired_differences(*_changes(*arrays, a, b))
    differences = {}
    for metric in metrics:
      key = metric['key']
      if key in rows[0] and key in rows[1]:
        entries = rows[0][key], rows[1][key]
        difference = paired_ones.get(key) or unpaired_difference(*entries)
        if difference is not None:
          sign = signs.get(metric['better'], 0) if difference.differs else 0
          better = sign * int(np.sign(difference.value))
          differences[key] = dataclasses.replace(difference, better=better)
    found.append(Pair(other.name, b, first.name, a, differences))
  return found


def _changes(
  ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], a: str, b: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
  """Return metric -> change of the images that both reports have, from `a` to `b`.

  Also return the photograph of each of these images, if a report says it. Of two that
  say it differently, the one with fewer photographs knows more.
  """
  if not ours or not theirs:
    return {}, None
  _, i, j = np.intersect1d(ours['index'], theirs['index'], return_indices=True)
  keys = [key.removeprefix(f'{a}/') for key in ours if key.startswith(f'{a}/')]
  changes = {
    key: change(ours[f'{a}/{key}'][i], theirs[f'{b}/{key}'][j])
    for key in keys
    if f'{b}/{key}' in theirs
  }
  sides = (ours, i), (theirs, j)
  told = [side['photograph'][k] for side, k in sides if 'photograph' in side]
  return changes, min(told, key=lambda one: len(np.unique(one)), default=None)


def change(first: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Return other - first in float64, [n]; nan where both are infinite."""
  with np.errstate(invalid='ignore'):
    return np.asarray(other, np.float64) - np.asarray(first, np.float64)


def paired_differences(
  changes: Mapping[str, np.ndarray], photographs: np.ndarray | None = None
) -> dict[str, Difference]:
  """Return means of changes over images, with bootstrap intervals over photographs.

  Changes are metric -> [n], one an image; `photographs` [n] says which are crops of
  one. Images for which a change isn't finite don't count, and metrics with less than
  two images are left out. Too few photographs have no interval.
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
    of = None if photographs is None else photographs[good]
    counts = len(columns), bootstrap.places(len(columns), of)[1]
    limits = bootstrap.means(columns, of, resamples=RESAMPLES)
    for key, column, limit in zip(keys, columns.T, limits, strict=True):
      interval = limit if column.any() else (0.0, 0.0)
      found[key] = Difference(float(column.mean()), interval, *counts)
  return found


def unpaired_difference(first: Entry, other: Entry) -> Difference | None:
  """Return other - first of two entries of tables, as if they were independent.

  It is None if a value isn't finite, and has no interval unless both entries have one.
  """
  a, b = first['value'], other['value']
  if not math.isfinite(a) or not math.isfinite(b):
    return None
  edges = (first.get('low'), first.get('high'), other.get('low'), other.get('high'))
  limits = [edge for edge in edges if edge is not None and math.isfinite(edge)]
  if len(limits) < 4:
    return Difference(b - a, None)
  a_low, a_high, b_low, b_high = limits
  down = math.hypot(b - b_low, a_high - a)
  up = math.hypot(b_high - b, a - a_low)
  return Difference(b - a, (b - a - down, b - a + up))
