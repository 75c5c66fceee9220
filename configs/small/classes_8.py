"""Small labelled images at 8 x 8: the base of a cascade, on two CPU cores.

The model generates images of a class from noise, with classifier-free guidance: a tenth
of the training examples have no label. It is meant for CIFAR-10 or any other .npz file
of small labelled images (or a folder of a folder for each class, data.source=classes).

  sr3-train --config=small/classes_8 --workdir=runs/classes_8 \
    --config.data.path=FILE.npz --config.model.num_classes=10

Train small/classes_8_16 next; cascades/classes_16 then samples with both.
"""

from sr3_jax.config import ConfigDict, load_config


def get_config() -> ConfigDict:
  """Return the shared base of small networks with what this one needs."""
  c = load_config('small/base')
  c.task.name = 'generation'

  c.data.source = 'arrays'
  c.data.eval_split = 'test'
  c.data.image_size = 8
  c.data.crop = 'none'

  c.model.channels = 64
  c.model.multipliers = (1, 2)
  c.model.attention_resolutions = (8,)  # at this size it is cheap
  c.model.num_classes = 10
  c.model.label_dropout = 0.1

  c.train.num_steps = 2000
  c.train.batch_size = 64
  c.train.decay_steps = 1000
  c.train.log_every = 100

  c.checkpoint.every_steps = 500
  c.eval.every_steps = 0  # a sampled picture has no truth to be compared with
  c.eval.num_images = 64
  c.eval.batch_size = 128
  c.eval.final_images = 1024
  c.eval.networks = ()  # Inception looks at images of 299 pixels
  return c
