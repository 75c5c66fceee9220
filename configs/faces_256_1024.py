"""SR3, faces 256 -> 1024, last stage of the face cascade: arXiv:2104.07636, table A.1.

The network has 150M parameters (the paper: 150M). Weights, Adam and EMA are 2.2 GiB of
float32; activations at 1024 x 1024 are the larger part, so blocks are recomputed
(model.remat). On 16 chips of 16 GiB, and on 16 of 32, set parallel.strategy='fsdp' and
train.accumulate=2, too (docs/scaling.md). Train on FFHQ at 1024 (data.path). The paper
shows pictures of the cascade 64 -> 256 -> 1024 but no metrics.
One million steps at batch 256 are 5.1e20 FLOP: about 15 days at 400 TFLOP/s sustained.

  python -m sr3_jax.main --config=configs/faces_256_1024.py --workdir=gs://BUCKET/RUN \\
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the 64 -> 256 defaults."""
  c = default()
  c.data.image_size = 1024
  c.data.workers = 8
  c.model.channels = 16
  c.model.multipliers = (1, 2, 4, 8, 16, 32, 32, 32)
  c.model.num_blocks = 2
  c.model.remat = True
  return c
