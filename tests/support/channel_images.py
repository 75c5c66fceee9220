"""Makes images of any channels and types for tests."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from sr3_jax.data import channel_ranges
from sr3_jax.images import image_files, rasters

LOW, HIGH = (100.0, 0.0), (60000.0, 4095.0)


def noise(height, width, count, dtype=np.uint16, seed=0):
  draw = np.random.default_rng(seed)
  if np.dtype(dtype).kind == 'f':
    return draw.normal(size=(height, width, count)).astype(dtype)
  return draw.integers(0, np.iinfo(dtype).max, (height, width, count), dtype)


def percentile_range(source, low=0.1, high=99.9, count=256):
  """Return what `sr3-channels` finds in a source: data.low and data.high."""
  sample = channel_ranges.sample_pixels(source, count)
  return channel_ranges.percentile_range(sample, source.dtype, low, high)


@pytest.fixture(scope='module')
def stains():
  """Make two channels of 16 bits with different ranges; smooth, with some detail."""
  photo = image_files.read(f'{skimage.data.__path__[0]}/ihc.png').astype(float)
  made = np.stack([photo[..., 2] * 230 + 100, photo[..., 0] * 15], -1)
  return np.round(made).astype(np.uint16)


@pytest.fixture(scope='module')
def folder(stains, tmp_path_factory):
  """Write images of two channels among others that don't fit."""
  root = tmp_path_factory.mktemp('tree')
  rasters.write(root / 'a.tif', stains[:200, :160])
  rasters.write(root / 'b' / 'c.npy', stains[200:400, :200])
  rasters.write(root / 'b' / 'd.npy', stains[:100, :200].astype(np.float32))
  rasters.write(root / 'e.tif', noise(50, 50, 3))
  rasters.write(root / 'f.tif', stains[:9, :50])
  Image.fromarray(noise(50, 50, 3, np.uint8)).save(root / 'g.jpg')
  (root / 'h.npy').write_bytes(b'')
  return root
