"""Small PyTorch networks, as shapes, for the tests of their conversion."""

import numpy as np

from tests.support import oracles_torch

JANSPIRY = oracles_torch.janspiry_shapes(8, (1, 2), 1, (1,))
BETAS = np.linspace(1e-4, 2e-2, 20)
GIVEN = {'groups': 4, 'scale': 4, 'image_size': 16}
HEADS = {'num_heads': 4, 'scale': 4, 'image_size': 16}


def zeros(shapes):
  """Tensors of these shapes that take no memory."""
  return {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
