"""Small labelled images, 8 to 16: the second stage of a cascade, on two CPU cores.

Conditioning augmentation: training inputs are blurred and made noisy to a random degree
that the network is told. So the wrong details of the stage before do not mislead it.

  sr3-train --config=small/classes_8_16 --workdir=runs/classes_8_16 \
    --config.data.path=FILE.npz --config.model.num_classes=10
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
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
  c.model.attention_resolutions = (8,)  # at this size it is cheap
  c.model.num_classes = 10
  c.model.label_dropout = 0.1

  c.diffusion.residual = True
  c.diffusion.y0_scale = 5.0  # brings the spread of the residual near 1

  c.train.num_steps = 1200
  c.train.batch_size = 32
  c.train.decay_steps = 600
  c.train.log_every = 100

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 0
  c.eval.num_images = 64
  c.eval.batch_size = 128
  c.eval.final_images = 1024
  c.eval.networks = ()  # Inception looks at images of 299 pixels
  return c
