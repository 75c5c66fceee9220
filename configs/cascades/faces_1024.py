"""Faces of 1024 x 1024 out of nothing, in three stages: arXiv:2104.07636.

faces_64.py draws, faces_64_256_cascade.py and faces_256_1024_cascade.py enlarge. More
steps are spent on small images than on large ones, as in the paper, which shows such
faces and gives no FID.

  python -m sr3_jax.main --config=configs/cascade_faces_1024.py \
    --workdir=gs://BUCKET/cascade_faces_1024 --mode=sample \
    --config.cascade.images_per_class=1000

--mode=sweep searches the augmentation of both enlarging stages; --mode=eval measures
all three; both compare with --config.data.path=FFHQ_FOLDER.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """The stages, and the images that they are compared with."""
  c = default()
  c.cascade.stages = ('faces_64', 'faces_64_256_cascade', 'faces_256_1024_cascade')
  c.cascade.num_steps = (250, 100, 50)
  c.cascade.images_per_class = 64  # there are no classes: in all

  c.data.image_size = 1024

  c.eval.final_images = 10_000
  c.eval.networks = ('inception',)
  c.sweep.num_images = 512
  return c
