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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks

# Arrays [B, H, W, any] whose channels follow each other, as if they were concatenated.
Parts = Sequence[jax.Array]


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


def weights(
  taps: int, given: int, made: int, early: tuple[bool, bool] = (False, False)
) -> np.ndarray:
  """Return which pixels of a row a kernel connects, resampling of the row included.

  Args:
    taps: width of the kernel, 1 or 3.
    given: pixels that are folded together in the input.
    made: the same of the result: equal, half (pairs are averaged before the kernel) or
      twice as many (pixels are doubled before it).
    early: whether the input's and the result's blocks of pixels begin half a block
      before the row's. Where one of them does, two neighbours are enough.

  Returns:
    float32 [taps, neighbours, given, made]: how much of pixel j of neighbour n reaches
    pixel k of the result through column i of the kernel, at [i, n, j, k].
  """
  reach = taps // 2
  first = 0 if early[0] else -reach
  out = np.zeros((taps, 2 if any(early) else taps, given, made), np.float32)
  for column in range(taps):
    for k in range(made):
      at = k + column - reach - made // 2 * early[1]  # in the resampled row
      sources = (2 * at, 2 * at + 1) if made < given else (at * given // made,)
      for source in sources:
        neighbour, j = divmod(source + given // 2 * early[0], given)
        out[column, neighbour - first, j, k] = 1 / len(sources)
  return out


def fold_early(x: jax.Array, pixels: int) -> jax.Array:
  """Fold pixels of rows, from half a block before the row, with zeros around it.

  [B, H, W, C] becomes [B, H, W / pixels + 1, C * pixels].
  """
  half = pixels // 2
  return fold(jnp.pad(x, ((0, 0), (0, 0), (half, half), (0, 0))), pixels)


def clear(x: jax.Array, pixels: int) -> jax.Array:
  """Return x [B, H, W / pixels + 1, C * pixels] with zeros outside of its rows."""
  columns, lanes = x.shape[2:]
  inside = jnp.ones((1, 1, (columns - 1) * pixels, lanes // pixels), x.dtype)
  return x * fold_early(inside, pixels)


def repeat(x: jax.Array, pixels: int) -> jax.Array:
  """Return values of channels [..., C] for their lanes [..., C * pixels]."""
  return x if pixels == 1 else jnp.repeat(x, pixels, axis=-1)


def resample(
  direction: str, given: int, made: int, tpu: bool, x: jax.Array
) -> jax.Array:
  """Return x resampled, see `blocks.resample`; folded x along its columns only.

  The layers resample the rows of folded x: `given` differs from `made` there.
  """
  if given != made:
    return jnp.repeat(x, 2, axis=1) if direction == 'up' else mean_of_pairs(x, 1)
  if direction == 'down' and tpu:
    return mean_of_pairs(mean_of_pairs(x, 1), 2)
  return blocks.resample(x, direction)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def mean_of_pairs(x: jax.Array, axis: int) -> jax.Array:
  """Return the means of pairs of neighbours along an axis: half as many.

  A sum of two arrays is fused with what makes and takes them, where a TPU would write
  and read the float32 operand of a reduction.
  """
  pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
  first, second = (
    jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False).astype(jnp.float32)
    for i in range(2)
  )
  return ((first + second) / 2).astype(x.dtype)


def _mean_of_pairs_forward(x: jax.Array, axis: int) -> tuple[jax.Array, None]:
  return mean_of_pairs(x, axis), None


def _mean_of_pairs_backward(
  axis: int, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
  return (jnp.repeat(gradient / 2, 2, axis=axis),)


mean_of_pairs.defvjp(_mean_of_pairs_forward, _mean_of_pairs_backward)


def drop(
  x: jax.Array, rate: float, pixels: int, early: bool, deterministic: bool
) -> jax.Array:
  """Return folded x after dropout; called within a module, which owns the layer."""
  dropout = nn.Dropout(rate, deterministic=deterministic)
  if pixels == 1 or not rate or deterministic:
    return dropout(x)
  # The same elements are dropped as without folding.
  b, h, w, c = x.shape
  mask = jnp.ones((b, h, (w - early) * pixels, c // pixels), x.dtype)
  return x * (fold_early if early else fold)(dropout(mask), pixels)


def conv(channels: int, given: int, made: int, parts: int = 1, **options: Any):
  """Return a 3 x 3 convolution, Flax's own for one plain array; see `Conv`."""
  if given == made == parts == 1:
    options.pop('early', None)  # there is no half of one pixel
    return nn.Conv(channels, (3, 3), **options)
  return Conv(channels, given, made, **options)


def dense(channels: int, given: int, made: int, parts: int = 1, **options: Any):
  """Return a dense layer, Flax's own for one plain array; see `Dense`."""
  if given == made == parts == 1:
    return nn.Dense(channels, **options)
  return Dense(channels, given, made, **options)


class Conv(nn.Module):
  """A 3 x 3 convolution with the parameters of `nn.Conv`, after resampling."""

  channels: int  # of the result, before folding
  given: int  # pixels that are folded together in the input
  made: int  # the same of the result, see `weights`
  kernel_init: nn.initializers.Initializer
  early: tuple[bool, bool] = (False, False)  # input and result, see `weights`
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, *parts: jax.Array) -> jax.Array:
    """Return the convolution of folded parts, whose rows are resampled already."""
    lanes = [x.shape[-1] for x in parts]
    shape = (3, 3, sum(lanes) // self.given, self.channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.channels,))
    if max(self.given, self.made) > 1:
      kernel = jnp.einsum(
        'yico,injk->yncjok',
        kernel,
        weights(3, self.given, self.made, self.early),
        precision=jax.lax.Precision.HIGHEST,
      )
    kernel = kernel.reshape(3, -1, sum(lanes), self.channels * self.made)
    around = 0 if self.early[0] else 1

    def one(x, kernel):
      return jax.lax.conv_general_dilated(
        x.astype(self.dtype),
        kernel.astype(self.dtype),
        (1, 1),
        ((1, 1), (around, around)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )

    x = _sum(one, parts, jnp.split(kernel, np.cumsum(lanes)[:-1], axis=2))
    return x + repeat(bias, self.made).astype(self.dtype)[None, None, None]


class Dense(nn.Module):
  """A 1 x 1 convolution with the parameters of `nn.Dense`, after resampling."""

  channels: int  # of the result, before folding
  given: int  # pixels that are folded together in the input
  made: int  # the same of the result, see `weights`
  kernel_init: nn.initializers.Initializer
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, *parts: jax.Array) -> jax.Array:
    """Return the product for folded parts, whose rows are resampled already."""
    lanes = [x.shape[-1] for x in parts]
    shape = (sum(lanes) // self.given, self.channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.channels,))
    if max(self.given, self.made) > 1:
      kernel = jnp.einsum(
        'co,jk->cjok',
        kernel,
        weights(1, self.given, self.made)[0, 0],
        precision=jax.lax.Precision.HIGHEST,
      )
    kernel = kernel.reshape(sum(lanes), self.channels * self.made)

    def one(x, kernel):
      return jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))

    x = _sum(one, parts, jnp.split(kernel, np.cumsum(lanes)[:-1]))
    return x + repeat(bias, self.made).astype(self.dtype)[None, None, None]


def _sum(
  one: Callable[[jax.Array, jax.Array], jax.Array], parts: Parts, kernels: Parts
) -> jax.Array:
  """Return the sum of the results of all parts, each with its part of a kernel."""
  first, *rest = map(one, parts, kernels)
  return sum(rest, first)
