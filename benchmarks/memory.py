"""Compares the memory that `sr3-upscale` announces with the peak of its process.

Every picture is upscaled by a process of its own, with one sampling step. The peak is
what the system says of that process when it has ended (`ru_maxrss`, as
`/usr/bin/time -v` shows it). Options of the command can follow:

  python benchmarks/memory.py --sizes=1x1,500x400,2x4000,2000x1500 --tile=128
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

# Runs a command and prints its peak. It is small itself, because a process's ru_maxrss
# begins with the size of the one that started it.
STARTER = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
SIZES = '1x1,500x400,4000x2,2x20000,20000x2,1000x800'


def measure(picture: pathlib.Path, *options: str) -> tuple[float, float]:
  """Return what the command announces for a picture, and its peak, both in GB.

  Raises:
    RuntimeError: the command fails.
  """
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, '-m', 'sr3_jax.upscale', str(picture), '-o', folder]
    process = subprocess.run(
      [sys.executable, '-c', STARTER, *command, '--steps=1', *options],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
  *lines, last = process.stdout.splitlines()
  said = re.search(r'memory: at most ([\d.]+) GB', '\n'.join(lines))
  if process.returncode or said is None:
    raise RuntimeError(process.stdout)
  return float(said[1]), int(last) * 1024 / 1e9


def draw(path: pathlib.Path, width: int, height: int) -> pathlib.Path:
  """Write a picture of noise and return its path."""
  noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  Image.fromarray(noise).save(path)
  return path


def main() -> None:
  """Print a line for each size; what isn't known here is an option of the command."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--sizes', default=SIZES, help='WIDTHxHEIGHT,...')
  args, options = parser.parse_known_args()
  print('  pixels        announced  peak      announced / peak')
  with tempfile.TemporaryDirectory() as folder:
    for size in args.sizes.split(','):
      picture = draw(pathlib.Path(folder, 'a.png'), *map(int, size.split('x')))
      said, peak = measure(picture, *options)
      print(
        f'  {size:12}  {said:6.2f} GB  {peak:6.2f} GB  {said / peak:.2f}', flush=True
      )


if __name__ == '__main__':
  main()
