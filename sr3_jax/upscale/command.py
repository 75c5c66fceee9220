"""The command `sr3-upscale INPUT... --output=DIR`: restores pictures.

`options` says what it takes, `files` finds the inputs, `jobs` decides what is to be
done with them, and `run` does it with an `Upscaler`. Nothing heavy is imported before
the options are read.
"""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.upscale())

import argparse
import inspect
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sr3_jax.images import formats
from sr3_jax.runtime import activity, errors
from sr3_jax.runtime.cli import Parser
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.printing import one_line
from sr3_jax.upscale.options import check, make_parser, names_file

if TYPE_CHECKING:
  from sr3_jax.restoration.upscaler import Upscaler
  from sr3_jax.upscale.files import Found
  from sr3_jax.upscale.jobs import Failures, Job, Options


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command and return its exit code; `argv` lacks the program's name.

  Raises:
    SystemExit: --help, with code 0, or a mistake in the command, with code 2.
  """
  parser = make_parser()
  argv = sys.argv[1:] if argv is None else [*argv]
  # What stands behind '--' are inputs, whatever they begin with.
  end = argv.index('--') if '--' in argv else len(argv)
  # Options may stand between inputs, as in other commands.
  args = parser.parse_intermixed_args(argv[:end])
  inputs = args.inputs + args.input + argv[end + 1 :]
  check(parser, args, inputs)
  with activity.shown('sr3-upscale', quiet=args.quiet):
    return _run(parser, args, inputs)


def load(args: argparse.Namespace) -> 'Upscaler':
  """Return the upscaler that the options describe.

  Raises:
    UserError: there is no such model, or an option doesn't fit it.
  """
  from absl import logging

  from sr3_jax.restoration.upscaler import Upscaler
  from sr3_jax.weights import hub

  # Options are named as the arguments that they are given as.
  names = vars(args).keys() & inspect.signature(Upscaler).parameters.keys()
  options = {name: getattr(args, name) for name in names}
  return Upscaler(hub.load(args.model), **options, on_note=logging.info)


def _run(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> int:
  """Find the inputs, load the model, do what is to be done; return the exit code."""
  from sr3_jax.upscale import files

  options = _options(parser, args, inputs)
  with activity.doing('looking for pictures'):
    found = _find(parser, inputs, options)
  stdin = _read_stdin(parser) if files.STDIN in inputs else None
  if options.output is not None:
    _check_folder(parser, options.output)
  try:
    _start(args)
    with activity.doing(f'reading the model {args.model}'):
      upscaler = load(args)
    upscaler.check(args.outscale, args.label, options.mask is not None)
  except (UserError, OSError) as error:
    parser.error(str(error))
  found = _pictures(upscaler, found, inputs)
  return _restore(upscaler, options, found, stdin)


def _read_stdin(parser: Parser) -> bytes:
  """Return what comes from standard input; end with an error if there is no end."""
  from sr3_jax.runtime import foreign_files

  try:
    with activity.doing('reading standard input'):
      return foreign_files.read_stream(sys.stdin.buffer, 'standard input')
  except (UserError, OSError) as error:
    parser.error(f'-: {errors.line(error)}')


def _options(
  parser: Parser, args: argparse.Namespace, inputs: Sequence[str]
) -> 'Options':
  """Return what is to be written; end with an error if there is no such mask."""
  from sr3_jax.upscale import jobs, masks

  mask = args.mask
  if mask not in (None, masks.ALPHA):
    mask = pathlib.Path(mask)
    if not mask.exists():
      parser.error(f'--mask={mask}: no such file or folder')
  output = None if args.output == '-' else pathlib.Path(args.output)
  values = vars(args) | {'output': output, 'mask': mask, 'name': ''}
  values['suffix'] = 'out' if args.suffix is None else args.suffix
  if output is not None and names_file(parser, args, inputs):
    ending = formats.written_as(output.suffix)
    values |= {'output': output.parent, 'name': output.name, 'ext': ending[1:]}
    values['suffix'] = ''
  return jobs.Options(**{name: values[name] for name in jobs.Options._fields})


def _find(parser: Parser, inputs: Sequence[str], options: 'Options') -> 'Found':
  """Return the inputs' files, and why other inputs have none; end if there are none."""
  from sr3_jax.images import folder_listing, raster_codec
  from sr3_jax.upscale import files, masks

  output = None if options.output is None else files.real(options.output)

  def is_ours(file: pathlib.Path, root: pathlib.Path) -> bool:
    if masks.is_mask(file, root, options.mask):
      return True
    if output is not None and options.name:
      return files.real(file) == files.real(output / options.name)
    if output is None or not files.real(file).is_relative_to(output):
      return False
    # If the output folder lies inside of the input's, all in it are outputs; elsewhere
    # those files are that carry our settings.
    root = files.real(root)
    inside = output != root and output.is_relative_to(root)
    return inside or raster_codec.metadata(file) is not None

  found = files.find(inputs, is_ours)
  if not found.sources:
    reasons = [f'{name}: {reason}' for name, reason in found.missing.items()]
    if found.passed:
      reasons.append(f'passed over: {folder_listing.describe(found.passed)}')
    parser.error('; '.join(reasons))
  one = options.name or '-' if output is None or options.name else ''
  if one and len(found.sources) > 1:
    count = len(found.sources)
    parser.error(f'--output={one} takes one picture, not {count}: name a folder')
  return found


