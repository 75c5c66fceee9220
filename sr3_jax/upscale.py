"""Restores pictures: `python -m sr3_jax.upscale INPUT... --output=DIR`.

The command line only, read before anything heavy is imported; folders.py finds files,
jobs.py what is to be done with them, batch.py does it, pipeline.py restores.
"""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from sr3_jax.commands import CACHE, Parser

DESCRIPTION = """\
Does to pictures what a diffusion model was trained for: enlarges them, fills in what is
missing, continues them beyond their borders, gives them colour, removes blur, noise and
JPEG artefacts. JPEG, PNG, WebP and TIFF, of any size, grey or in colour, 8 or 16 bits;
transparency (enlarged apart, bicubic), colour profile and EXIF are kept. Finished
outputs are skipped when the same command is given again.
"""
EPILOG = """\
examples:
  sr3-upscale photos --output=large
  sr3-upscale portraits --model=face-x4 --output=large --steps=best
  sr3-upscale 'scans/**/*.tif' --model=DIR --output=large --outscale=2.5 --tile=128
  sr3-upscale a.jpg --model=DIR --output=large --num_samples=4 --spread --compare
  sr3-upscale photos --model=DIR --output=filled --mask=holes
  sr3-upscale photos --model=DIR --output=wide --expand=0,25%,0,25%
  sr3-upscale - --model=DIR --output=- < small.png > large.png

exit codes: 0 all done; 1 some inputs could not be done, they are listed; 2 a mistake in
the command; 130 interrupted.
"""


def make_parser() -> Parser:
  """All options; names that Real-ESRGAN has mean what they mean there."""
  parser = Parser(
    prog='sr3-upscale',
    description=DESCRIPTION,
    epilog=EPILOG,
  )
  for add_options in (
    _add_files,
    _add_sampling,
    _add_enlarging,
    _add_filling,
    _add_rest,
  ):
    add_options(parser)
  return parser


def _add_files(parser: Parser) -> None:
  add = parser.add_argument
  add(
    'inputs',
    nargs='*',
    metavar='INPUT',
    help="files, folders (with all below), patterns in quotes, '-' for standard input",
  )
  group = parser.add_argument_group('files')
  add = group.add_argument
  add('-i', '--input', nargs='+', action='extend', default=[], help='the same')
  add(
    '-o',
    '--output',
    required=True,
    metavar='DIR',
    help="folder, made if needed; '-' writes one picture to standard output",
  )
  add(
    '-m',
    '--model',
    default='photo-x4',
    help="photo-x4 or face-x4, which come with the package; a model folder, a run's "
    'workdir, a .safetensors file or hf://owner/name; default: %(default)s',
  )
  add('--suffix', default='out', help="of names: a_out.png; '' for none")
  add(
    '--ext',
    choices=('auto', 'png', 'jpg', 'webp', 'tif'),
    default='auto',
    help="format of outputs; default: the input's",
  )
  add('--overwrite', action='store_true', help='make again what is there')
  add(
    '--compare',
    action='store_true',
    help='a sheet: input, bicubic if enlarged, samples, spread',
  )


def _add_sampling(parser: Parser) -> None:
  add = parser.add_argument_group('sampling').add_argument
  add(
    '--steps',
    type=_steps,
    default='balanced',
    help='fast, balanced, best, or a number of sampling steps; default: %(default)s',
  )
  add('--sampler', help='ddpm, ddim, dpmpp_2m...; default: that of --steps')
  add(
    '--temperature',
    type=_share,
    metavar='T',
    help='of the noise, above 0 to 1: less gives less detail and less grain; default: '
    'that of --steps',
  )
  add('--seed', type=_natural, default=0, help='of the noise; default: 0')
  add('--num_samples', type=_count, default=1, metavar='N', help='pictures per input')
  add(
    '--spread',
    action='store_true',
    help='how much the samples differ, as heat picture (.png) and numbers (.npy)',
  )
  add('--label', type=_natural, help='class, for models with classes')
  add(
    '--guidance',
    type=_level,
    help="how much the class counts, for models trained for it; default: the model's",
  )


