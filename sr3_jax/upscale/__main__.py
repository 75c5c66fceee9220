"""Runs `sr3-upscale` as `python -m sr3_jax.upscale`."""

import sys

from sr3_jax.runtime import start

if __name__ == '__main__':
  sys.exit(start.upscale())
