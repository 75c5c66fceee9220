"""Runs sr3-export as `python -m sr3_jax.export`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.export())
