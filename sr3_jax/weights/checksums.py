"""Checksums of training states, made where the arrays are."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def of_state(state: dict[str, Any], stacked: bool = False) -> dict[str, int]:
  """A checksum of each part of a state, below 2^32.

  Of the bits of all numbers, each times an odd number of its own, modulo 2^32: no
  single change goes unnoticed, an exchange hardly ever, and neither the order of
  addition nor the way in which arrays are split makes a difference.

  Args:
    state: pytrees of arrays by name.
    stacked: arrays have an axis of length 1 in front, which does not count.
  """
  # One small program for each shape: a single one for all takes long to compile. On
  # CPUs one at a time: virtual devices have few threads, and programs that wait for
  # each other's devices would share them for ever.
  one = jax.block_until_ready if jax.default_backend() == 'cpu' else lambda total: total
  totals = {
    name: [
      one(_sum(leaf, np.uint32(2654435761 * (2 * place + 1) % 2**32), stacked))
      for place, leaf in enumerate(jax.tree.leaves(tree))
    ]
    for name, tree in state.items()
  }
  sum_up = lambda numbers: int(np.sum(numbers, dtype=np.uint32))
  return {name: sum_up(numbers) for name, numbers in jax.device_get(totals).items()}


@functools.partial(jax.jit, static_argnames='stacked')
def _sum(leaf: jax.Array, number: jax.Array, stacked: bool) -> jax.Array:
  """Of an array, uint32; `number` is that of its first element."""
  if stacked:
    leaf = leaf[0]
  if leaf.dtype.itemsize != 4:
    leaf = leaf.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
  for axis in range(bits.ndim):
    number = number + 2 * jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * (
      jnp.uint32(40503 + 2 * axis)
    )
  return jnp.sum(bits * number, dtype=jnp.uint32)
