"""Photographs, 4x: crops of 64 pixels, any size at use. For some hours of a CPU core.

Inputs are as people have them: half are bicubic, half a little soft, noisy and
compressed. The network has no attention, so that it runs on pictures of any size, and
works on 2 x 2 pixels at a time. The regression baseline is trained first. This file
trained the first photo-x4; small/photo_refine.py trained the one that comes with the
package. docs/results has what was tried and what came out.

  sr3-train --config=small/photo_x4 --workdir=runs/photo_x4 \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=DEV_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.regression_steps = 1200
  c.task.name = 'photo_super_resolution'

  c.data.image_size = 64
  c.data.crop = 'random'
  c.data.reduce = (1, 2)  # photographs are soft at full size

  c.model.channels = 48
  c.model.multipliers = (1, 2, 2)
  c.model.middle_attention = False  # for pictures of any size
  c.model.patch = 2

  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0  # brings the spread of the residual near 1

  c.sampler.name = 'dpmpp_2m'
  c.sampler.num_steps = 12
  # Without it, regression is far closer to the input.
  c.sampler.consistency = True

  c.train.num_steps = 9000
  c.train.batch_size = 8
  c.train.decay_steps = 5000
  c.train.ema_decay = 0.999

  c.checkpoint.every_steps = 250
  c.eval.every_steps = 2500
  c.eval.final_images = 64
  c.eval.max_seconds = 20.0
  c.eval.networks = ('lpips_alex',)
  return c
