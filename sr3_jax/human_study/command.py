"""Runs the paper's human study: `sr3-study build|serve|analyse`.

This is the command line only; `run` does what it asks for. Its imports take a second,
which --help does not wait for.
"""

import argparse
from collections.abc import Callable, Sequence

from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, path, value
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.values import Number, Whole

DESCRIPTION = """\
Two-alternative forced choice, as in the SR3 paper: people see a photograph and a
model's output side by side for 3 seconds and choose. How often they prefer the output
is the fool rate; at 50 % it can't be told from the photograph.
"""
EPILOG = """\
examples:
  sr3-study build --truth=truth --outputs sr3=samples \\
    regression=mse --inputs=low --out=site --post=/results
  sr3-study serve site
  sr3-study analyse site-key.json site-results

docs/human_study.md is the guide.
"""
TASKS = ('1', '2', 'both')
_COUNT = value(Whole(1, 5000))
Add = Callable[..., argparse.Action]


def make_parser() -> Parser:
  """Return the parser of all options."""
  parser = Parser(prog='sr3-study', description=DESCRIPTION, epilog=EPILOG)
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, about, options in (
    ('build', 'makes the site of a study, and its key beside it', _build_options),
    ('serve', 'serves a site on this machine, keeps results', _serve_options),
    ('analyse', 'prints fool rates with intervals', _analyse_options),
  ):
    description = f'{about[0].upper()}{about[1:]}.'
    own = commands.add_parser(name, help=about, description=description)
    options(own.add_argument)
    add_quiet(own)
  return parser


def _build_options(add: Add) -> None:
  """Add the options of `sr3-study build`."""
  add('--truth', required=True, type=path, metavar='DIR', help='photographs')
  about = "folders of outputs, one a method; files are named as the photographs'"
  several = {'nargs': '+', 'action': 'extend', 'metavar': 'NAME=DIR'}
  add('--outputs', required=True, **several, help=about)
  add('--inputs', type=path, metavar='DIR', help='small inputs, for task 1')
  about = (
    '1 shows the input between the two, 2 does not; both: every other subject has '
    'task 1; default: both with --inputs, else 2'
  )
  add('--task', choices=TASKS, help=about)
  add('--out', required=True, type=path, metavar='SITE', help='folder to make')
  seconds = value(Number(0.01, 600))
  add('--seconds', type=seconds, default=3.0, help='of viewing; default: 3')
  add('--images-per-subject', type=_COUNT, default=50, metavar='N', help='default: 50')
  add('--num-images', type=_COUNT, default=100, metavar='N', help='default: 100')
  about = 'plans to make; default: 50 a task, or a few more until all is exactly even'
  add('--subjects', type=_COUNT, metavar='N', help=about)
  about = 'draws images, orders, sides; default: 0'
  add('--seed', type=value(Whole()), default=0, help=about)
  add('--post', metavar='URL', help='where results are sent; /results for `serve`')
  add('--contact', default='', metavar='TEXT', help='who asks; shown on the first page')


def _serve_options(add: Add) -> None:
  """Add the options of `sr3-study serve`."""
  add('site', type=path, metavar='SITE')
  port = value(Whole(0, 65535))
  add('--port', type=port, default=8000, help='default: %(default)s; 0: a free one')


def _analyse_options(add: Add) -> None:
  """Add the options of `sr3-study analyse`."""
  add('key', type=path, metavar='KEY', help='SITE-key.json')
  add('results', nargs='+', type=path, help='result files, or folders of them')
  add('--json', type=path, metavar='OUT', help='writes all figures there')
  share = {'type': value(Number(0, 1)), 'default': 0.2, 'metavar': 'SHARE'}
  about = 'of attention checks, above which a subject is left out; default: 0.2'
  add('--max-failed', **share, help=about)
  add('--keep-all', action='store_true', help='leaves nobody out')


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command with `argv`, or the process's arguments; return its exit code.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  args = parser.parse_args(argv)
  # A server says at once where it is, and then waits.
  quiet = args.command == 'serve' or args.quiet
  try:
    with activity.shown(f'sr3-study {args.command}', quiet=quiet):
      from sr3_jax.human_study import run

      actions = {'build': run.build, 'serve': run.serve, 'analyse': run.analyse}
      actions[args.command](args)
    return 0
  except (UserError, OSError) as error:
    parser.error(line(error))