def _start(args: argparse.Namespace) -> None:
  """Set up logs and the cache of compiled programs."""
  with activity.doing('loading JAX'):
    from absl import flags

    from sr3_jax.runtime import devices, process_log

  flags.FLAGS.mark_as_parsed()  # else absl warns that it has not seen the flags
  process_log.setup(args.quiet)
  devices.start(args.cache)


def _pictures(upscaler: 'Upscaler', found: 'Found', inputs: Sequence[str]) -> 'Found':
  """Leave out arrays for models of pictures, if not named or all there is."""
  from sr3_jax.images import raster_codec

  model = upscaler.model
  if raster_codec.needs_rasters(model.input_channels, model.input_range):
    return found
  plain = [
    s
    for s in found.sources
    if s.path is None or s.name in inputs or s.place.suffix.lower() != '.npy'
  ]
  if plain and len(plain) < len(found.sources):
    found.passed['.npy'] += len(found.sources) - len(plain)
    return found._replace(sources=plain)
  return found


def _restore(
  upscaler: 'Upscaler',
  options: 'Options',
  found: 'Found',
  stdin: bytes | None,
) -> int:
  """Restore what is left to do and print what came of it; return the exit code."""
  from absl import logging

  from sr3_jax.images import folder_listing
  from sr3_jax.upscale import jobs, run

  with activity.doing('reading headers, and outputs that are there'):
    todo, skipped, failed = jobs.plan(upscaler, options, found.sources, stdin)
  failed.update(found.missing)
  if todo:
    logging.info(_announcement(upscaler, options, todo))
    todo = _fitting(upscaler, options, todo, failed)
  if todo:
    failed.update(run.run(upscaler, options, todo))
  for name, reason in failed.items():
    print(one_line(f'failed: {name}: {reason}'), file=sys.stderr)
  done = len(found.sources) + len(found.missing) - skipped - len(failed)
  to = sys.stderr if options.output is None else sys.stdout
  frames = sum(
    job.frames for job in todo if job.frames > 1 and job.source.name not in failed
  )
  line = f'{done} done'
  line += f' (with {frames} frames or pages)' if frames else ''
  line += f', {skipped} skipped, {len(failed)} failed'
  if found.passed:
    line += f'; passed over: {folder_listing.describe(found.passed)}'
  print(line, file=to)
  return 1 if failed else 0


def _announcement(
  upscaler: 'Upscaler', options: 'Options', todo: Sequence['Job']
) -> str:
  """Return a line that says what is going to be done, and with what."""
  import jax

  settings, devices = upscaler.settings(options.outscale), jax.local_devices()
  height, width = todo[0].size
  scale = settings['outscale']
  what = f'{scale:g} times larger' if scale > 1 else settings['task']
  pictures = 'picture' if len(todo) == 1 else 'pictures'
  return (
    f'{len(todo)} {pictures}, up to {width} x {height} pixels, {what}; '
    f'{settings["model"]} ({settings["weights"]}), {settings["sampler"]}, '
    f'{upscaler.num_steps} steps; {len(devices)} x {devices[0].device_kind}'
  )


def _fitting(
  upscaler: 'Upscaler', options: 'Options', todo: list['Job'], failed: 'Failures'
) -> list['Job']:
  """Return the jobs whose pictures fit into memory; say how much the largest needs."""
  from absl import logging

  while todo:
    upscaler.reserve([job.size for job in todo], options.outscale)
    largest = max(todo, key=lambda job: upscaler.canvas(*job.size, options.outscale))
    scale, label, samples = options.outscale, options.label, options.num_samples
    needed = upscaler.memory(*largest.size, scale, label, samples, largest.frames)
    if needed.fits:
      logging.info('memory: at most %s', needed)
      break
    height, width = largest.size
    failed[largest.source.name] = (
      f'{width} x {height} pixels need more memory than there is, {needed}: '
      'a smaller --outscale, --tile or --num_samples needs less, or cut the picture'
    )
    todo = [job for job in todo if job is not largest]
  return todo


def _check_folder(parser: Parser, folder: pathlib.Path) -> None:
  """Make the output folder and write into it, or end before any work is done."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    parser.error(f'--output={folder}: {errors.reason(error)}')
