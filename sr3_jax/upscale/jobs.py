"""What is to be done: inputs, their outputs and masks, and what is finished already.

An output carries the settings that it was made with. What would be made again the same
is skipped, so a job that was interrupted goes on when it is started again.
"""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from sr3_jax.images import image_files, picture_codec, pixels, raster_codec
from sr3_jax.upscale import files as upscale_files
from sr3_jax.upscale import masks as upscale_masks


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
    mask: file, or folder of masks, of what is missing; 'alpha': what is transparent;
      None: that too, where the model fills in.
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
  mask: pathlib.Path | str | None = None
  overwrite: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """An input to be done.

  Attributes:
    source: the input.
    data: its bytes if it is no file.
    codec: what reads and writes such files.
    size: its height and width.
    extension: of its outputs.
    files: what each output shows -> its path, in the order of writing.
    mask: file that says what is missing.
  """

  source: upscale_files.Source
  data: bytes | None
  codec: raster_codec.Codec
  size: tuple[int, int]
  extension: str
  files: dict[str, pathlib.Path]
  mask: pathlib.Path | None = None

  def read(self) -> bytes:
    """The bytes of the input."""
    with image_files.errors(self.source.name):
      return self.source.path.read_bytes() if self.data is None else self.data


class Failures(dict[str, str]):
  """Name of an input -> what is wrong with it, one line."""

  @contextlib.contextmanager
  def of(self, source: upscale_files.Source) -> Iterator[None]:
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
  sources: Sequence[upscale_files.Source],
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
  jobs = []
  for source in sources:
    with failed.of(source):
      data = stdin if source.path is None else None
      file = source.path if data is None else data
      codec = raster_codec.choose_codec(
        upscaler.channels, upscaler.value_range, source.place.suffix
      )
      height, width, format_ = codec.header(file, source.name)
      size = height, width
      extension = _extension(upscaler, options, codec, format_, size)
      mask = _find_mask(options, source, size)
      if mask is None and (options.mask or upscaler.needs_masks):
        _check_alpha(codec, file, source.name)
      jobs.append(Job(source, data, codec, size, extension, {}, mask))
  if options.output is None:
    return jobs, 0, failed
  names = lambda i, stem: _names(stem, jobs[i].extension, options).values()
  stems = upscale_files.stems([job.source for job in jobs], names)
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


def _extension(
  upscaler: Any,
  options: Options,
  codec: raster_codec.Codec,
  format_: str,
  size: tuple[int, int],
) -> str:
  """The extension of outputs; raises ImageError if they'd be too large."""
  out = upscaler.output_size(*size, options.outscale)
  if out[0] * out[1] > picture_codec.MAX_OUTPUT:
    raise pixels.ImageError(
      f'{size[1]} x {size[0]} pixels would become {out[1]} x {out[0]}, more than the '
      f'limit of {picture_codec.MAX_OUTPUT / 1e6:.0f} Mpx'
    )
  if options.ext == 'auto':
    # JPEG would change the pixels that are known.
    kept = upscaler.takes_masks and format_ == 'JPEG'
    return codec.extension('PNG' if kept else format_, *out)
  codec.check_sides(f'.{options.ext}', *out)
  return f'.{options.ext}'


def _find_mask(
  options: Options,
  source: upscale_files.Source,
  size: tuple[int, int],
) -> pathlib.Path | None:
  """The mask file of an input, if there are any; raises ImageError if it isn't good."""
  if not isinstance(options.mask, pathlib.Path):
    return None
  mask = upscale_masks.find(options.mask, source.place)
  upscale_masks.check(mask, *size)
  return mask


def _check_alpha(
  codec: raster_codec.Codec, file: pathlib.Path | bytes, name: str
) -> None:
  """Raises ImageError where nothing can be transparent."""
  if not codec.is_transparent(file, name):
    raise pixels.ImageError(
      'nothing says what is missing: it has no transparent pixels; give --mask (white '
      'is missing) or --expand'
    )


def request(upscaler: Any, options: Options) -> dict[str, Any]:
  """What outputs depend on beside the input. Taken before anything is done: running
  out of memory may change how the upscaler goes on."""
  return {
    **upscaler.settings(options.outscale),
    'num_samples': options.num_samples,
    'label': options.label,
  }


def mark(job: Job, data: bytes, requested: dict[str, Any]) -> dict[str, Any]:
  """How an output tells later what it was made from, and with which settings."""
  place = '' if job.source.path is None else str(job.source.path.resolve())
  digest = lambda data: hashlib.sha256(data).hexdigest()[:32]
  sha256 = digest(data)
  # A model folder may be renamed: its weights have a name of their own.
  made_by = {key: value for key, value in requested.items() if key != 'model'}
  made_of, mask = [sha256, made_by], {}
  if job.mask is not None:
    with image_files.errors(job.mask):
      mask = {'name': job.mask.name, 'sha256': digest(job.mask.read_bytes())}
    made_of.append(mask['sha256'])
    mask = {'mask': mask}
  return mask | {
    'input': {'name': job.source.place.name, 'sha256': sha256},
    'path': digest(place.encode()),  # tells files of one name apart, betrays nothing
    'request': digest(json.dumps(made_of, sort_keys=True).encode()),
  }


def _is_finished(job: Job, upscaler: Any, options: Options) -> bool:
  """Whether all outputs are there and were made with these settings.

  Raises:
    ImageError: one is there that was made from something else.
  """
  there = {shown: path for shown, path in job.files.items() if path.exists()}
  if options.overwrite or not there:
    return False
  made = mark(job, job.read(), request(upscaler, options))
  same = len(there) == len(job.files)
  for shown, path in there.items():
    if shown == 'numbers':  # the picture of them, written later, tells
      continue
    found = raster_codec.metadata(path) or {}
    if not any(found.get(key) == made[key] for key in ('input', 'path')):
      raise pixels.ImageError(
        f'{path} is there and was not made from this file: choose another --output '
        'or --suffix, or --overwrite it'
      )
    same &= found.get('request') == made['request']
  return same
