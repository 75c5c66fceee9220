"""Builds, serves and analyses a human study, as `sr3-study` asks for it."""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Sequence

from sr3_jax.human_study import design, report, results, server, site_builder
from sr3_jax.human_study.design import CHECK, PRACTICE, Design
from sr3_jax.human_study.results import Result, ResultError
from sr3_jax.human_study.site_builder import Key, StudyError
from sr3_jax.images import image_names
from sr3_jax.runtime import activity, atomic_files, foreign_files
from sr3_jax.runtime.printing import one_line, printable
from sr3_jax.runtime.progress import Progress

TASKS = {'1': (1,), '2': (2,), 'both': (1, 2)}
PAPER_SUBJECTS = 50  # of each task


def build(args: argparse.Namespace) -> None:
  """Make the site and its key; print what they are.

  Raises:
    UserError: folders that don't fit together, too few images, or a taken place.
  """
  task = args.task or ('2' if args.inputs is None else 'both')
  if task != '2' and args.inputs is None:
    raise StudyError('task 1 shows the inputs; give --inputs=DIR')
  outputs = _outputs(args.outputs)
  truth = image_names.find(args.truth, nested=False)
  inputs = image_names.find(args.inputs, nested=False) if task != '2' else None
  folders = {'truth': truth, **outputs, **({'inputs': inputs} if inputs else {})}
  names, notes = site_builder.common(folders)
  study = design.make_design(
    names,
    list(outputs),
    TASKS[task],
    num_images=args.num_images,
    images_per_subject=args.images_per_subject,
    seed=args.seed,
  )
  wanted = PAPER_SUBJECTS * len(study.tasks)
  subjects = args.subjects or -(-wanted // study.cycle) * study.cycle
  with Progress(site_builder.count(study, inputs), unit='picture') as progress:
    key = site_builder.build(
      args.out,
      site_builder.Pictures(truth, outputs, inputs),
      study,
      subjects=subjects,
      seconds=args.seconds,
      post=args.post,
      contact=args.contact,
      on_picture=progress.update,
    )
  for note in notes:
    print(one_line(note))
  print(_summary(args.out, study, subjects, len(key.plans[0][1])))


def _outputs(texts: Sequence[str]) -> dict[str, site_builder.Folder]:
  """Return the folders of --outputs by method."""
  found: dict[str, site_builder.Folder] = {}
  for text in texts:
    name, _, folder = text.partition('=')
    if not re.fullmatch(site_builder.NAME, name) or not folder:
      raise StudyError(
        f'--outputs: {text!r} is not NAME=DIR, with a name of letters, digits and _.-'
      )
    if name in (*found, CHECK, PRACTICE, 'real', 'input'):
      raise StudyError(f'--outputs: the name {name!r} is taken')
    found[name] = image_names.find(pathlib.Path(folder), nested=False)
  return found


def _summary(site: pathlib.Path, study: Design, subjects: int, trials: int) -> str:
  """Return what was built, as text."""
  even = ', which is not a multiple of it' if subjects % study.cycle else ''
  count = len(study.checks)
  checks = '1 attention check' if count == 1 else f'{count} attention checks'
  tasks = ' and '.join(str(task) for task in study.tasks)
  return f"""\
task {tasks}: {len(study.images)} images, {len(study.methods)} methods
a subject: {trials} trials: {len(study.practice)} of practice, {study.per_subject} \
that count, {checks}
exactly even after every {study.cycle} subjects; plans for {subjects}{even}
site: {site} (publish this folder; index.html?subject=1 to ?subject={subjects})
key:  {site_builder.key_path(site)} (keep it out of reach: it says what is real)"""


def serve(args: argparse.Namespace) -> None:
  """Serve a site until it is interrupted.

  Raises:
    StudyError: no site, or a port that is taken.
  """
  if not (args.site / 'plan.js').is_file() or not (args.site / 'index.html').is_file():
    raise StudyError(f'{args.site}: not a site that `build` made')
  try:
    found = server.make_server(args.site, args.port)
  except OSError as error:
    raise StudyError(f'port {args.port}: {error.strerror}') from None
  plan = foreign_files.read_text(args.site / 'plan.js', error=StudyError)
  if '"post":"/results"' not in plan:
    print('note: built without --post=/results, so subjects download their results')
  folder = server.results_path(args.site)
  print(f'http://127.0.0.1:{found.server_port}/ (Ctrl+C ends it)\nresults: {folder}')
  sys.stdout.flush()
  with found:
    found.serve_forever()


def analyse(args: argparse.Namespace) -> None:
  """Print what the results of a study say; write it as JSON if that is asked for.

  Raises:
    StudyError: no key, or not one result of this study.
  """
  key = site_builder.read_key(args.key)
  with activity.doing('reading the results'):
    whole, skipped = read_results(args.results, key)
  for file, reason in skipped.items():
    print(one_line(f'skipped: {file}: {reason}'), file=sys.stderr)
  if not whole:
    raise StudyError('no result of this study among these files')
  found = {
    'format': 1,
    'study': key.study,
    'seconds': key.seconds,
    **design.analyse(
      whole, key.plans, key.seconds, max_failed=args.max_failed, keep_all=args.keep_all
    ),
    'skipped': skipped,
  }
  if args.json:
    text = json.dumps(found, indent=2, allow_nan=False) + '\n'
    atomic_files.write_text(args.json, text)
  print(report.report(found))


def read_results(
  paths: Sequence[pathlib.Path], key: Key
) -> tuple[list[Result], dict[str, str]]:
  """Read results that belong to the study, each session once, from files and folders.

  Returns:
    The results, and file -> reason of those that were skipped.
  """
  files = [f for p in paths for f in (sorted(p.glob('*.json')) if p.is_dir() else [p])]
  lengths = [len(trials) for _, trials in key.plans]
  found: dict[str, Result] = {}
  skipped = {}
  for file in files:
    name = printable(file)
    try:
      with foreign_files.explained(file, 'a result', ResultError):
        data = foreign_files.read_bytes(file, results.MAX_BYTES)
      result = results.parse(data)
      results.match(result, key.study, lengths)
      if result.id in found:
        raise ResultError('the same session is in another file')
      found[result.id] = result
    except ResultError as error:
      skipped[name] = str(error).removeprefix(f'{file}: ')
  return list(found.values()), skipped
