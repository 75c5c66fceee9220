"""Makes the functions that are exported, and says what their inputs mean.

Sides and batches may be symbolic: then one file takes images of any size. Arrays are
[B, H, W, channels], float32, and weights are constants of the function.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.samplers import Trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.export import consistency
from sr3_jax.images import resizing
from sr3_jax.restoration import canvas
from sr3_jax.restoration.tiling import CELL, Size
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.types import Array
from sr3_jax.weights.hub import Loaded


class ExportError(UserError):
  """One line: which option or model can't be exported, and what can."""


class Value(NamedTuple):
  """An input of a program, or its output."""

  shape: tuple[Any, ...]  # of numbers, and of symbolic dimensions of `jax.export`
  dtype: str
  meaning: str


class Program(NamedTuple):
  """A function that can be exported; it takes its inputs in their order."""

  function: Callable[..., jax.Array]
  inputs: dict[str, Value]
  output: Value


class Sides(NamedTuple):
  """Numbers, or symbolic dimensions, of a batch."""

  batch: Any
  low: tuple[Any, Any]  # height and width of conditions
  high: tuple[Any, Any]  # those of outputs


def sides(model: SR3, size: Size | None, batch: int | None = None) -> Sides:
  """Return the dimensions of a program: for any size and batch where they are None.

  `size` is the height and width of inputs. Any size means any multiple of what the
  network needs.

  Raises:
    ExportError: the network can't take the size, or all sizes.
  """
  scale, network = model.scale, model.network
  least = network.multiple // math.gcd(network.multiple, scale)
  if size is None:
    any_batch, *low = jax.export.symbolic_shape(f'b, {least}*h, {least}*w')
  elif any(side % least for side in size):
    text = f'sides that are multiples of {least}'
    raise ExportError(f'--size={size[1]}x{size[0]}: this network needs {text}')
  else:
    (any_batch,), low = jax.export.symbolic_shape('b'), size
  high = tuple(scale * side for side in low)
  return Sides(batch or any_batch, (low[0], low[1]), (high[0], high[1]))


def trained_size(model: SR3) -> Size:
  """Return the height and width of the inputs that a model was trained with."""
  side = model.image_size // model.scale
  return side, side


def network(loaded: Loaded, dims: Sides) -> Program:
  """Return the network alone: f(x, y, gamma), for a sampler of the caller's."""
  model, batch = loaded.model, dims.batch
  known = model.task.num_channels(model.input_channels)
  outputs = model.channels * (2 if model.learned_variance else 1)
  inputs = {
    'x': Value(
      (batch, *dims.high, known),
      'float32',
      f'the condition at the size of the output: {_channels(model)}'
      + (f'; upsampled by a {model.upsampling} kernel' if model.scale > 1 else ''),
    ),
    'y': Value((batch, *dims.high, model.channels), 'float32', 'the noisy y0'),
    'gamma': Value((batch,), 'float32', 'noise level: share of signal power, 0 to 1'),
    **_label(loaded, batch),
  }
  if not known:
    del inputs['x']

  def apply(*arrays):
    given = dict(zip(inputs, arrays, strict=True))
    y = given['y']
    x = given.get('x', jnp.zeros((*y.shape[:3], 0)))
    return model.predict(loaded.params, x, y, given['gamma'], given.get('label'))

  about = f'the network predicts {model.prediction}'
  if model.learned_variance:
    about += '; then, of as many channels, the variance of the step: -1 least, 1 most'
  return Program(apply, inputs, Value((batch, *dims.high, outputs), 'float32', about))


class Sampling(NamedTuple):
  """Says how a program samples."""

  trajectory: Trajectory  # of the sampler
  consistent: bool = False  # do outputs downsample to the condition, as `Upscaler`'s?
  guidance: float | None = None  # how much the class counts; None for no guidance
  noise: str = 'seed'  # drawn inside as `Upscaler` draws it, or 'input'
  seed: int | None = None  # for 'seed': a constant in the place of an input

  @property
  def draws(self) -> int:
    """How often noise is drawn that counts: at the start, and at steps but the last."""
    rows = self.trajectory.coefficients
    return len(rows) if samplers.is_stochastic(rows) else 1


def sampling(loaded: Loaded, dims: Sides, how: Sampling) -> Program:
  """Return the whole sampling trajectory, from the condition to the image.

  Raises:
    ExportError: it would have no input at all.
  """
  inputs = _inputs(loaded, dims, how)
  if not inputs:
    raise ExportError('--seed: this model takes no picture, so the seed is its input')

  def apply(*arrays):
    return _sample(loaded, dims, how, dict(zip(inputs, arrays, strict=True)))

  shape = dims.batch, *dims.high, loaded.model.channels
  return Program(apply, inputs, Value(shape, 'float32', 'the image, in [-1, 1]'))


