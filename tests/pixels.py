"""Pictures for tests."""

import numpy as np


def noise(height, width, channels=3):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
