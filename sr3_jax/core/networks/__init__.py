"""Makes the network that a configuration describes.

It is `unet.UNet`, the small and fast `refine.RefineNet`, or one for the weights of
another project: `janspiry`, `guided`.
"""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from sr3_jax.core.networks.blocks import Network
from sr3_jax.core.networks.unet import UNet

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def make_network(
  config: ml_collections.ConfigDict, gammas: np.ndarray, platform: str = ''
) -> Network:
  """Return the network that `config.model` describes.

  Args:
    config: of a run.
    gammas: [T + 1], the trained levels; only 'guided' needs to know them.
    platform: that the network is for, as JAX calls it; '' for that of this machine.
      `model.fold` acts on 'tpu' only: elsewhere its arithmetic is not free.
  """
  m = config.model
  first = config.data.image_size // m.patch
  common = {
    'channels': m.channels,
    'multipliers': tuple(m.multipliers),
    'num_blocks': m.num_blocks,
    'attention_levels': tuple(
      i for i in range(len(m.multipliers)) if first / 2**i in m.attention_resolutions
    ),
    'dropout': m.dropout,
    'dtype': DTYPES[m.dtype],
  }
  # These are imported where they are used: few users need them.
  if m.network == 'refine':
    from sr3_jax.core.networks.refine import RefineNet

    return RefineNet(
      **common,
      out_channels=config.data.channels,
      predict_blocks=m.predict_blocks,
      patch=m.patch,
    )
  if m.network == 'janspiry':
    from sr3_jax.core.networks.janspiry import JanspiryUNet

    return JanspiryUNet(**common, groups=m.groups, affine=m.affine)
  if m.network == 'guided':
    from sr3_jax.core.networks.guided import GuidedUNet

    return GuidedUNet(
      **common,
      num_heads=m.num_heads,
      num_classes=m.num_classes,
      no_class=m.label_dropout > 0,
      out_channels=config.data.channels * (1 + config.diffusion.learned_variance),
      gammas=tuple(gammas.tolist()),
    )
  tpu = (platform or jax.default_backend()) == 'tpu'
  return UNet(
    **common,
    middle_attention=m.middle_attention,
    out_channels=config.data.channels,
    num_classes=m.num_classes,
    patch=m.patch,
    fold=m.fold if tpu else 1,
    tpu=tpu,
    remat=m.remat,
    keep=m.keep,
  )
