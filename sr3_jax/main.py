"""The program: `sr3-train --config=quickstart --workdir=runs/quickstart`.

`python -m sr3_jax.main` is the same. Flags come in, the room of one mode is imported
and called, and a mistake of the user goes out as one line.
"""

if __name__ == '__main__':  # before the imports, which a signal may interrupt
  import sys

  from sr3_jax.runtime import start

  sys.exit(start.train())

import contextlib
import importlib
import os
import re
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from sr3_jax import config as configs
from sr3_jax.config import ConfigDict, config_names, find_config, load_config
from sr3_jax.runtime import activity, caches, errors, printing
from sr3_jax.runtime.cli import version_of
from sr3_jax.runtime.values import Name, Whole, shown

if TYPE_CHECKING:
  from etils import epath

FLAGS = flags.FLAGS
# Mode -> the function that does it: called with the configuration and the workdir.
MODES = {
  'train': 'sr3_jax.training.run:train_run',
  'eval': 'sr3_jax.evaluation.run:evaluate_run',
  'sample': 'sr3_jax.restoration.sample:sample_run',
  'sweep': 'sr3_jax.evaluation.sweep:sweep_run',
  'reference': 'sr3_jax.evaluation.run:reference_run',
  'check-data': 'sr3_jax.check_data.run:check_data_run',
  'plan': 'sr3_jax.plan.run:plan_run',
}
# Modes that write the same files exclude each other; all others may run beside them.
LOCKS = {'train': 'run', 'eval': 'run'}
HELP = ('-h', '-help', '--help', '--helpshort', '--helpfull')
# Options of all commands, as absl has them.
COMMON = {
  '-q': '--verbosity=-1',
  '--quiet': '--verbosity=-1',
  '-v': '--verbosity=1',
  '--verbose': '--verbosity=1',
}
FLAG_NAMES = (
  *('config', 'workdir', 'mode', 'cache'),
  *('multihost', 'coordinator', 'num_processes', 'process_id', 'process_timeout'),
)

# What to do where memory runs out.
LESS_MEMORY = (
  'a smaller --config.train.batch_size (or eval.batch_size), '
  '--config.train.accumulate=2 or --config.model.remat=True needs less; --mode=plan '
  '--config.plan.topology=cpu says how much'
)
# Flags of a kind that absl doesn't check.
KINDS = {
  'workdir': Name(),
  'num_processes': Whole(1, 2**20),
  'process_id': Whole(0, 2**20),
  'process_timeout': Whole(1),
}

flags.DEFINE_string('workdir', None, 'Folder of the run: local or gs://.')
flags.DEFINE_enum(
  'mode',
  'train',
  [*MODES],
  'train: train or resume, then evaluate. eval: measure the newest checkpoint. '
  'sample: restore held-out images with it. sweep: find out how few sampling steps it '
  'needs, for upscale --steps=fast, balanced or best. reference: statistics of the '
  'training images for FID and KID. check-data: what is wrong with the images. '
  'plan: memory, time and cost on machines that are not here.',
)
flags.DEFINE_string(
  'cache',
  caches.programs(),
  "Folder of compiled programs, which makes the next start fast; '' for none.",
)
config_flags.DEFINE_config_file(
  'config',
  None,
  'Experiment: a name, e.g. quickstart, or a file; --config.a.b=value overrides.',
  lock_config=True,
)
flags.DEFINE_bool(
  'multihost',
  False,
  'This is one process of several (pod slice, SLURM): jax.distributed.initialize().',
)
flags.DEFINE_string(
  'coordinator',
  None,
  'With --multihost: host:port of process 0. JAX finds it on Cloud TPU, SLURM and GKE.',
)
flags.DEFINE_integer(
  'num_processes', None, 'With --coordinator: number of all processes.'
)
flags.DEFINE_integer(
  'process_id', None, 'With --coordinator: number of this one, from 0.'
)
flags.DEFINE_integer(
  'process_timeout',
  100,
  'With --multihost: a process that is silent for so many seconds counts as dead, '
  'and all others end.',
)


