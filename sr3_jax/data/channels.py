"""Prints what the stored values of a folder should mean to a model: `sr3-channels`."""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.channels())

import argparse
import pathlib
import sys
from collections.abc import Sequence

from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, value
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.values import Name, Number, Whole

DESCRIPTION = """\
Looks at a folder of images with any number of channels (.npy, TIFF, 16-bit PNG) and
prints which stored values should mean -1 and 1 to a model, channel by channel, as
settings to paste into a command or a configuration.
"""
EPILOG = """\
examples:
  sr3-channels stains/train
  sr3-channels tiles --channels=13 --low=1 --high=99
"""


def make_parser() -> Parser:
  """Make the parser of all options."""
  parser = Parser(prog='sr3-channels', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument
  name, share = value(Name()), value(Number(0, 100))
  add('folder', type=name, help='of the training images, with all folders below')
  about = "default: those of the folder's first image"
  add('--channels', type=value(Whole(1, 1024)), help=about)
  add('--low', type=share, default=0.1, help='percentile that is -1; %(default)s')
  add('--high', type=share, default=99.9, help='percentile that is 1; %(default)s')
  about = 'name the settings of the inputs of pairs'
  add('--inputs', action='store_true', help=about)
  about = 'look at so many; %(default)s'
  add('--images', type=value(Whole(1)), default=256, help=about)
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Print the range of every channel; return the exit code."""
  parser = make_parser()
  args = parser.parse_args(argv)
  if args.low >= args.high:
    parser.error(f'--low={args.low:g} must be below --high={args.high:g}: percentiles')
  try:
    with activity.shown('sr3-channels', quiet=args.quiet):
      _print_ranges(args)
  except UserError as error:
    parser.error(str(error))
  return 0


def _print_ranges(args: argparse.Namespace) -> None:
  """Print the range of every channel, and the options that say the same."""
  # Imported here, so that --help and mistakes in options are answered at once.
  import numpy as np

  from sr3_jax.data import channel_ranges
  from sr3_jax.data.folder_sources import Folder

  folder = pathlib.Path(args.folder)
  with activity.doing(f'{folder}: looking for images'):
    channels = args.channels or channel_ranges.first_channels(folder)
    source = Folder(args.folder, channels=channels, as_rasters=True)
  sample = channel_ranges.sample_pixels(source, args.images)
  with activity.doing('finding percentiles'):
    low, high = channel_ranges.percentile_range(
      sample, source.dtype, args.low, args.high
    )
  print(f'{len(source)} images of {channels} channel(s), {source.dtype}')
  points = (0, args.low, 50, args.high, 100)
  heads = ('least', f'{args.low:g} %', 'median', f'{args.high:g} %', 'greatest')
  print('channel' + ''.join(f'{head:>12}' for head in heads))
  for c, values in enumerate(np.percentile(sample, points, axis=0).T):
    print(f'{c + 1:7d}' + ''.join(f'{value:12.6g}' for value in values))
  data = f'--config.data.{"input_" if args.inputs else ""}'
  print(
    f'{data}channels={channels} {data}low="{_as_tuple(low)}" '
    f'{data}high="{_as_tuple(high)}"'
  )


def _as_tuple(values: Sequence[float]) -> str:
  """Write numbers as a configuration takes them: a tuple without spaces."""
  text = ','.join(f'{value:.7g}' for value in values)
  return f'({text})' if len(values) > 1 else f'({text},)'
