"""Types that several rooms share."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, Union

if TYPE_CHECKING:
  import jax
  import numpy as np

# What NumPy's functions and JAX's take alike.
Array: TypeAlias = Union['jax.Array', 'np.ndarray']  # a string has no `| None`
# Parameters of a network: arrays by the names of modules, as Flax nests them.
Params: TypeAlias = 'Mapping[str, Params | Array]'