def parse_flags(argv: list[str]) -> list[str]:
  """Parse the flags; print the help if it is asked for, or one line about a mistake."""
  printing.guard()
  if any(argument in HELP for argument in argv[1:]):
    print(help_text())
    sys.exit(0)
  if '--version' in argv[1:]:
    print(version_of('sr3-train'))
    sys.exit(0)
  given, argv = argv, as_absl(argv)
  if given is sys.argv:  # where the flag of the configuration looks for its keys
    sys.argv = argv
  try:
    for argument in argv[1:]:
      name, _, _ = argument.lstrip('-').removeprefix('no').partition('=')
      if argument.startswith('-') and name.startswith('config.'):
        configs.find_option(name.removeprefix('config.'))
    argv = with_config_path(argv)
  except ValueError as error:
    fail(f'--config: {error}')
  except Exception as error:  # a config file is a program: anything may go wrong
    fail(f'--config: {configs.explain(error)}')
  try:
    # A configuration is a program, too.
    with activity.shown('sr3-train', quiet='--verbosity=-1' in argv):
      rest = FLAGS(argv)
  except flags.Error as error:
    fail(explain_flag(error))
  for name, kind in KINDS.items():
    value = FLAGS[name].value
    if value is not None and not kind.fits(value):
      fail(f'--{name}={value} must be {kind}')
  missing = [f'--{name}' for name in ('config', 'workdir') if FLAGS[name].value is None]
  if missing:
    fail(
      f'{" and ".join(missing)} missing, as in sr3-train --config=quickstart '
      '--workdir=runs/quickstart; --help shows all flags'
    )
  try:
    configs.check_values(FLAGS.config)
  except configs.ConfigError as error:
    fail(error)
  return rest


def as_absl(argv: list[str]) -> list[str]:
  """Return the arguments as absl knows them.

  Names of flags, also of --config.a.b, may have hyphens in place of underscores. -q and
  -v stand for levels of absl's --verbosity, whose short form is -v, too: -v 1.
  """
  found = []
  for i, argument in enumerate(argv):
    if argument == '--':
      return found + argv[i:]
    following = argv[i + 1] if i + 1 < len(argv) else ''
    if argument != '-v' or not following.lstrip('-').isdigit():
      argument = COMMON.get(argument, argument)
    if argument.startswith('--'):
      name, equals, value = argument[2:].partition('=')
      argument = f'--{name.replace("-", "_")}{equals}{value}'
    found.append(argument)
  return found


def with_config_path(argv: list[str]) -> list[str]:
  """Return the arguments with the path of the configuration in place of its name.

  The file is run, as absl would hide in which of its lines it fails.
  """
  argv = list(argv)
  for i, argument in enumerate(argv):
    flag, equals, name = argument.partition('=')
    if flag.lstrip('-') != 'config' or not flag.startswith('-'):
      continue
    if equals:
      argv[i] = f'{flag}={find_config(name)}'
    elif i + 1 < len(argv):
      name = argv[i + 1]
      argv[i + 1] = find_config(name)
    load_config(name)
  return argv


def help_text() -> str:
  """Return what --help prints: the flags of this program with their meanings."""
  lines = ['Usage: sr3-train --config=NAME --workdir=FOLDER [--mode=MODE] [...]', '']
  for name in FLAG_NAMES:
    flag = FLAGS[name]
    default = '' if flag.default in (None, False) else f' Default: {flag.default}.'
    text = f'--{name}: {flag.help}{default}'
    lines += textwrap.wrap(text, 80, subsequent_indent='    ')
  lines += [
    '-q, --quiet: only warnings, errors and results.',
    '-v, --verbose: how long each part took, and what libraries log.',
    '--version: print the version and end.',
  ]
  names = f'Configurations by name: {", ".join(config_names())}.'
  lines += ['', *textwrap.wrap(names, 80, break_on_hyphens=False)]
  lines += ['', 'Every --config.KEY, its default, range and meaning: docs/options.md.']
  return '\n'.join(lines)


def explain_flag(error: flags.Error) -> str:
  """Return what is wrong with a flag, in one line."""
  found = re.match(r'flag --config\.([\w.]+)=(.*?): ', str(error), re.DOTALL)
  if found:
    name, given = found.groups()
    return str(configs.refused(name, configs.find_option(name), shown(given)))
  found = re.match(r'flag --(\w+)=(.*?): ', str(error), re.DOTALL)
  if found and found[1] in KINDS:
    return f'--{found[1]}={found[2]} must be {KINDS[found[1]]}'
  return f'{error}; --help shows all flags'


def fail(error: BaseException | str) -> NoReturn:
  """End the program with a one-line error."""
  sys.exit(f'error: {printing.one_line(error)}')


