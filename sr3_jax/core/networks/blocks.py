"""Holds what the U-Nets share: attributes, resampling, embeddings, PyTorch's parts.

Activations are [B, H, W, C]; parameters and statistics are float32.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sr3_jax.runtime.types import Params


class Network(nn.Module):
  """A U-Net, as the rest of the program knows it.

  All are called with inputs [B, H, W, any channels] (the condition, then the noisy
  image), noise levels gamma [B] in [0, 1], and, for models with classes, labels int32
  [B]. `deterministic=False` switches dropout on, with the random stream 'dropout'. The
  result is float32 [B, H, W, output channels]. ValueError is raised if H or W is not a
  multiple of `multiple`.
  """

  channels: int = 128  # width of the first level
  multipliers: Sequence[int] = (1, 2, 4, 8, 8)  # width of each level over `channels`
  num_blocks: int = 3  # residual blocks a level on the way down; one more on the way up
  # Levels (0 is full size) with attention after every block.
  attention_levels: Sequence[int] = (3,)
  dropout: float = 0.0  # rate inside residual blocks
  dtype: DTypeLike = jnp.float32  # of the computation; parameters are float32

  # Whether it leaves a prediction of y0 from the condition alone, [B, H, W, C], in the
  # collection 'intermediates' under 'y0', to be trained with the rest.
  predicts: ClassVar[bool] = False

  @property
  def multiple(self) -> int:
    """Sides of images must be multiples of this."""
    return 2 ** (len(self.multipliers) - 1)

  @property
  def has_attention(self) -> bool:
    """Return whether any pixel sees all others."""
    return True

  def check_sides(self, inputs: jax.Array) -> None:
    """Raise ValueError if inputs [B, H, W, C] can't be halved often enough."""
    height, width = inputs.shape[1:3]
    if height % self.multiple or width % self.multiple:
      need = f'the network needs sides that are multiples of {self.multiple}'
      raise ValueError(f'{need}: {height} x {width}')


def predict_both(
  network: Network, params: Params, inputs: jax.Array, gamma: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Return a network's output, and what it predicts from the condition alone.

  The network is one that `predicts`, without classes and dropout.
  """
  output, kept = network.apply(
    {'params': params}, inputs, gamma, mutable='intermediates'
  )
  (own,) = kept['intermediates']['y0']
  return cast('jax.Array', output), own


def double(x: jax.Array) -> jax.Array:
  """Return every pixel as 2 x 2 pixels: nearest-neighbour upsampling."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def resample(x: jax.Array, direction: str) -> jax.Array:
  """Return x as means of 2 x 2 pixels ('down'), twice as large ('up'), or as it is."""
  if direction == 'down':
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
  return double(x) if direction == 'up' else x


def sinusoids(angle: jax.Array, width: int) -> jax.Array:
  """Return sines, then cosines, of [B] angles at `width / 2` frequencies: [B, width].

  The frequencies fall geometrically from 1 to 1e-4, that one excluded.
  """
  frequencies = np.exp(-np.log(10000) * np.arange(width // 2) / (width // 2))
  phase = angle[:, None] * frequencies[None].astype(np.float32)
  return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=1)


def position_norm(dtype: DTypeLike, name: str = 'norm') -> nn.LayerNorm:
  """Return layer normalisation of each position's channels, without fast variance."""
  return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=dtype, name=name)


class Conv3x3(nn.Module):
  """A 3 x 3 convolution with the parameters of `nn.Conv`, faster to train on CPUs."""

  channels: int  # of the result
  kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return the convolution of x [B, H, W, any], zeros around it: [B, H, W, C]."""
    shape = (3, 3, x.shape[-1], self.channels)
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.channels,))
    x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
    return conv3x3(x, kernel) + bias[None, None, None]


@jax.custom_vjp
def conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Return the convolution of x [B, H, W, I] with a kernel [3, 3, I, O], padded.

  On CPUs XLA makes the kernel's gradient with a convolution of large windows, which
  runs at half the speed of the nine matrix products that it is here.
  """
  return _conv(x, kernel)


def _conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  layout = ('NHWC', 'HWIO', 'NHWC')
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=layout
  )


def _conv_forward(x: jax.Array, kernel: jax.Array):
  return _conv(x, kernel), (x, kernel)


def _conv_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array):
  x, kernel = kept
  # The default derivative, but for the kernel's on CPUs.
  _, pull = jax.vjp(lambda x: _conv(x, kernel), x)
  of_kernel = jax.lax.platform_dependent(
    x, gradient, cpu=_by_products, default=_by_convolution
  )
  return pull(gradient)[0], of_kernel


def _by_convolution(x: jax.Array, gradient: jax.Array) -> jax.Array:
  kernel = jnp.zeros((3, 3, x.shape[-1], gradient.shape[-1]), x.dtype)
  _, pull = jax.vjp(lambda kernel: _conv(x, kernel), kernel)
  return pull(gradient)[0]


def _by_products(x: jax.Array, gradient: jax.Array) -> jax.Array:
  _, height, width, channels = x.shape
  around = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  flat = gradient.reshape(-1, gradient.shape[-1])

  def product(i: int, j: int) -> jax.Array:
    moved = around[:, i : i + height, j : j + width].reshape(-1, channels)
    return jax.lax.dot_general(moved, flat, (((0,), (0,)), ((), ())))

  return jnp.stack([jnp.stack([product(i, j) for j in range(3)]) for i in range(3)])


conv3x3.defvjp(_conv_forward, _conv_backward)


# ------------------------------------------------------- networks from PyTorch

# Attributes of a network by name, for its constructor.
Attributes = dict[str, Any]


def group_norm(groups: int, dtype: DTypeLike, name: str) -> nn.GroupNorm:
  """Return group normalisation with PyTorch's epsilon and variance."""
  like_torch = {'epsilon': 1e-5, 'use_fast_variance': False}
  return nn.GroupNorm(groups, **like_torch, dtype=dtype, name=name)


class Attention(nn.Module):
  """Self-attention over all positions; each head's q, k and v lie together."""

  groups: int  # of the normalisation
  num_heads: int = 1  # how many heads share the channels
  bias: bool = True  # whether q, k and v have one
  output: str = 'out'  # name of the last layer
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Return x [B, H, W, C] plus what its positions take from each other."""
    b, height, width, c = x.shape
    h = group_norm(self.groups, self.dtype, 'norm')(x).reshape(b, height * width, c)
    qkv = nn.Dense(3 * c, use_bias=self.bias, dtype=self.dtype, name='qkv')(h)
    qkv = qkv.reshape(b, -1, self.num_heads, 3 * c // self.num_heads)
    h = jax.nn.dot_product_attention(*jnp.split(qkv, 3, axis=-1))
    h = nn.Dense(c, dtype=self.dtype, name=self.output)(h.reshape(b, -1, c))
    return x + h.reshape(x.shape)


def rename(module: str, patterns: Iterable[tuple[str, str]]) -> str:
  """Return the name of a PyTorch module after all (pattern, replacement) pairs."""
  for pattern, name in patterns:
    module = re.sub(pattern, name, module)
  return module
