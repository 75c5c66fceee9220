"""How long a folder of very many images takes to open: first, again, after a change.

  python benchmarks/folder_index.py [--count=1000000] [--folders=1000] [--links]

Makes a tree of small JPEG files in a temporary folder, and deletes it. One of twenty is
too small to be used. Each start is a process of its own, as a restart is. Seconds are
those of opening the source when everything is imported, on the clock and of processor
time: on a busy machine they differ. Memory is the peak of the process; 'before' is what
it had when everything was imported.

Every file takes an inode and a block of 4 kB. With --links they are hard links to a few
files, which are made much faster; their names are as many, but what a disk takes to
find a million inodes is missing from the first start.
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

from sr3_jax.runtime import progress as runtime_progress

SIDES = (48, *range(64, 83))  # of the pictures, in turn
BLOCK = 4096

# What one start does. The first reading is of a tree that was just written, so all of
# it is in memory: a cold disk adds its own time.
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
  """A small JPEG file."""
  file = io.BytesIO()
  Image.new('RGB', (side, side), (side, 99, 0)).save(file, 'JPEG')
  return file.getvalue()


def make(root: pathlib.Path, count: int, folders: int, links: bool) -> None:
  """The tree, as ImageNet is laid out."""
  bodies = [picture(side) for side in SIDES]
  with runtime_progress.Progress(count, unit='file') as progress:
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
      progress.update(min(count, (k + 1) * count // folders))


def start(
  source: str, root: pathlib.Path, cache_folder: pathlib.Path
) -> dict[str, float]:
  """Opens the tree in a new process."""
  command = [sys.executable, '-c', START, source, str(root), str(cache_folder)]
  done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
  return json.loads(done.stdout)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--count', type=int, default=1_000_000)
  parser.add_argument('--folders', type=int, default=1000)
  parser.add_argument('--links', action='store_true', help='hard links, made faster')
  parser.add_argument('--place', help='where to make it; default: the temporary folder')
  args = parser.parse_args()
  place = args.place or tempfile.gettempdir()
  room, free = os.statvfs(place), shutil.disk_usage(place).free
  # Some file systems have no fixed number of inodes and say 0.
  inodes = room.f_favail if room.f_files else args.count
  if free < 1.2 * args.count * BLOCK or inodes < args.count:
    sys.exit(f'error: {place} has no room for {args.count} files: see --place')
  with tempfile.TemporaryDirectory(prefix='folder_index', dir=place) as folder:
    root, cache_folder = pathlib.Path(folder, 'tree'), pathlib.Path(folder, 'cache')
    begun = time.perf_counter()
    make(root, args.count, args.folders, args.links)
    print(f'{args.count} files made in {time.perf_counter() - begun:.0f} s')
    print(
      'start                 images  left out       s   cpu s  batch s    MB  before'
    )
    show = lambda name, r: print(
      f'{name:19}{r["images"]:9}{r["left out"]:10}{r["seconds"]:8.1f}{r["cpu"]:8.1f}'
      f'{r["first batch"]:9.2f}{r["MB"]:6.0f}{r["before"]:8.0f}',
      flush=True,
    )
    show('first', start('folder', root, cache_folder))
    show('again', start('folder', root, cache_folder))
    show('again, with classes', start('classes', root, cache_folder))
    (root / 'n00000000' / 'new.jpg').write_bytes(picture(80))
    show('one picture more', start('folder', root, cache_folder))
    size = sum(file.stat().st_size for file in cache_folder.iterdir())
    print(f'cache: {size / 1e6:.0f} MB')
    print('deleting the files ...', flush=True)


if __name__ == '__main__':
  main()
