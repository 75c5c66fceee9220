"""Image restoration at 256: Palette (arXiv:2111.05826), one model for several tasks.

The same diffusion as SR3's; inputs have the size of outputs. A network of the size of
guided-diffusion's at 256, without classes, as Palette has it: attention over all
positions at 32, 16 and 8, 531M parameters (the paper: 552M). Batch 1024, 1M steps,
squared error. Difference: holes are grey and come with a mask channel (Palette fills
them with noise instead), so that tasks with and without holes share a network.

An argument picks one of the tasks; without one it is Palette's mixture of four:

  python -m sr3_jax.main --config=configs/palette_256.py:inpainting \
    --workdir=runs/inpainting_256 --config.data.path=imagenet2012

Published, 1000 steps (ImageNet, FID of 5,000 or 10,000 images): colorization 15.8,
inpainting 6.6, uncropping 5.8, JPEG of quality 5, 10 and 20: 8.3, 5.4 and 4.3; one
model of all: inpainting 6.8, colorization 3.7, JPEG of quality 5 7.0.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default

TASKS = ('inpainting', 'uncropping', 'colorization', 'jpeg')
OTHERS = ('deblurring', 'denoising', 'mixture')


def get_config(task: str = 'mixture') -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment; `task` is one of the above."""
  if task not in TASKS + OTHERS:
    raise ValueError(f'no task {task!r}, only {", ".join(TASKS + OTHERS)}')
  c = default()
  c.task.name = task
  c.task.mixture = TASKS
  if task == 'deblurring':
    c.task.blur = (1.0, 6.0)
    c.task.motion = (5.0, 40.0)

  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'

  c.model.channels = 256
  c.model.multipliers = (1, 1, 2, 2, 4, 4)
  c.model.num_blocks = 2
  c.model.attention_resolutions = (32, 16, 8)

  c.diffusion.loss = 'l2'

  # Palette walks 1000 steps of betas from 1e-4 to 0.09.
  c.sampler.num_steps = 1000
  c.sampler.spacing = 'log_snr'

  c.train.batch_size = 1024
  return c
