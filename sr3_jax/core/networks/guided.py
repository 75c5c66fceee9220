"""The upsampling network of openai/guided-diffusion (arXiv:2105.05233).

It exists to run the weights released there (`sr3-convert`): BigGAN-like residual blocks
that resample inside, the timestep as a scale and a shift after the second
normalisation, several attention heads, classes, and a learned variance.

Modules are numbered as in the original, so that names translate one by one
(`flax_name`, whose argument is PyTorch's name).
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks

# Every normalisation has this many groups.
_GROUPS = 32


def timestep(gamma: jax.Array, gammas: Sequence[float]) -> jax.Array:
  """Return the timesteps whose trained levels, `gammas`, are nearest in log-SNR.

  They are float32 [B], 0..T-1. Trained levels rounded to float32 give their own
  timestep exactly.
  """
  # The middle of two levels in log-SNR is their geometric mean in SNR.
  level = np.asarray(gammas[1:], np.float64)
  snr = level / (1 - level)
  middle = np.sqrt(snr[1:] * snr[:-1])
  between = (middle / (1 + middle)).astype(np.float32)
  return (gamma[:, None] < between[None]).sum(axis=1).astype(jnp.float32)


def timestep_embedding(t: jax.Array, width: int) -> jax.Array:
  """Return `blocks.sinusoids` of t, but cosines first: [B, width]."""
  half = width // 2
  # In float32 like the original: phases reach 1000, so the rounding can be seen.
  frequencies = np.exp(
    np.float32(-np.log(10000)) * np.arange(half, dtype=np.float32) / np.float32(half)
  )
  phase = t[:, None] * frequencies[None]
  return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=1)


class ResBlock(nn.Module):
  """Residual block, which resamples inside, in both branches."""

  channels: int  # of the result
  resample: str = ''  # '', 'down' (means of 2 x 2) or 'up' (nearest)
  dropout: float = 0.0  # rate
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array, deterministic: bool) -> jax.Array:
    """Return the block's output for x [B, H, W, any] and an embedding [B, any]."""
    conv = partial(nn.Conv, self.channels, (3, 3), padding=1, dtype=self.dtype)
    dense = partial(nn.Dense, dtype=self.dtype)
    norm = partial(blocks.group_norm, _GROUPS, self.dtype)
    h = nn.swish(norm('norm1')(x))
    h = conv(name='conv1')(blocks.resample(h, self.resample))
    level = dense(2 * self.channels, name='emb')(nn.swish(emb))[:, None, None]
    scale, shift = jnp.split(level, 2, axis=-1)
    h = nn.swish(norm('norm2')(h) * (1 + scale) + shift)
    h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
    x = blocks.resample(x, self.resample)
    if x.shape[-1] != self.channels:
      x = dense(self.channels, name='skip')(x)
    return x + conv(name='conv2')(h)


