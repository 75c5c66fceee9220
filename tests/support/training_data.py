"""What the tests of the training step and of whole runs share."""

import jax
import numpy as np
import pytest

from tests.support import runs


@pytest.fixture(scope='module')
def config():
  return runs.get_config()


def assert_same_bits(one, other) -> None:
  """Equal trees of equal arrays."""
  jax.tree.map(np.testing.assert_array_equal, one, other)


def flat_norm(tree) -> float:
  return float(np.sqrt(sum(np.sum(np.float64(a) ** 2) for a in jax.tree.leaves(tree))))
