r"""Makes the pictures of docs/tasks.md: input, outputs of models, truth.

  python docs/make_tasks.py docs/tasks_photos.jpg photo-clean
  python docs/make_tasks.py docs/tasks_faces.jpg \
    runs/portraits_fill runs/portraits_colour

No model has seen the photographs, which come with scikit-image: a cat (Chelsea, by
Stefan van der Walt, CC0) and a cup of coffee for the models of photographs, the
astronaut Eileen Collins (NASA, public domain) for those of aligned portraits.
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
CELL = 192  # side of a picture in the sheet
# Picture, top, left and side of the square parts that are shown.
FACE = (skimage.data.astronaut, 20, 138, 180)
PARTS = [(skimage.data.chelsea, 20, 90, 256), (skimage.data.coffee, 60, 190, 256)]


def part(load, top: int, left: int, side: int, size: int) -> np.ndarray:
  """Return a square part of a picture, downsampled: float32 [1, size, size, 3]."""
  image = load()[top : top + side, left : left + side, :3]
  return pixels.to_float(resizing.resize_area(image, size))[None]


def row(run: str, task: str, hr: np.ndarray, seed: int) -> dict[str, np.ndarray]:
  """Return input, outputs and truth as uint8 pictures, by what they are.

  Samples of models of one step hardly differ, so one is shown, and three of others.
  The output of regression is shown where a run has trained it.
  """
  loaded = hub.load(run)
  options = loaded.config.copy_and_resolve_references().task
  options.mixture = (task,)
  degrade = degradations.make(options.name, options).degrade
  count = SAMPLES if loaded.config.sampler.num_steps > 1 else 1
  keys = jax.random.split(jax.random.key(seed), count)
  condition = degrade(keys[:1], hr)
  shown = {'given': condition[0, ..., :3]}
  if (pathlib.Path(run) / 'regression').exists():
    baseline = hub.load(pathlib.Path(run) / 'regression')
    restore = jax.jit(baseline.model.restore)
    shown['regression'] = restore(baseline.params, keys[:1], condition)[0]
  several = jnp.repeat(condition, count, axis=0)
  samples = jax.jit(loaded.model.restore)(loaded.params, keys, several)
  names = ['output'] if count == 1 else [f'sample {i + 1}' for i in range(count)]
  shown |= dict(zip(names, samples, strict=True)) | {'truth': hr[0]}
  return {name: pixels.to_uint8(picture) for name, picture in shown.items()}


def main(path: str, *runs: str) -> None:
  """Write one sheet with a row for each task of each run."""
  rows, labels = [], []
  for run in runs:
    config = hub.load(run).config
    tasks = config.task.mixture if config.task.name == 'mixture' else [config.task.name]
    for task in tasks:
      if config.data.crop == 'center':  # the whole of an aligned portrait
        hr = part(*FACE, config.data.image_size)
      else:
        hr = part(*PARTS[len(rows) % len(PARTS)], CELL)
      rows.append(row(run, task, hr, len(rows)))
      labels.append(task.replace('_', ' '))
  pictures = [list(shown.values()) for shown in rows]
  image_files.write(
    pathlib.Path(path), contact_sheets.sheet(pictures, [*rows[0]], labels, cell=CELL)
  )
  print(path)


if __name__ == '__main__':
  if len(sys.argv) < 3:
    sys.exit(__doc__)
  main(*sys.argv[1:])
