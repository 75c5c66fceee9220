"""The paper's human study: `sr3-study build|serve|analyse`.

The command line only. study.py has the plan and the statistics, study_build.py the
site, study_server.py the server, study_results.py the reader of what comes back,
study_report.py the printed tables.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from sr3_jax.human_study import design as human_study_design
from sr3_jax.human_study import report as human_study_report
from sr3_jax.human_study import results as human_study_results
from sr3_jax.human_study import server as human_study_server
from sr3_jax.human_study import site_builder
from sr3_jax.runtime import atomic_files
from sr3_jax.runtime.cli import Parser, number
from sr3_jax.runtime.errors import UserError, line

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
TASKS = {'1': (1,), '2': (2,), 'both': (1, 2)}
PAPER_SUBJECTS = 50
_COUNT = number(int, 1, 5000)


def make_parser() -> Parser:
  """All options."""
  parser = Parser(
    prog='sr3-study',
    description=DESCRIPTION,
    epilog=EPILOG,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

  add = _command(commands, 'build', 'makes the site of a study, and its key beside it')
  add('--truth', required=True, type=pathlib.Path, metavar='DIR', help='photographs')
  add(
    '--outputs',
    required=True,
    nargs='+',
    action='extend',
    metavar='NAME=DIR',
    help="folders of outputs, one a method; files are named as the photographs'",
  )
  add('--inputs', type=pathlib.Path, metavar='DIR', help='small inputs, for task 1')
  add(
    '--task',
    choices=tuple(TASKS),
    help='1 shows the input between the two, 2 does not; both: every other subject has '
    'task 1; default: both with --inputs, else 2',
  )
  add('--out', required=True, type=pathlib.Path, metavar='SITE', help='folder to make')
  add(
    '--seconds',
    type=number(float, 0.01, 600),
    default=3.0,
    help='of viewing; default: 3',
  )
  add('--images-per-subject', type=_COUNT, default=50, metavar='N', help='default: 50')
  add('--num-images', type=_COUNT, default=100, metavar='N', help='default: 100')
  add(
    '--subjects',
    type=_COUNT,
    metavar='N',
    help='plans to make; default: 50 a task, or a few more until all is exactly even',
  )
  add('--seed', type=int, default=0, help='draws images, orders, sides; default: 0')
  add('--post', metavar='URL', help='where results are sent; /results for `serve`')
  add('--contact', default='', metavar='TEXT', help='who asks; shown on the first page')

  add = _command(commands, 'serve', 'serves a site on this machine, keeps results')
  add('site', type=pathlib.Path, metavar='SITE')
  add(
    '--port',
    type=number(int, 0, 65535),
    default=8000,
    help='default: %(default)s; 0: a free one',
  )

  add = _command(commands, 'analyse', 'prints fool rates with intervals')
  add('key', type=pathlib.Path, metavar='KEY', help='SITE-key.json')
  add('results', nargs='+', type=pathlib.Path, help='result files, or folders of them')
  add('--json', type=pathlib.Path, metavar='OUT', help='writes all figures there')
  add(
    '--max-failed',
    type=number(float, 0, 1),
    default=0.2,
    metavar='SHARE',
    help='of attention checks, above which a subject is left out; default: 0.2',
  )
  add('--keep-all', action='store_true', help='leaves nobody out')
  return parser


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: arguments, without the name of the program; None takes the process's.

  Raises:
    SystemExit: --help or a mistake, with the code.
  """
  parser = make_parser()
  args = parser.parse_args(argv)
  run = {'build': _build, 'serve': _serve, 'analyse': _analyse}[args.command]
  try:
    return run(args)
  except (UserError, OSError) as error:
    parser.error(line(error))
  except KeyboardInterrupt:
    print('', file=sys.stderr)
    return 130


