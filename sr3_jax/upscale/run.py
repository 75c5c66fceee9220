"""Does jobs: reads pictures, restores them with one upscaler, writes the outputs."""

import collections
import dataclasses
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from sr3_jax.images import (
  contact_sheets,
  image_files,
  metadata,
  picture_codec,
  transparency,
)
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import ImageError, to_float, to_picture
from sr3_jax.restoration.upscaler import Result, Upscaler
from sr3_jax.runtime import activity, atomic_files
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.progress import Progress
from sr3_jax.upscale import jobs
from sr3_jax.upscale import masks as upscale_masks
from sr3_jax.upscale.jobs import Failures, Job, Options, Settings

# Small pictures are done in groups of so many output pixels on each device: enough to
# keep it busy, and little is lost if the command is interrupted.
GROUP = 2**18
# A picture counts as at least the pixels of the smallest tile.
_LEAST = 64**2
# Largest cell of a comparison sheet in pixels, and how many samples it shows.
_CELL, _SHOWN = 1024, 4


class _Input(NamedTuple):
  """A job whose input has been read; `mark` is what its outputs store about it."""

  job: Job
  picture: picture_codec.Picture
  mask: np.ndarray | None
  mark: Settings


def run(upscaler: Upscaler, options: Options, todo: Sequence[Job]) -> Failures:
  """Do jobs, with progress on stderr; return the inputs that failed.

  Says what belonged to pictures and could not be kept.
  """
  failed, lost = Failures(), collections.Counter()
  work = {
    job: upscaler.work(*job.size, options.outscale, options.num_samples) for job in todo
  }
  requested = jobs.request(upscaler, options)
  before = done = 0
  with Progress(sum(work.values()), unit='picture') as progress:
    for group in _groups(upscaler, options, todo):
      expected = sum(work[job] for job in group)
      counted = 0

      def on_steps(
        count: int,
        place: str = _place(done, len(group), len(todo)),
        before: int = before,
        expected: int = expected,
      ) -> None:
        nonlocal counted
        # Steps that are repeated because memory ran out count once.
        counted = min(counted + count, expected)
        step = counted * upscaler.num_steps // max(expected, 1)
        at = f'{place}, step {step}/{upscaler.num_steps}'
        progress.update(before + counted, at)

      on_steps(0)
      _do(upscaler, options, requested, group, on_steps, failed, lost)
      before, done = before + expected, done + len(group)
    progress.update(before, f'picture {done}/{len(todo)}')
  for what, count in lost.items():
    logging.info('not kept of %d picture%s: %s', count, 's'[: count > 1], what)
  return failed


def _place(done: int, count: int, total: int) -> str:
  """Return which pictures are next: 'picture 3/12', or 'pictures 3-8/12'."""
  if count == 1:
    return f'picture {done + 1}/{total}'
  return f'pictures {done + 1}-{done + count}/{total}'


def _groups(
  upscaler: Upscaler, options: Options, todo: Iterable[Job]
) -> Iterator[list[Job]]:
  """Yield the jobs to be done at a time; large ones are alone."""
  capacity = GROUP * jax.local_device_count()
  group: list[Job] = []
  filled = 0.0
  for job in todo:
    out = math.prod(upscaler.output_size(*job.size, options.outscale))
    pixels = max(out, _LEAST) * options.num_samples
    if group and filled + pixels > capacity:
      yield group
      group, filled = [], 0.0
    group.append(job)
    filled += pixels
  if group:
    yield group


def _do(
  upscaler: Upscaler,
  options: Options,
  requested: Settings,
  group: Sequence[Job],
  on_steps: Callable[[int], None],
  failed: Failures,
  lost: collections.Counter[str],
) -> None:
  """Read, restore and write some jobs at a time; if that fails, one by one.

  `lost` counts the pictures with something that their output can't hold.
  """
  read: list[_Input] = []
  for job in group:
    with failed.of(job.source):
      with activity.doing(f'reading {job.source.name}'):
        data = job.read()
      picture = job.codec.read(data, job.source.name)
      mark = jobs.mark(job, data, requested)
      mask = _mask(upscaler, options, job, picture)
      read.append(_Input(job, picture, mask, mark))

  def restore(chosen: Sequence[_Input]) -> list[Result]:
    return upscaler.upscale_many(
      [_visible(one.picture) for one in chosen],
      options.outscale,
      masks=[one.mask for one in chosen],
      num_samples=options.num_samples,
      label=options.label,
      on_steps=on_steps,
      allow_broken=True,
    )

  results = None
  if len(read) > 1:
    try:
      results = restore(read)
    except Exception as error:  # one picture may spoil it for all
      logging.warning('%d pictures at a time: %s; one by one', len(read), line(error))
  for i, (job, picture, _, mark) in enumerate(read):
    with failed.of(job.source):
      result = restore(read[i : i + 1])[0] if results is None else results[i]
      result.check_finite()
      settings = {**requested, **result.settings, **mark}
      like = dataclasses.replace(picture, alpha=_alpha(upscaler, job, picture, result))
      with activity.doing(f'writing {job.source.name}'):
        _write(job, like, result, settings, options)
      for what in metadata.not_kept(picture.metadata, job.extension):
        lost[f'{what} (not in {job.extension} files)'] += 1


