"""SR3, natural images 64 -> 256: arXiv:2104.07636, tables 2, 3 and A.1.

The network has 621M parameters here (the paper: 625M). Weights, Adam and EMA are
9.3 GiB of float32; with a batch of 256 over 16 chips of 16 GiB,
set parallel.strategy='fsdp' (docs/scaling.md).

Expected on the 50,000 validation images (paper; PSNR and SSIM by its own convention):
             FID    IS     PSNR   SSIM
  regression 15.2   121.1  27.9   0.801
  SR3         5.2   180.1  26.4   0.762
One million steps at batch 256 are 1.4e21 FLOP: about 40 days at 400 TFLOP/s sustained.

The paper drops images whose shorter side is below 256, takes the largest central square
and resizes it with area averaging; inference uses at most 100 steps.

  sr3-train --config=imagenet_64_256 --workdir=gs://BUCKET/RUN

The regression baseline has the paper's learning rate for it:

  sr3-train --config=imagenet_64_256 --workdir=gs://BUCKET/REGRESSION \
    --config.method=regression --config.train.learning_rate=1e-5
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe. The defaults of sr3_jax/options.py are the same."""
  c = default()
  c.task.name = 'super_resolution'
  c.task.scale = 4

  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'
  c.data.image_size = 256
  c.data.crop = 'center'
  c.data.flip = True
  c.data.workers = 8

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
