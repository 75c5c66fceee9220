"""Runs `sr3-upscale`: sr3-upscale."""

import sys

from sr3_jax.upscale.command import main

if __name__ == '__main__':
  sys.exit(main())
