"""Defines the options of `sr3-upscale`; imports nothing heavy."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from sr3_jax.images import formats
from sr3_jax.restoration.limits import LIMITS
from sr3_jax.runtime import caches
from sr3_jax.runtime.cli import Parser, add_quiet, value
from sr3_jax.runtime.values import Name

DESCRIPTION = """\
Restores pictures with a diffusion model, in the way that the model was trained for: it
upscales them, fills in what is missing, continues them beyond their borders, gives them
colour, or removes blur, noise and JPEG artefacts. It takes JPEG, PNG, WebP and TIFF
files of any size, grey or in colour, 8 or 16 bits, and keeps transparency (resized with
a bicubic kernel), colour profile and EXIF. Finished outputs are skipped when the same
command is given again.
"""
EPILOG = """\
examples:
  sr3-upscale a.jpg -o large.png
  sr3-upscale photos --output=large
  sr3-upscale portraits --model=face-x4 --output=large --steps=best
  sr3-upscale 'scans/**/*.tif' --model=DIR --output=large --outscale=2.5 --tile=128
  sr3-upscale a.jpg --model=DIR --output=large --num_samples=4 --spread --compare
  sr3-upscale photos --model=photo-fill --mask=holes --output=filled
  sr3-upscale photos --model=DIR --output=wide --expand=0,25%,0,25%
  sr3-upscale - --model=DIR --output=- < small.png > large.png

