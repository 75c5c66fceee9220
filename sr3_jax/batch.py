"""Many pictures through one upscaler: what is to be done, doing it, what went wrong.

An output carries the settings that it was made with. What would be made again the same
is skipped, so a job that was interrupted goes on when it is started again.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from sr3_jax import folders, images, logs, pictures
from sr3_jax.layout import output_size

# Output pixels that are made at a time, on each device, of pictures smaller than that:
# enough to keep it busy, and no more is lost by an interruption. None counts for less
# than the smallest tile has.
GROUP, _LEAST = 2**18, 64**2
# Largest cell of a comparison sheet, and how many samples it shows.
_CELL, _SHOWN = 1024, 4


@dataclasses.dataclass(frozen=True)
class Options:
  """What is written.

  Attributes:
    output: folder; None is standard output, for one picture.
    suffix: of names, after '_'; '' for none.
    ext: 'auto', or an extension without its dot.
    outscale: output sides over input sides; None is the model's scale.
    num_samples: how many pictures of each input.
    spread: whether to write how they differ, as a picture and as numbers.
    compare: whether to write a comparison sheet.
    label: class, for models that have classes.
    overwrite: whether to make again, and replace, whatever is there.
  """

  output: pathlib.Path | None
  suffix: str = 'out'
  ext: str = 'auto'
  outscale: float | None = None
  num_samples: int = 1
  spread: bool = False
  compare: bool = False
  label: int | None = None
  overwrite: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """An input to be done.

  Attributes:
    source: the input.
    data: its bytes if it is no file.
    size: its height and width.
    extension: of its outputs.
    files: what each output shows -> its path, in the order of writing.
  """

  source: folders.Source
  data: bytes | None
  size: tuple[int, int]
  extension: str
  files: dict[str, pathlib.Path]

  def read(self) -> bytes:
    """The bytes of the input."""
    with images.errors(self.source.name):
      return self.source.path.read_bytes() if self.data is None else self.data


class Failures(dict[str, str]):
  """Name of an input -> what is wrong with it, one line."""

  @contextlib.contextmanager
  def of(self, source: folders.Source) -> Iterator[None]:
    """Notes what goes wrong inside, so that the other inputs are done."""
    try:
      yield
    except Exception as error:  # anything may be wrong with a file
      line = ' '.join(str(error).split())
      kind = (
        '' if isinstance(error, ValueError) and line else type(error).__name__ + ' '
      )
      self[source.name] = (kind + line).removeprefix(f'{source.name}: ').strip()


def plan(
  upscaler: Any,
  options: Options,
  sources: Sequence[folders.Source],
  stdin: bytes | None = None,
) -> tuple[list[Job], int, Failures]:
  """Looks at headers and at outputs that are there.

  Args:
    upscaler: a `pipeline.Upscaler`.
    options: what is to be written.
    sources: the inputs.
    stdin: bytes of the source that is no file.

  Returns:
    What is left to do, the largest first; how many are finished; what can't be done.
  """
  failed = Failures()
  scale = upscaler.settings(options.outscale)['outscale']
  jobs = []
  for source in sources:
    with failed.of(source):
      data = stdin if source.path is None else None
      height, width, format_ = pictures.header(
        source.path if data is None else data, source.name
      )
      extension = _extension(format_, height, width, scale, options.ext)
      jobs.append(Job(source, data, (height, width), extension, {}))
  if options.output is None:
    return jobs, 0, failed
  names = lambda i, stem: _names(stem, jobs[i].extension, options).values()
  stems = folders.stems([job.source for job in jobs], names)
  inputs = {source.path.resolve() for source in sources if source.path}
  left, finished = [], 0
  for job, stem in zip(jobs, stems, strict=True):
    folder = options.output / job.source.place.parent
    for shown, name in _names(stem, job.extension, options).items():
      job.files[shown] = folder / name
    with failed.of(job.source):
      if lost := [path for path in job.files.values() if path.resolve() in inputs]:
        raise images.ImageError(f'{lost[0]} would replace an input')
      if _is_finished(job, upscaler, options):
        finished += 1
      else:
        left.append(job)
  left.sort(key=lambda job: (-job.size[0] * job.size[1], job.source.name))
  return left, finished, failed


def run(upscaler: Any, options: Options, jobs: Sequence[Job]) -> Failures:
  """Does jobs, with progress on stderr; returns those that failed."""
  failed = Failures()
  work = {
    job: upscaler.work(*job.size, options.outscale, options.num_samples) for job in jobs
  }
  requested = _request(upscaler, options)
  share, before = len(jobs) / max(sum(work.values()), 1), 0
  with logs.Progress(len(jobs), unit='picture') as progress:
    for group in _groups(upscaler, options, jobs):
      expected = sum(work[job] for job in group)
      counted = 0

      def on_steps(count: int, before: int = before, expected: int = expected) -> None:
        nonlocal counted
        # What is done again, after memory ran out, counts once.
        counted = min(counted + count, expected)
        step = counted * upscaler.num_steps // max(expected, 1)
        progress.update(round((before + counted) * share, 2), sampling_step=step)

      _do(upscaler, options, requested, group, on_steps, failed)
      before += expected
      progress.update(round(before * share, 2))
    progress.update(len(jobs))
  return failed


def _names(stem: str, extension: str, options: Options) -> dict[str, str]:
  """What each output shows -> its name."""
  base = f'{stem}_{options.suffix}' if options.suffix else stem
  if options.num_samples == 1:
    names = {'1': base + extension}
  else:
    count = range(1, options.num_samples + 1)
    names = {str(i): f'{base}_{i}{extension}' for i in count}
    names['mean'] = f'{base}_mean{extension}'
  if options.spread:
    names |= {'numbers': f'{base}_spread.npy', 'spread': f'{base}_spread.png'}
  if options.compare:
    names['compare'] = f'{base}_compare.png'
  return names


def _extension(format_: str, height: int, width: int, scale: float, ext: str) -> str:
  """The extension of outputs; raises ImageError if they'd be too large."""
  out = output_size((height, width), scale)
  if out[0] * out[1] > pictures.MAX_OUTPUT:
    raise images.ImageError(
      f'{width} x {height} pixels enlarged {scale:g} times are {out[1]} x {out[0]}, '
      f'more than the limit of {pictures.MAX_OUTPUT / 1e6:.0f} Mpx'
    )
  if ext == 'auto':
    return pictures.extension(format_, *out)
  pictures.check_sides(f'.{ext}', *out)
  return f'.{ext}'


