"""Small labelled images, 8 to 16: the second stage of a cascade, on two CPU cores.

Conditioning augmentation: the input is blurred and noisy to a random degree, which the
network is told, so that it isn't put out by what the stage before makes of details.

  python -m sr3_jax.main --config=configs/classes_8_16.py --workdir=runs/classes_8_16 \
    --config.data.path=FILE.npz --config.model.num_classes=10
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.task.name = 'cascade'
  c.task.scale = 2
  c.task.augment_blur = (0.3, 0.8)
  c.task.augment_noise = (0.0, 0.25)

  c.data.source = 'arrays'
  c.data.eval_split = 'test'
  c.data.image_size = 16
  c.data.crop = 'none'

  c.model.channels = 32
  c.model.multipliers = (1, 2, 2)
  c.model.num_blocks = 1
  c.model.attention_resolutions = (8,)
  c.model.num_classes = 10
  c.model.label_dropout = 0.1
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.residual = True
  c.diffusion.y0_scale = 5.0
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 1200
  c.train.batch_size = 32
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 600
  c.train.ema_decay = 0.998

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 0
  c.eval.batch_size = 128
  c.eval.final_images = 1024
  c.eval.networks = ()  # Inception looks at images of 299 pixels
  return c
