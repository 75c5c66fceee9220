"""TODO."""

import functools
import json
from typing import Any

import jax
import ml_collections
from etils import epath

from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.main import fail
from sr3_jax.runtime import devices
from sr3_jax.training import strategies, train


def check(config: ConfigDict) -> None:
  """Refuses what doesn't fit together, before anything expensive is begun."""
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
    strategies.get_strategy(config.parallel.strategy)
    check_retention(config)
    devices.per_process(config.eval.batch_size)
    devices.per_process(config.train.batch_size, parts=config.train.accumulate)
  except ValueError as error:
    fail(error)


def check_retention(config: ConfigDict) -> None:
  """Refuses to keep the best of checkpoints of which nothing is known.

  Raises:
    ValueError: an unknown metric, or evaluations and checkpoints that never meet.
  """
  name, every = config.checkpoint.keep_best, config.eval.every_steps
  if not name:
    return
  if name not in train.SCORES:
    known = ', '.join(train.SCORES)
    raise ValueError(f'no metric {name!r} for checkpoint.keep_best, only {known}')
  if not every or every % config.checkpoint.every_steps:
    raise ValueError(
      f'checkpoint.keep_best needs eval.every_steps={every} to be a multiple of '
      f'checkpoint.every_steps={config.checkpoint.every_steps}'
    )


def finished(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> dict[str, Any] | None:
  """results.json, if it is that of this configuration's whole run; else None."""
  path = epath.Path(workdir) / 'results.json'
  if not path.exists():
    return None
  results = json.loads(path.read_text())
  whole = results['step'] == config.train.num_steps
  return results if whole and results['config'] == as_json(config) else None