def _build(args: argparse.Namespace) -> int:
  from sr3_jax.runtime import progress as runtime_progress

  task = args.task or ('2' if args.inputs is None else 'both')
  if task != '2' and args.inputs is None:
    raise site_builder.StudyError('task 1 shows the inputs; give --inputs=DIR')
  outputs = {}
  for text in args.outputs:
    name, _, folder = text.partition('=')
    if not re.fullmatch(site_builder.NAME, name) or not folder:
      raise site_builder.StudyError(
        f'--outputs: {text!r} is not NAME=DIR, with a name of letters, digits and _.-'
      )
    if name in (
      *outputs,
      human_study_design.CHECK,
      human_study_design.PRACTICE,
      'real',
      'input',
    ):
      raise site_builder.StudyError(f'--outputs: the name {name!r} is taken')
    outputs[name] = site_builder.find(pathlib.Path(folder))
  truth = site_builder.find(args.truth)
  inputs = site_builder.find(args.inputs) if task != '2' else None
  folders = {'truth': truth, **outputs, **({'inputs': inputs} if inputs else {})}
  names, notes = site_builder.common(folders)
  try:
    design = human_study_design.make_design(
      names,
      list(outputs),
      TASKS[task],
      num_images=args.num_images,
      images_per_subject=args.images_per_subject,
      seed=args.seed,
    )
  except ValueError as error:
    raise site_builder.StudyError(str(error)) from None
  wanted = PAPER_SUBJECTS * len(design.tasks)
  subjects = args.subjects or -(-wanted // design.cycle) * design.cycle
  total = site_builder.count(design, inputs)
  with runtime_progress.Progress(total, unit='picture') as progress:
    key = site_builder.build(
      args.out,
      truth,
      outputs,
      inputs,
      design,
      subjects=subjects,
      seconds=args.seconds,
      post=args.post,
      contact=args.contact,
      on_picture=progress.update,
    )
  for note in notes:
    print(note)
  print(_summary(args, design, subjects, len(key.plans[0][1])))
  return 0


def _summary(
  args: argparse.Namespace,
  design: human_study_design.Design,
  subjects: int,
  trials: int,
) -> str:
  even = '' if subjects % design.cycle == 0 else ', which is not a multiple of it'
  checks = f'{len(design.checks)} attention check{"s" * (len(design.checks) > 1)}'
  tasks = ' and '.join(str(task) for task in design.tasks)
  return f"""\
task {tasks}: {len(design.images)} images, {len(design.methods)} methods
a subject: {trials} trials: {len(design.practice)} of practice, {design.per_subject} \
that count, {checks}
exactly even after every {design.cycle} subjects; plans for {subjects}{even}
site: {args.out} (publish this folder; index.html?subject=1 to ?subject={subjects})
key:  {site_builder.key_path(args.out)} (keep it out of reach: it says what is real)"""


def _serve(args: argparse.Namespace) -> int:
  if not (args.site / 'plan.js').is_file() or not (args.site / 'index.html').is_file():
    raise site_builder.StudyError(f'{args.site}: not a site that `build` made')
  try:
    server = human_study_server.make_server(args.site, args.port)
  except OSError as error:
    raise site_builder.StudyError(f'port {args.port}: {error.strerror}') from None
  if '"post":"/results"' not in (args.site / 'plan.js').read_text():
    print('note: built without --post=/results, so subjects download their results')
  folder = human_study_server.results_path(args.site)
  print(f'http://127.0.0.1:{server.server_port}/ (Ctrl+C ends it)\nresults: {folder}')
  sys.stdout.flush()
  with server:
    server.serve_forever()
  return 0


def _analyse(args: argparse.Namespace) -> int:
  key = site_builder.read_key(args.key)
  results, skipped = _read(args.results, key)
  for file, reason in skipped.items():
    print(f'skipped: {file}: {reason}', file=sys.stderr)
  if not results:
    raise site_builder.StudyError('no result of this study among these files')
  found = human_study_design.analyse(
    results,
    key.plans,
    key.seconds,
    max_failed=args.max_failed,
    keep_all=args.keep_all,
  )
  found = {'format': 1, 'study': key.study, 'seconds': key.seconds, **found}
  found['skipped'] = skipped
  if args.json:
    text = json.dumps(found, indent=2, allow_nan=False) + '\n'
    atomic_files.write_bytes(args.json, text.encode())
  print(human_study_report.report(found))
  return 0


def _read(
  paths: Sequence[pathlib.Path], key: site_builder.Key
) -> tuple[list[human_study_results.Result], dict[str, str]]:
  """Results that belong to the study, each session once; why others are skipped."""
  files = [f for p in paths for f in (sorted(p.glob('*.json')) if p.is_dir() else [p])]
  lengths = [len(trials) for _, trials in key.plans]
  results: dict[str, human_study_results.Result] = {}
  skipped = {}
  for file in files:
    name = str(file) if str(file).isprintable() else repr(str(file))
    try:
      if not file.is_file():  # reading a pipe would wait for ever
        raise human_study_results.ResultError('no such file')
      with file.open('rb') as stream:
        data = stream.read(human_study_results.MAX_BYTES + 1)
      result = human_study_results.parse(data)
      human_study_results.match(result, key.study, lengths)
      if result.id in results:
        raise human_study_results.ResultError('the same session is in another file')
      results[result.id] = result
    except OSError as error:
      skipped[name] = error.strerror or 'cannot be read'
    except human_study_results.ResultError as error:
      skipped[name] = str(error)
  return list(results.values()), skipped


# ------------------------------------------------------------------------ options


def _command(commands: Any, name: str, about: str) -> Any:
  parser = commands.add_parser(
    name,
    help=about,
    description=about[0].upper() + about[1:] + '.',
  )
  return parser.add_argument


if __name__ == '__main__':
  sys.exit(main())
