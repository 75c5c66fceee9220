"""Does with a cascade what --mode=train, eval, sample, sweep or reference asks for."""

import dataclasses
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
from absl import logging
from etils import epath

from sr3_jax.cascade import evaluate, search, time_table
from sr3_jax.cascade.cascade import (
  Cascade,
  CascadeError,
  Job,
  Stage,
  job,
  load,
  stage_path,
)
from sr3_jax.config import ConfigDict, config_names
from sr3_jax.data import input_pipeline, sources
from sr3_jax.evaluation import run as evaluation_run
from sr3_jax.images import contact_sheets, image_files, pixels
from sr3_jax.restoration.restorer import OnSteps, check_finite
from sr3_jax.runtime import activity, atomic_files, devices, foreign_files
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.progress import Progress

REQUEST = 'made_by.json'
_GRID, _COLUMNS = 16, 4  # images and columns of a class's grid
_CLASSES = 24  # classes in samples.png
_LARGEST = 256  # side of a picture in a grid, in pixels


def run(config: ConfigDict, workdir: epath.Path, mode: str) -> None:
  """Do with a cascade what a mode of the program asks for.

  Args:
    config: of the cascade.
    workdir: of the cascade.
    mode: 'train', 'eval', 'sample', 'sweep' or 'reference'.

  Raises:
    CascadeError: a cascade cannot be trained as a whole, or its stages do not fit
      together.
    UserError: a model or the images cannot be read.
  """
  if mode == 'train':
    raise CascadeError(train_message(config, workdir))
  if mode == 'reference':
    evaluation_run.reference_run(config, workdir)
  elif mode == 'eval':
    evaluate.evaluate_run(config, workdir)
  elif mode == 'sweep':
    search.search_run(config, workdir)
  else:
    sample_run(config, workdir)


