"""Normalises groups of channels, in few readings of the image.

On CPUs per-channel sums are what makes it fast; on TPUs, that nothing is written in
float32 which may be bfloat16. Arrays are [B, H, W, C], or parts of one that were never
concatenated; statistics and parameters are float32.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.core.networks import folded


def settle(parts: folded.Parts, tpu: bool) -> folded.Parts:
  """Return arrays as they are; on TPUs, written to memory in their own type.

  A TPU's compiler leaves roundings to bfloat16 out where float32 is read again, as
  group normalisation does, and writes the array in float32: twice the bytes.
  """
  return jax.lax.optimization_barrier(tuple(parts)) if tpu else parts


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def moments(
  parts: folded.Parts, groups: int, early: int = 0
) -> tuple[jax.Array, jax.Array]:
  """Return mean and variance of groups of channels, [B, groups] each, in one reading.

  They are float32. Squares are taken of distances to the mean of the middle row. A row
  is at most sqrt(H) standard deviations away from the whole, so E[d^2] - E[d]^2 loses
  at most a share of H in 2^24 of the variance, wherever the mean is; E[x^2] - E[x]^2 is
  off by 1 % where the mean is 100 standard deviations.

  `early` is the number of pixels of blocks that begin before the row, see
  `folded.fold_early`; there are zeros outside of the row.
  """
  row = parts[0].shape[1] // 2
  over = partial(_over_groups, groups=groups, early=early)
  middle, mean = over([x[:, row : row + 1] for x in parts]), over(parts)
  distances = [
    x.astype(jnp.float32) - pivot[:, None, None]
    for x, pivot in zip(parts, _to_channels(middle, parts), strict=True)
  ]
  if early:
    distances = [folded.clear(d, early) for d in distances]
  square = over([jnp.square(d) for d in distances])
  # Rounding makes it negative where x is constant.
  return mean, jnp.maximum(square - (mean - middle) ** 2, 0)


@moments.defjvp
def _moments_jvp(groups, early, primals, tangents):
  """Differentiate exactly, with x as it is: distances would be written to memory."""
  (parts,), (changes,) = primals, tangents
  mean, variance = moments(parts, groups, early)
  d_mean = _over_groups(changes, groups, early)
  products = [x.astype(jnp.float32) * dx for x, dx in zip(parts, changes, strict=True)]
  d_variance = 2 * (_over_groups(products, groups, early) - mean * d_mean)
  return (mean, variance), (d_mean, d_variance)


def _over_groups(parts: folded.Parts, groups: int, early: int) -> jax.Array:
  """Return the means of groups of channels of [B, H, W, any] each: [B, groups]."""
  means = [x.mean((1, 2), dtype=jnp.float32) for x in parts]
  mean = jnp.concatenate(means, axis=1).reshape(means[0].shape[0], groups, -1).mean(2)
  columns = parts[0].shape[2]
  return mean * (columns / (columns - 1)) if early else mean


def _to_channels(values: jax.Array, parts: folded.Parts) -> list[jax.Array]:
  """Return values of groups or of channels, [B, any], for each part: [B, C]."""
  sizes = [x.shape[-1] for x in parts]
  values = jnp.repeat(values, sum(sizes) // values.shape[1], axis=1)
  return jnp.split(values, np.cumsum(sizes)[:-1], axis=1)


class GroupNorm(nn.Module):
  """Group normalisation with min(C // 4, 32) groups; statistics in float32.

  Where that many groups don't divide the channels, the next lower number that does.
  Per-channel sums, then groups of channels, then one multiply-add: the image is read
  twice and written once, which is what makes it cheap on a CPU.
  """

  dtype: DTypeLike = jnp.float32  # of the result
  pixels: int = 1  # that are folded together in x, see `folded`
  early: bool = False  # whether blocks of pixels begin early, see `folded.fold_early`
  tpu: bool = False  # see `UNet.tpu`

  def __call__(self, x: jax.Array) -> jax.Array:
    """Return x [B, H, W, C], normalised."""
    return self.of_parts([x])[0]

  @nn.compact
  def of_parts(self, parts: folded.Parts) -> list[jax.Array]:
    """Return arrays normalised as if they were one."""
    lanes = sum(x.shape[-1] for x in parts)
    channels = lanes // self.pixels
    most = max(1, min(channels // 4, 32))
    groups = next(g for g in range(most, 0, -1) if channels % g == 0)
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', nn.initializers.zeros_init(), (channels,))
    scale, bias = (folded.repeat(a, self.pixels) for a in (scale, bias))
    mean, variance = moments(tuple(parts), groups, self.pixels * self.early)
    spread = jnp.repeat(jax.lax.rsqrt(variance + 1e-6), lanes // groups, axis=1)
    factor = scale[None] * spread
    shift = bias[None] - jnp.repeat(mean, lanes // groups, axis=1) * factor
    factors, shifts = (_to_channels(a, parts) for a in (factor, shift))
    return [self._apply(*one) for one in zip(parts, factors, shifts, strict=True)]

  def _apply(self, x: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
    # Else the float32 copy of x would be shared with the statistics, and written.
    x, factor, shift = settle((x, factor, shift), self.tpu)
    x32 = x.astype(jnp.float32)
    return (x32 * factor[:, None, None] + shift[:, None, None]).astype(self.dtype)
