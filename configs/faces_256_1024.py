"""SR3, faces 256 -> 1024, last stage of the face cascade: arXiv:2104.07636, table A.1.

The network has 150M parameters (the paper: 150M). Weights, Adam and EMA are 2.2 GiB of
float32; activations at 1024 x 1024 are the larger part, so blocks are recomputed
(model.remat). On 16 chips of 16 GiB set parallel.strategy='fsdp' (docs/scaling.md).
Train on FFHQ at 1024 (data.path). The paper shows pictures of the cascade 64 -> 256 ->
1024 but no metrics.
One million steps at batch 256 are 5.1e20 FLOP: about 15 days at 400 TFLOP/s sustained.

  sr3-train --config=faces_256_1024 --workdir=gs://BUCKET/RUN \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the whole recipe, also where it equals the defaults."""
  c = default()
  c.task.name = 'super_resolution'
  c.task.scale = 4

  c.data.source = 'folder'
  c.data.image_size = 1024
  c.data.crop = 'center'
  c.data.flip = True
  c.data.workers = 8

  c.model.channels = 16
  c.model.multipliers = (1, 2, 4, 8, 16, 32, 32, 32)  # at 1024, 512, ... and 8
  c.model.num_blocks = 2
  c.model.attention_resolutions = (16,)
  c.model.middle_attention = True
  c.model.dropout = 0.0
  c.model.fold = 8  # 16 channels fill an eighth of a TPU's lanes (docs/scaling.md)
  c.model.remat = True  # activations are the larger part of the memory

  c.diffusion.schedule = 'linear'
  c.diffusion.num_levels = 2000
  c.diffusion.start = 1e-6
  c.diffusion.end = 1e-2
  c.diffusion.prediction = 'eps'
  c.diffusion.loss = 'l1'

  c.sampler.name = 'ddpm'
  c.sampler.num_steps = 100
  c.sampler.spacing = 'log_snr'

  c.train.num_steps = 1_000_000
  c.train.batch_size = 256
  c.train.learning_rate = 1e-4
  c.train.warmup_steps = 10_000
  c.train.decay_steps = 0
  c.train.clip_norm = 1.0
  c.train.ema_decay = 0.9999
  return c
