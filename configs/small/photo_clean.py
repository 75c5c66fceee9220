"""Photographs without JPEG artefacts, blur and noise, in one step of one network.

The network of photo_refine.py at the size of the picture: it undoes JPEG, blur, noise
and all of them at once, on pictures of any size. This file trained photo-clean, which
comes with the package; docs/results has what came out.

  sr3-train --config=small/photo_clean --workdir=runs/photo_clean \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=TEST_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the settings of photo_refine.py with what this one needs."""
  c = load_config('small/photo_refine')
  c.task.name = 'mixture'
  c.task.mixture = ('jpeg', 'deblurring', 'denoising', 'blind_super_resolution')
  c.task.scale = 1  # what is blind keeps its size
  c.task.quality = (10, 80)
  c.task.blur = (0.5, 2.5)
  c.task.motion = (3.0, 8.0)
  c.task.noise = (0.04, 0.3)

  c.diffusion.y0_scale = 6.0  # brings the spread of the residual near 1
  c.diffusion.perceptual = 0.45  # with 1, blur needs longer to be ahead by PSNR

  # There is nothing to be consistent with: inputs are noisy themselves.
  c.sampler.consistency = False

  c.train.num_steps = 2400
  c.train.decay_steps = 1200
  return c
