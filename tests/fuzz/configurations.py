"""Random configurations: refused in one line, or a model that can be traced."""

import math
import pathlib
import random
from typing import Any

import jax
import numpy as np

from sr3_jax.config import ConfigDict, flat_options, get_config
from sr3_jax.core import distillation, relations
from sr3_jax.core.check import param_shapes
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import values
from sr3_jax.runtime.errors import UserError
from sr3_jax.training.train_step import create_state, train_step
from tests.fuzz import damage, lines

ALL = dict(flat_options())
# Values that would make tracing slow; larger ones are no other code.
MOST = {
  'data.image_size': 64,
  'eval.image_size': 64,
  'model.channels': 64,
  'model.num_blocks': 2,
  'data.channels': 8,
  'diffusion.num_levels': 2000,
}


def draw(kind: values.Kind, rng: random.Random) -> Any:
  """Return a random value of a kind, often one of its ends."""
  if isinstance(kind, values.Flag):
    return rng.random() < 0.5
  if isinstance(kind, values.Choice):
    return rng.choice(kind.known)
  if isinstance(kind, values.Whole):
    some = [kind.low, kind.high, 2 ** rng.randrange(8), rng.randrange(1, 100)]
    some += [kind.low + 1, kind.low + 2]
    return min(kind.high, max(kind.low, rng.choice(some)))
  if isinstance(kind, values.Number):
    high = kind.high if kind.high < math.inf else 10.0
    some = [kind.low, high, 1.0, 1e-6, 1, 5e-324]
    value = rng.choice([*some, kind.low + (high - kind.low) * rng.random()])
    return value if kind.fits(value) else kind.low + (high - kind.low) / 2
  if isinstance(kind, values.Ends):
    if kind.optional and rng.random() < 0.3:
      return ()
    return tuple(sorted((draw(kind.each, rng), draw(kind.each, rng))))
  if isinstance(kind, values.Several):
    count = min(kind.most, max(kind.least, rng.randrange(4)))
    found = tuple(draw(kind.each, rng) for _ in range(count))
    return tuple(dict.fromkeys(found)) if kind.distinct else found
  return rng.choice(['a', 'x/y', 'ü', '-', 'a' * 300])


def random_config(rng: random.Random) -> tuple[ConfigDict, dict[str, Any]]:
  """Return a small configuration with up to eight random values, and these."""
  config = get_config()
  config.data.image_size = rng.choice([8, 16, 16, 24, 32, 64, 7, 1])
  config.model.channels = rng.choice([2, 8, 32])
  config.model.multipliers = rng.choice([(1,), (1, 2)])
  config.model.num_blocks, config.diffusion.num_levels = 1, 50
  config.sampler.num_steps = 3
  if rng.random() < 0.5:
    config.model.network = rng.choice(('refine', 'janspiry', 'guided'))
  # The run's own options change nothing that is traced, but for a few.
  names = [name for name in ALL if name != 'cascade.stages']
  traced = [
    n for n in names if n.split('.')[0] in ('task', 'data', 'model', 'diffusion')
  ]
  given = {}
  for _ in range(rng.randrange(1, 9)):
    name = rng.choice(traced if rng.random() < 0.7 else names)
    value = draw(ALL[name].kind, rng)
    given[name] = min(value, MOST[name]) if name in MOST else value
  for name, value in given.items():
    section, _, key = name.rpartition('.')
    (config[section] if section else config)._fields[key] = value
  if rng.random() < 0.2:
    given['train.distill_from'] = config.train.distill_from = 'teacher'
    config.sampler.name, config.sampler.spacing = 'ddim', 'cosine'
  return config, given


def attack(rng: random.Random, folder: pathlib.Path) -> str:
  """Check a random configuration; trace its training and its restoration."""
  del folder
  config, given = random_config(rng)
  wrong = rng.random() < 0.2
  if wrong:
    name = rng.choice([*ALL])
    value = rng.choice([*damage.ODD, (), (1,), ('a', 'b'), b'', (math.nan, 1)])
    wrong = not ALL[name].kind.fits(value)
    section, _, key = name.rpartition('.')
    (config[section] if section else config)._fields[key] = value
  try:
    relations.check_relations(config)
    assert not wrong, f'{name}={value!r} was not refused'
    model = SR3.from_config(config)
    param_shapes(model)
    if config.train.distill_from:
      distillation.halving(config, model.gammas)
  except UserError as error:
    if wrong:
      assert str(error).startswith(name), error
    return lines.refused(error)
  if config.cascade.stages:
    return 'cascade'
  try:
    _trace(config, model, rng.random() < 0.5)
  except Exception as error:
    error.add_note(f'{given}')
    raise
  return 'traced'


def _trace(config: ConfigDict, model: SR3, train: bool) -> None:
  """Trace what training or restoration computes."""
  side, count = config.data.image_size, min(config.train.accumulate, 64)
  config.train.accumulate = count
  shape = (count, side, side, model.channels)
  stored = 'float32' if model.value_range else 'uint8'
  batch = {'image': jax.ShapeDtypeStruct(shape, stored)}
  if model.num_classes:
    batch['label'] = jax.ShapeDtypeStruct(shape[:1], 'int32')
  state = jax.eval_shape(lambda: create_state(config, model))
  if train:
    after, _ = jax.eval_shape(train_step, state, batch)
    assert _shapes(after) == _shapes(state)
    return

  labels = np.zeros(count, int) if model.num_classes else None

  def restore(params, images):
    keys = jax.random.split(jax.random.key(0), count)
    return model.restore(params, keys, model.degrade(keys, images), label=labels)

  images = jax.ShapeDtypeStruct(shape, 'float32')
  found = jax.eval_shape(restore, state.params, images)
  assert found.shape == shape, (found.shape, shape)


def _shapes(tree: Any) -> list[Any]:
  """Return the shapes and types of all arrays of a tree."""
  return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)]
