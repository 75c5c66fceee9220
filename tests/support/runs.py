"""The configuration of the smallest run that uses all parts of training.

`--config=tests/support/runs.py` works, as for the files in configs/.
"""

import contextlib
import os
import re
from collections.abc import Iterator

import jax

from sr3_jax.config import ConfigDict
from sr3_jax.config import get_config as default


def get_config() -> ConfigDict:
  c = default()
  c.data.source = 'photos'
  c.data.eval_split = 'eval'
  c.data.image_size = 16  # SSIM needs at least 11
  c.data.crop = 'random'
  c.data.reduce = (2, 3)

  c.model.channels = 8
  c.model.multipliers = (1,)
  c.model.num_blocks = 1
  c.model.attention_resolutions = ()
  c.model.middle_attention = False
  c.model.patch = 4
  c.model.dtype = 'float32'

  c.sampler.num_steps = 3

  c.train.num_steps = 20
  c.train.batch_size = 8
  c.train.learning_rate = 1e-2
  c.train.warmup_steps = 3
  c.train.clip_norm = 0.05  # less than the norms of the gradients
  c.train.ema_decay = 0.9
  c.train.log_every = 4  # not a divisor of the intervals below
  c.checkpoint.every_steps = 5
  c.eval.every_steps = 5
  c.eval.num_images = 8
  c.eval.final_images = 13  # not a multiple of the batch
  c.eval.batch_size = 8
  c.eval.networks = ()
  c.sample.num_images = 2
  c.sample.num_samples = 2
  return c


def with_devices(count: int) -> dict[str, str]:
  """Return the environment of a process with `count` virtual devices."""
  flags = re.sub(r'(?<=device_count=)\d+', str(count), os.environ['XLA_FLAGS'])
  return os.environ | {'XLA_FLAGS': flags}


_recorders: list[list[str]] = []


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
  """Yield a list that gets the name of every program that JAX compiles meanwhile.

  It includes programs from the persistent cache, because JAX asked for them.
  """
  names: list[str] = []
  _recorders.append(names)
  try:
    yield names
  finally:
    _recorders[:] = [other for other in _recorders if other is not names]


def _record(event: str, duration: float, **kwargs: object) -> None:
  del duration
  if event == '/jax/core/compile/backend_compile_duration':
    for names in _recorders:
      names.append(str(kwargs.get('fun_name')))


jax.monitoring.register_event_duration_secs_listener(_record)
