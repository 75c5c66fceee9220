"""Runs sr3-report as `python -m sr3_jax.reports`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.report())
