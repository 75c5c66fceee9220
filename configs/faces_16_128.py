"""SR3, faces 16 -> 128: arXiv:2104.07636, tables 1 and A.1.

The network has 565M parameters here (the paper: 550M). Weights, Adam and EMA are
8.4 GiB of float32. Train on FFHQ (data.path), evaluate on CelebA-HQ (data.eval_path).

Expected on CelebA-HQ (paper; consistency is MSE x 1e-5):
             PSNR   SSIM  consistency  fool rate, task 2
  regression 23.96  0.69  2.71         15.3 %
  SR3        23.04  0.65  2.68         47.4 %
One million steps at batch 256 are 4.3e20 FLOP: about 12 days at 400 TFLOP/s sustained.
Dropout 0.2 is used for this model only.

  python -m sr3_jax.main --config=configs/faces_16_128.py --workdir=gs://BUCKET/RUN \\
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
Regression baseline (the paper's learning rate):
  ... --config.method=regression --config.train.learning_rate=1e-5 --workdir=...
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the 64 -> 256 defaults."""
  c = default()
  c.task.scale = 8
  c.data.image_size = 128
  c.data.workers = 8
  c.model.multipliers = (1, 2, 4, 8, 8)
  c.model.dropout = 0.2
  return c
