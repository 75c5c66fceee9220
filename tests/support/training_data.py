"""Comparisons of states, and the configuration of the smallest run as a fixture."""

import jax
import numpy as np
import pytest

from tests.support import runs


@pytest.fixture(scope='module')
def config():
  return runs.get_config()


def assert_same_bits(one, other) -> None:
  """Check that two trees have equal arrays."""
  jax.tree.map(np.testing.assert_array_equal, one, other)


def flat_norm(tree) -> float:
  """Return the Euclidean norm of all arrays of a tree."""
  return float(np.sqrt(sum(np.sum(np.float64(a) ** 2) for a in jax.tree.leaves(tree))))
