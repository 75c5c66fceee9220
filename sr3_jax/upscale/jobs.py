"""Plans jobs: inputs with their outputs and masks, without those that are finished.

An output file carries the settings that it was made with. An input is skipped if its
outputs would be made again the same, so the same command goes on with what an
interrupted one has left.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sr3_jax.images import image_files, picture_codec, pixels, raster_codec
from sr3_jax.upscale import files as upscale_files
from sr3_jax.upscale import masks as upscale_masks

if TYPE_CHECKING:
  from sr3_jax.restoration.upscaler import Upscaler


# What an output depends on, fit for JSON.
Settings = Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Options:
  """What is to be written.

  Attributes:
    output: folder; None is standard output, for one picture.
    suffix: of file names, after '_'; '' for none.
    ext: 'auto', or an extension without its dot.
    outscale: output sides over input sides; None is the model's scale.
    num_samples: how many samples of each input.
    spread: whether to write how samples differ, as a picture and as numbers.
    compare: whether to write a comparison sheet.
    label: class, for models that have classes.
    mask: file or folder of masks that say what is missing; 'alpha' says that
      transparent pixels are, and so does None for models that fill in.
    overwrite: whether to replace outputs that are there.
  """

  output: pathlib.Path | None
  suffix: str = 'out'
  ext: str = 'auto'
  outscale: float | None = None
  num_samples: int = 1
  spread: bool = False
  compare: bool = False
  label: int | None = None
  mask: pathlib.Path | str | None = None
  overwrite: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """An input with the outputs to be made of it.

  Attributes:
    source: the input.
    file: its path, or its bytes if it is no file.
    codec: reads and writes such files.
    size: its height and width.
    extension: of its outputs.
    files: paths of the outputs by what they show, in the order of writing.
    mask: file that says what is missing.
  """

  source: upscale_files.Source
  file: pathlib.Path | bytes
  codec: raster_codec.Codec
  size: tuple[int, int]
  extension: str
  files: dict[str, pathlib.Path]
  mask: pathlib.Path | None = None

  def read(self) -> bytes:
    """Return the bytes of the input.

    Raises:
      ImageError: it can't be read.
    """
    with image_files.errors(self.source.name):
      return self.file if isinstance(self.file, bytes) else self.file.read_bytes()


class Failures(dict[str, str]):
  """The inputs that can't be done: what is wrong in one line, by name."""

  @contextlib.contextmanager
  def of(self, source: upscale_files.Source) -> Iterator[None]:
    """Note an error that is raised inside, so that the other inputs are done."""
    try:
      yield
    except Exception as error:  # a damaged file may raise anything
      line = ' '.join(str(error).split())
      if not isinstance(error, ValueError) or not line:
        line = f'{type(error).__name__} {line}'.strip()
      self[source.name] = line.removeprefix(f'{source.name}: ')


def plan(
  upscaler: 'Upscaler',
  options: Options,
  sources: Sequence[upscale_files.Source],
  stdin: bytes | None = None,
) -> tuple[list[Job], int, Failures]:
  """Plan the jobs of some inputs; read their headers, and outputs that are there.

  Args:
    upscaler: that will do them.
    options: what is to be written.
    sources: the inputs.
    stdin: bytes of the source that is no file.

  Returns:
    The jobs that are left, the largest first; how many inputs are finished; and those
    that can't be done.
  """
  failed = Failures()
  jobs = []
  for source in sources:
    with failed.of(source):
      file = stdin if source.path is None else source.path
      if file is None:
        raise pixels.ImageError('nothing was read from standard input')
      codec = raster_codec.choose_codec(
        upscaler.channels, upscaler.value_range, source.place.suffix
      )
      header = codec.header(file, source.name)
      size = header.height, header.width
      extension = _extension(upscaler, options, codec, header.format, size)
      mask = _find_mask(options, source, size)
      if mask is None and (options.mask or upscaler.needs_masks):
        _check_alpha(header)
      jobs.append(Job(source, file, codec, size, extension, {}, mask))
  if options.output is None:
    return jobs, 0, failed
  stems = upscale_files.stems(
    [job.source for job in jobs],
    lambda i, stem: _names(stem, jobs[i].extension, options).values(),
  )
  inputs = {source.path.resolve() for source in sources if source.path}
  left, finished = [], 0
  for job, stem in zip(jobs, stems, strict=True):
    folder = options.output / job.source.place.parent
    for shown, name in _names(stem, job.extension, options).items():
      job.files[shown] = folder / name
    with failed.of(job.source):
      if lost := [path for path in job.files.values() if path.resolve() in inputs]:
        raise pixels.ImageError(f'{lost[0]} would replace an input')
      if _is_finished(job, upscaler, options):
        finished += 1
      else:
        left.append(job)
  left.sort(key=lambda job: (-job.size[0] * job.size[1], job.source.name))
  return left, finished, failed


