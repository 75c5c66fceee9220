"""Two stains of a tissue section, 4x, on two CPU cores in some minutes.

Images have 16 bits and two channels: the optical densities of haematoxylin (cell
nuclei) and DAB (a protein) that docs/make_stains.py finds in scikit-image's
photomicrograph of a colon section. Training uses its upper three quarters; crops of the
lowest quarter are restored. `data.low` and `data.high` are what
`sr3-channels stains/train` prints: the stored values that mean -1 and 1, one for each
channel.

  python docs/make_stains.py stains
  sr3-train --config=small/stains_16_64 --workdir=runs/stains
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.regression_steps = 300

  c.data.path = 'stains/train'
  c.data.eval_path = 'stains/eval'
  c.data.channels = 2
  c.data.low = (0.0, 0.0)
  c.data.high = (15448.0, 54819.0)
  c.data.image_size = 32
  c.data.crop = 'random'
  c.data.rotate = True

  c.model.channels = 32
  c.model.multipliers = (1, 2)
  c.model.middle_attention = False  # for pictures of any size
  c.model.patch = 2

  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0  # brings the spread of the residual near 1

  c.train.num_steps = 1500
  c.train.batch_size = 16
  c.train.decay_steps = 750
  c.train.ema_decay = 0.995

  c.checkpoint.every_steps = 300
  c.eval.every_steps = 500
  c.eval.image_size = 64
  c.eval.final_images = 64
  c.eval.max_seconds = 20.0
  # The networks were trained on photographs and say nothing about two stains.
  c.eval.networks = ()
  return c
