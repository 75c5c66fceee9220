"""Faces, 16 to 128, on CPU cores: the paper's face experiment with a small network.

The network works on 4 x 4 pixels at a time, so portraits of 128 pixels cost what those
of 32 pixels would. It predicts the clean image: the noise of a patch, 48 numbers, does
not fit through 48 channels, the image does (docs/results has both).

Sharp portraits of this size were few, so training has two parts: first on all there
are, soft ones as well, with the regression baseline; then on the sharp ones alone, from
those weights. This is how face-x8, which comes with the package, was trained.

  sr3-train --config=small/portraits_16_128 --workdir=runs/portraits_all \
    --config.data.path=ALL_FOLDER --config.data.eval_path=DEV_FOLDER
  sr3-train --config=small/portraits_16_128 --workdir=runs/portraits_16_128 \
    --config.data.path=SHARP_FOLDER --config.data.eval_path=DEV_FOLDER \
    --config.regression_steps=0 --config.train.init_from=runs/portraits_all \
    --config.train.num_steps=1800 --config.train.decay_steps=1500 \
    --config.train.learning_rate=5e-4
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.regression_steps = 600
  c.task.scale = 8
  c.data.image_size = 128
  c.data.crop = 'none'  # portraits are aligned and have the right size

  c.model.channels = 48
  c.model.multipliers = (1, 2, 3)
  c.model.patch = 4

  c.diffusion.prediction = 'y0'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 6.0  # the residual of faces has a spread of 0.16

  c.train.num_steps = 2600
  c.train.batch_size = 8
  c.train.decay_steps = 600

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 0
  c.eval.final_images = 21
  c.eval.max_seconds = 30.0
  return c
