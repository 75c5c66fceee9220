"""Runs `python -m sr3_jax.reports`: sr3-report."""

import sys

from sr3_jax.reports.command import main

if __name__ == '__main__':
  sys.exit(main())
