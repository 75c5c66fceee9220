"""Measures how long a folder of very many images takes to open.

  python benchmarks/folder_index.py [--count=1000000] [--folders=1000] [--links]

It makes a tree of small JPEG files in a temporary folder, opens it for the first time,
again, and after a change, and deletes it. One file of twenty is too small to be used.
Each start is a process of its own. Seconds are those of opening the source after all
imports, on the clock and of processor time; on a busy machine they differ. Memory is
the peak of the process; 'before' is its memory after all imports.

Every file takes an inode and a block of 4 kB. With --links the files are hard links to
a few others, which is much faster. There are as many names then, but the first start
lacks the time that a disk needs to find a million inodes.
"""

import argparse
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from PIL import Image

from sr3_jax.runtime.progress import Progress

SIDES = (48, *range(64, 83))  # of the pictures, in turn
BLOCK = 4096

# The program of one start. The tree was just written, so all of it is in memory; a disk
# that must be read adds its own time.
START = """
import json, resource, sys, time
from etils import epath
from sr3_jax.data import batches, crops, sources
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start, cpu = memory(), time.perf_counter(), time.process_time()
source = sources.make_source(
  sys.argv[1], path=sys.argv[2], min_size=64, cache_folder=epath.Path(sys.argv[3])
)
opened, cpu = time.perf_counter() - start, time.process_time() - cpu
stream = batches.train_batches(source, crops.Cut(64, 'random'), batch_size=64)
next(stream)
batch = time.perf_counter() - start - opened
stream.close()
print(json.dumps({
  'images': len(source), 'left out': len(source.left_out),
  'seconds': opened, 'cpu': cpu,
  'first batch': batch, 'MB': memory(), 'before': before,
}))
"""


def picture(side: int) -> bytes:
  """Return the bytes of a small JPEG file."""
  file = io.BytesIO()
  Image.new('RGB', (side, side), (side, 99, 0)).save(file, 'JPEG')
  return file.getvalue()


def make(root: pathlib.Path, count: int, folders: int, links: bool) -> None:
  """Make the tree, laid out as ImageNet is."""
  bodies = [picture(side) for side in SIDES]
  with Progress(count, unit='file') as shown:
    for k in range(folders):
      folder = root / f'n{k:08d}'
      folder.mkdir(parents=True)
      first: dict[int, pathlib.Path] = {}
      for i in range(k, count, folders):
        path, body = folder / f'{folder.name}_{i}.JPEG', i // folders % len(bodies)
        if links and body in first:
          os.link(first[body], path)
        else:
          path.write_bytes(bodies[body])
          first[body] = path
      shown.update(min(count, (k + 1) * count // folders))


def start(
  source: str, root: pathlib.Path, cache_folder: pathlib.Path
) -> dict[str, float]:
  """Open the tree in a new process; return what `START` prints."""
  command = [sys.executable, '-c', START, source, str(root), str(cache_folder)]
  done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
  return json.loads(done.stdout)


def show(name: str, r: dict[str, float]) -> None:
  """Print the line of a start."""
  print(
    f'{name:19}{r["images"]:9}{r["left out"]:10}{r["seconds"]:8.1f}{r["cpu"]:8.1f}'
    f'{r["first batch"]:9.2f}{r["MB"]:6.0f}{r["before"]:8.0f}',
    flush=True,
  )


def main():
  """Run the command."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--count', type=int, default=1_000_000)
  parser.add_argument('--folders', type=int, default=1000)
  parser.add_argument('--links', action='store_true', help='hard links, made faster')
  parser.add_argument('--place', help='where to make it; default: the temporary folder')
  args = parser.parse_args()
  place = args.place or tempfile.gettempdir()
  system, free = os.statvfs(place), shutil.disk_usage(place).free
  # File systems without a fixed number of inodes report 0.
  inodes = system.f_favail if system.f_files else args.count
  if free < 1.2 * args.count * BLOCK or inodes < args.count:
    sys.exit(f'error: {place} has no space for {args.count} files: see --place')
  with tempfile.TemporaryDirectory(prefix='folder_index', dir=place) as folder:
    root, cache_folder = pathlib.Path(folder, 'tree'), pathlib.Path(folder, 'cache')
    begun = time.perf_counter()
    make(root, args.count, args.folders, args.links)
    print(f'{args.count} files made in {time.perf_counter() - begun:.0f} s')
    print(
      'start                 images  left out       s   cpu s  batch s    MB  before'
    )
    show('first', start('folder', root, cache_folder))
    show('again', start('folder', root, cache_folder))
    show('again, with classes', start('classes', root, cache_folder))
    (root / 'n00000000' / 'new.jpg').write_bytes(picture(80))
    show('one picture more', start('folder', root, cache_folder))
    size = sum(file.stat().st_size for file in cache_folder.glob('*'))
    print(f'cache: {size / 1e6:.0f} MB')
    print('deleting the files ...', flush=True)


if __name__ == '__main__':
  main()
