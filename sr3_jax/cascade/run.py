"""What --mode=train, eval, sample, sweep and reference do with a cascade."""

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import evaluate as cascade_evaluate
from sr3_jax.cascade import search as cascade_search
from sr3_jax.cascade.cascade import (
  Cascade,
  CascadeError,
  Job,
  Stage,
  fits,
  job,
  load,
  where,
)
from sr3_jax.config import config_names
from sr3_jax.data import sources
from sr3_jax.evaluation import run as evaluation_run
from sr3_jax.images import contact_sheets, image_files, pixels
from sr3_jax.runtime import atomic_files, progress
from sr3_jax.runtime import devices as runtime_devices

REQUEST = 'made_by.json'
_GRID, _COLUMNS, _CLASSES = 16, 4, 24  # images of a class's grid; rows of samples.png
_LARGEST = 256  # side of a picture in a grid


def run(config: ml_collections.ConfigDict, workdir: epath.Path, mode: str) -> None:
  """What the flags ask of a cascade.

  Raises:
    CascadeError: training, which stages do alone, or stages that don't fit together.
    hub.HubError, checkpoint.CheckpointError, sources.DataError: as they say.
  """
  if mode == 'train':
    raise CascadeError(train_message(config, workdir))
  if mode == 'reference':
    evaluation_run.reference_run(config, workdir)
  elif mode == 'eval':
    cascade_evaluate.evaluate_run(config, workdir)
  elif mode == 'sweep':
    cascade_search.search_run(config, workdir)
  else:
    sample_run(config, workdir)


