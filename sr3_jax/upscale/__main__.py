"""Runs `sr3-upscale` as `python -m sr3_jax.upscale`."""

import sys

from sr3_jax.upscale.command import main

if __name__ == '__main__':
  sys.exit(main())
