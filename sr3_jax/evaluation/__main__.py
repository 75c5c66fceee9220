"""Runs `python -m sr3_jax.evaluation.measure`: sr3-evaluate."""

import sys

from sr3_jax.evaluation.command import main

if __name__ == '__main__':
  sys.exit(main())
