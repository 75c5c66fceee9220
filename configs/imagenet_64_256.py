"""SR3, natural images 64 -> 256: arXiv:2104.07636, tables 2, 3 and A.1.

The network has 621M parameters here (the paper: 625M). Weights, Adam and EMA are
9.3 GiB of float32; with a batch of 256 over 16 chips of 16 GiB,
set parallel.strategy='fsdp' (docs/scaling.md).

Expected on the 50,000 validation images (paper; PSNR and SSIM by its own convention):
             FID    IS     PSNR   SSIM
  regression 15.2   121.1  27.9   0.801
  SR3         5.2   180.1  26.4   0.762
One million steps at batch 256 are 1.4e21 FLOP: about 40 days at 400 TFLOP/s sustained.

The paper drops images whose shorter side is below 256, takes the largest central square
and resizes it with area averaging; inference uses at most 100 steps.

  python -m sr3_jax.main --config=configs/imagenet_64_256.py --workdir=gs://BUCKET/RUN
Regression baseline (the paper's learning rate):
  ... --config.method=regression --config.train.learning_rate=1e-5 --workdir=...
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """The defaults of sr3_jax.config are this experiment; what it needs is data."""
  c = default()
  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'
  c.data.workers = 8
  return c