def train_message(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> str:
  """How the stages are trained, in a line."""
  commands = '; '.join(
    f'python -m sr3_jax.main --config={_configuration(path)} '
    f'--workdir={where(path, workdir)}'
    for path in config.cascade.stages
    if not path.startswith('hf://')
  )
  return f'a cascade is not trained as a whole, its stages are: {commands or "hf://"}'


def _configuration(stage: str) -> str:
  """Return the configuration that trains a stage: the one with the name of its run."""
  run_name = epath.Path(stage).name
  known = (name for name in config_names() if epath.Path(name).name == run_name)
  return next(known, f'configs/{run_name}.py')


# ------------------------------------------------------------------------ sampling


def sample_run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
  """--mode=sample: draws images of every class, what is not there already.

  Writes samples/SIDE/CLASS/00012.png of every stage, samples/times.json, a grid for
  each class, samples.png with all classes, and stages.png.

  Raises:
    CascadeError: the images there are of other models or settings.
    hub.HubError, checkpoint.CheckpointError: as they say.
  """
  workdir = epath.Path(workdir)
  c = config.cascade
  with fits('cascade.batch_size'):
    size = runtime_devices.per_process(c.batch_size)
  cascade = load(config, workdir)
  labels = cascade.labels(c.classes)
  names = _open(workdir / 'samples', cascade, config)
  place = lambda side, label: workdir / 'samples' / str(side) / names[label]
  total = c.images_per_class * len(labels)
  mine = range(jax.process_index(), total, jax.process_count())
  there = {label: _there(place(cascade.side, label)) for label in labels}
  jobs = [job(position, labels) for position in mine]
  todo = [(kind, number) for kind, number in jobs if number not in there[kind]]
  if len(todo) < len(jobs):
    logging.info('%d of %d images are there already', len(jobs) - len(todo), len(jobs))
  times = [0.0 for _ in cascade.stages]
  compiled = []

  def save(drawn: Job, pictures: Sequence[np.ndarray]) -> None:
    # The last stage's is written last: where it is, the others are.
    kind, number = drawn
    for stage, picture in zip(cascade.stages, pictures, strict=True):
      image_files.write(place(stage.side, kind) / f'{number:05d}.png', picture)

  if not all(runtime_devices.everywhere([not todo])):
    compiled = _compile(cascade, size)
    # Files are written while the next batch is drawn.
    with futures.ThreadPoolExecutor(4) as pool:
      writing: list[futures.Future] = []
      for part, pictures in draw(cascade, todo, size, times):
        for done in writing:
          done.result()
        rows = zip(*pictures, strict=True)
        writing = [pool.submit(save, *one) for one in zip(part, rows, strict=True)]
      for done in writing:
        done.result()
  runtime_devices.barrier('drawn')
  if jax.process_index() == 0:
    if todo:
      table = time_table(cascade, times, compiled, len(todo))
      atomic_files.write_json(workdir / 'samples' / 'times.json', table)
      print(format_times(table))
    _grids(workdir, cascade, labels, names, c.images_per_class)
    print(
      f'{total} images: {workdir / "samples" / str(cascade.side)}, '
      f'sheets: {workdir / "samples.png"}, {workdir / "stages.png"}'
    )


def draw(
  cascade: Cascade, todo: Sequence[Job], size: int, times: list[float]
) -> Iterator[tuple[Sequence[Job], list[np.ndarray]]]:
  """Draws this process's images, batch by batch, through all stages.

  Args:
    cascade: the models.
    todo: what to draw; other processes may have less or more.
    size: images a batch, of this process.
    times: seconds of each stage are added to these.

  Yields:
    The jobs of a batch, and for each stage its images, uint8 [n, H, W, C].
  """
  # Until the stages have been timed, work goes with steps and pixels.
  guess = [stage.num_steps * stage.side**2 for stage in cascade.stages]
  enabled = jax.process_index() == 0
  with progress.Progress(len(todo), unit='image', enabled=enabled) as shown:
    shown.update(0)
    begun = 0
    while not all(runtime_devices.everywhere([begun >= len(todo)])):
      part = todo[begun : begun + size]
      batch = cascade.batch(part, size)
      costs = list(times) if begun else guess
      on_share = functools.partial(_tell, shown, begun, len(part))
      image, pictures = None, []
      for stage in cascade.stages:
        on_steps = _share(on_share, costs, stage)
        began = time.monotonic()
        image = stage(image, batch, on_steps)
        jax.block_until_ready(image)
        times[stage.place] += time.monotonic() - began
        pictures.append(pixels.to_uint8(runtime_devices.gather(image)[: len(part)]))
      yield part, pictures
      begun += len(part)
      shown.update(begun)
      # A process that is done goes on with empty batches until all are.


def _tell(shown: progress.Progress, begun: int, count: int, share: float) -> None:
  """Shows a share of a batch of `count` images as some of them."""
  shown.update(begun + int(count * min(share, 1)))


def _share(
  on_share: Callable[[float], None], costs: Sequence[float], stage: Stage
) -> Callable[[int], None]:
  """What a stage calls with steps: tells the share of all stages' work done."""
  done = 0

  def on_steps(steps: int) -> None:
    nonlocal done
    done += steps
    own = costs[stage.place] * done / stage.num_steps
    on_share((sum(costs[: stage.place]) + own) / sum(costs))

  return on_steps


def _compile(cascade: Cascade, size: int) -> list[float]:
  """Compiles every stage once; seconds of each."""
  batch = cascade.batch([], size)
  seconds = []
  for stage in cascade.stages:
    logging.info('compiling %s, %d x %d', stage.name, stage.side, stage.side)
    began = time.monotonic()
    jax.block_until_ready(stage.prepare(batch))
    seconds.append(time.monotonic() - began)
  return seconds


# ----------------------------------------------------------------------- the folder


def _open(
  folder: epath.Path, cascade: Cascade, config: ml_collections.ConfigDict
) -> list[str]:
  """Names of the folders of all classes; refuses the images of another cascade."""
  path = folder / REQUEST
  wanted = json.loads(json.dumps(cascade.about))
  if path.exists():
    try:
      known = json.loads(path.read_text())
      made, names = known['made_by'], known['folders']
    except (ValueError, KeyError, TypeError):
      raise CascadeError(f'{path}: damaged; move the folder away') from None
    if differs := list(_differences(made, wanted)):
      raise CascadeError(
        f'{folder}: these images differ in {", ".join(differs[:4])}: give another '
        '--workdir, or move the folder away'
      )
    runtime_devices.barrier('opened')
    return names
  names = class_folders(config, cascade)
  runtime_devices.barrier('opened')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, {'made_by': wanted, 'folders': names})
  return names


def _differences(one: Any, other: Any, at: str = '') -> Iterator[str]:
  """Keys at which two JSON values differ."""
  if isinstance(one, dict) and isinstance(other, dict):
    for key in {**one, **other}:
      name = f'{at} {key}'.strip()
      yield from _differences(one.get(key), other.get(key), name)
  elif one != other:
    yield at


def class_folders(config: ml_collections.ConfigDict, cascade: Cascade) -> list[str]:
  """A folder's name for each class: '003' or '003_cat'; '.' without classes."""
  if not cascade.num_classes:
    return ['.']
  names = class_names(config, cascade)
  clean = [re.sub(r'[^\w.-]+', '_', name) for name in names]
  return [f'{k:03d}' + (f'_{name}' if name else '') for k, name in enumerate(clean)]