class GuidedUNet(blocks.Network):
  """Predicts noise and its variance from a noisy image and its upsampled condition.

  The embedding has four times `channels`; the middle always has attention.
  """

  channels: int = 192
  multipliers: Sequence[int] = (1, 1, 2, 2, 4, 4)
  num_blocks: int = 2
  attention_levels: Sequence[int] = (3, 4, 5)
  # [T + 1] trained levels: the network knows the timesteps, not the levels.
  gammas: Sequence[float] = ()
  num_heads: int = 4  # of every attention; the weights do not tell it
  out_channels: int = 6  # 6 with a learned variance, else 3
  num_classes: int = 1000  # 0 for none
  no_class: bool = False  # whether label `num_classes` means "no class", for guidance

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    """Predict; arguments are those of `Network`, inputs [B, H, W, 6].

    Of gamma, the nearest trained level counts.

    Returns:
      float32 [B, H, W, out_channels]: noise; then, with a learned variance, the raw v
      (-1 is the posterior's log-variance, 1 the larger one's).

    Raises:
      ValueError: as `Network`, or a label is missing.
    """
    self.check_sides(inputs)
    if self.num_classes and label is None:
      most = self.num_classes - 1
      raise ValueError(f'the network needs a class: a label in 0..{most}')
    conv = partial(nn.Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
    dense = partial(nn.Dense, 4 * self.channels, dtype=self.dtype)

    emb = timestep_embedding(timestep(gamma, self.gammas), self.channels)
    emb = dense(name='emb2')(nn.swish(dense(name='emb1')(emb)))
    if self.num_classes:
      emb = emb + nn.Embed(
        self.num_classes + self.no_class,
        4 * self.channels,
        dtype=self.dtype,
        name='label',
      )(label)

    def block(h, size, name, resample=''):
      return ResBlock(size, resample, self.dropout, self.dtype, name=name)(
        h, emb, deterministic
      )

    attention = partial(
      blocks.Attention, _GROUPS, self.num_heads, output='proj_out', dtype=self.dtype
    )
    sizes = [self.channels * m for m in self.multipliers]
    x, y = jnp.split(inputs, 2, axis=-1)  # the original has them the other way round
    h = conv(sizes[0], name='input_0_0')(jnp.concatenate([y, x], axis=-1))
    skips = [h]
    for level, size in enumerate(sizes):
      for _ in range(self.num_blocks):
        name = f'input_{len(skips)}'
        h = block(h, size, f'{name}_0')
        if level in self.attention_levels:
          h = attention(name=f'{name}_1')(h)
        skips.append(h)
      if level < len(sizes) - 1:
        h = block(h, size, f'input_{len(skips)}_0', 'down')
        skips.append(h)

    h = block(h, sizes[-1], 'middle_0')
    h = attention(name='middle_1')(h)
    h = block(h, sizes[-1], 'middle_2')

    number = 0
    for level, size in reversed(list(enumerate(sizes))):
      attends = level in self.attention_levels
      for i in range(self.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, size, f'output_{number}_0')
        if attends:
          h = attention(name=f'output_{number}_1')(h)
        if level and i == self.num_blocks:
          h = block(h, size, f'output_{number}_{1 + attends}', 'up')
        number += 1

    h = nn.swish(blocks.group_norm(_GROUPS, self.dtype, 'norm_out')(h))
    return conv(self.out_channels, name='conv_out')(h).astype(jnp.float32)


# ------------------------------------------------------------- PyTorch's side

Network = GuidedUNet
PROJECT = 'openai/guided-diffusion'
HIDDEN = 'num_heads'  # the attribute that no tensor shows
SCHEDULE = (1000, 1e-4, 2e-2)  # levels, first and last beta of the released weights

_NAMES = (  # of modules; a pattern of the original -> ours
  (r'^time_embed\.0$', 'emb1'),
  (r'^time_embed\.2$', 'emb2'),
  (r'^label_emb$', 'label'),
  (r'^out\.0$', 'norm_out'),
  (r'^out\.2$', 'conv_out'),
  (r'^(input|output)_blocks\.(\d+)\.(\d)', r'\1_\2_\3'),
  (r'^middle_block\.(\d)', r'middle_\1'),
  (r'\.in_layers\.0$', '/norm1'),
  (r'\.in_layers\.2$', '/conv1'),
  (r'\.emb_layers\.1$', '/emb'),
  (r'\.out_layers\.0$', '/norm2'),
  (r'\.out_layers\.3$', '/conv2'),
  (r'\.skip_connection$', '/skip'),
  (r'\.(norm|qkv|proj_out)$', r'/\1'),
)
# The original's name of a module -> ours, joined by '/'; unknown ones stay.
flax_name = partial(blocks.rename, patterns=_NAMES)


def architecture(shapes: Mapping[str, tuple[int, ...]]) -> blocks.Attributes:
  """Return the attributes of the network that has tensors of these names and shapes.

  No tensor shows `num_heads`, `gammas` and `dropout`.

  Raises:
    ValueError: these are not the tensors of this network.
  """
  first, inputs = shapes['input_blocks.0.0.weight'][:2]
  if inputs != 6:
    raise ValueError(
      f'its first convolution takes {inputs} channels, not 6 (noisy image and '
      'condition): it is not one of the upsamplers'
    )
  if any(name.endswith(('.op.weight', '.conv.weight')) for name in shapes):
    raise ValueError(
      'it resamples by convolutions: only networks made with --resblock_updown True '
      'are known'
    )
  channels = shapes['time_embed.0.weight'][1]
  level = shapes.get('input_blocks.1.0.emb_layers.1.weight', (0,))[0]
  if level != 2 * first:
    raise ValueError(
      'the timestep is added, not a scale and a shift: only networks made with '
      '--use_scale_shift_norm True are known'
    )
  # A block that halves the image has the same tensors as one that does not; but on the
  # way up the last block of each level is followed by one that doubles it.
  doubling = r'output_blocks\.(\d+)\.[12]\.in_layers\.2\.weight'
  ups = sorted(int(found[1]) for name in shapes if (found := re.match(doubling, name)))
  if not ups:
    raise ValueError('it has only one level; the upsamplers have several')
  num_blocks = ups[0]
  starts = [1 + level * (num_blocks + 1) for level in range(len(ups) + 1)]
  kernels = [
    shapes.get(f'input_blocks.{start}.0.in_layers.2.weight', (1,)) for start in starts
  ]
  if first % channels or any(kernel[0] % channels for kernel in kernels):
    raise ValueError(f'its levels are not multiples of {channels} channels wide')
  return {
    'channels': channels,
    'multipliers': tuple(kernel[0] // channels for kernel in kernels),
    'num_blocks': num_blocks,
    'attention_levels': tuple(
      level
      for level, start in enumerate(starts)
      if f'input_blocks.{start}.1.qkv.weight' in shapes
    ),
    'num_classes': shapes.get('label_emb.weight', (0,))[0],
    'out_channels': shapes.get('out.2.weight', (0,))[0],
  }
