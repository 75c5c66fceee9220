"""The command `sr3-convert`: makes model folders of PyTorch weights and of runs.

`torch_files` reads PyTorch weights and `torch_to_flax` translates them; `model_writer`
writes the folder. Nothing heavy is imported before the options are read.
"""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.convert())

import argparse
import pathlib
import re
import sys
import textwrap
from typing import TYPE_CHECKING

from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, path, value
from sr3_jax.runtime.errors import UserError, line, reason
from sr3_jax.runtime.values import Name, Whole
from sr3_jax.weights.released import RELEASED

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from sr3_jax.runtime.types import Params

# Options that state what no tensor of a network shows, and their help.
_GIVEN = {
  'groups': 'groups of the group normalisation (norm_groups in the JSON file; 32 if it '
  'is not there)',
  'num_heads': "heads of guided-diffusion's attention (--num_heads there)",
  'scale': "side of the output over the input's",
  'image_size': 'side of the outputs in training, pixels',
}


def make_parser() -> Parser:
  """Return the parser of all options."""
  presets = '\n'.join(
    f'  {name}: {side // scale} to {side} pixels'
    for name, (scale, side) in RELEASED.items()
  )
  parser = Parser(
    prog='sr3-convert',
    description='Makes a model folder of PyTorch weights, or of a run of sr3_jax.',
    epilog=textwrap.fill(
      f'presets: {presets}. Of other networks in these formats give the numbers that '
      'no tensor tells.'
    ),
  )
  add = parser.add_argument
  add(
    'input',
    metavar='INPUT',
    type=value(Name()),
    help="PyTorch weights as .pth, .pt (these need torch: pip install 'sr3_jax[convert]"
    "') or .safetensors; or the workdir of a run, for its newest averaged weights",
  )
  folder = {'metavar': 'DIR', 'type': value(Name())}
  add('-o', '--output', **folder, required=True, help='the model folder to write')
  add('--preset', choices=RELEASED, help='the released file that INPUT is, see below')
  for name, text in _GIVEN.items():
    add(f'--{name}', type=value(Whole(1)), metavar='N', help=text)
  about = 'of the weights, for the model card; default: that of a model folder'
  add('--license', help=about)
  about = 'to its words, if the license has no identifier of model hubs'
  add('--license_link', default='', metavar='URL', help=about)
  add(
    '--notes',
    type=path,
    metavar='FILE',
    help='Markdown for the model card: data and their terms, known failures',
  )
  add(
    '--dtype',
    choices=('float32', 'bfloat16', 'float16'),
    default='float32',
    help='of the stored weights; float32, the default, is exact',
  )
  add_quiet(parser)
  return parser


def main(argv: list[str] | None = None) -> None:
  """Run the command, and print what was written; `argv` lacks the program's name.

  Raises:
    SystemExit: a mistake, with one line and status 1; one in the flags, with status 2.
  """
  args = make_parser().parse_args(argv)
  try:
    with activity.shown('sr3-convert', quiet=args.quiet):
      import jax

      config, params = _convert(args)
      from sr3_jax.core import degradations

      scale = degradations.make(config.task.name, config.task).scale
  except UserError as error:
    sys.exit(f'error: {line(error)}')
  except OSError as error:
    text = f'{error.filename or args.output}: {reason(error)}'
    sys.exit(f'error: {line(text)}')
  leaves = jax.tree.leaves(params)
  print(
    f'{args.output}: {len(leaves)} tensors, {sum(x.size for x in leaves):,} parameters;'
    f' x{scale}, {config.diffusion.num_levels} noise levels'
  )


def _convert(args: argparse.Namespace) -> tuple['ConfigDict', 'Params']:
  """Write the model folder; return its configuration and parameters."""
  with activity.doing('loading JAX and the program'):
    from sr3_jax.runtime import devices, foreign_files
    from sr3_jax.weights import model_writer, torch_files, torch_to_flax

    devices.start('')

  given = {key: getattr(args, key) for key in _GIVEN}
  notes = foreign_files.read_text(args.notes, 2**20) if args.notes else ''
  card = {'license_link': args.license_link, 'dtype': args.dtype, 'notes': notes}
  if args.license is not None:
    card['license'] = args.license
  path = pathlib.Path(args.input).expanduser()
  if path.is_dir() or args.input.startswith('hf://'):
    if args.preset or any(given.values()):
      raise UserError(f'{args.input}: a model of sr3_jax says itself what it is')
    with activity.doing(f'reading and writing {args.input}'):
      loaded = model_writer.export(args.input, args.output, **card)
    return loaded.config, loaded.params
  try:
    with activity.doing(f'reading {path}'):
      tensors = torch_files.read(path)
    with activity.doing('translating the weights'):
      config, params = torch_to_flax.convert(tensors, args.preset, **given)
  except torch_files.WeightsError as error:
    raise UserError(f'{path}: {error}') from None
  project = torch_to_flax.FAMILIES[config.model.network].PROJECT
  step = re.match(r'(?:I|model|ema_[\d.]+_)(\d+)', path.name)
  with activity.doing(f'writing {args.output}'):
    model_writer.save(
      args.output,
      params,
      config,
      step=int(step[1]) if step else 0,
      source=f'converted from {path.name}, weights of {project}',
      **card,
    )
  return config, params
