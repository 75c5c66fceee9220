"""Measures how fast photographs become batches, beside what decoding takes at least.

  python benchmarks/input.py --path=PHOTOS [--rounds=20] [--seconds=1]
  python benchmarks/input.py --path=PHOTOS --size=4000x3000 --crop=64 --count=16
  python benchmarks/input.py --config=quickstart [--seconds=5]

With --path, the photographs below PHOTOS become JPEG files of 500 x 375 pixels (or
--size) and quality 90, as most of ImageNet is, in a temporary folder. One process for
each core that this one may use decodes them whole, from memory, by all decoders that
are installed, and makes batches of 256-pixel (or --crop) crops of the files, as
training does. All processes work at the same time and do one thing after the other in
turns, so that other load of the machine slows all of them alike.

It prints images a second and core, on the clock and of processor time (which does not
count what other programs took), and the median over rounds of the share of the fastest
decoder's rate. It also prints by how many levels (root mean square) crops differ that
are made of files decoded at a part of their size.

With --config, it prints the images a second that a configuration's own input pipeline
makes, with nothing else running.
"""

import argparse
import functools
import io
import itertools
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

import numpy as np
from PIL import Image, ImageOps

from sr3_jax.config import load_config
from sr3_jax.data import crops, input_pipeline, sources
from sr3_jax.data.batches import train_batches
from sr3_jax.images import image_files

BATCH = 32
# Ways to make crops; the configurations for ImageNet use the last one.
PIPELINES = {
  'crops': {'crop': 'random', 'flip': False},
  'crops, half mirrored': {'crop': 'random', 'flip': True},
  'largest square, downsampled': {'crop': 'center', 'flip': True},
}
REDUCED = 'the same, decoded smaller'


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
  """Return the installed decoders by name: bytes of a file -> uint8 [H, W, 3]."""
  found = {'Pillow': lambda b: np.asarray(Image.open(io.BytesIO(b)).convert('RGB'))}
  try:
    import simplejpeg

    found['simplejpeg'] = lambda b: simplejpeg.decode_jpeg(b, 'RGB')
  except ImportError:
    pass
  try:
    import imagecodecs

    found['imagecodecs'] = imagecodecs.jpeg8_decode
  except ImportError:
    pass
  try:
    import cv2

    cv2.setNumThreads(1)
    colour = cv2.IMREAD_COLOR_RGB
    found['OpenCV'] = lambda b: cv2.imdecode(np.frombuffer(b, np.uint8), colour)
  except ImportError:
    pass
  try:
    import turbojpeg

    turbo = turbojpeg.TurboJPEG()  # an error if the system has no such library
    found['PyTurboJPEG'] = lambda b: turbo.decode(b, pixel_format=turbojpeg.TJPF_RGB)
  except (ImportError, RuntimeError, OSError):
    pass
  return found


def prepare(
  photos: pathlib.Path, folder: pathlib.Path, count: int, sides: tuple[int, int]
) -> None:
  """Write photographs as JPEG files; `sides` are the longer and the shorter one."""
  source = sources.Folder(photos)
  for i in np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int):
    photo = Image.fromarray(source[int(i)]['image'])
    size = sides if photo.width >= photo.height else sides[::-1]
    fitted = ImageOps.fit(photo, size, Image.Resampling.LANCZOS)
    fitted.save(folder / f'{i:06d}.jpg', quality=90)


Timing = tuple[int, float, float]  # images, seconds, seconds of processor time


def timed(piece: Callable[[], int], seconds: float) -> Timing:
  """Repeat a piece of work, which returns its number of images, for some seconds."""
  count, start, cpu = 0, time.perf_counter(), time.process_time()
  while time.perf_counter() - start < seconds:
    count += piece()
  return count, time.perf_counter() - start, time.process_time() - cpu


def time_decoder(decode, files: list[bytes], order, seconds: float) -> Timing:
  """Time the decoding of files in memory."""

  def piece() -> int:
    for _ in range(8):
      decode(files[next(order)])
    return 8

  return timed(piece, seconds)


def time_pipeline(source: sources.Source, options, size: int, seconds) -> Timing:
  """Time the batches of a source, after the first few."""
  batches = train_batches(source, crops.Cut(size, **options), batch_size=BATCH)
  # Batches are made ahead. After four of them, as many are waiting as at the end.
  for _ in range(4):
    next(batches)
  result = timed(lambda: len(next(batches)['image']), seconds)
  batches.close()
  return result


