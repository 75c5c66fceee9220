"""Runs the layers of the U-Net on arrays whose pixels are folded into channels.

A TPU pads the last axis of an array to 128 lanes, in memory as in its matrix unit, so
that of 16 channels seven eighths are padding. Here p neighbours of a row are folded
into channels: [B, H, W, C] becomes [B, H, W / p, C * p], with lane c * p + j for
channel c of pixel j. Neighbouring channels stay neighbours, so concatenation and the
groups of a normalisation are those of the plain array.

The layers have the parameters of the plain ones, with the same names and shapes. Their
kernels are made from these inside of the step, resampling included: a convolution of
the folded array computes the same sums, with zeros beside them. So it does p times the
arithmetic of the plain one, and moves the bytes of arrays without padding.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks


def fold(x: jax.Array, pixels: int) -> jax.Array:
  """Fold pixels of rows: [B, H, W, C] to [B, H, W / pixels, C * pixels]."""
  if pixels == 1:
    return x
  b, h, w, c = x.shape
  x = x.reshape(b, h, w // pixels, pixels, c)
  return x.swapaxes(3, 4).reshape(b, h, w // pixels, -1)


def unfold(x: jax.Array, pixels: int) -> jax.Array:
  """Undo `fold`."""
  if pixels == 1:
    return x
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, c // pixels, pixels)
  return x.swapaxes(3, 4).reshape(b, h, w * pixels, -1)


def weights(taps: int, given: int, made: int) -> np.ndarray:
  """Return which pixels of a row a kernel connects, resampling of the row included.

  Args:
    taps: width of the kernel, 1 or 3.
    given: pixels that are folded together in the input.
    made: the same of the result: equal, half (pairs are averaged before the kernel) or
      twice as many (pixels are doubled before it).

  Returns:
    float32 [taps, taps, given, made]: how much of pixel j of the folded neighbour n
    reaches pixel k of the result through column i of the kernel, at [i, n, j, k].
  """
  reach = taps // 2
  out = np.zeros((taps, taps, given, made), np.float32)
  for column in range(taps):
    for k in range(made):
      at = k + column - reach  # in the resampled row
      sources = (2 * at, 2 * at + 1) if made < given else (at * given // made,)
      for source in sources:
        neighbour, j = divmod(source, given)
        out[column, neighbour + reach, j, k] = 1 / len(sources)
  return out


def repeat(x: jax.Array, pixels: int) -> jax.Array:
  """Return values of channels [..., C] for their lanes [..., C * pixels]."""
  return x if pixels == 1 else jnp.repeat(x, pixels, axis=-1)


def resample(direction: str, given: int, made: int, x: jax.Array) -> jax.Array:
  """Return x resampled, see `blocks.resample`; folded x along its columns only.

  The layers resample the rows of folded x: `given` differs from `made` there.
  """
  if given == made:
    return blocks.resample(x, direction)
  if direction == 'up':
    return jnp.repeat(x, 2, axis=1)
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w, c).mean(2)


def drop(x: jax.Array, rate: float, pixels: int, deterministic: bool) -> jax.Array:
  """Return folded x after dropout; called within a module, which owns the layer."""
  dropout = nn.Dropout(rate, deterministic=deterministic)
  if pixels == 1 or not rate or deterministic:
    return dropout(x)
  # The same elements are dropped as without folding.
  b, h, w, c = x.shape
  mask = dropout(jnp.ones((b, h, w * pixels, c // pixels), x.dtype))
  return x * fold(mask, pixels)


def conv(channels: int, given: int, made: int, **options: Any) -> nn.Module:
  """Return a 3 x 3 convolution, Flax's own where nothing is folded; see `Conv`."""
  if given == made == 1:
    return nn.Conv(channels, (3, 3), **options)
  return Conv(channels, given, made, **options)


def dense(channels: int, given: int, made: int, **options: Any) -> nn.Module:
  """Return a dense layer, Flax's own where nothing is folded; see `Dense`."""
  if given == made == 1:
    return nn.Dense(channels, **options)
  return Dense(channels, given, made, **options)


class Conv(nn.Module):
  """A 3 x 3 convolution with the parameters of `nn.Conv`, after resampling."""

  channels: int  # of the result, before folding
  given: int  # pixels that are folded together in the input
  made: int  # the same of the result, see `weights`
  kernel_init: nn.initializers.Initializer
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the convolution of folded x, whose rows are resampled already."""
    shape = (3, 3, x.shape[-1] // self.given, self.channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.channels,))
    kernel = jnp.einsum(
      'yico,injk->yncjok',
      kernel,
      weights(3, self.given, self.made),
      precision=jax.lax.Precision.HIGHEST,
    )
    kernel = kernel.reshape(3, 3, x.shape[-1], self.channels * self.made)
    x = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return x + repeat(bias, self.made).astype(self.dtype)[None, None, None]


class Dense(nn.Module):
  """A 1 x 1 convolution with the parameters of `nn.Dense`, after resampling."""

  channels: int  # of the result, before folding
  given: int  # pixels that are folded together in the input
  made: int  # the same of the result, see `weights`
  kernel_init: nn.initializers.Initializer
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the product for folded x, whose rows are resampled already."""
    shape = (x.shape[-1] // self.given, self.channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.channels,))
    kernel = jnp.einsum(
      'co,jk->cjok',
      kernel,
      weights(1, self.given, self.made)[0, 0],
      precision=jax.lax.Precision.HIGHEST,
    )
    kernel = kernel.reshape(x.shape[-1], self.channels * self.made)
    x = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
    return x + repeat(bias, self.made).astype(self.dtype)[None, None, None]
