"""ImageNet 64 -> 256 for generated inputs: the second stage of a cascade.

This is imagenet_64_256.py, which restores photographs, with what a cascade needs (CDM,
arXiv:2106.15282): conditioning augmentation, the class, and inputs that are downsampled
by area, like the images of the first stage. Blur of half of the inputs is what both
papers use at this size: it takes the SR3 paper's two stages from FID 13.1 to 11.3
(Table 5). The range of its sigma is quoted from memory of CDM, which reports no gain
from noise at 256 x 256. To train for noise as well, and to let --mode=sweep choose, add
  --config.task.augment_noise="(0.0, 0.5)"

The network has 622M parameters. Weights, Adam and EMA are 9.3 GiB of float32; with a
batch of 256 over 16 chips of 16 GiB, set parallel.strategy='fsdp'
(docs/scaling.md).
One million steps at batch 256 are 1.4e21 FLOP: about 40 days at 400 TFLOP/s sustained.

  sr3-train --config=cascades/imagenet_64_256_stage \
    --workdir=gs://BUCKET/imagenet_64_256_stage
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the paper's 64 -> 256 recipe with what a stage of a cascade needs."""
  c = load_config('imagenet_64_256')
  c.task.name = 'cascade'
  c.task.augment_blur = (0.4, 0.6)
  c.task.augment_noise = (0.0, 0.0)

  c.model.num_classes = 1000
  c.model.label_dropout = 0.1
  return c
