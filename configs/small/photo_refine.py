"""Photographs, 4x, in one step: the network predicts once, then refines.

Inputs are as people have them: half are bicubic, half a little soft, noisy and
compressed. The network works on the grid of the small image and knows no size, so it
runs on pictures of any size. The loss has a perceptual term, without which few steps
are smooth and many are grainy. This file trained photo-x4, which comes with the
package; docs/results has what was tried and what came out.

  sr3-train --config=small/photo_refine --workdir=runs/photo_refine \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=DEV_FOLDER
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.task.name = 'photo_super_resolution'

  c.data.image_size = 96
  c.data.crop = 'random'
  c.data.reduce = (1, 2)  # photographs are soft at full size
  c.data.rotate = True

  c.model.network = 'refine'
  c.model.channels = 96
  c.model.predict_blocks = 8
  c.model.num_blocks = 4
  c.model.patch = 4  # the scale: the grid is that of the input

  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0  # brings the spread of the residual near 1
  c.diffusion.perceptual = 2.0
  c.diffusion.start_share = 0.5  # one step is the first step of all

  c.sampler.name = 'ddim'
  c.sampler.num_steps = 1  # more have cost quality in every measure so far
  # Without it, regression is far closer to the input.
  c.sampler.consistency = True

  c.train.optimizer = 'muon'
  c.train.learning_rate = 2e-3
  c.train.num_steps = 2200
  c.train.batch_size = 8
  c.train.decay_steps = 950
  c.train.ema_decay = 0.999

  c.checkpoint.every_steps = 250
  c.eval.every_steps = 0
  c.eval.final_images = 44
  c.eval.networks = ('lpips_alex', 'lpips_vgg')
  return c
