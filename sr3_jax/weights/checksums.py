"""Computes checksums of training states, on the devices that hold them."""

import functools
import json
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def of_state(state: Mapping[str, object], stacked: bool = False) -> dict[str, int]:
  """Return a checksum of each part of a state, from 0 to 2^32 - 1.

  It is the sum over all numbers of their 32 bits times an odd factor that depends on
  the place, modulo 2^32. Any single change alters it, an exchange of two numbers almost
  always; neither the order of addition nor the way in which arrays are split over
  devices does.

  Args:
    state: pytrees of arrays by name.
    stacked: whether arrays have an axis of length 1 in front, which does not count.
  """
  # Each shape has a small program, because one for the whole state takes long to
  # compile. On CPUs programs run one at a time: virtual devices have few threads, and
  # programs that wait for each other's devices could block them for ever.
  wait = jax.default_backend() == 'cpu'

  def of_leaf(place: int, leaf: jax.Array) -> jax.Array:
    total = _sum(leaf, np.uint32(2654435761 * (2 * place + 1) % 2**32), stacked)
    return jax.block_until_ready(total) if wait else total

  totals = {
    name: [of_leaf(*item) for item in enumerate(jax.tree.leaves(tree))]
    for name, tree in state.items()
  }
  totals = jax.device_get(totals)
  return {name: int(np.sum(sums, dtype=np.uint32)) for name, sums in totals.items()}


def of_json(value: object) -> int:
  """Return a checksum of a value that JSON can hold, from 0 to 2^32 - 1."""
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


@functools.partial(jax.jit, static_argnames='stacked')
def _sum(leaf: jax.Array, number: ArrayLike, stacked: bool) -> jax.Array:
  """Return the checksum of an array, uint32; `number` is its first element's factor."""
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
