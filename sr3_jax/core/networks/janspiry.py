"""The network of Janspiry/Image-Super-Resolution-via-Iterative-Refinement.

It exists to run weights trained there (`sr3-convert`); new models are better off with
`unet.UNet`. Differences from the paper's network: residual blocks of DDPM instead of
BigGAN, sums not divided by sqrt(2), the noise level added to each block
(or, in an older form, a scale and a shift), resampling by convolutions between blocks.

Modules are numbered as in the original, so that names translate one by one
(`flax_name`, whose argument is PyTorch's name).
"""

from collections.abc import Mapping
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks


class ResBlock(nn.Module):
  """Two normalised convolutions around the noise level, and a shortcut."""

  channels: int  # of the result
  groups: int  # of the normalisations
  affine: bool = False  # the noise level scales and shifts; else it is added
  dropout: float = 0.0  # rate
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array, deterministic: bool) -> jax.Array:
    """Return the block's output for x [B, H, W, any] and an embedding [B, any]."""
    conv = partial(nn.Conv, self.channels, (3, 3), padding=1, dtype=self.dtype)
    dense = partial(nn.Dense, dtype=self.dtype)
    norm = partial(blocks.group_norm, self.groups, self.dtype)
    h = conv(name='conv1')(nn.swish(norm('norm1')(x)))
    if self.affine:
      level = dense(2 * self.channels, name='emb')(emb)[:, None, None]
      scale, shift = jnp.split(level, 2, axis=-1)
      h = (1 + scale) * h + shift
    else:
      h = h + dense(self.channels, name='emb')(emb)[:, None, None]
    h = nn.swish(norm('norm2')(h))
    h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
    if x.shape[-1] != self.channels:
      x = dense(self.channels, name='skip')(x)
    return conv(name='conv2')(h) + x


class JanspiryUNet(blocks.Network):
  """Predicts the noise in an image from the image and its upsampled condition.

  The first of the two middle blocks always has attention.
  """

  channels: int = 64
  num_blocks: int = 2
  groups: int = 32  # of the group normalisation; the weights do not tell it
  affine: bool = False  # the noise level scales and shifts; else it is added

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    """Predict [B, H, W, 3]; arguments are those of `Network`, inputs [B, H, W, 6]."""
    del label  # there are no classes
    self.check_sides(inputs)
    conv = partial(nn.Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
    dense = partial(nn.Dense, dtype=self.dtype)
    attention = partial(blocks.Attention, self.groups, bias=False, dtype=self.dtype)

    # The angles lie in 0..1: the original has no factor before the root.
    emb = blocks.sinusoids(jnp.sqrt(gamma), self.channels)
    emb = nn.swish(dense(4 * self.channels, name='emb1')(emb))
    emb = dense(self.channels, name='emb2')(emb)

    def block(h, size, name, attend):
      h = ResBlock(size, self.groups, self.affine, self.dropout, self.dtype, name=name)(
        h, emb, deterministic
      )
      if attend:
        h = attention(name=f'{name}_attention')(h)
      return h

    sizes = [self.channels * m for m in self.multipliers]
    h = conv(self.channels, name='downs_0')(inputs)
    skips = [h]
    for level, size in enumerate(sizes):
      for _ in range(self.num_blocks):
        h = block(h, size, f'downs_{len(skips)}', level in self.attention_levels)
        skips.append(h)
      if level < len(sizes) - 1:
        h = conv(size, strides=2, name=f'downs_{len(skips)}')(h)
        skips.append(h)

    h = block(h, sizes[-1], 'mid_0', attend=True)
    h = block(h, sizes[-1], 'mid_1', attend=False)

    number = 0
    for level, size in reversed(list(enumerate(sizes))):
      for _ in range(self.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, size, f'ups_{number}', level in self.attention_levels)
        number += 1
      if level:
        h = conv(size, name=f'ups_{number}')(blocks.double(h))
        number += 1

    h = nn.swish(blocks.group_norm(self.groups, self.dtype, 'norm_out')(h))
    return conv(3, name='conv_out')(h).astype(jnp.float32)


# ------------------------------------------------------------- PyTorch's side

Network = JanspiryUNet
PROJECT = 'Janspiry/Image-Super-Resolution-via-Iterative-Refinement'
HIDDEN = 'groups'  # the attribute that no tensor shows
SCHEDULE = (2000, 1e-6, 1e-2)  # levels, first and last beta of the released weights
# Names of the arrays that follow from the betas and are stored beside the weights.
BUFFERS = (
  *('betas', 'alphas_cumprod', 'alphas_cumprod_prev', 'sqrt_alphas_cumprod'),
  *('sqrt_one_minus_alphas_cumprod', 'log_one_minus_alphas_cumprod'),
  *('sqrt_recip_alphas_cumprod', 'sqrt_recipm1_alphas_cumprod'),
  *('posterior_variance', 'posterior_log_variance_clipped'),
  *('posterior_mean_coef1', 'posterior_mean_coef2'),
)

_NAMES = (  # of modules; a pattern of the original -> ours
  (r'^noise_level_mlp\.1', 'emb1'),
  (r'^noise_level_mlp\.3', 'emb2'),
  (r'^final_conv\.block\.0', 'norm_out'),
  (r'^final_conv\.block\.3', 'conv_out'),
  (r'^(downs|mid|ups)\.(\d+)', r'\1_\2'),
  (r'\.res_block\.noise_func\.noise_func\.0$', '/emb'),
  (r'\.res_block\.block(\d)\.block\.0$', r'/norm\1'),
  (r'\.res_block\.block(\d)\.block\.3$', r'/conv\1'),
  (r'\.res_block\.res_conv$', '/skip'),
  (r'\.attn\.(norm|qkv|out)$', r'_attention/\1'),
  (r'^((?:downs|ups)_\d+)\.conv$', r'\1'),
)
# The original's name of a module -> ours, joined by '/'; unknown ones stay.
flax_name = partial(blocks.rename, patterns=_NAMES)


def architecture(shapes: Mapping[str, tuple[int, ...]]) -> blocks.Attributes:
  """Return the attributes of the network that has tensors of these names and shapes.

  No tensor shows `groups` and `dropout`.

  Raises:
    ValueError: these are not the tensors of this network.
  """
  channels, inputs = shapes['downs.0.weight'][:2]
  if inputs != 6:
    generator = ': it is an unconditional generator, with no input to upscale'
    raise ValueError(
      f'its first convolution takes {inputs} channels, not 6 (condition and noisy '
      f'image){generator if inputs == 3 else ""}'
    )
  widths, attention = [[]], set()
  for number in range(1, sum(name.startswith('downs.') for name in shapes)):
    if f'downs.{number}.conv.weight' in shapes:
      widths.append([])
    elif shape := shapes.get(f'downs.{number}.res_block.block1.block.3.weight'):
      widths[-1].append(shape[0])
    if f'downs.{number}.attn.qkv.weight' in shapes:
      attention.add(len(widths) - 1)
  num_blocks = len(widths[0])
  if not all(len(w) == num_blocks > 0 and w[0] % channels == 0 for w in widths):
    raise ValueError(
      f'residual blocks of widths {widths} from level to level: every level should '
      f'have equally many, of a multiple of {channels} channels'
    )
  level = shapes.get('downs.1.res_block.noise_func.noise_func.0.weight', (0,))
  return {
    'channels': channels,
    'multipliers': tuple(w[0] // channels for w in widths),
    'num_blocks': num_blocks,
    'attention_levels': tuple(sorted(attention)),
    'affine': level[0] == 2 * widths[0][0],
  }
