"""Faces, 16 to 128, on CPU cores: the paper's face experiment, small and 8x.

As face_16_64, but the network works on 4 x 4 pixels at a time: 128-pixel portraits cost
what 32-pixel ones would. It predicts the clean image: noise of 48 numbers a patch does
not fit through 48 channels, the image does (docs/results.md has both).

Sharp portraits of this size were few, so training has two parts: first all there are,
soft ones as well, with the regression baseline; then the sharp ones alone, from those
weights. face-x8, which comes with the package, was trained so.

  python -m sr3_jax.main --config=configs/face_16_128.py --workdir=runs/face_all \
    --config.data.path=ALL_FOLDER --config.data.eval_path=DEV_FOLDER
  python -m sr3_jax.main --config=configs/face_16_128.py --workdir=runs/face_16_128 \
    --config.data.path=SHARP_FOLDER --config.data.eval_path=DEV_FOLDER \
    --config.regression_steps=0 --config.train.init_from=runs/face_all \
    --config.train.num_steps=1800 --config.train.decay_steps=1500 \
    --config.train.learning_rate=5e-4
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.regression_steps = 600
  c.task.scale = 8
  c.data.image_size = 128
  c.data.crop = 'none'  # portraits are aligned and have the right size

  c.model.channels = 48
  c.model.multipliers = (1, 2, 3)
  c.model.num_blocks = 1
  c.model.attention_resolutions = ()
  c.model.patch = 4
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'y0'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 6.0  # the residual of faces spreads by 0.16
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 2600
  c.train.batch_size = 8
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 600
  c.train.ema_decay = 0.998
  c.train.log_every = 50

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 0
  c.eval.num_images = 8
  c.eval.final_images = 21
  c.eval.batch_size = 8
  c.eval.max_seconds = 30.0
  return c
