"""Measures folders of images that any method made: the command `sr3-evaluate`.

Other people's results get the same numbers, report and protocol as --mode=eval gives a
run; outputs are matched to true images by their file names. This is the command line
only: `folder_run` does the work, and takes seconds to import.
"""

import argparse
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

from sr3_jax.runtime import activity, caches, errors
from sr3_jax.runtime.cli import Parser, add_quiet, path, value
from sr3_jax.runtime.values import Whole

DESCRIPTION = """\
Measures images against true images: PSNR, SSIM, LPIPS, DISTS, FID, KID and IS; with
--inputs also consistency, colour drift and the baselines bicubic and lanczos. Writes a
report.
"""
EPILOG = """\
examples:
  sr3-evaluate --truth=truth --outputs mine=runs/a other=/data/theirs
  sr3-evaluate --truth=truth --inputs=small --outputs=mine --border=4

Files belong together by their names without extensions (a.png, a.jpg). A killed run
goes on where it was. Weights of networks: python -m sr3_jax.metrics.net_weights --help.
"""
NETWORKS = ('inception', 'lpips_alex', 'lpips_vgg', 'dists')
_DEFAULT = NETWORKS[:3]
# Names that mean something else in tables, pictures or batches.
TAKEN = ('truth', 'input', 'bicubic', 'lanczos', 'mask', 'index', 'label')


def make_parser() -> Parser:
  """Return the parser of all options."""
  parser = Parser(prog='sr3-evaluate', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument
  folder = {'type': path, 'metavar': 'DIR'}
  add('--truth', **folder, required=True, help='the true images')
  about = "what is measured; without NAME= the folder's name"
  add('--outputs', nargs='+', required=True, metavar='NAME=DIR', help=about)
  add('--inputs', **folder, help='the low-resolution inputs, if there are any')
  about = 'folder of the report; default: report'
  add('--report', **folder, default=pathlib.Path('report'), help=about)
  about = 'pixels at every side that PSNR and SSIM leave out; default: 0'
  add('--border', type=value(Whole(0, 8192)), metavar='N', default=0, help=about)
  about = f'{", ".join(NETWORKS)}: for FID, KID and IS, and for LPIPS and DISTS; '
  about += 'default: all but dists; without names: none'
  names = {'nargs': '*', 'choices': NETWORKS, 'default': _DEFAULT, 'metavar': 'NAME'}
  add('--networks', **names, help=about)
  add('--weights', default='', metavar='DIR', help='of the networks; default: ~/.cache')
  about = 'for FID and KID: statistics (.npz) or a folder; default: the true images'
  add('--reference', type=path, metavar='FILE', help=about)
  add('--classifier', default='', metavar='FILE', help='ONNX, for error rates')
  about = 'its classes: lines "NAME CLASS"'
  add('--labels', type=path, metavar='FILE', help=about)
  about = 'which images are crops of one photograph: lines "NAME PHOTOGRAPH"; '
  about += 'default: each image is a photograph of its own'
  add('--photographs', type=path, metavar='FILE', help=about)
  count = {'type': value(Whole(1, 2**16)), 'metavar': 'N'}
  add('--batch_size', **count, default=8, help='images at a time; default: 8')
  add('--num_images', **count, default=8, help='images shown; default: 8')
  about = 'where compiled programs are cached'
  add('--cache', default=caches.programs(), metavar='DIR', help=about)
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command with `argv`, or the process's arguments; return its exit code.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  argv = sys.argv[1:] if argv is None else argv
  parser = make_parser()
  args = parser.parse_args(argv)
  outputs = _outputs(parser, args.outputs)
  if bool(args.classifier) != bool(args.labels):
    parser.error('--classifier and --labels belong together')
  command = f'{parser.prog} {shlex.join(argv)}'
  try:
    with activity.shown('sr3-evaluate', quiet=args.quiet):
      _run(args, outputs, command)
  except errors.UserError as error:
    parser.error(str(error))
  except OSError as error:
    parser.error(f'{error.filename or args.report}: {errors.reason(error)}')
  return 0


def _run(
  args: argparse.Namespace, outputs: dict[str, pathlib.Path], command: str
) -> None:
  """Start JAX and measure the folders."""
  with activity.doing('loading JAX and the program'):
    from absl import flags

    from sr3_jax.evaluation import folder_run
    from sr3_jax.runtime import devices, folder_lock, process_log

  flags.FLAGS.mark_as_parsed()
  process_log.setup(args.quiet)
  devices.start(args.cache)
  with folder_lock.owned(args.report, 'report', '--report'):
    folder_run.run(args, outputs, command)


def _outputs(parser: Parser, texts: Sequence[str]) -> dict[str, pathlib.Path]:
  """Return method -> folder; a name that can be none, or is taken, ends the command."""
  found = {}
  for text in texts:
    name, equals, folder = text.partition('=')
    path = pathlib.Path(folder if equals else text)
    name = (equals and name) or path.resolve().name
    if not re.fullmatch(r'[A-Za-z0-9_. -]{1,60}', name) or name.startswith('.'):
      parser.error(f'--outputs {text[:80]}: {name[:80]!r} is no name; give NAME=DIR')
    # Names become files, and some disks don't tell large letters from small ones.
    taken = {other.lower(): other for other in (*TAKEN, *found)}
    other = taken.get(name.lower())
    if other is not None:
      same = (
        f'{name!r} is' if other == name else f'{name!r} is {other!r} to some disks,'
      )
      parser.error(f'--outputs {text}: the name {same} taken; give NAME=DIR')
    found[name] = path
  return found
