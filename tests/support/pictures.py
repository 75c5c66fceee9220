"""Pictures for tests."""

import numpy as np


def noise(height, width, channels=3, dtype=np.uint8):
  rng = np.random.default_rng(0)
  top = np.iinfo(dtype).max + 1
  return rng.integers(0, top, (height, width, channels), dtype=dtype)


# How a picture must be turned to be upright, from the EXIF 2.32 standard, tag 274.
UPRIGHT = {
  1: lambda a: a,
  2: np.fliplr,
  3: lambda a: np.rot90(a, 2),
  4: np.flipud,
  5: lambda a: a.transpose(1, 0, 2),
  6: lambda a: np.rot90(a, -1),
  7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
  8: np.rot90,
}
