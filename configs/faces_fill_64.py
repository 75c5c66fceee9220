"""Faces at 64: what is missing is made up, on two CPU cores.

Inpainting, uncropping and colorization by one network of 3M parameters, for a folder of
aligned portraits; an argument picks one of the three. First the regression baseline.

  python -m sr3_jax.main --config=configs/faces_fill_64.py \
    --workdir=runs/faces_fill_64 --config.data.path=TRAIN_FOLDER \
    --config.data.eval_path=TEST_FOLDER

docs/results.md has what came out of a short run.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default

TASKS = ('inpainting', 'uncropping')
ALONE = ('colorization',)


def get_config(task: str = 'mixture') -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment; `task` is one of the above."""
  if task not in (known := (*TASKS, *ALONE, 'mixture')):
    raise ValueError(f'no task {task!r}, only {", ".join(known)}')
  c = default()
  c.regression_steps = 250
  c.task.name = task
  c.task.mixture = TASKS

  c.data.image_size = 64
  c.data.crop = 'none'  # portraits are aligned and have the right size

  c.model.channels = 32
  c.model.multipliers = (1, 2, 4)
  c.model.num_blocks = 1
  c.model.attention_resolutions = (8,)
  c.model.patch = 2
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.residual = True  # the luma of colorization is there already
  c.diffusion.y0_scale = 8.0 if task in ALONE else 2.0  # colours are a small part
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 1400
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 700
  c.train.ema_decay = 0.995
  c.train.log_every = 50

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 1200
  c.eval.num_images = 8
  c.eval.final_images = 40
  c.eval.batch_size = 8
  c.eval.max_seconds = 30.0
  return c
