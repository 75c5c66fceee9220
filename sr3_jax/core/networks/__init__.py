"""The network that a configuration describes: ours, or one of other people's."""

from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax.config import pick
from sr3_jax.core.networks.unet import UNet

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_network(config: ml_collections.ConfigDict, gammas: np.ndarray) -> Any:
  """The network that `config.model` describes.

  Raises:
    ValueError: an unknown name.
  """
  m = config.model
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
  # The other two are imported where they are used: few need them.
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
  pick('network', {'sr3': UNet, 'janspiry': None, 'guided': None}, m.network)
  return UNet(
    **common,
    middle_attention=m.middle_attention,
    out_channels=config.data.channels,
    num_classes=m.num_classes,
    patch=m.patch,
    remat=m.remat,
  )