def _request(upscaler: Any, options: Options) -> dict[str, Any]:
  """What outputs depend on beside the input. Taken before anything is done: running
  out of memory may change how the upscaler goes on."""
  return {
    **upscaler.settings(options.outscale),
    'num_samples': options.num_samples,
    'label': options.label,
  }


def _mark(job: Job, data: bytes, requested: dict[str, Any]) -> dict[str, Any]:
  """How an output tells later what it was made from, and with which settings."""
  place = '' if job.source.path is None else str(job.source.path.resolve())
  digest = lambda data: hashlib.sha256(data).hexdigest()[:32]
  sha256 = digest(data)
  # A model folder may be renamed: its weights have a name of their own.
  made_by = {key: value for key, value in requested.items() if key != 'model'}
  return {
    'input': {'name': job.source.place.name, 'sha256': sha256},
    'path': digest(place.encode()),  # tells files of one name apart, betrays nothing
    'request': digest(json.dumps([sha256, made_by], sort_keys=True).encode()),
  }


def _is_finished(job: Job, upscaler: Any, options: Options) -> bool:
  """Whether all outputs are there and were made with these settings.

  Raises:
    ImageError: one is there that was made from something else.
  """
  there = [path for path in job.files.values() if path.exists()]
  if options.overwrite or not there:
    return False
  mark = _mark(job, job.read(), _request(upscaler, options))
  same = len(there) == len(job.files)
  for path in there:
    if path.suffix == '.npy':  # the picture of the same numbers, written later, tells
      continue
    found = pictures.metadata(path) or {}
    if not any(found.get(key) == mark[key] for key in ('input', 'path')):
      raise images.ImageError(
        f'{path} is there and was not made from this file: choose another --output '
        'or --suffix, or --overwrite it'
      )
    same &= found.get('request') == mark['request']
  return same


