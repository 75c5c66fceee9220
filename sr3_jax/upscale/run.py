"""Does jobs: reads pictures, restores them with one upscaler, writes the outputs."""

import collections
import dataclasses
import hashlib
import io
import math
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import numpy as np
from absl import logging

from sr3_jax.images import (
  animations,
  contact_sheets,
  frames,
  image_files,
  metadata,
  picture_codec,
  transparency,
)
from sr3_jax.images.metadata import Metadata
from sr3_jax.images.pixels import ImageError, to_float, to_picture
from sr3_jax.restoration import given
from sr3_jax.restoration.upscaler import Result, Upscaler
from sr3_jax.runtime import activity, atomic_files
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.progress import Progress
from sr3_jax.upscale import jobs
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
  work = {job: job.frames * _work(upscaler, options, job) for job in todo}
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
      if group[0].frames > 1:
        _do_frames(upscaler, options, requested, group[0], on_steps, failed, lost)
      else:
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


def _work(upscaler: Upscaler, options: Options, job: Job) -> int:
  """Return the steps of one frame, as `Upscaler.work` counts them."""
  return upscaler.work(*job.size, options.outscale, options.num_samples)


def _groups(
  upscaler: Upscaler, options: Options, todo: Iterable[Job]
) -> Iterator[list[Job]]:
  """Yield the jobs to be done at a time; large ones and animations are alone."""
  capacity = GROUP * jax.local_device_count()
  group: list[Job] = []
  filled = 0.0
  for job in todo:
    out = math.prod(upscaler.output_size(*job.size, options.outscale))
    pixels = max(out, _LEAST) * options.num_samples
    if job.frames > 1:
      pixels = capacity
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
      picture = job.reader.read(data, job.source.name)
      mark = jobs.mark(job, data, requested)
      mask = _mask(upscaler, options, job, picture)
      read.append(_Input(job, picture, mask, mark))

  results = None
  if len(read) > 1:
    try:
      results = _restore(upscaler, options, read, on_steps)
    except Exception as error:  # one picture may spoil it for all
      logging.warning('%d pictures at a time: %s; one by one', len(read), line(error))
  for i, (job, picture, _, mark) in enumerate(read):
    with failed.of(job.source):
      if results is None:
        (result,) = _restore(upscaler, options, read[i : i + 1], on_steps)
      else:
        result = results[i]
      result.check_finite()
      settings = {**requested, **result.settings, **mark}
      like = dataclasses.replace(picture, alpha=_alpha(upscaler, job, picture, result))
      with activity.doing(f'writing {job.source.name}'):
        _write(job, like, result, settings, options)
      lost.update(_lost(picture, job))


def _lost(picture: picture_codec.Picture, job: Job) -> set[str]:
  """Return what belongs to a picture and can't be kept in its output."""
  kinds = metadata.not_kept(picture.metadata, job.extension)
  return {f'{what} (not in {job.extension} files)' for what in kinds}


def _restore(
  upscaler: Upscaler,
  options: Options,
  chosen: Sequence[_Input],
  on_steps: Callable[[int], None],
) -> list[Result]:
  """Restore pictures that have been read."""
  return upscaler.upscale_many(
    [_visible(one.picture) for one in chosen],
    options.outscale,
    masks=[one.mask for one in chosen],
    num_samples=options.num_samples,
    label=options.label,
    on_steps=on_steps,
    allow_broken=True,
  )


