"""Photographs without JPEG artefacts, blur and noise, on two CPU cores.

One network of 1.6M parameters undoes JPEG, blur, noise and all of them at once (blind,
2x). It has no attention, so that it runs on pictures of any size. It is trained on
crops of 32 pixels; the regression baseline is trained first. An argument picks one of
the tasks, as in small/photos_clean_32:jpeg.

  sr3-train --config=small/photos_clean_32 --workdir=runs/photos_clean \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=TEST_FOLDER

docs/results has what came out of a short run.
"""

from sr3_jax.config import ConfigDict, load_config

TASKS = ('jpeg', 'deblurring', 'denoising', 'blind_super_resolution')


def get_config(task: str = 'mixture') -> ConfigDict:
  """Return the shared base of small networks with what `task`, one of the above, needs.

  Raises:
    ValueError: an unknown task.
  """
  if task not in (*TASKS, 'mixture'):
    raise ValueError(f'no task {task!r}, only {", ".join(TASKS)} and mixture')
  c = load_config('small/base')
  c.regression_steps = 300
  c.task.name = task
  c.task.mixture = TASKS
  c.task.scale = 2  # only blind super-resolution reads it
  c.task.blur = (0.5, 2.0)
  c.task.motion = (3.0, 8.0)
  c.task.noise = (0.04, 0.3)

  c.data.image_size = 32
  c.data.crop = 'random'
  c.data.reduce = (2,)  # photographs are soft at full size, and JPEG files themselves

  c.model.channels = 48
  c.model.multipliers = (1, 2)
  c.model.middle_attention = False  # for pictures of any size
  c.model.patch = 2

  c.diffusion.residual = True
  c.diffusion.y0_scale = 6.0  # brings the spread of the residual near 1

  c.train.num_steps = 6000
  c.train.batch_size = 16
  c.train.decay_steps = 2400
  c.train.ema_decay = 0.995

  c.checkpoint.every_steps = 200
  c.eval.every_steps = 800
  c.eval.image_size = 64
  c.eval.final_images = 64
  c.eval.max_seconds = 20.0
  c.eval.networks = ('lpips_alex',)
  return c
