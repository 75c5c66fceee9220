"""Faces at 32: fill holes and continue beyond the border, on two CPU cores.

One network does inpainting and uncropping, for a folder of aligned portraits of 64
pixels, which are downsampled by two. The regression baseline is trained first. An
argument picks one of the two tasks, or colorization, which needs a scale of its own:
small/portraits_fill_32:colorization.

  sr3-train --config=small/portraits_fill_32 --workdir=runs/portraits_fill \
    --config.data.path=TRAIN_FOLDER --config.data.eval_path=TEST_FOLDER

docs/results has what came out of a short run.
"""

from sr3_jax.config import ConfigDict, load_config

TASKS = ('inpainting', 'uncropping')
ALONE = ('colorization',)


def get_config(task: str = 'mixture') -> ConfigDict:
  """Return the shared base of small networks with what `task`, one of the above, needs.

  Raises:
    ValueError: an unknown task.
  """
  if task not in (known := (*TASKS, *ALONE, 'mixture')):
    raise ValueError(f'no task {task!r}, only {", ".join(known)}')
  c = load_config('small/base')
  c.regression_steps = 600
  c.task.name = task
  c.task.mixture = TASKS

  c.data.image_size = 32
  c.data.crop = 'center'  # the whole of an aligned portrait, downsampled

  c.model.channels = 32
  c.model.multipliers = (1, 2, 4)
  c.model.attention_resolutions = (8,)  # holes are larger than a neighbourhood
  c.model.patch = 2

  # Colorization knows the luma; the colours that are left have a small spread.
  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0 if task in ALONE else 2.0

  c.train.num_steps = 8000
  c.train.batch_size = 16
  c.train.decay_steps = 4000

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 4000
  c.eval.final_images = 40
  c.eval.max_seconds = 30.0
  return c