def _visible(picture: picture_codec.Picture) -> np.ndarray:
  """Return pixels [h, w, C] in which nothing is left of what transparency hides."""
  if picture.alpha is None:
    return picture.pixels
  return transparency.extend_colours(picture.pixels, picture.alpha)


def _mask(
  upscaler: Upscaler, options: Options, job: Job, picture: picture_codec.Picture
) -> np.ndarray | None:
  """Return what is missing of a picture: bool [h, w], or None for nothing."""
  if job.mask is not None:
    return upscale_masks.read(job.mask)
  if not upscaler.takes_masks or picture.alpha is None:
    return None
  missing = picture.alpha < 0.5
  if missing.any():
    return missing
  if options.mask or upscaler.needs_masks:
    raise ImageError('no pixel of it is transparent, so none is missing: give --mask')
  return None


def _alpha(
  upscaler: Upscaler, job: Job, picture: picture_codec.Picture, result: Result
) -> np.ndarray | None:
  """Return the transparency of an output, [H, W]; None if it has none."""
  # Where transparent pixels of the input were those to fill in, none are left.
  if picture.alpha is None or (upscaler.takes_masks and job.mask is None):
    return None
  top, right, bottom, left = upscaler.margins(*job.size)
  around = (top, bottom), (left, right)
  alpha = np.pad(picture.alpha, around, constant_values=1.0)
  return picture_codec.resize_alpha(alpha, *result.samples.shape[1:3])


def _write(
  job: Job,
  like: picture_codec.Picture,
  result: Result,
  settings: Settings,
  options: Options,
) -> None:
  """Write all outputs of a job, with the transparency and colour profile of `like`."""

  def output(pixels: np.ndarray) -> picture_codec.Picture:
    return dataclasses.replace(like, pixels=pixels)

  if options.output is None:
    data = job.codec.encode(output(result.samples[0]), job.extension, settings)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return
  for shown, path in job.files.items():
    marked = {**settings, 'shown': shown}
    if shown.isdigit():
      job.codec.write(path, output(result.samples[int(shown) - 1]), marked)
    elif shown == 'mean':
      job.codec.write(path, output(result.mean), marked)
    elif shown == 'numbers':
      buffer = io.BytesIO()
      np.save(buffer, result.spread)
      with image_files.errors(path):
        atomic_files.write_bytes(path, buffer.getvalue())
    else:
      if shown == 'spread':
        legend = f'spread of {len(result.samples)} samples, in levels of 255'
        drawing = contact_sheets.heat_map(result.spread * 127.5, legend)
        drawn = picture_codec.Picture(to_float(drawing))
      else:
        drawing, colours = _sheet(result, like.alpha, options), like.metadata.colours
        shown_as = {'icc': like.icc, 'metadata': Metadata(colours=colours)}
        drawn = picture_codec.Picture(to_float(drawing), **shown_as)
      picture_codec.write(path, drawn, marked)


def _sheet(result: Result, alpha: np.ndarray | None, options: Options) -> np.ndarray:
  """Draw the comparison sheet: input, bicubic if there is one, samples, spread.

  What `alpha` of the output, [H, W], says to be transparent is white.
  """

  def show(image: np.ndarray) -> np.ndarray:
    if alpha is not None:
      own = picture_codec.resize_alpha(alpha, *image.shape[:2])
      image = transparency.over_white(image, own)
    return to_picture(image)

  few = result.samples[:_SHOWN]
  titles, first = ['input'], [result.observed]
  if result.bicubic is not None:
    titles, first = ['input', 'bicubic'], [result.observed, result.bicubic]
  titles += [f'sample {i + 1}' for i in range(len(few))] if len(few) > 1 else ['output']
  shown = [show(image) for image in (*first, *few)]
  if options.spread:
    titles.append('spread')
    shown.append(contact_sheets.heat_colours(result.spread))
  cell = _CELL if max(result.samples.shape[1:3]) > _CELL else None
  return contact_sheets.sheet([shown], titles, cell=cell)
