"""Other people's PyTorch weights in, model folders out: `sr3-convert`.

Given a run's workdir (or a model), it makes a model folder of that. Which networks are
known, and how their tensors become ours, is in torch_to_flax.py.
"""

import argparse
import pathlib
import re
import sys

import jax

from sr3_jax.runtime.cli import number
from sr3_jax.runtime.errors import line
from sr3_jax.weights import checkpoint, hub, model_writer
from sr3_jax.weights.torch_files import WeightsError, read
from sr3_jax.weights.torch_to_flax import FAMILIES, PRESETS, convert

# Options that say of a network what no tensor shows.
_GIVEN = ('groups', 'num_heads', 'scale', 'image_size')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='sr3-convert',
    description='Makes a model folder of PyTorch weights, or of a run of sr3_jax.',
    epilog='presets: '
    + '; '.join(
      f'{name}, {side // scale} to {side} pixels'
      for name, (_, scale, side) in PRESETS.items()
    )
    + '. Of other networks in these formats give the numbers that no tensor tells.',
  )
  add = parser.add_argument
  add(
    'input',
    metavar='INPUT',
    help="PyTorch weights as .pth, .pt (these need torch: pip install 'sr3_jax[convert]"
    "') or .safetensors; or the workdir of a run, for its newest averaged weights",
  )
  add('-o', '--output', metavar='DIR', required=True, help='the model folder to write')
  add('--preset', choices=PRESETS, help='the released file that INPUT is, see below')
  add(
    '--groups',
    type=number(int, 1),
    metavar='N',
    help='groups of the group normalisation (norm_groups in the JSON file; 32 if it is '
    'not there)',
  )
  add(
    '--num_heads',
    type=number(int, 1),
    metavar='N',
    help="heads of guided-diffusion's attention (--num_heads there)",
  )
  add(
    '--scale',
    type=number(int, 1),
    metavar='N',
    help="side of the output over the input's",
  )
  add(
    '--image_size',
    type=number(int, 1),
    metavar='N',
    help='side of the outputs in training, pixels',
  )
  add('--license', default='unknown', help='of the weights, for the model card')
  add(
    '--notes',
    type=pathlib.Path,
    metavar='FILE',
    help='Markdown for the model card: data and their terms, known failures',
  )
  add(
    '--dtype',
    choices=model_writer.DTYPES,
    default='float32',
    help='of the stored weights; float32, the default, is exact',
  )
  return parser


def _notes(path: pathlib.Path) -> str:
  try:
    return path.read_text()
  except UnicodeDecodeError:
    raise hub.HubError(f'{path}: not a text file') from None


def main(argv: list[str] | None = None) -> None:
  """The command; mistakes end it with one line and status 1, of flags with 2."""
  args = _parser().parse_args(argv)
  given = {key: getattr(args, key) for key in _GIVEN}
  stored = {'license': args.license, 'dtype': args.dtype}
  path = pathlib.Path(args.input).expanduser()
  try:
    stored['notes'] = _notes(args.notes) if args.notes else ''
    if path.is_dir() or args.input.startswith('hf://'):
      if args.preset or any(given.values()):
        raise WeightsError(f'{args.input}: a model of sr3_jax says itself what it is')
      loaded = model_writer.export(args.input, args.output, **stored)
      config, params = loaded.config, loaded.params
    else:
      try:
        tensors = read(path)
        config, params = convert(tensors, args.preset, **given)
      except WeightsError as error:
        raise WeightsError(f'{path}: {error}') from None
      project = FAMILIES[config.model.network].PROJECT
      step = re.match(r'(?:I|model|ema_[\d.]+_)(\d+)', path.name)
      model_writer.save(
        args.output,
        params,
        config,
        step=int(step[1]) if step else 0,
        source=f'converted from {path.name}, weights of {project}',
        **stored,
      )
  except (WeightsError, hub.HubError, checkpoint.CheckpointError) as error:
    sys.exit(f'error: {line(error)}')
  except OSError as error:
    sys.exit(f'error: {error.filename or args.output}: {error.strerror or error}')
  leaves = jax.tree.leaves(params)
  print(
    f'{args.output}: {len(leaves)} tensors, {sum(x.size for x in leaves):,} parameters;'
    f' x{config.task.scale}, {config.diffusion.num_levels} noise levels'
  )


if __name__ == '__main__':
  main()
