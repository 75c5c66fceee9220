"""Makes checked sets of images for tests, without any image."""

import collections

import numpy as np

from sr3_jax.check_data.findings import CheckedSet
from sr3_jax.check_data.near_duplicates import Matches
from sr3_jax.check_data.scan import Scan


def matches(count, partners=()):
  """Make matches of `count` images from pairs of an image and its partner."""
  partner = np.full(count, -1)
  for image, other in partners:
    partner[image] = other
  found = partner >= 0
  return Matches(partner, found.astype(np.float32), np.zeros(count, bool))


def checked(sizes, **changes):
  """Make a set of images of `sizes`, [(height, width), ...], with some fields set."""
  sizes = np.array(sizes, np.int32).reshape(-1, 2)
  count = len(sizes)
  scan = {
    'names': [f'{i}.jpg' for i in range(count)],
    'height': sizes[:, 0],
    'width': sizes[:, 1],
    'quality': np.full(count, 90, np.uint8),
    'digest': np.arange(count, dtype=np.uint64),
    'thumbnails': np.zeros((count, 16, 16), np.uint8),
    'kinds': collections.Counter({'JPEG, RGB': count}),
    'traits': {},
    'broken': {},
    'labels': {},
  }
  whole = {
    'name': 'training',
    'copies': matches(count),
    'plain': np.zeros(0, int),
    'min_size': 32,
    'square': False,
    'downsampled': 1,
    'details': {1: 0.5, 2: 0.5},
  }
  for key, value in changes.items():
    (scan if key in scan else whole)[key] = value
  return CheckedSet(scan=Scan(**scan), **whole)