def tasks(folder: str, size: int) -> dict[str, Callable[[float], Timing]]:
  """Return what is timed, by name: functions of the seconds to spend."""
  files = [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]
  order = itertools.cycle(np.random.default_rng(0).permutation(len(files)).tolist())
  found = {}
  for name, decode in decoders().items():
    # The comparison is fair only if all decoders make the same pixels.
    assert np.array_equal(decode(files[0]), image_files.read(files[0], 'x')), name
    found[name] = functools.partial(time_decoder, decode, files, order)
  source = sources.Folder(folder)
  for name, options in PIPELINES.items():
    found[name] = functools.partial(time_pipeline, source, options, size)
  smaller = sources.Folder(folder, decode_side=crops.Cut(size, 'center').decode_side)
  found[REDUCED] = functools.partial(time_pipeline, smaller, options, size)
  return found


def difference(folder: str, size: int) -> float:
  """Return the levels between crops of whole files and of files decoded smaller."""
  cut = crops.Cut(size, 'center')
  whole = sources.Folder(folder)
  part = sources.Folder(folder, decode_side=cut.decode_side)
  rng = np.random.default_rng(0)

  def crop(source: sources.Folder, number: int) -> np.ndarray:
    return cut(source[number]['image'], rng).astype(float)

  errors = [crop(whole, i) - crop(part, i) for i in range(min(len(whole), 16))]
  return float(np.sqrt(np.mean(np.square(errors))))


def work(core: int, folder, size, rounds, seconds, barrier: Barrier, results) -> None:
  """Time all tasks in turns on one core; queue their names and [rounds, tasks, 3]."""
  os.sched_setaffinity(0, {core})
  todo = tasks(folder, size)
  measured = np.zeros((rounds, len(todo), 3))
  for r in range(rounds):
    for t, task in enumerate(todo.values()):
      barrier.wait()
      measured[r, t] = task(seconds)
  results.put((list(todo), measured))


def time_configuration(name: str, seconds: float) -> float:
  """Return the images a second of a configuration's input pipeline."""
  config = load_config(name)
  batches = input_pipeline.training_data(config)
  next(batches)
  size = config.train.batch_size
  images, elapsed, _ = timed(lambda: next(batches) and size, seconds)
  batches.close()
  return images / elapsed


def main():
  """Run the command."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  chosen = parser.add_mutually_exclusive_group(required=True)
  chosen.add_argument('--path', help='folder of photographs')
  chosen.add_argument('--config', help='name or path of a configuration')
  parser.add_argument('--count', type=int, default=200, help='files to make')
  parser.add_argument('--size', default='500x375', help='of them, longer side first')
  parser.add_argument('--crop', type=int, default=256, help='side of the crops')
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument('--seconds', type=float, default=1.0, help='of a task in a round')
  args = parser.parse_args()
  if args.config:
    rate = time_configuration(args.config, args.seconds)
    print(f'{args.config}: {rate:.0f} images/s')
    return
  cores = sorted(os.sched_getaffinity(0))
  context = multiprocessing.get_context('spawn')
  barrier, results = context.Barrier(len(cores)), context.Queue()
  with tempfile.TemporaryDirectory() as folder:
    width, height = map(int, args.size.split('x'))
    prepare(pathlib.Path(args.path), pathlib.Path(folder), args.count, (width, height))
    print(f'decoded smaller: {difference(folder, args.crop):.2f} levels')
    given = (folder, args.crop, args.rounds, args.seconds, barrier, results)
    processes = [context.Process(target=work, args=(core, *given)) for core in cores]
    for process in processes:
      process.start()
    found = [results.get() for _ in processes]
    for process in processes:
      process.join()
  names, count = found[0][0], len(decoders())
  # Images a second of each core: by the clock [rounds, tasks], and of processor time.
  rates = np.mean([m[..., 0] / m[..., 1] for _, m in found], axis=0)
  of_cpu = sum(m[..., 0] for _, m in found) / sum(m[..., 2] for _, m in found)
  best = int(np.argmax(np.median(of_cpu[:, :count], axis=0)))
  print(f'{len(cores)} core(s), {args.rounds} rounds; the ceiling is {names[best]}')
  print(f'{"":26}{"images/s":>9}{"of cpu":>8}{"ceiling":>9}{"of cpu":>8}')
  for t, name in enumerate(names):
    shares = [np.median(v[:, t] / v[:, best]) for v in (rates, of_cpu)]
    print(
      f'{name:26}{np.median(rates[:, t]):9.0f}{np.median(of_cpu[:, t]):8.0f}'
      f'{shares[0]:9.1%}{shares[1]:8.1%}'
    )


if __name__ == '__main__':
  main()
