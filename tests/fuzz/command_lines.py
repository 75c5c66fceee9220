"""Random command lines of every command: one line and a code, and never a traceback.

Options come from the commands' own parsers, so that a new one is tried, too. Values are
a mixture of what an option takes and of all that people and shells give by mistake.
"""

import argparse
import functools
import http.server
import os
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from unittest import mock

import numpy as np
from PIL import Image

from sr3_jax import main
from sr3_jax.config import flat_options
from sr3_jax.data import channels
from sr3_jax.evaluation import command as evaluate
from sr3_jax.human_study import command as study
from sr3_jax.reports import command as report
from sr3_jax.upscale import command as upscale
from sr3_jax.weights import convert
from tests.fuzz import lines
from tests.support import report_folders, runs
from tests.support.upscaling import Standin

ODD = (
  *('', ' ', '-', '--', '-1', '0', '1', '2', '3', '7', '1.5', '0.5', '1e309', 'nan'),
  *('-inf', '1' * 30, '9' * 5000, 'x', 'x' * 300, 'ü', '\udcff', '\x1b[31m', 'a\nb'),
  *('None', 'True', '()', '(1,)', '1,2', '25%', '10%,0,5,1', '٣', '1_0'),
  *('file:///etc', 'gs://a/b', 'hf://a', 's3://x', 'http://localhost:1/', '~', '~no'),
  *('/dev/null', '/dev/zero', '/proc/self/mem', '/nowhere/a', '..', '%s', '{}', '*'),
)
# What lies in the folder that commands are run in.
PLACES = (
  *('pictures', 'other', 'empty', 'nowhere', 'a.png', 'broken.png', 'text.txt'),
  *('pictures/0.png', 'pipe', 'loop', 'a.npy', 'report', 'report/report.json'),
  *('made', 'made/new', 'closed', 'b=pictures', 'c=other', 'd=nowhere', '=other'),
  *('pictures/*.png', 'sr3', 'labels.txt', 'study', 'study-key.json', 'results'),
)


@functools.cache
def _places() -> pathlib.Path:
  """Make the files and folders that command lines name."""
  root = pathlib.Path(tempfile.mkdtemp())
  rng = np.random.default_rng(0)
  for name in ('pictures/0', 'pictures/1', 'other/0', 'other/1', 'a'):
    path = root / f'{name}.png'
    path.parent.mkdir(exist_ok=True)
    pixels = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
  for name in ('empty', 'closed', 'made', 'results'):
    (root / name).mkdir()
  np.save(root / 'a.npy', np.zeros((8, 8, 2), np.uint16))
  (root / 'broken.png').write_bytes(b'\x89PNG\r\n\x1a\n\0\0')
  (root / 'text.txt').write_text('text')
  (root / 'labels.txt').write_text('0 1\n1 0\n')
  (root / 'study-key.json').write_text('{}')
  os.mkfifo(root / 'pipe')
  (root / 'loop').symlink_to('loop')
  report_folders.make(root / 'report', count=2)
  return root


RUN = pathlib.Path(runs.__file__)  # a configuration
# What options take, by their names; others take numbers, or one of their choices.
GOOD = {
  'inputs': ('pictures', 'a.png', 'pictures/*.png', 'text.txt', 'a.npy'),
  'outputs': ('b=pictures', 'c=other', 'other'),
  **dict.fromkeys(('truth', 'folder', 'input'), ('pictures', 'other')),
  **dict.fromkeys(('output', 'report', 'out'), ('made', 'made/new')),
  **dict.fromkeys(('model', 'license', 'contact', 'suffix', 'post'), ('m', '_a', '')),
  **dict.fromkeys(('cache', 'weights', 'classifier'), ('', 'made')),
  'reports': ('report', 'report/report.json', 'report/../report'),
  'mask': ('alpha', 'other', 'a.png'),
  'names': ('old', 'new', 'a/b'),
  'reference': ('pictures', 'other'),
  'labels': ('labels.txt',),
  'json': ('made/a.json',),
  'site': ('study', 'made'),
  'key': ('study-key.json',),
  'results': ('results', 'text.txt'),
  'notes': ('text.txt',),
  'expand': ('4', '1,2,3,4', '25%'),
  'steps': ('fast', '2'),
}


def _value(action: argparse.Action, rng: random.Random) -> str:
  """Return a value of an option: mostly one that it takes, a place, or an odd one."""
  if rng.random() < 0.15:
    return rng.choice([*PLACES, *ODD])
  if action.choices:
    return str(rng.choice([*action.choices]))
  return rng.choice(GOOD.get(action.dest, ('0', '1', '2', '8', '0.5', '100')))


