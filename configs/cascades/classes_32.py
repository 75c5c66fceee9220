"""Small labelled images out of nothing, 8 to 16 to 32: a cascade of three stages.

The stages are runs (or model folders, or hf:// addresses) that stand beside the
workdir: classes_8.py, classes_8_16.py and classes_16_32.py, trained on the same data.

  python -m sr3_jax.main --config=configs/cascade_classes_32.py \
    --workdir=runs/cascade_classes_32 --mode=sample

--mode=sweep searches the augmentation of the later stages, --mode=eval measures all,
alone and together; they need the data: --config.data.path=FILE.npz. docs/cascades.md is
the guide.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """The stages, and the images that they are compared with."""
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
