"""Faces, 16 to 64, on two CPU cores: a small version of the paper's face experiment.

The paper's Table 1 is 16 to 128 on FFHQ and CelebA-HQ with 550M parameters. This is a
network of 5M parameters for a folder of some thousand aligned portraits of 64 pixels:
first its regression baseline, then SR3, in about an hour. It works on 4 x 4 pixels at a
time and predicts the clean image. Errors count more where there is more noise. This
file trained face-x4, which comes with the package; docs/results has what came out.

  sr3-train --config=small/portraits_16_64 --workdir=runs/portraits_16_64 \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=DEV_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.regression_steps = 800

  c.data.image_size = 64
  c.data.crop = 'none'  # portraits are aligned and have the right size

  c.model.channels = 64
  c.model.multipliers = (1, 2, 2)
  c.model.patch = 4

  c.diffusion.prediction = 'y0'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 6.0  # the residual of faces has a spread of 0.14
  c.diffusion.noise_weight = 1.0

  c.train.num_steps = 6000
  c.train.batch_size = 16
  c.train.decay_steps = 3600

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 3000
  c.eval.final_images = 61
  c.eval.max_seconds = 30.0
  return c