def _arguments(parser: argparse.ArgumentParser, rng: random.Random) -> list[str]:
  """Return a random command line of a parser, its required options mostly there."""
  argv: list[str] = []
  for action in parser._actions:
    if isinstance(action, argparse._SubParsersAction):
      name = rng.choice([*action.choices])
      return [name, *_arguments(action.choices[name], rng)]
    needed = action.required or not action.option_strings
    if isinstance(action, argparse._HelpAction):
      continue
    if rng.random() > (0.97 if needed else 0.12):
      continue
    several = action.nargs in ('+', '*')
    count = rng.choice([1, 1, 2, 3]) if several else 0 if action.nargs == 0 else 1
    values = [_value(action, rng) for _ in range(count)]
    if not action.option_strings:
      argv += values
    elif count == 1 and rng.random() < 0.7 and action.option_strings[-1][:2] == '--':
      argv.append(f'{action.option_strings[-1]}={values[0]}')
    else:
      argv += [rng.choice([*action.option_strings]), *values]
  kind = rng.random()
  if kind < 0.05:
    argv.append(rng.choice(['--help', '--nonsense', '-x', '--', '--seed', '--=1']))
  elif kind < 0.1 and argv:
    del argv[rng.randrange(len(argv))]
  return argv


def _training(rng: random.Random) -> list[str]:
  """Return a random command line of `sr3-train`."""
  argv = [f'--config={RUN}', '--workdir=made/run']
  if rng.random() < 0.15:
    argv[0] = f'--config={rng.choice([*PLACES, *ODD, "quickstart", "small/base"])}'
  if rng.random() < 0.15:
    argv[1] = f'--workdir={rng.choice([*PLACES, *ODD])}'
  names = [*dict(flat_options()), 'nonsense', 'train', 'train.a', 'seed.a', '']
  for _ in range(rng.randrange(4)):
    argv.append(f'--config.{rng.choice(names)}={rng.choice([*ODD, *PLACES])}')
  for name in main.FLAG_NAMES[2:]:
    if rng.random() < 0.05:
      argv.append(f'--{name}={rng.choice([*ODD, *main.MODES])}')
  if rng.random() < 0.1:
    argv.append(rng.choice([*ODD, '--help', '--nonsense', '-m', '--nomultihost']))
  rng.shuffle(argv)
  return argv


def _train(argv: list[str]) -> int:
  """Parse and check a command line of `sr3-train`, up to the work of its mode."""
  from sr3_jax.core.check import check_config

  argv = ['sr3-train', *argv]
  try:
    rest = main.parse_flags(argv)
    with mock.patch.object(main, 'begin', lambda: main.check_places()):
      main.main(rest)
    try:
      check_config(main.FLAGS.config)
    except main.errors.UserError as error:
      main.fail(error)
  finally:
    main.FLAGS.unparse_flags()
    for name in [name for name in main.FLAGS if name.startswith('config.')]:
      delattr(main.FLAGS, name)
  return 0


COMMANDS: dict[str, tuple[Callable, Callable]] = {
  'sr3-channels': (channels.main, channels.make_parser),
  'sr3-convert': (convert.main, convert.make_parser),
  'sr3-evaluate': (evaluate.main, evaluate.make_parser),
  'sr3-report': (report.main, report.make_parser),
  'sr3-study': (study.main, study.make_parser),
  'sr3-upscale': (upscale.main, upscale.make_parser),
}


def attack(rng: random.Random, folder: pathlib.Path) -> str:
  """Run a random command line in a folder with all kinds of files."""
  shutil.copytree(
    _places(), folder, symlinks=True, dirs_exist_ok=True, copy_function=_copy
  )
  name = rng.choice([*COMMANDS, 'sr3-train'])
  if name == 'sr3-train':
    run, argv = _train, _training(rng)
  else:
    run, make_parser = COMMANDS[name]
    argv = _arguments(make_parser(), rng)
  here = os.getcwd()
  os.chdir(folder)
  try:
    with (
      mock.patch.object(sys, 'argv', [name, *argv]),
      mock.patch.object(upscale, 'load', _load),
      mock.patch.object(http.server.HTTPServer, 'serve_forever', lambda self: None),
    ):
      code, _ = lines.run(run, argv)
  except Exception as error:
    error.add_note(f'{name} {argv}')
    raise
  finally:
    os.chdir(here)
  return f'{name} {code}'


def _load(args: argparse.Namespace) -> Standin:
  """Return a model that takes no time."""
  return Standin(seed=args.seed)


def _copy(source: str, target: str) -> None:
  """Copy a file; make a pipe again."""
  if os.path.basename(source) == 'pipe':
    os.mkfifo(target)
  else:
    shutil.copy(source, target)
