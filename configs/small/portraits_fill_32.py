"""Faces at 32: what is missing is made up, on two CPU cores.

Inpainting and uncropping by one network, for a folder of aligned portraits of 64
pixels, which are reduced by half; an argument picks one of the two, or colorization,
which wants a scale of its own. First the regression baseline.

  python -m sr3_jax.main --config=configs/faces_fill_32.py \
    --workdir=runs/faces_fill_32 --config.data.path=TRAIN_FOLDER \
    --config.data.eval_path=TEST_FOLDER

docs/results.md has what came out of larger pictures and a short run.
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
  c.regression_steps = 600
  c.task.name = task
  c.task.mixture = TASKS

  c.data.image_size = 32
  c.data.crop = 'center'  # of aligned portraits: all, reduced

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

  c.train.num_steps = 8000
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 4000
  c.train.ema_decay = 0.998
  c.train.log_every = 50

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 4000
  c.eval.num_images = 8
  c.eval.final_images = 40
  c.eval.batch_size = 8
  c.eval.max_seconds = 30.0
  return c
