"""SR3, faces 16 -> 128: arXiv:2104.07636, tables 1 and A.1.

The network has 565M parameters here (the paper: 550M). Weights, Adam and EMA are
8.4 GiB of float32. Train on FFHQ (data.path), evaluate on CelebA-HQ (data.eval_path).

Expected on CelebA-HQ (paper; consistency is MSE x 1e-5):
             PSNR   SSIM  consistency  fool rate, task 2
  regression 23.96  0.69  2.71         15.3 %
  SR3        23.04  0.65  2.68         47.4 %
One million steps at batch 256 are 4.3e20 FLOP: about 12 days at 400 TFLOP/s sustained.
Dropout 0.2 is used for this model only.

  sr3-train --config=faces_16_128 --workdir=gs://BUCKET/RUN \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER

The regression baseline has the paper's learning rate for it: add
--config.method=regression --config.train.learning_rate=1e-5 and give another workdir.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.task.name = 'super_resolution'
  c.task.scale = 8

  c.data.source = 'folder'
  c.data.image_size = 128
  c.data.crop = 'center'
  c.data.flip = True
  c.data.workers = 8

  c.model.channels = 128
  c.model.multipliers = (1, 2, 4, 8, 8)  # at 128, 64, 32, 16 and 8
  c.model.num_blocks = 3
  c.model.attention_resolutions = (16,)
  c.model.middle_attention = True
  c.model.dropout = 0.2

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
