"""Small labelled images at 8 x 8: the base of a cascade, on two CPU cores.

Class-conditional generation from noise, with classifier-free guidance: a tenth of the
training examples have no label. Meant for CIFAR-10 or any other .npz file of small
labelled images (or a folder of a folder for each class, data.source=classes).

  python -m sr3_jax.main --config=configs/classes_8.py --workdir=runs/classes_8 \
    --config.data.path=FILE.npz --config.model.num_classes=10

Then classes_8_16.py, and cascade_classes_16.py draws images of both. docs/results.md
has what came out.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.task.name = 'generation'

  c.data.source = 'arrays'
  c.data.eval_split = 'test'
  c.data.image_size = 8
  c.data.crop = 'none'

  c.model.channels = 64
  c.model.multipliers = (1, 2)
  c.model.num_blocks = 1
  c.model.attention_resolutions = (8,)
  c.model.num_classes = 10
  c.model.label_dropout = 0.1
  c.model.dtype = 'float32'

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 2000
  c.train.batch_size = 64
  c.train.learning_rate = 1e-3
  c.train.warmup_steps = 100
  c.train.decay_steps = 1000
  c.train.ema_decay = 0.998

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 0
  c.eval.batch_size = 128
  c.eval.final_images = 1024
  c.eval.networks = ()  # Inception looks at images of 299 pixels
  return c
