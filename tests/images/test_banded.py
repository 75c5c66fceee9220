"""Matrices of blocks against the whole matrices, and their size."""

import numpy as np
import pytest

from sr3_jax.images import banded, resizing


@pytest.mark.parametrize(
  'length, small',
  [(4, 1), (9, 9), (16, 4), (37, 12), (701, 200), (640, 80), (600, 300), (1500, 500)],
)
def test_blocks_are_the_whole_matrices(length, small):
  want_down, want_up = resizing.downsampling_matrices(length, small)
  down, up = banded.pair(length, small)
  got = banded.multiply(down, np.eye(length, dtype=np.float32)).T
  np.testing.assert_allclose(got, want_down, atol=1e-7)
  got = banded.multiply(up, np.eye(small, dtype=np.float32)).T
  np.testing.assert_allclose(got, want_up, atol=1e-6)
  image = np.random.default_rng(0).normal(size=(2, length, 3)).astype(np.float32)
  rows = [part for _, part in banded.multiply_rows(down, image)]
  np.testing.assert_allclose(np.concatenate(rows, 1), want_down @ image, atol=1e-5)


def test_memory_grows_with_the_length():
  down, up = banded.pair(16000, 4000)
  assert down.matrices.nbytes + up.matrices.nbytes < 20e6  # whole ones have 512 MB


def test_sides_that_hardly_differ():
  """There the inverse reaches far: the correction must not diverge."""
  rng = np.random.default_rng(0)
  small = rng.uniform(-1, 1, (300, 40, 1)).astype(np.float32)
  start = resizing.resize(small, 301, 41)
  image = resizing.make_consistent(start, small)
  before = np.abs(resizing.resize(np.clip(start, -1, 1), 300, 40) - small).mean()
  after = np.abs(resizing.resize(image, 300, 40) - small).mean()
  assert np.isfinite(image).all() and after < before
