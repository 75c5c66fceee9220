"""The U-Net of SR3: BigGAN residual blocks, conditioned on the noise level.

Section 2.4 and Table A.1 of arXiv:2104.07636; where the paper is silent, the code line
it cites (NCSN++, arXiv:2011.13456): resampling inside residual blocks, residual sums
divided by sqrt(2), noise level added per channel, n + 1 blocks a level on the way up.
Activations are [B, H, W, C]; parameters and statistics are float32.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks, folded

_zeros = nn.initializers.zeros_init()
_fan_avg = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


def noise_embedding(gamma: jax.Array, width: int) -> jax.Array:
  """Return the sinusoidal embedding of noise levels: [B] to [B, width].

  The level enters as the angle arccos(sqrt(gamma)) scaled to 0..1000 (the `inv_cos`
  input of arXiv:2202.00512): it spreads both ends of the schedule, where gamma itself
  or its root hardly move, and it does not depend on a schedule.
  """
  angle = jnp.arctan2(jnp.sqrt(1 - gamma), jnp.sqrt(gamma)) * (1000 * 2 / np.pi)
  return blocks.sinusoids(angle, width)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def moments(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
  """Return mean and variance of groups of channels, [B, groups] each, in one reading.

  `x` is float32 [B, H, W, C]. Squares are taken of distances to the mean of the middle
  row. A row is at most sqrt(H) standard deviations away from the whole, so E[d^2] -
  E[d]^2 loses at most a share of H in 2^24 of the variance, wherever the mean is;
  E[x^2] - E[x]^2 is off by 1 % where the mean is 100 standard deviations.
  """
  row = x.shape[1] // 2
  middle = _over_groups(x[:, row : row + 1], groups)
  mean = _over_groups(x, groups)
  distance = x - _to_channels(middle, x)[:, None, None]
  square = _over_groups(jnp.square(distance), groups)
  # Rounding makes it negative where x is constant.
  return mean, jnp.maximum(square - (mean - middle) ** 2, 0)


@moments.defjvp
def _moments_jvp(groups, primals, tangents):
  """Differentiate exactly, with x as it is: distances would be written to memory."""
  (x,), (dx,) = primals, tangents
  mean, variance = moments(x, groups)
  d_mean = _over_groups(dx, groups)
  d_variance = 2 * (_over_groups(x * dx, groups) - mean * d_mean)
  return (mean, variance), (d_mean, d_variance)


def _over_groups(x: jax.Array, groups: int) -> jax.Array:
  """Return the means of groups of channels: [B, H, W, C] to [B, groups]."""
  return x.mean((1, 2)).reshape(x.shape[0], groups, -1).mean(2)


def _to_channels(grouped: jax.Array, x: jax.Array) -> jax.Array:
  """Return values of groups, [B, groups], for each channel of x: [B, C]."""
  return jnp.repeat(grouped, x.shape[-1] // grouped.shape[1], axis=1)


class GroupNorm(nn.Module):
  """Group normalisation with min(C // 4, 32) groups; statistics in float32.

  Where that many groups don't divide the channels, the next lower number that does.
  Per-channel sums, then groups of channels, then one multiply-add: the image is read
  twice and written once, which is what makes it cheap on a CPU.
  """

  dtype: DTypeLike = jnp.float32  # of the result
  pixels: int = 1  # that are folded together in x, see `folded`

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return x [B, H, W, C], normalised."""
    channels = x.shape[-1] // self.pixels
    most = max(1, min(channels // 4, 32))
    groups = next(g for g in range(most, 0, -1) if channels % g == 0)
    scale = self.param('scale', nn.initializers.ones_init(), (channels,))
    bias = self.param('bias', _zeros, (channels,))
    scale, bias = (folded.repeat(a, self.pixels) for a in (scale, bias))
    x32 = x.astype(jnp.float32)
    mean, variance = moments(x32, groups)
    factor = scale[None] * _to_channels(jax.lax.rsqrt(variance + 1e-6), x)
    shift = bias[None] - _to_channels(mean, x) * factor
    return (x32 * factor[:, None, None] + shift[:, None, None]).astype(self.dtype)


class ResBlock(nn.Module):
  """BigGAN residual block, which resamples inside, in both branches."""

  channels: int  # of the result
  resample: str = ''  # '', 'down' (means of 2 x 2) or 'up' (nearest)
  dropout: float = 0.0  # rate
  dtype: DTypeLike = jnp.float32  # of the computation
  # Pixels that are folded together in x and in the result, see `folded`. Where there
  # are any, they are half as many after 'down', and twice as many after 'up'.
  folds: tuple[int, int] = (1, 1)

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array, deterministic: bool) -> jax.Array:
    """Return the block's output for x [B, H, W, any] and an embedding [B, any]."""
    given, made = self.folds
    conv = partial(folded.conv, self.channels, dtype=self.dtype)
    dense = partial(folded.dense, self.channels, kernel_init=_fan_avg, dtype=self.dtype)
    resample = partial(folded.resample, self.resample, given, made)
    h = nn.swish(GroupNorm(self.dtype, given, name='norm1')(x))
    h = conv(given, made, kernel_init=_fan_avg, name='conv1')(resample(h))
    level = dense(1, 1, name='emb')(nn.swish(emb))
    h = h + folded.repeat(level, made)[:, None, None]
    h = nn.swish(GroupNorm(self.dtype, made, name='norm2')(h))
    h = folded.drop(h, self.dropout, made, deterministic)
    h = conv(made, made, kernel_init=_zeros, name='conv2')(h)
    x = resample(x)
    if self.resample or x.shape[-1] != self.channels * made:
      x = dense(given, made, name='skip')(x)
    return (x + h) / np.sqrt(2).astype(self.dtype)


class Attention(nn.Module):
  """Self-attention over all positions; heads of 64 channels, or the next divisor."""

  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return x [B, H, W, C] plus what its positions take from each other."""
    b, height, width, c = x.shape
    heads = next(n for n in range(max(1, c // 64), 0, -1) if c % n == 0)
    dense = partial(nn.Dense, dtype=self.dtype)
    h = GroupNorm(self.dtype, name='norm')(x).reshape(b, height * width, c)
    qkv = dense(3 * c, kernel_init=_fan_avg, name='qkv')(h)
    q, k, v = jnp.split(qkv.reshape(b, -1, heads, 3 * c // heads), 3, axis=-1)
    h = jax.nn.dot_product_attention(q, k, v).reshape(b, height, width, c)
    h = dense(c, kernel_init=_zeros, name='out')(h)
    return (x + h) / np.sqrt(2).astype(self.dtype)


class UNet(blocks.Network):
  """Predicts noise, v or y0 from a noisy image and its condition."""

  # Attention between the two middle blocks. Without any attention the network sees a
  # neighbourhood only and runs on images of any size.
  middle_attention: bool = True
  out_channels: int = 3  # of the output
  num_classes: int = 0  # 0 for none; label `num_classes` means "no class"
  # p > 1 folds p x p pixels into channels, so the first level works at 1 / p of the
  # size: much faster per parameter. The paper has 1.
  patch: int = 1
  # Pixels of a row that the first level folds into channels while it computes; half as
  # many at each level below, down to 1. It changes speed and memory only.
  fold: int = 1
  remat: bool = False  # recompute blocks for gradients: less memory, a third slower

  @property
  def multiple(self) -> int:
    """Sides of images must be multiples of this."""
    return self.patch * 2 ** (len(self.multipliers) - 1)

  @property
  def has_attention(self) -> bool:
    """Return whether any pixel sees all others."""
    return self.middle_attention or bool(self.attention_levels)

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    """Predict; arguments and result are those of `Network`."""
    self.check_sides(inputs)
    dense = partial(nn.Dense, 4 * self.channels, kernel_init=_fan_avg, dtype=self.dtype)
    conv = partial(folded.conv, given=self.fold, made=self.fold, dtype=self.dtype)
    block_class = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock
    attention_class = nn.remat(Attention) if self.remat else Attention

    emb = noise_embedding(gamma, self.channels)
    emb = dense(name='emb2')(nn.swish(dense(name='emb1')(emb)))
    if self.num_classes:
      emb = emb + nn.Embed(self.num_classes + 1, 4 * self.channels, name='label')(label)

    last = len(self.multipliers) - 1
    sizes = [self.channels * m for m in self.multipliers]
    pixels = [max(1, self.fold >> level) for level in range(last + 1)]

    def block(h, name, level, resample=''):
      made = level + {'': 0, 'down': 1, 'up': -1}[resample]
      folds = pixels[level], pixels[made]
      return block_class(
        sizes[level], resample, self.dropout, self.dtype, folds, name=name
      )(h, emb, deterministic)

    def attend(h, name, level):
      if level not in self.attention_levels:
        return h
      attention = attention_class(self.dtype, name=f'{name}_attention')
      return folded.fold(attention(folded.unfold(h, pixels[level])), pixels[level])

    h = folded.fold(fold(inputs, self.patch), self.fold)
    h = conv(self.channels, kernel_init=_fan_avg, name='conv_in')(h)
    skips = [h]
    for level in range(last + 1):
      for i in range(self.num_blocks):
        name = f'down{level}_block{i}'
        h = attend(block(h, name, level), name, level)
        skips.append(h)
      if level < last:
        h = block(h, f'down{level}_resample', level, 'down')
        skips.append(h)

    h = block(h, 'middle_block0', last)
    if self.middle_attention:
      h = attention_class(self.dtype, name='middle_attention')(h)
    h = block(h, 'middle_block1', last)

    for level in range(last, -1, -1):
      for i in range(self.num_blocks + 1):
        name = f'up{level}_block{i}'
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = attend(block(h, name, level), name, level)
      if level:
        h = block(h, f'up{level}_resample', level, 'up')

    h = nn.swish(GroupNorm(self.dtype, self.fold, name='norm_out')(h))
    out = self.out_channels * self.patch**2
    h = conv(out, kernel_init=_zeros, name='conv_out')(h)
    return unfold(folded.unfold(h, self.fold), self.patch).astype(jnp.float32)


def fold(x: jax.Array, patch: int) -> jax.Array:
  """Fold pixels: [B, H, W, C] to [B, H / patch, W / patch, patch * patch * C]."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // patch, patch, w // patch, patch, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // patch, w // patch, -1)


def unfold(x: jax.Array, patch: int) -> jax.Array:
  """Undo `fold`."""
  b, h, w, c = x.shape
  x = x.reshape(b, h, w, patch, patch, c // patch**2)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * patch, w * patch, -1)
