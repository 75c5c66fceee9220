"""Faces 256 -> 1024 for generated inputs: the last stage of the cascade.

This is faces_256_1024.py, the paper's network of 16 channels at full size, with
conditioning augmentation (CDM, arXiv:2106.15282): half of the inputs are blurred, and
all are noisy to some degree; the network is told both levels. Blocks are recomputed
(model.remat).

The network has 150M parameters. Weights, Adam and EMA are 2.2 GiB of float32.
One million steps at batch 256 are 5.1e20 FLOP: about 15 days at 400 TFLOP/s sustained.

  sr3-train --config=cascades/faces_256_1024_stage \
    --workdir=gs://BUCKET/faces_256_1024_stage \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the paper's 256 -> 1024 recipe with what a stage of a cascade needs."""
  c = load_config('faces_256_1024')
  c.task.name = 'cascade'
  c.task.augment_blur = (0.4, 0.6)
  c.task.augment_noise = (0.0, 0.5)
  return c
