"""Sets what small networks need: the shared base of the files in this folder.

They train in minutes or hours on the cores of a CPU, with one to five million
parameters, some thousand steps and few images. Each setting here differs from the
paper's recipe (imagenet_64_256.py), and each has its reason. The numbers behind the
reasons are in docs/results.

A file of your own starts from it with `load_config('small/base')`, wherever it lies.
"""

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  """Return the settings that small networks share."""
  c = default()
  # One block at each resolution: less than half of the arithmetic of the paper's three.
  c.model.num_blocks = 1
  # Attention costs time and ties a network to the sizes that it was trained on.
  c.model.attention_resolutions = ()
  # Most CPUs have no bfloat16 arithmetic: it would save nothing.
  c.model.dtype = 'float32'

  # The linear schedule spends most levels on nearly pure noise. In a short training the
  # cosine has more detail.
  c.diffusion.schedule = 'cosine'
  # Training draws noise levels between these as well, so fewer than 2000 do.
  c.diffusion.num_levels = 1000
  # Predicting the noise itself gives colour casts until the training is long.
  c.diffusion.prediction = 'v'
  # The absolute error gave little detail: 0.12 of the truth's where squares had 0.59.
  c.diffusion.loss = 'l2'

  # Half of the paper's 100 steps, in half of the time, spaced like the schedule.
  c.sampler.num_steps = 50
  c.sampler.spacing = 'cosine'

  # Ten times the paper's rate: small networks bear it, and steps are few.
  c.train.learning_rate = 1e-3
  # The paper's 10,000 steps of warmup would be longer than the training.
  c.train.warmup_steps = 100
  # The average spans about 1 / (1 - decay) = 500 steps, a part of the training; the
  # paper's spans 10,000.
  c.train.ema_decay = 0.998
  # A line of the log every 20 to 40 seconds.
  c.train.log_every = 50

  # Eight images during training: an evaluation takes seconds, not the paper's minutes.
  c.eval.num_images = 8
  c.eval.batch_size = 8
  return c
