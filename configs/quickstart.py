"""wip"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  c = default()
  c.regression_steps = 500
  c.data.source = 'photos'
  c.data.eval_split = 'eval'
  c.data.image_size = 32
  c.data.crop = 'random'
  c.data.reduce = (2, 3)
  c.data.rotate = True

  c.model.channels = 48
  c.model.multipliers = (1, 2)
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

  c.sampler.name = 'ddim'
  c.sampler.num_steps = 24
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 2400
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 1200
  c.train.ema_decay = 0.995
  c.train.log_every = 50
  c.checkpoint.every_steps = 400
  c.eval.every_steps = 800
  c.eval.image_size = 64
  c.eval.num_images = 8
  c.eval.final_images = 64
  c.eval.batch_size = 8
  return c
