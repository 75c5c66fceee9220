"""Blind 4x super-resolution of photographs, 64 to 256.

This is the recipe of imagenet_64_256.py for pictures as they are found: inputs are
blurred, noisy and compressed twice over before they are downsampled (Real-ESRGAN's
second-order model, arXiv:2107.10833). The degradation is drawn anew for every image and
step.

  sr3-train --config=blind_64_256 --workdir=runs/blind_64_256 \
    --config.data.path=FOLDER --config.data.eval_path=FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.task.name = 'blind_super_resolution'
  c.task.scale = 4

  c.data.source = 'folder'
  c.data.image_size = 256
  c.data.crop = 'random'
  c.data.reduce = (1, 2)  # photographs are often soft at full size
  c.data.flip = True

  c.model.channels = 128
  c.model.multipliers = (1, 2, 4, 4, 8, 8)  # at 256, 128, 64, 32, 16 and 8
  c.model.num_blocks = 3
  c.model.attention_resolutions = (16,)
  c.model.middle_attention = True
  c.model.dropout = 0.0

  c.diffusion.schedule = 'linear'
  c.diffusion.num_levels = 2000
  c.diffusion.start = 1e-6
  c.diffusion.end = 1e-2
  c.diffusion.prediction = 'eps'
  c.diffusion.loss = 'l1'

  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 100
  c.sampler.spacing = 'log_snr'

  c.train.num_steps = 1_000_000
  c.train.batch_size = 256
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.9999
  return c
