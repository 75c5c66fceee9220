"""Class-conditional ImageNet 256 x 256 in two stages: arXiv:2104.07636, Table 4.

imagenet_64.py samples, imagenet_64_256_stage.py upsamples. The paper's two stages have
an FID of 11.3 over 50,000 images (its Table 4; 13.1 without blur augmentation in the
training of the second stage, Table 5); CDM (arXiv:2106.15282), with other networks and
three stages, has 4.88.

  sr3-train --config=cascades/imagenet_256 --workdir=gs://BUCKET/cascade_imagenet_256 \
    --mode=sample

This samples 50 images of each class; cascade.classes and cascade.images_per_class
choose others. --mode=sweep searches the augmentation; --mode=eval measures both stages,
alone and together, with the paper's tables beside them. For figures like the paper's
compare with the training set: make its statistics with --mode=reference and give them
as eval.reference.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the stages, and the images that they are compared with."""
  c = default()
  c.cascade.stages = ('imagenet_64', 'imagenet_64_256_stage')
  c.cascade.num_steps = (250, 100)  # more at low resolution, as in the paper
  c.cascade.images_per_class = 50
  c.cascade.batch_size = 256

  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'

  c.eval.batch_size = 256
  c.eval.final_images = 50_000
  c.eval.networks = ('inception',)
  c.sweep.num_images = 2048
  return c
