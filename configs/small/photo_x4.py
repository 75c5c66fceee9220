"""Photographs, 4x: crops of 64 pixels, any size at use. For some hours of a CPU core.

Inputs as people have them: half are bicubic, half a little soft, noisy, compressed. The
network sees a neighbourhood only, so that it runs on pictures of any size, and works on
2 x 2 pixels at a time. First the regression baseline. photo-x4, which comes with the
package, was trained by it; docs/results.md has what was tried and what came out.

  python -m sr3_jax.main --config=configs/photo_x4.py --workdir=runs/photo_x4 \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=DEV_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.regression_steps = 1200
  c.task.name = 'photo_super_resolution'

  c.data.image_size = 64
  c.data.crop = 'random'
  c.data.reduce = (1, 2)  # photographs are soft at full size

  c.model.channels = 48
  c.model.multipliers = (1, 2, 2)
  c.model.num_blocks = 1
  c.model.attention_resolutions = ()
  c.model.middle_attention = False
  c.model.patch = 2
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0
  c.diffusion.loss = 'l2'

  c.sampler.name = 'dpmpp_2m'
  c.sampler.num_steps = 12
  c.sampler.spacing = 'cosine'
  c.sampler.consistency = True  # or regression is far ahead of it

  c.train.num_steps = 9000
  c.train.batch_size = 8
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 5000
  c.train.ema_decay = 0.999
  c.train.log_every = 50

  c.checkpoint.every_steps = 250
  c.eval.every_steps = 2500
  c.eval.num_images = 8
  c.eval.final_images = 64
  c.eval.batch_size = 8
  c.eval.max_seconds = 20.0
  c.eval.networks = ('lpips_alex',)
  return c
