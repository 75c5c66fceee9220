"""Runs sr3-evaluate as `python -m sr3_jax.evaluation`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.evaluate())
