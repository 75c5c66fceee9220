"""Image restoration at 256: Palette (arXiv:2111.05826), one model for several tasks.

The diffusion is SR3's; inputs have the size of outputs. The network has the size of
guided-diffusion's at 256, without classes, as in Palette: attention over all positions
at 32, 16 and 8, 531M parameters (the paper: 552M). Batch 1024, 1M steps, squared error.
One thing differs: holes are grey and come with a mask channel (Palette fills them with
noise instead), so that tasks with and without holes share a network.

An argument picks one of the tasks; without one it is Palette's mixture of four:

  sr3-train --config=palette_256:inpainting --workdir=runs/inpainting_256

Published, 1000 steps (ImageNet, FID of 5,000 or 10,000 images): colorization 15.8,
inpainting 6.6, uncropping 5.8, JPEG of quality 5, 10 and 20: 8.3, 5.4 and 4.3; one
model of all: inpainting 6.8, colorization 3.7, JPEG of quality 5 7.0.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default

TASKS = ('inpainting', 'uncropping', 'colorization', 'jpeg')
OTHERS = ('deblurring', 'denoising', 'mixture')


def get_config(task: str = 'mixture') -> ConfigDict:
  """Return the whole recipe for `task`, one of the above.

  Raises:
    ValueError: an unknown task.
  """
  if task not in TASKS + OTHERS:
    raise ValueError(f'no task {task!r}, only {", ".join(TASKS + OTHERS)}')
  c = default()
  c.task.name = task
  c.task.mixture = TASKS
  c.task.masks = 'mix'  # Palette's strokes and rectangles
  c.task.sides = 'mix'
  c.task.quality = (5, 30)
  if task == 'deblurring':
    c.task.blur = (1.0, 6.0)
    c.task.motion = (5.0, 40.0)

  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'
  c.data.image_size = 256
  c.data.crop = 'center'
  c.data.flip = True

  c.model.channels = 256
  c.model.multipliers = (1, 1, 2, 2, 4, 4)  # at 256, 128, 64, 32, 16 and 8
  c.model.num_blocks = 2
  c.model.attention_resolutions = (32, 16, 8)
  c.model.middle_attention = True
  c.model.dropout = 0.0

  c.diffusion.schedule = 'linear'
  c.diffusion.num_levels = 2000
  c.diffusion.start = 1e-6
  c.diffusion.end = 1e-2
  c.diffusion.prediction = 'eps'
  c.diffusion.loss = 'l2'

  # Palette samples in 1000 steps, with betas from 1e-4 to 0.09.
  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 1000
  c.sampler.spacing = 'log_snr'

  c.train.num_steps = 1_000_000
  c.train.batch_size = 1024
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.9999
  return c
