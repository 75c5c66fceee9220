"""Faces from noise at 64 x 64: the base of the cascade to 1024.

The paper makes unconditional faces with a diffusion model at 64 x 64 and two SR3
models, to 256 and to 1024. This base follows Improved DDPM (arXiv:2102.09672): cosine
schedule, attention at 32, 16 and 8; the network predicts v. It has dropout, because
FFHQ has only 70,000 images.

The network has 126M parameters. Weights, Adam and EMA are 1.9 GiB of float32.
The paper shows pictures of its faces and gives no FID.
Half a million steps at batch 256 are 3.8e19 FLOP: about a day at 400 TFLOP/s sustained.

  sr3-train --config=cascades/faces_64 --workdir=gs://BUCKET/faces_64 \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER

Train cascades/faces_64_256_stage and cascades/faces_256_1024_stage as well;
cascades/faces_1024 samples with all three.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.task.name = 'generation'

  c.data.source = 'folder'
  c.data.image_size = 64
  c.data.crop = 'center'
  c.data.flip = True
  c.data.workers = 8

  c.model.channels = 128
  c.model.multipliers = (1, 2, 3, 4)  # at 64, 32, 16 and 8
  c.model.num_blocks = 3
  c.model.attention_resolutions = (32, 16, 8)
  c.model.middle_attention = True
  c.model.dropout = 0.1

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.loss = 'l2'

  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 250
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 500_000
  c.train.batch_size = 256
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.9999

  c.eval.every_steps = 0  # a sampled picture has no truth to be compared with
  c.eval.final_images = 10_000
  c.eval.batch_size = 256
  c.eval.networks = ('inception',)
  return c
