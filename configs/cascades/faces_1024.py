"""Faces of 1024 x 1024 from noise, in three stages: arXiv:2104.07636.

faces_64.py samples, faces_64_256_stage.py and faces_256_1024_stage.py upsample. Small
images get more sampling steps than large ones, as in the paper, which shows such faces
and gives no FID.

  sr3-train --config=cascades/faces_1024 --workdir=gs://BUCKET/cascade_faces_1024 \
    --mode=sample --config.cascade.images_per_class=1000

--mode=sweep searches the augmentation of both upsampling stages; --mode=eval measures
all three. Both compare with --config.data.path=FFHQ_FOLDER.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the stages, and the images that they are compared with."""
  c = default()
  c.cascade.stages = ('faces_64', 'faces_64_256_stage', 'faces_256_1024_stage')
  c.cascade.num_steps = (250, 100, 50)
  c.cascade.images_per_class = 64  # in all: there are no classes

  c.data.image_size = 1024

  c.eval.final_images = 10_000
  c.eval.networks = ('inception',)
  c.sweep.num_images = 512
  return c
