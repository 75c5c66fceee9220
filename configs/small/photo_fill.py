"""Photographs with holes filled, in a few steps of one network.

The network of photo_refine.py at the size of the picture, with the mask beside it: it
fills scratches, text and objects of up to some tens of pixels, on pictures of any size;
what is known stays bit for bit. Its weights start from those of photo_clean.py. This
file trained photo-fill, which comes with the package; docs/results has what came out.

  sr3-train --config=small/photo_fill --workdir=runs/photo_fill \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=TEST_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the settings of photo_refine.py with what this one needs."""
  c = load_config('small/photo_refine')
  c.task.name = 'inpainting'

  # Of holes, no pixel is known: the residual is the image, whose spread is near 0.5.
  c.diffusion.y0_scale = 2.0
  c.sampler.consistency = False  # known pixels are kept without it

  c.train.init_from = 'photo-clean'
  c.train.num_steps = 2200
  c.train.decay_steps = 1100
  return c