def _groups(
  upscaler: Any, options: Options, jobs: Iterable[Job]
) -> Iterator[list[Job]]:
  """Jobs to be done at a time: large ones alone."""
  scale = upscaler.settings(options.outscale)['outscale']
  room = GROUP * jax.local_device_count()
  group: list[Job] = []
  filled = 0.0
  for job in jobs:
    pixels = max(job.size[0] * job.size[1] * scale**2, _LEAST) * options.num_samples
    if group and filled + pixels > room:
      yield group
      group, filled = [], 0.0
    group.append(job)
    filled += pixels
  if group:
    yield group


def _do(
  upscaler: Any,
  options: Options,
  requested: dict[str, Any],
  group: Sequence[Job],
  on_steps: Callable[[int], None],
  failed: Failures,
) -> None:
  """Reads, enlarges and writes some jobs; if that fails, one by one."""
  read = []
  for job in group:
    with failed.of(job.source):
      data = job.read()
      picture = pictures.read(data, job.source.name)
      read.append((job, picture, _mark(job, data, requested)))
  upscale = lambda chosen: upscaler.upscale_many(
    [picture.pixels for _, picture, _ in chosen],
    options.outscale,
    num_samples=options.num_samples,
    label=options.label,
    on_steps=on_steps,
  )
  results = None
  if len(read) > 1:
    with contextlib.suppress(Exception):
      results = upscale(read)
  for i, (job, picture, mark) in enumerate(read):
    with failed.of(job.source):
      result = upscale([(job, picture, mark)])[0] if results is None else results[i]
      settings = {**requested, **result.settings, **mark}
      _write(job, picture, result, settings, options)


def _write(
  job: Job,
  picture: pictures.Picture,
  result: Any,
  settings: dict[str, Any],
  options: Options,
) -> None:
  """Writes all outputs of a job."""
  height, width = result.samples.shape[1:3]
  alpha = picture.alpha
  if alpha is not None:
    alpha = pictures.resize_alpha(alpha, height, width)
  enlarged = lambda pixels: dataclasses.replace(picture, pixels=pixels, alpha=alpha)
  if options.output is None:
    data = pictures.encode(enlarged(result.samples[0]), job.extension, settings)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return
  for shown, path in job.files.items():
    marked = {**settings, 'shown': shown}
    if shown.isdigit():
      pictures.write(path, enlarged(result.samples[int(shown) - 1]), marked)
    elif shown == 'mean':
      pictures.write(path, enlarged(result.mean), marked)
    elif shown == 'numbers':
      buffer = io.BytesIO()
      np.save(buffer, result.spread)
      images.write_bytes(path, buffer.getvalue())
    elif shown == 'spread':
      _write_drawing(path, _heat(result), None, marked)
    else:
      _write_drawing(path, _sheet(picture, result, options), picture.icc, marked)


def _write_drawing(path, drawing, icc, settings) -> None:
  picture = pictures.Picture(images.to_float(drawing), icc=icc)
  pictures.write(path, picture, settings)


def _heat(result: Any) -> np.ndarray:
  legend = f'spread of {len(result.samples)} samples, in levels of 255'
  return pictures.heat(result.spread * 127.5, legend)


def _sheet(picture: pictures.Picture, result: Any, options: Options) -> np.ndarray:
  """Input, bicubic, samples, spread."""
  few = result.samples[:_SHOWN]
  titles = ['input', 'bicubic']
  titles += [f'sample {i + 1}' for i in range(len(few))] if len(few) > 1 else ['output']
  shown = [images.to_uint8(p) for p in (picture.pixels, result.bicubic, *few)]
  if options.spread:
    titles.append('spread')
    shown.append(pictures.colours(result.spread))
  largest = max(result.samples.shape[1:3])
  cell = _CELL if largest > _CELL else None
  return images.sheet([shown], titles, cell=cell)
