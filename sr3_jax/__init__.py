"""SR3 in JAX: super-resolution by iterative refinement (arXiv:2104.07636)."""

__version__ = '0.1.0'
