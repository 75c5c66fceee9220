"""Faces 64 -> 256 for generated inputs: the second stage of the cascade to 1024.

The 64 -> 256 network of the paper with conditioning augmentation (CDM,
arXiv:2106.15282): half of the inputs are blurred, and all are noisy to some degree,
which the network is told. --mode=sweep of cascade_faces_1024.py chooses both levels.

The network has 621M parameters. Weights, Adam and EMA are 9.3 GiB of float32; with a
batch of 256 over 16 chips of 16 GiB, set parallel.strategy='fsdp'
(docs/scaling.md).
One million steps at batch 256 are 1.4e21 FLOP: about 40 days at 400 TFLOP/s sustained.

  python -m sr3_jax.main --config=configs/faces_64_256_cascade.py \
    --workdir=gs://BUCKET/faces_64_256_cascade \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.task.name = 'cascade'
  c.data.workers = 8
  return c
