"""The command `sr3-push MODEL OWNER/NAME`: uploads a model to the Hugging Face hub.

This is the command line only: `push` does the work, and takes seconds to import.
"""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.push())

import sys
from collections.abc import Sequence

from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, value
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.values import Name

DESCRIPTION = """\
Uploads a model folder, or a run's newest averaged weights, to the Hugging Face hub.
Everybody who may see it there loads it as hf://OWNER/NAME. A new repository is private
unless --public is given.
"""
EPILOG = """\
examples:
  sr3-push models/mine me/photos-x4
  sr3-push runs/mine me/photos-x4 --public --message='step 20000'

It needs huggingface_hub (pip install 'sr3_jax[hub]') and a token that may write: log in
by `hf auth login`, or set HF_TOKEN.
"""


def make_parser() -> Parser:
  """Return the parser of all options."""
  parser = Parser(prog='sr3-push', description=DESCRIPTION, epilog=EPILOG)
  add, name = parser.add_argument, value(Name())
  about = "a model folder, a run's workdir, or the name of a model of the package"
  add('model', type=name, metavar='MODEL', help=about)
  add('repo', type=name, metavar='OWNER/NAME', help='of the repository on the hub')
  about = 'let everybody see a new repository, or write to one that is public'
  add('--public', action='store_true', help=about)
  add('--message', default='', help='of the commit; default: the name and the step')
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Run the command, and print where the model is; return the exit code.

  Raises:
    SystemExit: a mistake, in one line, with status 1; in the options, with status 2.
  """
  args = make_parser().parse_args(argv)
  try:
    with activity.shown('sr3-push', quiet=args.quiet):
      with activity.doing('loading the program'):
        from sr3_jax.weights import push

      where = push.push(args.model, args.repo, public=args.public, message=args.message)
  except (UserError, OSError) as error:
    sys.exit(f'error: {line(error)}')
  print(f'{where}\nload it: --model=hf://{args.repo.removeprefix("hf://")}')
  return 0
