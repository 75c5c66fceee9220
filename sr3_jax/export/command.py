"""The command `sr3-export MODEL`: writes a model as one StableHLO or ONNX file.

`program` makes the function, `metadata` says what it is, `files` writes it. Nothing
heavy is imported before the options are read.
"""

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sr3_jax.restoration.limits import LIMITS
from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, path, value
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.values import Name

if TYPE_CHECKING:
  from sr3_jax.core.samplers import Trajectory
  from sr3_jax.export.program import Program
  from sr3_jax.weights.hub import Loaded

DESCRIPTION = """\
Writes a model as one file that runs without this package: StableHLO, which JAX runs on
CPUs, GPUs and TPUs, or ONNX. The file holds the weights, and either the whole way from
an input to a picture or the network alone. What its inputs mean, and whose the model
is, stands in NAME.stablehlo.json or in the ONNX file. There are no tiles: a file needs
memory for the whole picture at once.
"""
EPILOG = """\
examples:
  sr3-export photo-x4
  sr3-export photo-x4 --steps=fast --seed=0 -o small.stablehlo
  sr3-export face-x4 --format=onnx --size=16x16
  sr3-export DIR --part=network --format=onnx
"""


def make_parser() -> Parser:
  """Return the parser of all options; those of `sr3-upscale` mean the same."""
  parser = Parser(prog='sr3-export', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument

  def limited(name: str, about: str, **how: Any) -> None:
    add(f'--{name}', type=value(LIMITS[name]), help=about, **how)

  name = value(Name())
  add('model', metavar='MODEL', type=name, help='as --model of sr3-upscale')
  add('-o', '--output', type=path, metavar='FILE', help='default: MODEL.stablehlo...')
  add('--format', choices=('stablehlo', 'onnx'), default='stablehlo')
  add(
    '--part',
    choices=('trajectory', 'network'),
    default='trajectory',
    help='all sampling steps, or the network alone; default: %(default)s',
  )
  add(
    '--size',
    type=_size,
    metavar='WxH',
    help='sides of inputs in pixels; default: any, for StableHLO of networks without '
    'attention; else those of training',
  )
  add('--steps', type=_steps, help='preset or number; default: balanced')
  add('--sampler', help='ddpm, ddim, dpmpp_2m...; default: that of --steps')
  limited('temperature', 'of the noise; default: that of --steps', metavar='T')
  limited('guidance', "how much the class counts; default: the model's")
  about = "make outputs that, downsampled, are the input; default: the model's"
  add('--consistency', action=argparse.BooleanOptionalAction, help=about)
  add(
    '--noise',
    choices=('seed', 'input'),
    help='drawn inside from the input seed, as sr3-upscale draws it, or an input; '
    'default: seed, but input for ONNX, which has no such generator',
  )
  limited('seed', 'draw the noise inside from this number: there is no input for it')
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command, and print what was written; `argv` lacks the program's name.

  Raises:
    SystemExit: a mistake, with one line and status 1; one in the flags, with status 2.
  """
  args = make_parser().parse_args(argv)
  try:
    _check(args)
    with activity.shown('sr3-export', quiet=args.quiet):
      text = _export(args)
  except UserError as error:
    sys.exit(f'error: {line(error)}')
  except OSError as error:
    sys.exit(f'error: {line(error)}')
  print(text)


def _check(args: argparse.Namespace) -> None:
  """Raise UserError for options that don't go together, whatever the model."""
  # The sampler of --steps stands in the metadata of a network.
  for name in ('guidance', 'consistency', 'noise', 'seed'):
    if args.part == 'network' and getattr(args, name) is not None:
      raise UserError(f'--{name}: --part=network has no sampling steps inside')
  if args.noise == 'input' and args.seed is not None:
    raise UserError('--seed draws the noise inside: leave out --noise=input')
  if args.format == 'onnx' and (args.noise == 'seed' or args.seed is not None):
    given = '--seed' if args.seed is not None else '--noise=seed'
    text = 'ONNX has no generator of the same noise: it is an input of the file'
    raise UserError(f'{given}: {text}')
  if args.output is not None and args.output.is_dir():
    raise UserError(f'--output={args.output}: a folder; name a file')


def _export(args: argparse.Namespace) -> str:
  """Write the file; return a line that says what it is."""
  with activity.doing('loading JAX and the program'):
    from sr3_jax.export import files, metadata
    from sr3_jax.restoration import settings
    from sr3_jax.runtime import devices
    from sr3_jax.weights import hub

    devices.start('')

  if args.format == 'onnx':
    files.import_jax2onnx()
  with activity.doing(f'reading the model {args.model}'):
    loaded = hub.load(args.model)
    card = metadata.read_card(args.model)
  files.check_weights(loaded.params)
  chosen = args.steps or 'balanced', args.sampler, args.temperature
  sampler, trajectory = settings.choose_trajectory(loaded, *chosen)
  program, options = _program(args, loaded, trajectory)
  about = {'format': args.format, 'part': args.part, 'sampler': sampler} | options
  about = metadata.describe(loaded, program, about, trajectory, card)
  output = args.output or pathlib.Path(f'{loaded.name.split("/")[-1]}.{args.format}')
  write = files.write_onnx if args.format == 'onnx' else files.write_stablehlo
  write(output, program, about)
  given = ', '.join(
    f'{name} [{", ".join(map(str, entry.shape))}]'
    for name, entry in program.inputs.items()
  )
  return f'{output}: {given}; licence of the model: {about["model"]["licence"]}'


def _program(
  args: argparse.Namespace, loaded: 'Loaded', trajectory: 'Trajectory'
) -> tuple['Program', dict[str, Any]]:
  """Return the program that the options describe, and what was chosen for it.

  Raises:
    UserError: the model can't have one of the options.
  """
  import dataclasses

  import jax.numpy as jnp

  from sr3_jax.export import program
  from sr3_jax.restoration import inputs

  model, size = loaded.model, args.size
  onnx = args.format == 'onnx'
  fixed = onnx or model.network.has_attention or model.smooth_holes
  if size is None and (fixed or not _sized(args, model)):
    size = program.trained_size(model)
  # jax2onnx can't write loops over a batch of any size.
  one = onnx and args.part == 'trajectory'
  dims = program.sides(model, size, 1 if one else None)
  if onnx:  # runtimes have few operators for bfloat16
    network = model.network.clone(dtype=jnp.float32)
    loaded = dataclasses.replace(
      loaded, model=dataclasses.replace(model, network=network)
    )
  if args.part == 'network':
    return program.network(loaded, dims), {}
  consistent = model.consistency if args.consistency is None else args.consistency
  if model.task.conditional:
    inputs.check_options(loaded, consistent, False, {}, args.guidance)
  weight = loaded.config.sampler.guidance if args.guidance is None else args.guidance
  guidance = weight if model.label_dropout and weight != 1 else None
  noise = args.noise or ('input' if onnx else 'seed')
  how = program.Sampling(trajectory, consistent, guidance, noise, args.seed)
  made = program.sampling(loaded, dims, how)
  options = {'consistency': consistent, 'guidance': guidance, 'seed': args.seed}
  return made, options


def _sized(args: argparse.Namespace, model: Any) -> bool:
  """Return whether an input says what size the output has."""
  return model.task.conditional or args.part == 'network' or args.noise == 'input'


def _steps(text: str) -> int | str:
  """Return a number of steps, or the name of a preset."""
  return value(LIMITS['steps'])(text) if text.lstrip('-').isdigit() else text


def _size(text: str) -> tuple[int, int]:
  """Return height and width of WIDTHxHEIGHT."""
  found = re.fullmatch(r'([1-9]\d{0,4})x([1-9]\d{0,4})', text)
  if not found:
    raise argparse.ArgumentTypeError(f'{text!r} is no WIDTHxHEIGHT in pixels, as 64x48')
  return int(found[2]), int(found[1])
