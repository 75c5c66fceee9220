r"""Makes the pictures of docs/tasks.md: input, outputs of two models, truth.

  python docs/make_tasks.py docs/tasks_photos.jpg runs/photos_clean
  python docs/make_tasks.py docs/tasks_faces.jpg \
    runs/portraits_fill runs/portraits_colour

Neither model has seen the photographs, which come with scikit-image: a cat (Chelsea, by
Stefan van der Walt, CC0) and a cup of coffee for the model of
configs/small/photos_clean_32.py, the astronaut Eileen Collins (NASA, public domain) for
that of configs/small/portraits_fill_32.py.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data

from sr3_jax.core import degradations
from sr3_jax.images import contact_sheets, image_files, pixels, resizing
from sr3_jax.weights import hub

SAMPLES = 3
# Picture, top, left and side of the square parts that are shown.
FACE = (skimage.data.astronaut, 20, 138, 180)
PARTS = [(skimage.data.chelsea, 20, 90, 256), (skimage.data.coffee, 60, 190, 256)]
FACE_TASKS = ('inpainting', 'uncropping', 'colorization')


def part(load, top: int, left: int, side: int, size: int) -> np.ndarray:
  """Return a square part of a picture, downsampled: float32 [1, size, size, 3]."""
  image = load()[top : top + side, left : left + side, :3]
  return pixels.to_float(resizing.resize_area(image, size))[None]


def row(run: str, task: str, hr: np.ndarray, seed: int) -> list[np.ndarray]:
  """Return input, regression, samples and truth as uint8 pictures."""
  loaded = hub.load(run)
  baseline = hub.load(pathlib.Path(run) / 'regression')
  options = loaded.config.copy_and_resolve_references().task
  options.mixture = (task,)
  degrade = degradations.make(options.name, options).degrade
  keys = jax.random.split(jax.random.key(seed), SAMPLES)
  condition = degrade(keys[:1], hr)
  mean = jax.jit(baseline.model.restore)(baseline.params, keys[:1], condition)
  several = jnp.repeat(condition, SAMPLES, axis=0)
  samples = jax.jit(loaded.model.restore)(loaded.params, keys, several)
  shown = [condition[0, ..., :3], mean[0], *samples, hr[0]]
  return [pixels.to_uint8(picture) for picture in shown]


def main(path: str, *runs: str) -> None:
  """Write one sheet with a row for each task of each run."""
  samples = [f'sample {i + 1}' for i in range(SAMPLES)]
  rows, labels = [], []
  for run in runs:
    config = hub.load(run).config
    tasks = config.task.mixture if config.task.name == 'mixture' else [config.task.name]
    for number, task in enumerate(tasks):
      if task in FACE_TASKS:
        hr = part(*FACE, config.data.image_size)
      else:
        hr = part(*PARTS[number % len(PARTS)], 128)
      rows.append(row(run, task, hr, number))
      labels.append(task.replace('_', ' '))
  titles = ['given', 'regression', *samples, 'truth']
  image_files.write(
    pathlib.Path(path), contact_sheets.sheet(rows, titles, labels, cell=128)
  )
  print(path)


if __name__ == '__main__':
  if len(sys.argv) < 3:
    sys.exit(__doc__)
  main(*sys.argv[1:])
