"""Runs sr3-evaluate as `python -m sr3_jax.evaluation`."""

import sys

from sr3_jax.evaluation.command import main

if __name__ == '__main__':
  sys.exit(main())
