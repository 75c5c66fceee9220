"""Faces 256 -> 1024 for generated inputs: the last stage of the cascade.

faces_256_1024.py, the paper's network of 16 channels at full size, with conditioning
augmentation (CDM, arXiv:2106.15282): half of the inputs are blurred, and all are noisy
to some degree, which the network is told. Blocks are recomputed (model.remat).

The network has 150M parameters. Weights, Adam and EMA are 2.2 GiB of float32.
One million steps at batch 256 are 5.1e20 FLOP: about 15 days at 400 TFLOP/s sustained.

  python -m sr3_jax.main --config=configs/faces_256_1024_cascade.py \
    --workdir=gs://BUCKET/faces_256_1024_cascade \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the 64 -> 256 defaults."""
  c = default()
  c.task.name = 'cascade'

  c.data.image_size = 1024
  c.data.workers = 8

  c.model.channels = 16
  c.model.multipliers = (1, 2, 4, 8, 16, 32, 32, 32)
  c.model.num_blocks = 2
  c.model.remat = True
  return c