exit codes: 0 all is done; 1 some inputs, which are listed, could not be done; 2 a
mistake in the command; 130 interrupted.
"""
_HELP = {
  'inputs': 'files, folders (with all below), patterns in quotes, '
  "'-' for standard input",
  'input': 'the same',
  'output': "folder, made if needed; or the file of one picture: large.png; '-' writes "
  'one picture to standard output',
  'model': 'photo-x4, photo-clean, photo-fill, face-x4 or face-x8, which come with the '
  "package; a model folder, a run's workdir, a .safetensors file or hf://owner/name; "
  'default: %(default)s',
  'suffix': "of names in the folder: a_out.png; '' for none; default: out",
  'ext': "format of outputs; default: the input's",
  'frames': 'of animations and pages of TIFFs: all, or the first; default: %(default)s',
  'overwrite': 'replace outputs that are there',
  'compare': 'write a sheet: input, bicubic if upscaled, samples, spread',
  'steps': 'fast, balanced, best, or a number of sampling steps; default: %(default)s',
  'sampler': 'ddpm, ddim, dpmpp_2m...; default: that of --steps',
  'temperature': 'of the noise, above 0 to 1: less gives less detail and less grain; '
  'default: that of --steps',
  'seed': 'of the noise; default: 0',
  'num_samples': 'pictures per input',
  'spread': 'how much the samples differ, as heat picture (.png) and numbers (.npy)',
  'label': 'class, for models with classes',
  'guidance': 'how much the class counts, for models trained for it; default: the '
  "model's",
  'outscale': "default: the model's own scale",
  'consistency': "make outputs that, downsampled, are the input; default: the model's",
  'blur': 'stages of cascades: blur inputs first, by so many pixels; default: 0',
  'noise': 'stages of cascades: add noise to inputs first, 0 to 1; default: 0',
  'mask': "white is missing; a folder has masks named as the inputs; 'alpha', also the "
  'default: what is transparent is missing',
  'expand': "pixels to add on all sides, or TOP,RIGHT,BOTTOM,LEFT; or per cent: '25%%'",
  'tile': 'side of tiles in input pixels; 0: no tiles; default: chosen',
  'tile_pad': 'half of their overlap in input pixels',
  'cache': "compiled programs, for a fast start next time; '' for none",
}


def make_parser() -> Parser:
  """Return the parser of all options.

  Options that Real-ESRGAN also has mean what they mean there.
  """
  parser = Parser(prog='sr3-upscale', description=DESCRIPTION, epilog=EPILOG)
  group: argparse._ActionsContainer = parser

  def add(*names: str, **how: Any) -> None:
    group.add_argument(*names, help=_HELP[names[-1].lstrip('-')], **how)

  def limited(*names: str, **how: Any) -> None:
    add(*names, type=value(LIMITS[names[-1].lstrip('-')]), **how)

  name = value(Name())
  add('inputs', nargs='*', metavar='INPUT', type=name)
  group = parser.add_argument_group('files')
  add('-i', '--input', nargs='+', action='extend', default=[], type=name)
  add('-o', '--output', metavar='DIR_OR_FILE', type=name)
  add('-m', '--model', default='photo-x4', type=name)
  add('--suffix')
  add('--ext', choices=('auto', 'png', 'jpg', 'webp', 'tif'), default='auto')
  add('--frames', choices=('all', 'first'), default='all')
  add('--overwrite', action='store_true')
  add('--compare', action='store_true')
  group = parser.add_argument_group('sampling')
  add('--steps', type=_steps, default='balanced')
  add('--sampler')
  limited('--temperature', metavar='T')
  limited('--seed', default=0)
  limited('--num_samples', default=1, metavar='N')
  add('--spread', action='store_true')
  limited('--label')
  limited('--guidance')
  group = parser.add_argument_group('models that upscale')
  limited('-s', '--outscale')
  add('--consistency', action=argparse.BooleanOptionalAction)
  limited('--blur', default=0.0, metavar='SIGMA')
  limited('--noise', default=0.0, metavar='SHARE')
  group = parser.add_argument_group('models that fill in')
  add('--mask', metavar='FILE_OR_FOLDER', type=name)
  add('--expand', metavar='N')
  group = parser.add_argument_group('memory and speed')
  limited('-t', '--tile')
  limited('--tile_pad')
  add('--cache', default=caches.programs(), metavar='DIR')
  add_quiet(parser)
  return parser


def check(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> None:
  """End with an error for mistakes that show without files and a model."""
  if not inputs and args.output is None:
    parser.error('no INPUT and no --output, as in sr3-upscale photos --output=large')
  if not inputs:
    parser.error('no INPUT: name files, folders, a pattern in quotes, or -')
  if args.output is None:
    parser.error('no --output: name a folder, or - for standard output')
  if args.spread and args.num_samples < 2:
    parser.error('--spread needs --num_samples=2 or more')
  if '/' in (args.suffix or '') or os.sep in (args.suffix or ''):
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


def names_file(parser: Parser, args: argparse.Namespace, inputs: Sequence[str]) -> bool:
  """Return whether --output is the file of one picture, and no folder.

  It is if it ends like one and no such folder is there. End with an error for what such
  a file can't be.
  """
  text = args.output
  ending = os.path.splitext(text.rstrip('/'))[1].lower()
  if ending not in (*formats.EXTENSIONS, formats.ARRAY) or os.path.isdir(text):
    return False
  given = f'--output={text}'
  if text.endswith('/'):
    parser.error(f'{given} ends like a picture: name the new folder otherwise')
  if not (kind := formats.written_as(ending)):
    parser.error(f'{given}: outputs are .png, .jpg, .webp, .tif or .npy files')
  if len(inputs) > 1:
    parser.error(
      f'{given} is the file of one INPUT, not of {len(inputs)}: name a folder'
    )
  if os.path.realpath(text) == os.path.realpath(inputs[0]):
    parser.error(f'{given}: that is the input; name another file')
  if args.suffix is not None:
    parser.error(f'--suffix={args.suffix} is for folders: {given} is a whole name')
  if args.ext != 'auto' and f'.{args.ext}' != kind:
    parser.error(f'--ext={args.ext} and {given}: choose one')
  return True


def _steps(text: str) -> int | str:
  """Return a number of steps, or the name of a preset."""
  return value(LIMITS['steps'])(text) if text.lstrip('-').isdigit() else text
