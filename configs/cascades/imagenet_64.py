"""Class-conditional ImageNet at 64 x 64: the base of a cascade to 256.

It follows Improved DDPM (arXiv:2102.09672), which the SR3 paper takes for its two-stage
model, and Cascaded Diffusion Models (CDM, arXiv:2106.15282): cosine schedule, class
embedding, attention at 32, 16 and 8. Three things differ: the network predicts v, which
costs nothing and samples well in few steps; a tenth of the examples lose their class,
so that guidance can be chosen when sampling; the variance is not learned.

The network has 284M parameters. Weights, Adam and EMA are 4.2 GiB of float32.
Published FID at 64 x 64 against the training set, with other networks and budgets than
here: Improved DDPM 2.92, ADM 2.07, CDM 1.48, all without guidance.
Half a million steps at batch 1024 are 3.3e20 FLOP: about 9.5 days at 400 TFLOP/s
sustained.

  sr3-train --config=cascades/imagenet_64 --workdir=gs://BUCKET/imagenet_64

Train cascades/imagenet_64_256_stage as well; cascades/imagenet_256 samples with both.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.task.name = 'generation'

  c.data.source = 'tfds'
  c.data.path = 'imagenet2012'
  c.data.image_size = 64
  c.data.crop = 'center'
  c.data.flip = True
  c.data.workers = 8

  c.model.channels = 192
  c.model.multipliers = (1, 2, 3, 4)  # at 64, 32, 16 and 8
  c.model.num_blocks = 3
  c.model.attention_resolutions = (32, 16, 8)
  c.model.middle_attention = True
  c.model.dropout = 0.0
  c.model.num_classes = 1000
  c.model.label_dropout = 0.1

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.loss = 'l2'

  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 250
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 500_000
  c.train.batch_size = 1024
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.9999

  c.eval.every_steps = 0  # a sampled picture has no truth to be compared with
  c.eval.final_images = 50_000
  c.eval.batch_size = 256
  c.eval.networks = ('inception',)
  return c
