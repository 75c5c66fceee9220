"""Runs sr3-demo as `python -m sr3_jax.demo`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.demo())
