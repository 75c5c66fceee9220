"""Photographs: what was done to them is undone, on two CPU cores.

JPEG artefacts, blur, noise and all of them at once (blind, 2x) by one network of 1.6M
parameters that sees a neighbourhood only, so that it runs on pictures of any size.
Trained on crops of 32 pixels; an argument picks one of the tasks. First the regression
baseline.

  python -m sr3_jax.main --config=configs/photos_clean_32.py \
    --workdir=runs/photos_clean_32 --config.data.path=TRAIN_FOLDER \
    --config.data.eval_path=TEST_FOLDER

docs/results.md has what came out of a short run.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default

TASKS = ('jpeg', 'deblurring', 'denoising', 'blind_super_resolution')


def get_config(task: str = 'mixture') -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment; `task` is one of the above."""
  if task not in (*TASKS, 'mixture'):
    raise ValueError(f'no task {task!r}, only {", ".join(TASKS)} and mixture')
  c = default()
  c.regression_steps = 300
  c.task.name = task
  c.task.mixture = TASKS
  c.task.scale = 2  # of the blind one
  c.task.blur = (0.5, 2.0)
  c.task.motion = (3.0, 8.0)
  c.task.noise = (0.04, 0.3)

  c.data.image_size = 32
  c.data.crop = 'random'
  c.data.reduce = (2,)  # photographs are soft at full size, and JPEG files themselves

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
  c.diffusion.y0_scale = 6.0
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 6000
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 2400
  c.train.ema_decay = 0.995
  c.train.log_every = 50

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 800
  c.eval.image_size = 64
  c.eval.num_images = 8
  c.eval.final_images = 64
  c.eval.batch_size = 8
  c.eval.max_seconds = 20.0
  c.eval.networks = ('lpips_alex',)
  return c
