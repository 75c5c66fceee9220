"""Faces 64 -> 256 for generated inputs: the second stage of the cascade to 1024.

This is the 64 -> 256 network of the paper (imagenet_64_256.py) with conditioning
augmentation (CDM, arXiv:2106.15282): half of the inputs are blurred, and all are noisy
to some degree; the network is told both levels. --mode=sweep of cascades/faces_1024
chooses both levels for sampling.

The network has 621M parameters. Weights, Adam and EMA are 9.3 GiB of float32; with a
batch of 256 over 16 chips of 16 GiB, set parallel.strategy='fsdp'
(docs/scaling.md).
One million steps at batch 256 are 1.4e21 FLOP: about 40 days at 400 TFLOP/s sustained.

  sr3-train --config=cascades/faces_64_256_stage \
    --workdir=gs://BUCKET/faces_64_256_stage \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the paper's 64 -> 256 recipe with what a stage of a cascade needs."""
  c = load_config('imagenet_64_256')
  c.task.name = 'cascade'
  c.task.augment_blur = (0.4, 0.6)
  c.task.augment_noise = (0.0, 0.5)

  c.data.source = 'folder'
  c.data.path = ''
  return c
