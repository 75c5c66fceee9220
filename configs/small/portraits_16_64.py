"""Faces, 16 to 64, on two CPU cores: the paper's face experiment made small.

The paper's Table 1 is 16 to 128 on FFHQ and CelebA-HQ with 550M parameters. This is a
network of 5M parameters for a folder of some thousand aligned 64-pixel portraits: first
its regression baseline, then SR3, in about an hour. It works on 4 x 4 pixels at a time
and predicts the clean image, whose errors count more the more noise there is. face-x4,
which comes with the package, was trained by it; docs/results.md has what came out.

  python -m sr3_jax.main --config=configs/face_16_64.py --workdir=runs/face_16_64 \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=DEV_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.regression_steps = 800

  c.data.image_size = 64
  c.data.crop = 'none'  # portraits are aligned and have the right size

  c.model.channels = 64
  c.model.multipliers = (1, 2, 2)
  c.model.num_blocks = 1
  c.model.attention_resolutions = ()
  c.model.patch = 4
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'y0'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 6.0  # the residual of faces spreads by 0.14
  c.diffusion.loss = 'l2'
  c.diffusion.noise_weight = 1.0

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 6000
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 3600
  c.train.ema_decay = 0.998
  c.train.log_every = 50

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 3000
  c.eval.num_images = 8
  c.eval.final_images = 61
  c.eval.batch_size = 8
  c.eval.max_seconds = 30.0
  return c
