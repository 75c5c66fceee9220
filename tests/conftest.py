"""Strict switches and eight virtual CPU devices for every test.

Must run before JAX starts: pytest imports conftest.py before any test module.
"""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)

import jax

# A silent broadcast between ranks is nearly always a bug.
jax.config.update('jax_numpy_rank_promotion', 'raise')
