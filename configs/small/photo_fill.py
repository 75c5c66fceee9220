"""Photographs without holes, in one step of one network: scratches, strokes, squares.

The network of photo_refine.py at the size of the picture. What is missing is filled
smoothly first (`model.smooth_holes`), and the network adds what that lacks.

  sr3-train --config=small/photo_fill --workdir=runs/photo_fill \
    --config.train.init_from=photo-clean \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=TEST_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the settings of photo_refine.py with what this one needs."""
  c = load_config('small/photo_refine')
  c.task.name = 'inpainting'
  c.model.smooth_holes = True

  c.diffusion.y0_scale = 4.0  # brings the spread of the residual near 1
  c.diffusion.perceptual = 1.0

  c.sampler.consistency = False  # known pixels are exact without it

  c.train.num_steps = 1100
  c.train.decay_steps = 700
  return c
