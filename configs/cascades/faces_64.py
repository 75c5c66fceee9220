"""Faces out of nothing at 64 x 64: the base of the cascade to 1024.

The paper's unconditional faces: a diffusion model draws 64 x 64, SR3
enlarges to 256 and to 1024. After Improved DDPM (arXiv:2102.09672): cosine schedule,
attention at 32, 16 and 8; the network predicts v. Dropout, because FFHQ has 70,000
images only.

The network has 126M parameters. Weights, Adam and EMA are 1.9 GiB of float32.
The paper shows pictures of its faces and gives no FID.
Half a million steps at batch 256 are 3.8e19 FLOP: about a day at 400 TFLOP/s sustained.

  python -m sr3_jax.main --config=configs/faces_64.py --workdir=gs://BUCKET/faces_64 \
    --config.data.path=FFHQ_FOLDER --config.data.eval_path=CELEBA_HQ_FOLDER
Then faces_64_256_cascade.py and faces_256_1024_cascade.py; cascade_faces_1024.py draws
images of all three.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """What differs from the paper's 64 -> 256 experiment."""
  c = default()
  c.task.name = 'generation'

  c.data.image_size = 64
  c.data.workers = 8

  c.model.multipliers = (1, 2, 3, 4)
  c.model.attention_resolutions = (32, 16, 8)
  c.model.dropout = 0.1

  c.diffusion.schedule = 'cosine'
  c.diffusion.num_levels = 1000
  c.diffusion.prediction = 'v'
  c.diffusion.loss = 'l2'

  c.sampler.num_steps = 250
  c.sampler.spacing = 'cosine'

  c.train.num_steps = 500_000

  c.eval.every_steps = 0  # a picture drawn has no truth to be compared with
  c.eval.final_images = 10_000
  c.eval.batch_size = 256
  c.eval.networks = ('inception',)
  return c