def train_message(config: ConfigDict, workdir: epath.PathLike) -> str:
  """Return how the stages are trained, in a line."""
  commands = '; '.join(
    f'python -m sr3_jax.main --config={_configuration(path)} '
    f'--workdir={stage_path(path, workdir)}'
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


def sample_run(config: ConfigDict, workdir: epath.PathLike) -> None:
  """Sample images of every class (`--mode=sample`), those that are not there already.

  Writes samples/SIDE/CLASS/00012.png of every stage, samples/times.json, a grid for
  each class, samples.png with all classes, and stages.png.

  Raises:
    CascadeError: the images that are there were made by other models or settings.
    hub.HubError, checkpoint.CheckpointError: a model cannot be loaded.
  """
  workdir = epath.Path(workdir)
  c = config.cascade
  size = devices.per_process(c.batch_size, key='cascade.batch_size')
  cascade = load(config, workdir)
  labels = cascade.labels(c.classes)
  files = Files(workdir / 'samples', _open(workdir / 'samples', cascade, config))
  total = c.images_per_class * len(labels)
  mine = range(jax.process_index(), total, jax.process_count())
  there = {label: files.numbers(cascade.side, label) for label in labels}
  jobs = [job(position, labels) for position in mine]
  todo = [one for one in jobs if one.number not in there[one.label]]
  if len(todo) < len(jobs):
    logging.info('%d of %d images are there already', len(jobs) - len(todo), len(jobs))
  times = [0.0 for _ in cascade.stages]
  compiled: list[float] = []
  if not all(devices.everywhere([not todo])):
    compiled = _compile(cascade, size)
    _write_samples(files, cascade, todo, size, times)
  devices.barrier('sampled')
  if jax.process_index() == 0:
    if todo:
      table = time_table.make(cascade, times, compiled, len(todo))
      atomic_files.write_json(workdir / 'samples' / 'times.json', table)
      print(time_table.as_text(table))
    with activity.doing('writing the sheets'):
      _write_sheets(workdir, files, cascade, labels, c.images_per_class)
    print(
      f'{total} images: {workdir / "samples" / str(cascade.side)}, '
      f'sheets: {workdir / "samples.png"}, {workdir / "stages.png"}'
    )


@dataclasses.dataclass(frozen=True)
class Files:
  """The files of sampled images."""

  folder: epath.Path  # WORKDIR/samples
  names: Sequence[str]  # of the folders of all classes, by the class's number

  def of_class(self, side: int, label: int) -> epath.Path:
    """Return the folder of a class's images of a size."""
    return self.folder / str(side) / self.names[label]

  def path(self, side: int, image: Job) -> epath.Path:
    """Return the file of an image of a size."""
    return self.of_class(side, image.label) / f'{image.number:05d}.png'

  def numbers(self, side: int, label: int) -> set[int]:
    """Return the numbers of the images of a class that are there."""
    folder = self.of_class(side, label)
    stems = (path.stem for path in folder.glob('*.png')) if folder.exists() else ()
    return {int(stem) for stem in stems if stem.isdigit()}

  def read(self, side: int, label: int, count: int) -> list[np.ndarray]:
    """Read the first images of a class, uint8 [H, W, 3] each."""
    return [image_files.read(self.path(side, Job(label, i))) for i in range(count)]


def _write_samples(
  files: Files, cascade: Cascade, todo: Sequence[Job], size: int, times: list[float]
) -> None:
  """Sample images and write them; see `sample_batches` for the arguments."""

  def write(image: Job, pictures: Sequence[np.ndarray]) -> None:
    # The file of the last stage is written last: where it is, the others are.
    for stage, picture in zip(cascade.stages, pictures, strict=True):
      image_files.write(files.path(stage.side, image), picture)

  # Files are written while the next batch is sampled.
  with futures.ThreadPoolExecutor(4) as pool:
    writing: list[futures.Future] = []
    for part, pictures in sample_batches(cascade, todo, size, times):
      for done in writing:
        done.result()
      rows = zip(*pictures, strict=True)
      writing = [pool.submit(write, *one) for one in zip(part, rows, strict=True)]
    for done in writing:
      done.result()


def sample_batches(
  cascade: Cascade, todo: Sequence[Job], size: int, times: list[float]
) -> Iterator[tuple[Sequence[Job], list[np.ndarray]]]:
  """Sample this process's images, batch by batch, through all stages.

  Other processes may have fewer or more images `todo`; `size` of them are a batch of
  this process. The seconds of each stage are added to `times`.

  Yields:
    The images of a batch, and for each stage their pictures, uint8 [n, H, W, C].
  """
  # Until the stages have been timed, their work is taken to grow with steps and pixels.
  guess = [stage.num_steps * stage.side**2 for stage in cascade.stages]
  first = jax.process_index() == 0
  with Progress(len(todo), unit='image', enabled=first) as shown:
    shown.update(0)
    begun = 0
    # A process that is done goes on with empty batches until all are done.
    while not all(devices.everywhere([begun >= len(todo)])):
      part = todo[begun : begun + size]
      batch = cascade.batch(part, size)
      real, names = np.arange(size) < len(part), list(map(_name, part))
      costs = list(times) if begun else guess
      image, pictures = None, []
      for stage in cascade.stages:
        last = begun + len(part)
        place = f'images {begun + 1}-{last}/{len(todo)}, {stage.name}'
        on_steps = _count_steps(shown, begun, len(part), costs, stage, place)
        began = time.monotonic()
        image = stage(image, batch, on_steps)
        jax.block_until_ready(image)
        check_finite(image, real, names.__getitem__, stage.name)
        times[stage.place] += time.monotonic() - began
        pictures.append(pixels.to_uint8(devices.gather(image)[: len(part)]))
      yield part, pictures
      begun += len(part)
      shown.update(begun)


def _name(image: Job) -> str:
  """Return what messages call a sampled image."""
  return f'image {image.number} of class {image.label}'


def _count_steps(
  shown: Progress,
  begun: int,
  count: int,
  costs: Sequence[float],
  stage: Stage,
  place: str,
) -> OnSteps:
  """Return what a stage calls with steps, to show where in a batch it is.

  The batch has `count` images after `begun` ones; `costs` is the work of each stage;
  `place` is shown before the step.
  """
  done = 0

  def on_steps(steps: int) -> None:
    nonlocal done
    done += steps
    own = costs[stage.place] * done / stage.num_steps
    share = (sum(costs[: stage.place]) + own) / sum(costs)
    at = f'{place} step {done}/{stage.num_steps}'
    shown.update(begun + count * min(share, 1), at)

  return on_steps


def _compile(cascade: Cascade, size: int) -> list[float]:
  """Compile every stage; return the seconds of each."""
  batch, seconds = cascade.batch([], size), []
  for stage in cascade.stages:
    logging.info('compiling %s, %d x %d', stage.name, stage.side, stage.side)
    began = time.monotonic()
    with activity.doing(f'compiling {stage.name}'):
      stage.prepare(batch)
    seconds.append(time.monotonic() - began)
  return seconds


# ----------------------------------------------------------------------- the folder


def _open(folder: epath.Path, cascade: Cascade, config: ConfigDict) -> list[str]:
  """Return the names of all classes' folders; refuse the images of another cascade."""
  path = folder / REQUEST
  wanted = json.loads(json.dumps(cascade.made_by))
  if foreign_files.exists(path):
    try:
      known = foreign_files.read_json(path, {'made_by': dict, 'folders': list})
      made, names = known['made_by'], known['folders']
      if any(n == '..' or n != os.path.basename(n) for n in map(str, names)):
        raise UserError(f'{path}: its folders are no names')
    except UserError as error:
      raise CascadeError(f'{error}; move the folder away') from None
    if differs := list(_differences(made, wanted)):
      raise CascadeError(
        f'{folder}: these images differ in {", ".join(differs[:4])}: give another '
        '--workdir, or move the folder away'
      )
    devices.barrier('opened')
    return names
  names = class_folders(config, cascade)
  devices.barrier('opened')
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(path, {'made_by': wanted, 'folders': names})
  return names


def _differences(one: object, other: object, at: str = '') -> Iterator[str]:
  """List the keys at which two JSON values differ."""
  if isinstance(one, dict) and isinstance(other, dict):
    for key in {**one, **other}:
      name = f'{at} {key}'.strip()
      yield from _differences(one.get(key), other.get(key), name)
  elif one != other:
    yield at


def class_folders(config: ConfigDict, cascade: Cascade) -> list[str]:
  """Return a folder for each class: '003' or '003_cat'; only '.' without classes."""
  if not cascade.num_classes:
    return ['.']
  names = class_names(config, cascade)
  clean = [re.sub(r'[^\w.-]+', '_', name) for name in names]
  return [f'{k:03d}' + (f'_{name}' if name else '') for k, name in enumerate(clean)]


def class_names(config: ConfigDict, cascade: Cascade) -> list[str]:
  """Return the names of the classes in the data; empty texts where it has none."""
  for each in (config, cascade.config):
    d = each.data
    try:
      if d.source == 'classes':  # names of folders: no image must be opened for them
        found = sorted(p.name for p in epath.Path(d.path).iterdir() if p.is_dir())
      elif d.source in ('arrays', *sources.DATASETS) and d.path:
        found = input_pipeline.make_source(each, held_out=False).classes
      else:
        continue
    except (sources.DataError, OSError):
      continue
    if len(found) == cascade.num_classes:
      numbered = list(found) == [str(k) for k in range(len(found))]
      return [''] * len(found) if numbered else list(found)
  return [''] * cascade.num_classes


# ------------------------------------------------------------------------- pictures


def _write_sheets(
  workdir: epath.Path, files: Files, cascade: Cascade, labels: Sequence[int], count: int
) -> None:
  """Write grids/CLASS.png, samples.png with a row for each class, and stages.png.

  `count` is how many images there are of each of the classes `labels`.
  """
  cell = min(cascade.side, _LARGEST) if cascade.side >= 160 else None
  several = len(labels) > 1
  rows: list[list[np.ndarray]] = []
  for place, label in enumerate(labels):
    found = files.read(cascade.side, label, min(_GRID, count))
    lines = [found[i : i + _COLUMNS] for i in range(0, len(found), _COLUMNS)]
    if several:
      grid = files.folder / 'grids' / f'{files.names[label]}.png'
      image_files.write(grid, contact_sheets.sheet(lines, cell=cell))
    if place < _CLASSES:
      rows += [found[: 2 * _COLUMNS]] if several else lines
  shown = list(labels)[:_CLASSES]
  texts = [files.names[label] for label in shown] if several else None
  image_files.write(
    workdir / 'samples.png', contact_sheets.sheet(rows, row_labels=texts, cell=cell)
  )
  each = min(1 if several else 4, count)
  stages: list[Sequence[np.ndarray]] = []
  for label in shown[:8]:
    columns = [files.read(stage.side, label, each) for stage in cascade.stages]
    stages += zip(*columns, strict=True)
  titles = [f'{s.side} x {s.side}' for s in cascade.stages]
  image_files.write(
    workdir / 'stages.png', contact_sheets.sheet(stages, titles, cell=cell)
  )
