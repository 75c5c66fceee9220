"""Real pairs: a folder of inputs and one of targets, matched by name.

A small network for any size of picture, for some hours of a CPU core. docs/pairs.md
says what to set for other scales, channels and depths.

  sr3-train --config=small/pairs --workdir=runs/mine \
    --config.data.input_path=INPUTS --config.data.path=TARGETS \
    --config.data.eval_input_path=OTHER_INPUTS --config.data.eval_path=OTHER_TARGETS
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what pairs need."""
  c = load_config('small/base')
  c.regression_steps = 1000

  c.task.name = 'pairs'
  c.data.source = 'pairs'
  c.data.image_size = 64
  # Crops as they are: downsampled ones would have less noise than the inputs to come.
  c.data.crop = 'random'

  c.model.channels = 48
  c.model.multipliers = (1, 2, 2)
  c.model.middle_attention = False  # for pictures of any size
  c.model.patch = 2

  c.train.num_steps = 8000
  c.train.batch_size = 8
  c.train.decay_steps = 4000
  c.train.ema_decay = 0.999

  c.checkpoint.every_steps = 250
  c.eval.every_steps = 2500
  c.eval.final_images = 64
  c.eval.max_seconds = 20.0
  c.eval.networks = ()  # they were trained on photographs
  return c
