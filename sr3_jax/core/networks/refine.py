"""A network that predicts the image once and refines what the prediction lacks.

One part sees the condition alone and predicts y0, as a regression network does. The
other sees that prediction's features, the noise level, and the noisy image minus the
prediction: what is left to it is the residual of the prediction, as in predict-and-
refine (arXiv:2112.02475), and its output is brought back to the v of y0. So the
diffusion, its samplers and the loss are those of any other network here.

Both work on the grid of the downsampled image: p x p pixels are folded into channels
and everything in between is 3 x 3 convolutions of one width. Nothing depends on the
size of the image (no statistics over positions, no attention), so a tile gives what the
whole image gives. Activations are [B, H / p, W / p, C]; parameters are float32.
"""

from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sr3_jax.core.networks import blocks
from sr3_jax.core.networks.unet import fold, noise_embedding, unfold

_zeros = nn.initializers.zeros_init()
_fan_in = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_EMBEDDING = 128  # width of the noise level's


class Block(nn.Module):
  """A residual block; the noise level, if there is one, scales and shifts inside."""

  channels: int  # of input and result
  dtype: DTypeLike = jnp.float32  # of the computation

  @nn.compact
  def __call__(self, x: jax.Array, emb: jax.Array | None = None) -> jax.Array:
    """Return the block's output for x [B, h, w, C] and an embedding [B, any]."""
    conv = partial(blocks.Conv3x3, self.channels, dtype=self.dtype)
    h = conv(kernel_init=_fan_in, name='conv1')(blocks.position_norm(self.dtype)(x))
    if emb is not None:
      dense = nn.Dense(
        2 * self.channels, kernel_init=_zeros, dtype=self.dtype, name='emb'
      )
      scale, shift = jnp.split(dense(emb)[:, None, None], 2, axis=-1)
      h = h * (1 + scale) + shift
    return x + conv(kernel_init=_zeros, name='conv2')(nn.swish(h))


class RefineNet(blocks.Network):
  """Predicts v from a noisy image and its condition, through a prediction of y0.

  The prediction [B, H, W, output channels] is left in the collection 'intermediates'
  under 'y0' for the loss, which trains it by its own squared error; no other
  gradient goes through it.
  """

  predicts: ClassVar[bool] = True
  out_channels: int = 3  # of the output
  predict_blocks: int = 8  # residual blocks that see the condition
  patch: int = 4  # p; `num_blocks` residual blocks see the noisy image

  @property
  def multiple(self) -> int:
    """Sides of images must be multiples of this."""
    return self.patch

  @property
  def has_attention(self) -> bool:
    """Return whether any pixel sees all others."""
    return False

  @nn.compact
  def __call__(
    self,
    inputs: jax.Array,
    gamma: jax.Array,
    label: jax.Array | None = None,
    *,
    deterministic: bool = True,
  ) -> jax.Array:
    """Predict v; arguments and result are those of `Network`."""
    del label, deterministic  # there are no classes and no dropout
    self.check_sides(inputs)
    conv = partial(blocks.Conv3x3, dtype=self.dtype)
    dense = partial(nn.Dense, kernel_init=_fan_in, dtype=self.dtype)
    block = partial(Block, self.channels, self.dtype)
    out = self.out_channels * self.patch**2

    def head(h, name):
      h = nn.swish(blocks.position_norm(self.dtype, name=f'{name}_norm')(h))
      h = conv(out, kernel_init=_zeros, name=name)(h)
      return unfold(h, self.patch).astype(jnp.float32)

    x, y = jnp.split(inputs, [inputs.shape[-1] - self.out_channels], axis=-1)
    h = conv(self.channels, kernel_init=_fan_in, name='conv_in')(fold(x, self.patch))
    for i in range(self.predict_blocks):
      h = block(name=f'predict_block{i}')(h)
    prediction = head(h, 'prediction')
    self.sow('intermediates', 'y0', prediction)

    prediction = jax.lax.stop_gradient(prediction)
    amplitude, noise = (jnp.sqrt(a)[:, None, None, None] for a in (gamma, 1 - gamma))
    y = fold(y - amplitude * prediction, self.patch)
    emb = nn.swish(dense(_EMBEDDING, name='emb1')(noise_embedding(gamma, _EMBEDDING)))
    emb = nn.swish(dense(_EMBEDDING, name='emb2')(emb))
    h = dense(self.channels, name='features')(h)
    h = h + conv(self.channels, kernel_init=_fan_in, name='noisy_in')(y)
    for i in range(self.num_blocks):
      h = block(name=f'refine_block{i}')(h, emb)
    return head(h, 'v') - noise * prediction
