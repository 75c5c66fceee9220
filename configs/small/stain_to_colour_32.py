"""From one stain of a tissue section to the section in colour, on two CPU cores.

Inputs have one channel of 16 bits, the optical density of haematoxylin (cell nuclei);
targets are 8-bit RGB, the section as the microscope saw it. docs/make_pairs.py makes
both from scikit-image's photomicrograph; docs/pairs.md explains pairs.

  python docs/make_pairs.py pairs
  sr3-train --config=small/stain_to_colour_32 --workdir=runs/stain
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the configuration of small pairs with what this example needs."""
  c = load_config('small/pairs')
  c.regression_steps = 1500

  c.data.path = 'pairs/train/targets'
  c.data.input_path = 'pairs/train/inputs'
  c.data.eval_path = 'pairs/eval/targets'
  c.data.eval_input_path = 'pairs/eval/inputs'
  c.data.input_channels = 1
  c.data.input_low = (0.0,)  # what `sr3-channels pairs/train/inputs --inputs` prints
  c.data.input_high = (15448.0,)
  c.data.image_size = 32
  c.data.rotate = True

  c.train.num_steps = 4000
  c.train.decay_steps = 2000
  c.train.ema_decay = 0.998

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 0
  c.eval.image_size = 64
  c.eval.final_images = 32
  return c
