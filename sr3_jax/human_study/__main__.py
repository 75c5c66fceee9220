"""Runs sr3-study as `python -m sr3_jax.human_study`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.study())
