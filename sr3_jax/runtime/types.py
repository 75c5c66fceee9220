"""Types that several rooms share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
  import jax
  import numpy as np

# What NumPy's functions and JAX's take alike.
Array: TypeAlias = 'jax.Array | np.ndarray'
# Parameters of a network: arrays by the names of modules, as Flax nests them.
Params: TypeAlias = 'Mapping[str, Params | Array]'
