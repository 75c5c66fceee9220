"""Refuses a configuration that can't work, before anything expensive begins."""

import jax
import ml_collections
import numpy as np

from sr3_jax.config import ConfigError
from sr3_jax.core.relations import check_relations
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import pair_grid
from sr3_jax.runtime import devices
from sr3_jax.runtime.types import Params


def check_config(config: ml_collections.ConfigDict) -> None:
  """Check the values of a run, and the size of its network, without computing.

  Raises:
    UserError: values that can't be, alone or together, a network that is larger than
      this machine, or a batch that doesn't split over devices.
  """
  check_relations(config)
  param_shapes(SR3.from_config(config))
  devices.per_process(config.eval.batch_size, key='eval.batch_size')


def shape_of_inputs(model: SR3, side: int) -> jax.ShapeDtypeStruct | None:
  """Return the shape [1, h, w, K] of an image's input of pairs; None for other tasks.

  Args:
    model: of the run.
    side: of the image, in pixels.
  """
  if not model.task.paired:
    return None
  given = pair_grid.input_side(side, model.task.ratio)
  return jax.ShapeDtypeStruct((1, given, given, model.input_channels), np.uint8)


def param_shapes(model: SR3) -> Params:
  """Return the shapes of a model's parameters, of which nothing is made.

  Raises:
    ConfigError: there is not enough memory for the parameters alone.
  """
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  needed, there = 4 * count / jax.process_count(), devices.total_memory()
  if needed > there:
    raise ConfigError(
      f'a network of {count:.3g} parameters needs {needed / 1e9:.3g} GB, this machine '
      f'has {there / 1e9:.3g} GB: lower model.channels, model.multipliers or '
      'model.num_blocks'
    )
  return shapes