def _add_enlarging(parser: Parser) -> None:
  add = parser.add_argument_group('models that enlarge').add_argument
  add('-s', '--outscale', type=_positive, help="default: the model's own scale")
  add(
    '--consistency',
    action='store_true',
    help='make outputs that, made small again, are the input',
  )
  add(
    '--blur',
    type=_level,
    default=0.0,
    metavar='SIGMA',
    help='stages of cascades: blur inputs first, in their pixels; default: 0',
  )
  add(
    '--noise',
    type=_level,
    default=0.0,
    metavar='SHARE',
    help='stages of cascades: add noise to inputs first, 0 to 1; default: 0',
  )


def _add_filling(parser: Parser) -> None:
  add = parser.add_argument_group('models that fill in').add_argument
  add(
    '--mask',
    metavar='FILE_OR_FOLDER',
    help='white is missing; a folder has masks named as the inputs; '
    "'alpha', also the default: what is transparent is missing",
  )
  add(
    '--expand',
    metavar='N',
    help="pixels to add on all sides, or TOP,RIGHT,BOTTOM,LEFT; or per cent: '25%%'",
  )


def _add_rest(parser: Parser) -> None:
  add = parser.add_argument_group('memory and speed').add_argument
  add(
    '-t',
    '--tile',
    type=_natural,
    help='side of tiles in input pixels; 0: no tiles; default: chosen',
  )
  add('--tile_pad', type=_natural, help='half of their overlap in input pixels')
  add(
    '--cache',
    default=CACHE,
    metavar='DIR',
    help="compiled programs, for a fast start next time; '' for none",
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: arguments, without the name of the program; None takes the process's.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  # Options may stand between inputs, as in other commands.
  args = parser.parse_intermixed_args(argv)
  inputs = args.inputs + args.input
  _check(parser, args, inputs)
  try:
    return _run(parser, args, inputs)
  except KeyboardInterrupt:
    line = 'interrupted; the same command goes on with what is left'
    # In a terminal the progress line stands here.
    print('\n' * sys.stderr.isatty() + line, file=sys.stderr)
    return 130


def load(args: argparse.Namespace) -> Any:
  """The `pipeline.Upscaler` that the options describe."""
  from absl import logging

  from sr3_jax import hub, pipeline

  return pipeline.Upscaler(
    hub.load(args.model),
    steps=args.steps,
    sampler=args.sampler,
    temperature=args.temperature,
    tile=args.tile,
    tile_pad=args.tile_pad,
    seed=args.seed,
    consistency=args.consistency,
    expand=args.expand,
    blur=args.blur,
    noise=args.noise,
    guidance=args.guidance,
    on_note=logging.info,
  )


def _run(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> int:
  from sr3_jax import batch, folders, jobs, mask_files, measured

  output = None if args.output == '-' else pathlib.Path(args.output)
  mask = args.mask
  if mask not in (None, mask_files.ALPHA):
    mask = pathlib.Path(mask)
    if not mask.exists():
      parser.error(f'--mask={mask}: no such file or folder')

  def is_ours(file: pathlib.Path, root: pathlib.Path) -> bool:
    if mask_files.is_mask(file, root, mask):
      return True
    # In a folder inside of the input's all is; elsewhere what carries our settings.
    if output is None or not file.resolve().is_relative_to(output.resolve()):
      return False
    inside = output.resolve() != root.resolve()
    inside &= output.resolve().is_relative_to(root.resolve())
    return inside or measured.metadata(file) is not None

  sources, missing = folders.find(inputs, is_ours)
  if not sources:
    parser.error('; '.join(f'{name}: {reason}' for name, reason in missing.items()))
  if output is None and len(sources) > 1:
    parser.error(f'--output=- takes one picture, not {len(sources)}')
  stdin = sys.stdin.buffer.read() if folders.STDIN in inputs else None
  if output is not None:
    _check_folder(parser, output)

  from absl import flags, logging

  from sr3_jax import parallel, process_log

  flags.FLAGS.mark_as_parsed()  # else absl warns that it doesn't know its own
  process_log.setup()
  parallel.keep_programs(args.cache)
  options = jobs.Options(
    output=output,
    suffix=args.suffix,
    ext=args.ext,
    outscale=args.outscale,
    num_samples=args.num_samples,
    spread=args.spread,
    compare=args.compare,
    label=args.label,
    mask=mask,
    overwrite=args.overwrite,
  )
  try:
    upscaler = load(args)
    upscaler.check(args.outscale, args.label, mask is not None)
  except (ValueError, OSError) as error:  # of hub, checkpoint and pipeline
    parser.error(str(error))
  if not measured.is_measured(upscaler.channels, upscaler.value_range):
    # Arrays among pictures are something else; one that is named is meant.
    named = lambda source: source.path is None or source.name in inputs
    plain = [s for s in sources if named(s) or s.place.suffix.lower() != '.npy']
    sources = plain or sources
  todo, skipped, failed = jobs.plan(upscaler, options, sources, stdin)
  failed.update(missing)
  if todo:
    upscaler.reserve([job.size for job in todo], args.outscale)
    logging.info(_announcement(upscaler, args, todo))
    logging.info(_memory(upscaler, args, todo[0].size))
    failed.update(batch.run(upscaler, options, todo))
  for name, reason in failed.items():
    print(f'failed: {name}: {reason}', file=sys.stderr)
  done = len(sources) + len(missing) - skipped - len(failed)
  line = f'{done} done, {skipped} skipped, {len(failed)} failed'
  print(line, file=sys.stderr if output is None else sys.stdout)
  return 1 if failed else 0


def _announcement(upscaler: Any, args: argparse.Namespace, todo: Sequence[Any]) -> str:
  """What is going to be done, with what."""
  import jax

  settings, devices = upscaler.settings(args.outscale), jax.local_devices()
  height, width = todo[0].size
  scale = settings['outscale']
  what = settings['task'] if scale == 1 else f'{scale:g} times larger'
  return (
    f'{len(todo)} picture{"s" * (len(todo) > 1)}, up to {width} x {height} pixels, '
    f'{what}; {settings["model"]} '
    f'({settings["weights"]}), {settings["sampler"]}, {upscaler.num_steps} steps; '
    f'{len(devices)} x {devices[0].device_kind}'
  )


def _memory(upscaler: Any, args: argparse.Namespace, size: tuple[int, int]) -> str:
  """What the largest picture needs."""
  needed, free = upscaler.memory(*size, args.outscale, args.label)
  line = f'memory: {needed / 1e9:.2f} GB for the largest'
  if free is None:
    return line
  line += f', {free / 1e9:.2f} GB free'
  return line if needed <= free else f'{line}: smaller tiles (--tile) need less'


def _check(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> None:
  """Mistakes that need no file and no model to be seen."""
  if not inputs:
    parser.error('no INPUT: name files, folders, a pattern in quotes, or -')
  if args.spread and args.num_samples < 2:
    parser.error('--spread needs --num_samples=2 or more')
  if '/' in args.suffix or os.sep in args.suffix:
    parser.error(f'--suffix={args.suffix}: a part of a name, not a path')
  if args.output == '-':
    if args.num_samples > 1 or args.spread or args.compare:
      parser.error('--output=- takes one picture: give a folder')
    if sys.stdout.isatty():
      parser.error('--output=-: standard output is a terminal; send it to a file')
  if '-' in inputs and sys.stdin.isatty():
    parser.error('INPUT -: standard input is a terminal; send a picture to it')
  for text in (*inputs, args.output, args.mask or ''):
    if '://' in text:
      parser.error(f'{text}: inputs, masks and outputs are local files and folders')


def _check_folder(parser: Parser, folder: pathlib.Path) -> None:
  """Makes a folder and writes into it, so that hours of work have a place."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    parser.error(f'--output={folder}: {error.strerror or error}')


def _positive(text: str) -> float:
  value = float(text)
  if not 0 < value < float('inf'):
    raise argparse.ArgumentTypeError(f'{text!r} is no factor above 0')
  return value


def _level(text: str) -> float:
  value = float(text)
  if not 0 <= value < float('inf'):
    raise argparse.ArgumentTypeError(f'{text!r} is no number from 0 up')
  return value


def _share(text: str) -> float:
  value = float(text)
  if not 0 < value <= 1:
    raise argparse.ArgumentTypeError(f'{text!r} is not above 0 and at most 1')
  return value


def _natural(text: str) -> int:
  value = int(text)
  if not 0 <= value < 2**31:
    raise argparse.ArgumentTypeError(f'{text!r} is not from 0 to {2**31 - 1}')
  return value


def _count(text: str) -> int:
  value = int(text)
  if not 1 <= value <= 1000:
    raise argparse.ArgumentTypeError(f'{text!r} is not from 1 to 1000')
  return value


def _steps(text: str) -> int | str:
  return _count_steps(text) if text.lstrip('-').isdigit() else text


def _count_steps(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f'{text!r} is no number of steps above 0')
  return value


if __name__ == '__main__':
  sys.exit(main())
