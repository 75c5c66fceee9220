"""Plans jobs: inputs with their outputs and masks, without those that are finished.

An output file carries the settings that it was made with. An input is skipped if its
outputs would be made again the same, so the same command goes on with what an
interrupted one has left.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import logging

from sr3_jax.images import animations, image_files, picture_codec, raster_codec
from sr3_jax.images.picture_codec import Header
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import errors
from sr3_jax.runtime.printing import one_line
from sr3_jax.upscale import masks as upscale_masks
from sr3_jax.upscale.files import Source, real, stems

if TYPE_CHECKING:
  from sr3_jax.restoration.upscaler import Upscaler


# The most bytes of an output's name in front of '_compare.png' and the like: file
# systems take 255 in all.
_LONGEST = 230
# What an output depends on, fit for JSON.
Settings = Mapping[str, object]


class Options(NamedTuple):
  """Says what is to be written."""

  output: pathlib.Path | None  # folder; None is standard output, for one picture
  name: str = ''  # of the one output in the folder; '': named as the input
  suffix: str = 'out'  # of file names, after '_'; '' for none
  ext: str = 'auto'  # or an extension without its dot
  outscale: float | None = (
    None  # output sides over input sides; None: the model's scale
  )
  num_samples: int = 1  # of each input
  spread: bool = False  # write how samples differ, as a picture and as numbers?
  compare: bool = False  # write a comparison sheet?
  frames: str = 'all'  # of animations and pages, or 'first'
  label: int | None = None  # class, for models that have classes
  # File or folder of masks that say what is missing; 'alpha' says that transparent
  # pixels are, and so does None for models that fill in.
  mask: pathlib.Path | str | None = None
  overwrite: bool = False  # replace outputs that are there?


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """An input with the outputs to be made of it."""

  source: Source
  file: pathlib.Path | bytes  # the input's path, or its bytes if it is no file
  reader: raster_codec.Codec  # of such inputs
  writer: raster_codec.Codec  # of their outputs
  size: tuple[int, int]  # height and width of the input
  extension: str  # of its outputs
  files: dict[str, pathlib.Path]  # outputs by what they show, in the order of writing
  mask: pathlib.Path | None = None  # file that says what is missing
  frames: int = 1  # of the input, or pages, that are done

  def read(self) -> bytes:
    """Return the bytes of the input; raise ImageError if it can't be read."""
    with image_files.errors(self.source.name):
      return image_files.read_bytes(self.file)


class Failures(dict[str, str]):
  """Maps names of inputs that can't be done to what is wrong, in one line each."""

  @contextlib.contextmanager
  def of(self, source: Source) -> Iterator[None]:
    """Note an error that is raised inside, so that the other inputs are done."""
    try:
      yield
    except Exception as error:  # a damaged file may raise anything
      text = errors.of_machine(error)
      if text is None:
        kind = (
          '' if isinstance(error, ValueError) and str(error) else type(error).__name__
        )
        text = f'{kind} {error}'
      logging.debug('%s:', source.name, exc_info=True)  # -v shows it
      self[source.name] = one_line(text).removeprefix(f'{one_line(source.name)}: ')


def plan(
  upscaler: 'Upscaler', options: Options, sources: Sequence[Source], stdin: bytes | None
) -> tuple[list[Job], int, Failures]:
  """Plan the jobs of some inputs; read their headers, and outputs that are there.

  `stdin` are the bytes of the source that is no file.

  Returns:
    The jobs that are left, the largest first; how many inputs are finished; and those
    that can't be done.
  """
  failed, jobs = Failures(), []
  for source in sources:
    with failed.of(source):
      jobs.append(_job(upscaler, options, source, stdin))
  if options.output is None:
    return jobs, 0, failed

  def names(i: int, stem: str) -> Iterable[str]:
    return _names(stem, jobs[i].extension, options).values()

  inputs = {real(source.path) for source in sources if source.path}
  left, finished = [], 0
  for i, stem in enumerate(stems([job.source for job in jobs], names)):
    job, folder = jobs[i], options.output / jobs[i].source.place.parent
    found = _names(stem, job.extension, options)
    if options.name:
      folder, own = options.output, pathlib.PurePath(options.name)
      found = _names(own.stem, own.suffix, options)
      if options.num_samples == 1:
        found['1'] = options.name
    for shown, name in found.items():
      job.files[shown] = folder / name
    with failed.of(job.source):
      if lost := [path for path in job.files.values() if real(path) in inputs]:
        raise ImageError(f'{lost[0]} would replace an input')
      if _is_finished(job, upscaler, options):
        finished += 1
      else:
        left.append(job)
  left.sort(key=lambda job: (-job.size[0] * job.size[1], job.source.name))
  return left, finished, failed


def _names(stem: str, extension: str, options: Options) -> dict[str, str]:
  """Return the names of the outputs of an input by what they show."""
  base = f'{stem}_{options.suffix}' if options.suffix else stem
  if (size := len(os.fsencode(base))) > _LONGEST:
    # The end may tell it from others; what is cut is replaced by a digest of the whole.
    cut = os.fsencode(stem)[: _LONGEST - 10 - (size - len(os.fsencode(stem)))]
    base = f'{os.fsdecode(cut)}~{_digest(os.fsencode(stem))[:8]}'
    base += f'_{options.suffix}' if options.suffix else ''
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


