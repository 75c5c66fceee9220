"""Released PyTorch models that `sr3-convert` knows by name, and their sizes.

Names and numbers only, so that `sr3-convert --help` need not import JAX. Their networks
are in `torch_to_flax`.
"""

from typing import NamedTuple


class Released(NamedTuple):
  """Output side over input side, and side of the outputs in training in pixels."""

  scale: int
  image_size: int


RELEASED = {
  '16_128': Released(8, 128),
  '64_512': Released(8, 512),
  '64_256_upsampler': Released(4, 256),
  '128_512_upsampler': Released(4, 512),
}
