"""Makes the network that a configuration describes.

It is `unet.UNet`, or one for the weights of another project: `janspiry`, `guided`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax.config import check_name, pick
from sr3_jax.core.networks.unet import UNet
from sr3_jax.runtime.types import Params

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


class Network(Protocol):
  """A U-Net: a Flax module, and what the rest of the program must know of it."""

  @property
  def dropout(self) -> float:
    """Rate of dropout in training."""
    ...

  @property
  def multiple(self) -> int:
    """Sides of images must be multiples of this."""
    ...

  @property
  def has_attention(self) -> bool:
    """Whether any pixel sees all others."""
    ...

  def init(self, rngs: jax.Array, *args: Any, **kwargs: Any) -> Mapping[str, Params]:
    """Return {'params': parameters}; arguments are those of `UNet.__call__`."""
    ...

  def apply(self, variables: Mapping[str, Params], *args: Any, **kwargs: Any) -> Any:
    """Return the output [B, H, W, C] for {'params': parameters} and those arguments."""
    ...


def make_network(config: ml_collections.ConfigDict, gammas: np.ndarray) -> Network:
  """Return the network that `config.model` describes.

  Args:
    config: of the model.
    gammas: [T + 1] trained levels, which 'guided' needs to know.

  Raises:
    ValueError: an unknown name.
  """
  m = config.model
  check_name('network', ('sr3', 'janspiry', 'guided'), m.network)
  first = config.data.image_size // m.patch
  common = {
    'channels': m.channels,
    'multipliers': tuple(m.multipliers),
    'num_blocks': m.num_blocks,
    'attention_levels': tuple(
      level
      for level in range(len(m.multipliers))
      if first / 2**level in m.attention_resolutions
    ),
    'dropout': m.dropout,
    'dtype': pick('dtype', DTYPES, m.dtype),
  }
  # These two are imported where they are used: few users need them.
  if m.network == 'janspiry':
    from sr3_jax.core.networks.janspiry import JanspiryUNet

    return JanspiryUNet(**common, groups=m.groups, affine=m.affine)
  if m.network == 'guided':
    from sr3_jax.core.networks.guided import GuidedUNet

    return GuidedUNet(
      **common,
      num_heads=m.num_heads,
      num_classes=m.num_classes,
      out_channels=config.data.channels * (1 + config.diffusion.learned_variance),
      gammas=tuple(gammas.tolist()),
    )
  return UNet(
    **common,
    middle_attention=m.middle_attention,
    out_channels=config.data.channels,
    num_classes=m.num_classes,
    patch=m.patch,
    remat=m.remat,
  )
