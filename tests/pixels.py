"""Pictures for tests."""

import numpy as np


def noise(height, width, channels=3, dtype=np.uint8):
  rng = np.random.default_rng(0)
  top = np.iinfo(dtype).max + 1
  return rng.integers(0, top, (height, width, channels), dtype=dtype)