def _job(
  upscaler: 'Upscaler', options: Options, source: Source, stdin: bytes | None
) -> Job:
  """Return the job of an input, without its files, or refuse an input by its header."""
  model, file = upscaler.model, stdin if source.path is None else source.path
  if file is None:
    raise ImageError('nothing was read from standard input')
  suffix, paired = source.place.suffix, model.task.paired
  reader = raster_codec.choose_codec(model.input_channels, model.input_range, suffix)
  writer = raster_codec.choose_codec(
    model.channels, model.value_range, suffix, floating=paired
  )
  header = reader.header(file, source.name)
  size, mask = (header.height, header.width), None
  extension = _extension(upscaler, options, writer, header)
  if isinstance(options.mask, pathlib.Path):
    mask = upscale_masks.find(options.mask, source.place)
    upscale_masks.check(mask, *size)
  elif (options.mask or upscaler.needs_masks) and not header.transparent:
    raise ImageError(
      'nothing says what is missing: it has no transparent pixels; give --mask (white '
      'is missing) or --expand'
    )
  frames = header.frames if options.frames == 'all' else 1
  return Job(source, file, reader, writer, size, extension, {}, mask, frames)


def check_output(
  upscaler: 'Upscaler', options: Options, height: int, width: int
) -> tuple[int, int]:
  """Return height and width of what a picture becomes; refuse what is too large."""
  out = upscaler.output_size(height, width, options.outscale)
  if out[0] * out[1] > picture_codec.MAX_OUTPUT:
    raise ImageError(
      f'{width} x {height} pixels would become {out[1]} x {out[0]}, more than the '
      f'limit of {picture_codec.MAX_OUTPUT / 1e6:.0f} Mpx'
    )
  return out


def _extension(
  upscaler: 'Upscaler', options: Options, codec: raster_codec.Codec, header: Header
) -> str:
  """Return the extension of an input's outputs; refuse those too large for a file."""
  out = check_output(upscaler, options, header.height, header.width)
  if options.frames == 'all' and header.frames != 1:
    return _frames_extension(options, codec, header, out)
  if options.ext == 'auto':
    extension = codec.extension(header.format, *out)
    # JPEG would change the known pixels, which stay as they are.
    lossy = upscaler.takes_masks and extension == '.jpg'
    return codec.extension('PNG', *out) if lossy else extension
  codec.check_sides(f'.{options.ext}', *out)
  return f'.{options.ext}'


def _frames_extension(
  options: Options, codec: raster_codec.Codec, header: Header, out: tuple[int, int]
) -> str:
  """Return the extension of a file that holds all frames or pages, each `out` large."""
  count, first = header.frames, 'or take the first one by --frames=first'
  if not count:
    raise ImageError(
      f'the timing of {header.format} animations is not read: convert it, {first}'
    )
  if isinstance(codec, raster_codec.RasterCodec):
    raise ImageError(f'outputs are rasters, of which a file holds one: {first[3:]}')
  fit = (animations.PAGED,) if header.pages else animations.ANIMATED
  found = f'.{options.ext}'
  if options.ext == 'auto':
    found = codec.extension(header.format, *out)
    # Animations in other formats become WebP, whose files are small.
    found = found if found in fit and header.format in ('WEBP', 'PNG') else fit[0]
    if found == '.webp' and max(out) > picture_codec.MAX_SIDE['.webp']:
      found = '.png'
  if found not in fit:
    kind = 'pages' if header.pages else 'frames and their timing'
    raise ImageError(
      f'{found} files do not hold its {count} {kind}: use --ext={fit[-1][1:]}, {first}'
    )
  codec.check_sides(found, *out)
  return found


def request(upscaler: 'Upscaler', options: Options) -> Settings:
  """Return what outputs depend on beside their input, fit for JSON.

  It must be called before anything is done: later the upscaler may have run out of
  memory and have other settings.
  """
  own = {'num_samples': options.num_samples, 'label': options.label}
  return upscaler.settings(options.outscale) | own


def mark(job: Job, data: bytes, requested: Settings) -> Settings:
  """Return what an output file stores, to tell later what it was made from.

  `data` are the bytes of the input, `requested` comes from `request`.

  Raises:
    ImageError: the mask can't be read.
  """
  place = b'' if job.source.path is None else os.fsencode(real(job.source.path))
  sha256 = _digest(data)
  # The name of the model is left out: a folder may be renamed, and its weights have a
  # fingerprint.
  made_by = {key: value for key, value in requested.items() if key != 'model'}
  made_of: list[object] = [sha256, made_by]
  made: dict[str, object] = {}
  if job.frames > 1:
    made_of.append(f'{job.frames} frames')
    made['frames'] = job.frames
  if job.mask is not None:
    with image_files.errors(job.mask):
      mask = _digest(image_files.read_bytes(job.mask))
    made_of.append(mask)
    made['mask'] = {'name': job.mask.name, 'sha256': mask}
  return made | {
    'input': {'name': job.source.place.name, 'sha256': sha256},
    # It tells files of one name apart without giving their folders away.
    'path': _digest(place),
    'request': _digest(json.dumps(made_of, sort_keys=True).encode()),
  }


def _digest(data: bytes) -> str:
  """Return the first 32 hexadecimal digits of a SHA-256."""
  return hashlib.sha256(data).hexdigest()[:32]


def _is_finished(job: Job, upscaler: 'Upscaler', options: Options) -> bool:
  """Return whether all outputs are there and were made with these settings."""
  there = {shown: path for shown, path in job.files.items() if path.exists()}
  if options.overwrite or not there:
    return False
  made = mark(job, job.read(), request(upscaler, options))
  same = len(there) == len(job.files)
  for shown, path in there.items():
    if shown == 'numbers':  # 'spread', the picture of them, is written after them
      continue
    found = raster_codec.metadata(path) or {}
    if not any(found.get(key) == made[key] for key in ('input', 'path')):
      raise ImageError(
        f'{path} is there and was not made from this file: choose another --output '
        'or --suffix, or --overwrite it'
      )
    same &= found.get('request') == made['request']
  return same
