"""The command `sr3-demo`: serves a page on which pictures are restored.

`jobs` says what visitors may ask for and does it, `page` makes the page, and `server`
serves it. Nothing heavy is imported before the options are read.
"""

import argparse
from collections.abc import Sequence

from sr3_jax.runtime import activity
from sr3_jax.runtime.cli import Parser, add_quiet, value
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.values import Name, Number, Whole

DESCRIPTION = """\
Serves a page on this machine: drop a picture, choose a model, and see the picture
before and after. Models that fill in get a brush for what is missing. Uploads and
results are deleted after an hour, and when the command ends. It needs
pip install 'sr3_jax[demo]'.
"""
EPILOG = """\
examples:
  sr3-demo
  sr3-demo --model=runs/mine --model=hf://owner/name --port=8000
  sr3-demo --host=0.0.0.0 --max-pixels=65536 --max-samples=2

Ctrl-C ends it. docs/demo.md is the guide.
"""


def make_parser() -> Parser:
  """Return the parser of all options."""
  parser = Parser(prog='sr3-demo', description=DESCRIPTION, epilog=EPILOG)
  add = parser.add_argument
  about = (
    "offered beside the package's own: a model folder, a run's workdir, a .safetensors "
    'file or hf://owner/name; may be given several times, and the first is chosen'
  )
  name = value(Name())
  add('-m', '--model', action='append', default=[], type=name, help=about)
  group = parser.add_argument_group('server')
  add = group.add_argument
  about = 'to listen at; 0.0.0.0: reachable from everywhere; default: this machine only'
  add('--host', default='127.0.0.1', type=name, help=about)
  about = 'default: %(default)s; 0: a free one'
  add('--port', type=value(Whole(0, 65535)), default=7860, help=about)
  add('--share', action='store_true', help='a public link for a week, through Gradio')
  group = parser.add_argument_group('limits for visitors')
  add = group.add_argument

  def limited(name: str, low: int, high: int, default: int, about: str) -> None:
    kind, help = value(Whole(low, high)), f'{about}; default: %(default)s'
    add(f'--{name}', type=kind, default=default, metavar='N', help=help)

  limited('max-pixels', 1, 2**26, 2**18, 'pixels of an input, width times height')
  about, megabytes = 'of an uploaded file; default: 20', value(Number(0.001, 1000))
  add('--max-upload', type=megabytes, default=20, metavar='MB', help=about)
  limited('max-samples', 1, 64, 8, 'samples of an input')
  limited('max-steps', 1, 10**4, 250, 'sampling steps')
  limited('max-queue', 1, 1000, 20, 'jobs that may wait')
  add_quiet(parser)
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command until a signal ends it; `argv` lacks the program's name.

  Raises:
    SystemExit: --help, or a mistake, with one line and code 2.
  """
  parser = make_parser()
  args = parser.parse_args(argv)
  try:
    with activity.shown('sr3-demo', quiet=args.quiet):
      server = _start(args)
    with server:
      server.wait()
  except (UserError, OSError) as error:
    parser.error(line(error))


def _start(args: argparse.Namespace):
  """Load the models, start the server and print where it is; return it.

  Raises:
    UserError: no Gradio, a port that is taken, or a model that can't be used.
  """
  from sr3_jax.demo import server

  address = args.host, server.free_port(args.host, args.port)
  server.import_gradio()
  with activity.doing('loading JAX'):
    from absl import flags

    from sr3_jax.demo import jobs
    from sr3_jax.runtime import caches, devices, process_log

  flags.FLAGS.mark_as_parsed()  # else absl warns that it has not seen the flags
  process_log.setup(args.quiet)
  devices.cache_programs(caches.programs())
  limits = jobs.Limits(
    args.max_pixels, args.max_upload, args.max_samples, args.max_steps, args.max_queue
  )
  models = jobs.load_models(args.model)
  with activity.doing('starting the server'):
    running = server.Server(models, limits, *address, share=args.share)
  for url in running.urls:
    print(f'{url} (Ctrl+C ends it)', flush=True)
  return running