def main(argv: list[str]) -> None:
  """Run what the flags ask for.

  Raises:
    SystemExit: a mistake, in one line; or 130 or 143 after a signal, with a checkpoint
      saved.
  """
  if len(argv) > 1:
    fail(f'unexpected argument {argv[1]!r}; flags look like --name=value')
  if os.path.isfile(FLAGS.workdir):
    fail(f'--workdir={FLAGS.workdir} is a file; name a folder, which may be new')
  first = not FLAGS.multihost or not FLAGS.process_id
  quiet = FLAGS.verbosity < 0 or not first
  activity.tell_all(FLAGS.verbosity > 0)
  with activity.shown(f'sr3-train --mode={FLAGS.mode}', quiet=quiet):
    begin()


def begin() -> None:
  """Start JAX, the logs and other processes; then run the mode."""
  # From here on JAX is needed, which takes most of a second to import.
  with activity.doing('loading JAX'):
    from sr3_jax.runtime import devices, process_log

  process_log.setup()
  check_places()
  if FLAGS.multihost:
    with activity.doing('waiting for the other processes'):
      join_processes()
  try:
    devices.start(FLAGS.cache)
  except errors.UserError as error:
    fail(error)
  # Of several processes one may fail before there is a workdir, and nobody sees it.
  with (
    devices.all_end_together(),
    process_log.in_workdir(FLAGS.workdir, make=FLAGS.multihost),
  ):
    run_or_explain()


def run_or_explain() -> None:
  """Run the mode; turn what a user can mend into one line."""
  import jax
  from etils import epath

  from sr3_jax.runtime import folder_lock

  try:
    with contextlib.ExitStack() as stack:
      if jax.process_index() == 0:  # it has the folder for all processes of the run
        written = LOCKS.get(FLAGS.mode, FLAGS.mode)
        stack.enter_context(folder_lock.owned(FLAGS.workdir, written))
      run(FLAGS.config, epath.Path(FLAGS.workdir), FLAGS.mode)
  except errors.UserError as error:
    fail(error)
  except OSError as error:
    fail(f'{error.filename or FLAGS.workdir}: {errors.reason(error)}')
  except errors.Preempted as error:
    print(f'{error}', file=sys.stderr)
    sys.exit(128 + error.signal)  # as of a program that the signal ended
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    explained = errors.of_machine(error, LESS_MEMORY)
    if jax.process_count() > 1 and not errors.out_of_memory(error):
      explained = (
        'another process ended, or was cut off; start all of them again, they go on '
        f'from the newest checkpoint: {errors.first_line(error)[:200]}'
      )
    logging.debug('Where it failed:', exc_info=True)  # -v shows it, and the log has it
    fail(explained or error)


def check_places() -> None:
  """Refuse addresses in the flags that this machine cannot reach."""
  from flax import traverse_util

  from sr3_jax.config import as_json
  from sr3_jax.runtime import foreign_files

  given = traverse_util.flatten_dict(as_json(FLAGS.config), sep='.')
  for name, value in {'workdir': FLAGS.workdir, **given}.items():
    for text in value if isinstance(value, list) else [value]:
      if isinstance(text, str) and '://' in text and not text.startswith('hf://'):
        try:
          foreign_files.place(text)
        except foreign_files.FileError as error:
          fail(f'--{name if name == "workdir" else f"config.{name}"}={error}')


def join_processes() -> None:
  """Make this process one of several, by the flags and `jax.distributed`."""
  import jax

  given = (FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
  if any(value is not None for value in given) and None in given:
    fail('--coordinator, --num_processes and --process_id go together')
  # With it SIGTERM only asks, which nothing but a training loop answers.
  jax.config.update('jax_enable_preemption_service', FLAGS.mode == 'train')
  try:
    jax.distributed.initialize(*given, heartbeat_timeout_seconds=FLAGS.process_timeout)
  except (ValueError, RuntimeError) as error:
    fail(f'--multihost: {errors.first_line(error)}')
  if jax.process_index():
    activity.silence()


def run(config: ConfigDict, workdir: 'epath.Path', mode: str) -> None:
  """Check the configuration; import the room of a mode and call its function."""
  with activity.doing('loading the program'):
    from sr3_jax.core.relations import check_relations
  check_relations(config)
  if config.cascade.stages:
    with activity.doing('loading the program'):
      from sr3_jax.cascade import run as cascade
    cascade.run(config, workdir, mode)
    return
  from sr3_jax.weights import model_files

  model_files.keep_ways(config, workdir)
  module, function = MODES[mode].split(':')
  with activity.doing('loading the program'):
    loaded = importlib.import_module(module)
  getattr(loaded, function)(config, workdir)


def cli() -> None:
  """Run the program: the console script sr3-train."""
  app.run(main, flags_parser=parse_flags)
