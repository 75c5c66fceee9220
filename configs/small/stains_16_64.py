"""Two stains of a tissue section, 4x, on two CPU cores in some minutes.

16-bit images of two channels: the optical densities of haematoxylin (cell nuclei) and
DAB (a protein) that docs/make_stains.py finds in scikit-image's photomicrograph of a
colon section. Trains on its upper three quarters and restores crops of the lowest one.
`data.low` and `data.high` are what `sr3-channels stains/train` prints:
the stored values that mean -1 and 1, one for each channel.

  python docs/make_stains.py stains
  python -m sr3_jax.main --config=configs/stains_16_64.py --workdir=runs/stains
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
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
  c.model.num_blocks = 1
  c.model.attention_resolutions = ()
  c.model.middle_attention = False
  c.model.patch = 2
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 8.0
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 1500
  c.train.batch_size = 16
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 750
  c.train.ema_decay = 0.995
  c.train.log_every = 50

  c.checkpoint.every_steps = 300
  c.eval.every_steps = 500
  c.eval.image_size = 64
  c.eval.num_images = 8
  c.eval.final_images = 64
  c.eval.batch_size = 8
  c.eval.max_seconds = 20.0
  c.eval.networks = ()  # trained on photographs: they say nothing about two stains
  return c
