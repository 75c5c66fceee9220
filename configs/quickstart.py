"""Quickstart: 4x super-resolution of photographs, on two CPU cores, in a quarter hour.

It trains on crops of eleven photographs that come with scikit-image and restores two
that it has never seen: first the regression baseline of the same network, then SR3. The
network has 1.6M parameters and works on 2 x 2 pixels at a time.

Three choices make so short a training work, each measured against the alternative:
  - the residual over the bicubic input is modelled (`residual`), scaled to a spread of
    about 1 (`y0_scale` 8; at 4 the samples were twice as grainy at the same cost);
  - the network predicts v, under a cosine schedule;
  - batches have 16 images, and the learning rate decays over half of the steps.

  sr3-train --config=quickstart --workdir=runs/quickstart

small/base.py gives the reason for every setting of a small network.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.regression_steps = 400
  c.task.name = 'super_resolution'
  c.task.scale = 4

  c.data.source = 'photos'
  c.data.eval_split = 'eval'
  c.data.image_size = 32
  c.data.crop = 'random'
  c.data.reduce = (2, 3)  # photographs are soft at full size
  c.data.flip = True
  c.data.rotate = True  # eleven photographs are few

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

  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 2400
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 1200
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.995
  c.train.log_every = 50

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 800
  c.eval.image_size = 64
  c.eval.num_images = 8
  c.eval.final_images = 64
  c.eval.batch_size = 8
  c.eval.max_seconds = 20.0
  c.eval.networks = ()  # no FID, no LPIPS: their weights are a download of their own
  return c
