"""Small labelled images from noise, 8 to 16 to 32: a cascade of three stages.

The stages are runs that stand beside the workdir (or model folders, or hf://
addresses): small/classes_8, small/classes_8_16 and small/classes_16_32, trained on the
same data.

  sr3-train --config=cascades/classes_32 --workdir=runs/cascade_classes_32 --mode=sample

--mode=sweep searches the augmentation of the later stages; --mode=eval measures each
stage alone and all together. Both modes need the data: --config.data.path=FILE.npz.
docs/cascades.md is the guide.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the stages, and the images that they are compared with."""
  c = default()
  c.cascade.stages = ('classes_8', 'classes_8_16', 'classes_16_32')

  c.data.source = 'arrays'
  c.data.eval_split = 'test'
  c.data.image_size = 32
  c.data.crop = 'none'

  c.eval.batch_size = 128
  c.eval.final_images = 1024
  c.eval.networks = ()  # Inception looks at images of 299 pixels
  c.sweep.num_images = 512
  return c
