"""Refuses configurations that don't fit together, before anything expensive begins."""

import functools

import jax
import ml_collections

from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import devices
from sr3_jax.runtime.errors import UserError, line


def check_config(config: ml_collections.ConfigDict) -> None:
  """Trace, without computing, a run's model on the image sizes that it will see.

  Raises:
    UserError: options that don't describe a model, sizes that the degradation or the
      network can't take, or a batch that doesn't split over devices.
  """
  try:
    model = SR3.from_config(config)
    key = jax.random.split(jax.random.key(0), 1)
    for size in {config.data.image_size, config.eval.image_size or model.image_size}:
      image = jax.ShapeDtypeStruct((1, size, size, model.channels), 'float32')
      x = jax.eval_shape(lambda hr: model.upsample(model.degrade(key, hr)), image)
      jax.eval_shape(functools.partial(model.init, side=x.shape[1]), jax.random.key(0))
    size = config.eval.image_size or config.data.image_size
    if size <= 2 * config.eval.border:
      raise ValueError(f'eval.border={config.eval.border} leaves nothing of {size}')
    devices.per_process(config.eval.batch_size)
  except ValueError as error:
    raise UserError(line(error)) from None