def class_names(config: ml_collections.ConfigDict, cascade: Cascade) -> list[str]:
  """Names of the classes as the data has them; empty texts where nobody knows."""
  unknown = [''] * cascade.num_classes
  for d in (config.data, cascade.config.data):
    try:
      if d.source == 'classes':  # a folder for each; not all headers are read
        found = sorted(p.name for p in epath.Path(d.path).iterdir() if p.is_dir())
      elif d.source in ('arrays', 'tfds') and d.path:
        found = sources.make_source(
          d.source, path=d.path, split=d.split, data_dir=d.data_dir or None
        ).classes
      else:
        continue
    except (sources.DataError, OSError):
      continue
    if len(found) == cascade.num_classes:
      numbers = [str(k) for k in range(len(found))]
      return unknown if list(found) == numbers else list(found)
  return unknown


def _there(folder: epath.Path) -> set[int]:
  """Numbers of the images in a folder."""
  stems = (path.stem for path in folder.glob('*.png')) if folder.exists() else ()
  return {int(stem) for stem in stems if stem.isdigit()}


# ------------------------------------------------------------------------- pictures


def _grids(
  workdir: epath.Path,
  cascade: Cascade,
  labels: Sequence[int],
  names: Sequence[str],
  count: int,
) -> None:
  """grids/CLASS.png; samples.png, a row for each class; stages.png, a column each."""
  samples = workdir / 'samples'
  first = lambda side, label, n: [
    image_files.read(samples / str(side) / names[label] / f'{i:05d}.png')
    for i in range(min(n, count))
  ]
  cell = min(cascade.side, _LARGEST) if cascade.side >= 160 else None
  several = len(labels) > 1
  rows = []
  for place, label in enumerate(labels):
    found = first(cascade.side, label, _GRID)
    lines = [found[i : i + _COLUMNS] for i in range(0, len(found), _COLUMNS)]
    if several:
      grid = samples / 'grids' / f'{names[label]}.png'
      image_files.write(grid, contact_sheets.sheet(lines, cell=cell))
    if place < _CLASSES:
      rows += [found[: 2 * _COLUMNS]] if several else lines
  shown = list(labels)[:_CLASSES]
  texts = [names[label] for label in shown] if several else None
  image_files.write(
    workdir / 'samples.png', contact_sheets.sheet(rows, row_labels=texts, cell=cell)
  )
  stages = []
  for label in shown[:8]:
    each = [first(s.side, label, 1 if several else 4) for s in cascade.stages]
    stages += zip(*each, strict=True)
  titles = [f'{s.side} x {s.side}' for s in cascade.stages]
  image_files.write(
    workdir / 'stages.png', contact_sheets.sheet(stages, titles, cell=cell)
  )


# ----------------------------------------------------------------------------- time


def time_table(
  cascade: Cascade, times: Sequence[float], compiled: Sequence[float], count: int
) -> dict[str, Any]:
  """Time per stage as JSON: of `count` images, on this process's devices."""
  whole = sum(times)
  rows = [
    {
      'stage': stage.name,
      'side': stage.side,
      'steps': stage.num_steps,
      'guidance': stage.guidance,
      'blur': stage.blur,
      'noise': stage.noise,
      'compile_seconds': round(waited, 2),
      'seconds': round(seconds, 2),
      'seconds_per_image': round(seconds / count, 5),
      'share': round(seconds / whole, 4),
    }
    for stage, seconds, waited in zip(cascade.stages, times, compiled, strict=True)
  ]
  devices = f'{jax.local_device_count()} x {jax.devices()[0].device_kind}'
  return {'images': count, 'devices': devices, 'seconds': whole, 'stages': rows}


def format_times(table: dict[str, Any]) -> str:
  """The table of time per stage as aligned text."""
  lines = [('stage', 'size', 'steps', 'guidance', 'compile s', 's/image', 'share')]
  for row in table['stages']:
    size, cost = f'{row["side"]} x {row["side"]}', f'{row["seconds_per_image"]:.3g}'
    waited, share = f'{row["compile_seconds"]:.1f}', f'{100 * row["share"]:.1f}%'
    guidance = f'{row["guidance"]:g}'
    lines.append((row['stage'], size, str(row['steps']), guidance, waited, cost, share))
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  text = []
  for name, *cells in lines:
    rest = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
    text.append('  '.join([name.ljust(widths[0]), *rest]))
  text.append(f'{table["images"]} images on {table["devices"]}')
  return '\n'.join(text)
