"""SR3, faces 64 -> 512: arXiv:2104.07636, figure 4 and table A.1.

The network has 614M parameters here (the paper: 625M). Weights, Adam and EMA are
9.2 GiB of float32; activations are the larger part, so blocks are recomputed
(model.remat). On 16 chips of 16 GiB set parallel.strategy='fsdp' and
train.accumulate=2, too; 16 v4 chips hold it with 'fsdp' only (docs/scaling.md).
Train on FFHQ (data.path), evaluate on CelebA-HQ (data.eval_path). The paper shows
pictures of this model but no metrics.
One million steps at batch 256 are 1.8e21 FLOP: about 52 days at 400 TFLOP/s sustained.

  python -m sr3_jax.main --config=configs/faces_64_512.py --workdir=gs://BUCKET/RUN \\
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the 64 -> 256 defaults."""
  c = default()
  c.task.scale = 8
  c.data.image_size = 512
  c.data.workers = 8
  c.model.channels = 64
  c.model.multipliers = (1, 2, 4, 8, 8, 16, 16)
  c.model.remat = True
  return c