def _inputs(loaded: Loaded, dims: Sides, how: Sampling) -> dict[str, Value]:
  """Return the inputs of a trajectory, by name."""
  model, inputs = loaded.model, {}
  if model.task.conditional:
    shape = dims.batch, *dims.low, model.task.num_channels(model.input_channels)
    inputs['condition'] = Value(shape, 'float32', _channels(model))
  inputs |= _label(loaded, dims.batch)
  if model.method == 'regression':  # nothing in it is random
    return inputs
  if how.noise == 'input':
    about = 'standard normal: the start'
    about += ', then that of every step but the last' if how.draws > 1 else ''
    shape = how.draws, dims.batch, *dims.high, model.channels
    inputs['noise'] = Value(shape, 'float32', about)
  elif how.seed is None:
    inputs['seed'] = Value((dims.batch,), 'uint32', 'of the noise of each image')
  return inputs


def _sample(
  loaded: Loaded, dims: Sides, how: Sampling, given: dict[str, jax.Array]
) -> jax.Array:
  """Return the images [B, H, W, C] for the inputs of a trajectory."""
  model, label = loaded.model, given.get('label')
  noise = given.get('noise')
  count = noise.shape[1] if noise is not None else next(iter(given.values())).shape[0]
  condition = given.get('condition', jnp.zeros((count, *dims.low, 0)))
  condition = _hide(model, condition)
  observed, x = model.observed(condition), _upsample(model, condition, dims)
  weight = None if how.guidance is None else jnp.full((count,), how.guidance)
  pair = consistency.pair(dims.high, dims.low) if how.consistent else None

  def denoise(y, gamma):
    found = model.denoise(loaded.params, x, y, gamma, label, weight)
    if pair is None:
      return found
    image = consistency.nearest(model.decode(found.y0, x), observed, pair)
    return found._replace(y0=model.encode(image, x))

  def draw(number):
    if model.method == 'regression':
      return jnp.zeros((count, *dims.high, model.channels))
    if noise is not None:  # the last step adds none
      return noise[jnp.minimum(number, how.draws - 1)]
    seeds = given.get('seed', jnp.full((count,), how.seed or 0, jnp.uint32))
    return drawn(seeds, number, *dims.high, model.channels)

  steps = samplers.steps(*how.trajectory)
  later = draw if how.draws > 1 else None
  carry = samplers.advance(denoise, later, model.begin(draw, x), steps)
  image = model.finish(x, carry)
  return image if pair is None else consistency.within_range(image, observed, pair)


def _fixed(dims: Sides) -> bool:
  """Return whether the sides of images are numbers."""
  return all(isinstance(side, int) for side in dims.low)


def _label(loaded: Loaded, batch: Any) -> dict[str, Value]:
  """Return the input for the class, of models that have classes."""
  classes = loaded.model.num_classes
  if not classes:
    return {}
  always = loaded.config.model.network == 'guided' and not loaded.model.label_dropout
  about = f'class, 0 to {classes - 1}' + ('' if always else f'; {classes}: no class')
  return {'label': Value((batch,), 'int32', about)}


def _channels(model: SR3) -> str:
  """Return what the channels of a condition are."""
  meanings = {
    'mask': '1 where pixels are missing, which the image need not show, else 0',
    'blur': 'standard deviation of the blur of the input, in its pixels',
    'noise': 'amplitude of the noise in the input, 0 to 1',
  }
  image = f'{model.input_channels} of the image'
  return '; '.join([image, *(meanings[name] for name in model.task.extras)])


def _hide(model: SR3, condition: jax.Array) -> jax.Array:
  """Return a condition whose missing pixels are 0, as the network knows them."""
  if 'mask' not in model.task.extras:
    return condition
  count = model.input_channels
  image = jnp.where(model.missing(condition) > 0, 0, condition[..., :count])
  return jnp.concatenate([image, condition[..., count:]], axis=-1)


def _upsample(model: SR3, condition: jax.Array, dims: Sides) -> jax.Array:
  """Return x: the condition at the size of the output, [B, H, W, K]."""
  if model.scale == 1 or not _fixed(dims):
    return model.upsample(condition)
  rows, columns = (
    resizing.resize(np.eye(low)[..., None], high, low, model.upsampling)[..., 0]
    for low, high in zip(dims.low, dims.high, strict=True)
  )
  given = rows, condition, columns
  return jnp.einsum('Hh,bhwc,Ww->bHWc', *given, precision='highest')


def drawn(seeds: Array, number, height, width, channels: int) -> jax.Array:
  """Draw the noise of a step, [B, height, width, channels].

  It is that of the first sample of an `Upscaler` of these seeds, uint32 [B].
  """
  rows, columns = (height + CELL - 1) // CELL, (width + CELL - 1) // CELL
  zeros = jnp.zeros_like(seeds)
  own = jnp.stack([seeds, zeros, zeros, zeros], axis=1)

  def strip(place):
    return canvas.noise_strips(own, number, place, CELL * columns, channels)

  strips = jax.vmap(strip, out_axes=1)(jnp.arange(rows))
  whole = strips.reshape(seeds.shape[0], rows * CELL, CELL * columns, channels)
  return whole[:, :height, :width]
