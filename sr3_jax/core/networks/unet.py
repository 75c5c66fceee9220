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
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks, folded
from sr3_jax.core.networks.group_norm import GroupNorm, settle

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


class ResBlock(nn.Module):
  """BigGAN residual block, which resamples inside, in both branches."""

  channels: int  # of the result
  resample: str = ''  # '', 'down' (means of 2 x 2) or 'up' (nearest)
  dropout: float = 0.0  # rate
  dtype: DTypeLike = jnp.float32  # of the computation
  # Pixels that are folded together in x and in the result, see `folded`. Where there
  # are any, they are half as many after 'down', and twice as many after 'up'.
  folds: tuple[int, int] = (1, 1)
  tpu: bool = False  # see `UNet.tpu`

  @nn.compact
  def __call__(
    self, x: jax.Array | folded.Parts, emb: jax.Array, deterministic: bool
  ) -> jax.Array:
    """Return the block's output for x [B, H, W, any] and an embedding [B, any].

    x may be several arrays, which stand for their concatenation.
    """
    given, made = self.folds
    parts = settle([x] if isinstance(x, (jax.Array, np.ndarray)) else x, self.tpu)
    norm = partial(GroupNorm, self.dtype, tpu=self.tpu)
    conv = partial(folded.conv, self.channels, dtype=self.dtype)
    dense = partial(folded.dense, self.channels, kernel_init=_fan_avg, dtype=self.dtype)
    resample = partial(folded.resample, self.resample, given, made, self.tpu)

    h = [resample(nn.swish(h)) for h in norm(given, name='norm1').of_parts(parts)]
    # Between the convolutions blocks of pixels begin half a block early: each reaches
    # two blocks instead of three, a third less arithmetic.
    early = made > 1
    conv1 = conv(
      given, made, len(h), early=(False, early), kernel_init=_fan_avg, name='conv1'
    )
    level = dense(1, 1, name='emb')(nn.swish(emb))
    h = conv1(*h) + folded.repeat(level, made)[:, None, None]
    h = folded.clear(h, made) if early else h
    (h,) = settle([h], self.tpu)
    h = checkpoint_name(h, 'convolutions')
    h = nn.swish(norm(made, early, name='norm2')(h))
    h = folded.clear(h, made) if early else h
    h = folded.drop(h, self.dropout, made, early, deterministic)
    h = conv(made, made, early=(early, False), kernel_init=_zeros, name='conv2')(h)

    # Products of pixels and their upsampling commute: it is done last, on fewer bytes.
    if self.resample == 'down':
      parts = [resample(x) for x in parts]
    lanes = sum(x.shape[-1] for x in parts)
    if self.resample or len(parts) > 1 or lanes != self.channels * made:
      parts = [dense(given, made, len(parts), name='skip')(*parts)]
    x = resample(parts[0]) if self.resample == 'up' else parts[0]
    return (x + h) / np.sqrt(2).astype(self.dtype)


class Attention(nn.Module):
  """Self-attention over all positions; heads of 64 channels, or the next divisor."""

  dtype: DTypeLike = jnp.float32  # of the computation
  tpu: bool = False  # see `UNet.tpu`

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return x [B, H, W, C] plus what its positions take from each other."""
    b, height, width, c = x.shape
    heads = next(n for n in range(max(1, c // 64), 0, -1) if c % n == 0)
    dense = partial(nn.Dense, dtype=self.dtype)
    (x,) = settle([x], self.tpu)
    h = GroupNorm(self.dtype, tpu=self.tpu, name='norm')(x).reshape(
      b, height * width, c
    )
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
  # Compute the same in ways that are fast on TPUs: blocks on the way up take their two
  # inputs apart, and nothing is written in float32 that may be bfloat16.
  tpu: bool = False
  remat: bool = False  # recompute blocks for gradients: less memory, a third slower
  # What `remat` keeps of a block: 'inputs', or also what its first convolution makes,
  # 'convolutions', so that no convolution runs again.
  keep: str = 'inputs'

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
    block_class = ResBlock
    if self.remat:
      kept = jax.checkpoint_policies.save_only_these_names(self.keep)
      block_class = nn.remat(ResBlock, static_argnums=(3,), policy=kept)
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
        sizes[level], resample, self.dropout, self.dtype, folds, self.tpu, name=name
      )(h, emb, deterministic)

    def attend(h, name, level):
      if level not in self.attention_levels:
        return h
      attention = attention_class(self.dtype, self.tpu, name=f'{name}_attention')
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
      h = attention_class(self.dtype, self.tpu, name='middle_attention')(h)
    h = block(h, 'middle_block1', last)

    for level in range(last, -1, -1):
      for i in range(self.num_blocks + 1):
        name = f'up{level}_block{i}'
        h = (h, skips.pop()) if self.tpu else jnp.concatenate([h, skips.pop()], axis=-1)
        h = attend(block(h, name, level), name, level)
      if level:
        h = block(h, f'up{level}_resample', level, 'up')

    (h,) = settle([h], self.tpu)
    h = nn.swish(GroupNorm(self.dtype, self.fold, tpu=self.tpu, name='norm_out')(h))
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