def _names(stem: str, extension: str, options: Options) -> dict[str, str]:
  """Return the names of the outputs of an input by what they show."""
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


def _extension(
  upscaler: 'Upscaler',
  options: Options,
  codec: raster_codec.Codec,
  format_: str,
  size: tuple[int, int],
) -> str:
  """Return the extension of the outputs of an input.

  Raises:
    ImageError: they would be larger than a file can be.
  """
  out = upscaler.output_size(*size, options.outscale)
  if out[0] * out[1] > picture_codec.MAX_OUTPUT:
    raise pixels.ImageError(
      f'{size[1]} x {size[0]} pixels would become {out[1]} x {out[0]}, more than the '
      f'limit of {picture_codec.MAX_OUTPUT / 1e6:.0f} Mpx'
    )
  if options.ext == 'auto':
    # JPEG would change the known pixels, which stay as they are.
    lossy = upscaler.takes_masks and format_ == 'JPEG'
    return codec.extension('PNG' if lossy else format_, *out)
  codec.check_sides(f'.{options.ext}', *out)
  return f'.{options.ext}'


def _find_mask(
  options: Options,
  source: upscale_files.Source,
  size: tuple[int, int],
) -> pathlib.Path | None:
  """Return the mask file of an input, or None if no masks were given.

  Raises:
    ImageError: the input has no mask, or one of another size.
  """
  if not isinstance(options.mask, pathlib.Path):
    return None
  mask = upscale_masks.find(options.mask, source.place)
  upscale_masks.check(mask, *size)
  return mask


def _check_alpha(header: picture_codec.Header) -> None:
  """Raise ImageError if a file can't have transparent pixels."""
  if not header.transparent:
    raise pixels.ImageError(
      'nothing says what is missing: it has no transparent pixels; give --mask (white '
      'is missing) or --expand'
    )


def request(upscaler: 'Upscaler', options: Options) -> Settings:
  """Return what outputs depend on beside their input, fit for JSON.

  It must be called before anything is done: later the upscaler may have run out of
  memory and have other settings.

  Args:
    upscaler: that will do the jobs.
    options: what is to be written.
  """
  return {
    **upscaler.settings(options.outscale),
    'num_samples': options.num_samples,
    'label': options.label,
  }


def mark(job: Job, data: bytes, requested: Settings) -> Settings:
  """Return what an output file stores, to tell later what it was made from.

  Args:
    job: the job.
    data: the bytes of its input.
    requested: from `request`.

  Raises:
    ImageError: the mask can't be read.
  """
  place = '' if job.source.path is None else str(job.source.path.resolve())
  sha256 = _digest(data)
  # The name of the model is left out: a folder may be renamed, and its weights have a
  # fingerprint.
  made_by = {key: value for key, value in requested.items() if key != 'model'}
  made_of, mask = [sha256, made_by], {}
  if job.mask is not None:
    with image_files.errors(job.mask):
      mask = {'name': job.mask.name, 'sha256': _digest(job.mask.read_bytes())}
    made_of.append(mask['sha256'])
    mask = {'mask': mask}
  return mask | {
    'input': {'name': job.source.place.name, 'sha256': sha256},
    # It tells files of one name apart without giving their folders away.
    'path': _digest(place.encode()),
    'request': _digest(json.dumps(made_of, sort_keys=True).encode()),
  }


def _digest(data: bytes) -> str:
  """Return the first 32 hexadecimal digits of a SHA-256."""
  return hashlib.sha256(data).hexdigest()[:32]


def _is_finished(job: Job, upscaler: 'Upscaler', options: Options) -> bool:
  """Return whether all outputs are there and were made with these settings.

  Raises:
    ImageError: a file is there that was made from something else.
  """
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
      raise pixels.ImageError(
        f'{path} is there and was not made from this file: choose another --output '
        'or --suffix, or --overwrite it'
      )
    same &= found.get('request') == made['request']
  return same