def _do_frames(
  upscaler: Upscaler,
  options: Options,
  requested: Settings,
  job: Job,
  on_steps: Callable[[int], None],
  failed: Failures,
  lost: collections.Counter[str],
) -> None:
  """Restore an animation or the pages of a file, one after the other, and write it.

  All have the same noise, so that what doesn't move doesn't flicker, and equal frames
  are restored once. Outputs are kept compressed until the last is made. Drawings (the
  spread, the comparison) show the first.
  """
  with failed.of(job.source):
    data, name = job.read(), job.source.name
    facts, mark = frames.facts(data, name), jobs.mark(job, data, requested)
    known: dict[bytes, dict[str, bytes]] = {}  # outputs of each different frame
    order: list[bytes] = []
    seconds: list[Fraction] = []
    unkept: set[str] = set()
    for number, (picture, shown_for) in enumerate(frames.read(data, name), 1):
      order.append(_digest(picture))
      seconds.append(shown_for)
      unkept |= _lost(picture, job)
      if order[-1] in known:
        on_steps(_work(upscaler, options, job))
        continue
      with image_files.errors(name, f'{"page" if facts.pages else "frame"} {number}'):
        jobs.check_output(upscaler, options, *picture.pixels.shape[:2])
        mask = _mask(upscaler, options, job, picture)
        one = _Input(job, picture, mask, mark)
        (result,) = _restore(upscaler, options, [one], on_steps)
        result.check_finite()
      settings = {**requested, **result.settings, **mark}
      like = dataclasses.replace(picture, alpha=_alpha(upscaler, job, picture, result))
      known[order[-1]] = {
        shown: job.writer.encode(
          dataclasses.replace(like, pixels=_pixels(result, shown)),
          job.extension,
          {**settings, 'shown': shown},
        )
        for shown in _shown(job, options)
      }
      if number == 1:
        _write_drawings(job, like, result, settings, options)
    with activity.doing(f'writing {name}'):
      for shown in _shown(job, options):
        stills = [known[frame][shown] for frame in order]
        whole = animations.assemble(job.extension, stills, seconds, facts.plays)
        _put(whole, job.files.get(shown))
    lost.update(unkept)
    logging.info(_report(job, facts, seconds, len(known)))


def _digest(picture: picture_codec.Picture) -> bytes:
  """Return what is the same for frames that are equal in all they hold."""
  digest = hashlib.sha256()
  for value in vars(picture).values():
    is_array = isinstance(value, np.ndarray)
    digest.update(value.tobytes() if is_array else repr(value).encode())
  return digest.digest()


def _report(
  job: Job, facts: frames.Facts, seconds: Sequence[Fraction], different: int
) -> str:
  """Return a line about the frames or pages of a job that is done."""
  count = len(seconds)
  if facts.pages:
    return f'{job.source.name}: {count} pages, {different} of them different'
  plays = {0: 'for ever', 1: 'once'}.get(facts.plays, f'{facts.plays} times')
  return (
    f'{job.source.name}: {count} frames in {float(sum(seconds)):.2f} s, played '
    f'{plays}, {different} of them different, as {job.extension[1:]}'
  )


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
    return given.read_mask(job.mask)
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
  # Pages have their own sizes, which aren't that of the job.
  margins = upscaler.margins(*picture.pixels.shape[:2])
  return given.enlarge_alpha(picture.alpha, margins, result.samples.shape[1:3])


def _write(
  job: Job,
  like: picture_codec.Picture,
  result: Result,
  settings: Settings,
  options: Options,
) -> None:
  """Write all outputs of a job, with the transparency and colour profile of `like`."""
  for shown in _shown(job, options):
    output = dataclasses.replace(like, pixels=_pixels(result, shown))
    if path := job.files.get(shown):
      job.writer.write(path, output, {**settings, 'shown': shown})
    else:
      _put(job.writer.encode(output, job.extension, settings), None)
  _write_drawings(job, like, result, settings, options)


def _shown(job: Job, options: Options) -> list[str]:
  """Return which outputs of a job are pictures like the input: samples, their mean."""
  if options.output is None:
    return ['1']
  return [shown for shown in job.files if shown.isdigit() or shown == 'mean']


def _pixels(result: Result, shown: str) -> np.ndarray:
  """Return the pixels of an output of `_shown`."""
  return result.mean if shown == 'mean' else result.samples[int(shown) - 1]


def _put(data: bytes, path: pathlib.Path | None) -> None:
  """Write the bytes of an output; without a path, to standard output."""
  if path is None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return
  with image_files.errors(path):
    atomic_files.write_bytes(path, data)


def _write_drawings(
  job: Job,
  like: picture_codec.Picture,
  result: Result,
  settings: Settings,
  options: Options,
) -> None:
  """Write what is no picture like the input: how samples differ, and the comparison."""
  for shown, path in job.files.items():
    if shown == 'numbers':
      buffer = io.BytesIO()
      np.save(buffer, result.spread)
      _put(buffer.getvalue(), path)
    elif shown in ('spread', 'compare'):
      if shown == 'spread':
        legend = f'spread of {len(result.samples)} samples, in levels of 255'
        drawing = contact_sheets.heat_map(result.spread * 127.5, legend)
        drawn = picture_codec.Picture(to_float(drawing))
      else:
        drawing, colours = _sheet(result, like.alpha, options), like.metadata.colours
        shown_as = {'icc': like.icc, 'metadata': Metadata(colours=colours)}
        drawn = picture_codec.Picture(to_float(drawing), **shown_as)
      picture_codec.write(path, drawn, {**settings, 'shown': shown})


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
