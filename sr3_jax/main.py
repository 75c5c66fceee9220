"""The program: `python -m sr3_jax.main --config=configs/quickstart.py --workdir=...`.

Short on purpose: flags in, hand over, one-line errors out. Everything else is in
modules that tests and notebooks import.
"""

import importlib.util
import os
import signal
import sys
import traceback

import jax
from absl import app, flags
from etils import epath
from ml_collections import config_flags

from sr3_jax.cascade import run as cascade_run
from sr3_jax.check_data import run as check_data_run
from sr3_jax.config import ConfigDict, get_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline
from sr3_jax.evaluation import run as evaluation_run
from sr3_jax.evaluation import summary, sweep
from sr3_jax.plan import run as plan_run
from sr3_jax.restoration import sample as restoration_sample
from sr3_jax.runtime import devices, errors, process_log
from sr3_jax.training import preemption, train
from sr3_jax.training import run as training_run
from sr3_jax.training.run import check
from sr3_jax.weights import hub

FLAGS = flags.FLAGS
MODES = ('train', 'eval', 'sample', 'sweep', 'reference', 'check-data', 'plan')

flags.DEFINE_string('workdir', None, 'Folder of the run: local or gs://.')
flags.DEFINE_enum(
  'mode',
  'train',
  MODES,
  'train: train or resume, then evaluate. eval: measure the newest checkpoint. '
  'sample: restore held-out images with it. sweep: find out how few sampling steps it '
  'needs, for upscale --steps=fast, balanced or best. reference: statistics of the '
  'training images for FID and KID. check-data: what is wrong with the images. '
  'plan: memory, time and cost on machines that are not here.',
)
flags.DEFINE_string(
  'cache',
  os.path.join(os.path.expanduser('~'), '.cache', 'sr3_jax', 'xla'),
  "Folder of compiled programs, which makes the next start fast; '' for none.",
)
config_flags.DEFINE_config_file(
  'config',
  None,
  'Experiment, e.g. configs/quickstart.py; --config.a.b=value overrides.',
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
  'With --multihost where JAX does not find out by itself (it does on Cloud TPU, SLURM '
  'and GKE): host:port of process 0.',
)
flags.DEFINE_integer('num_processes', None, 'With --coordinator: of all hosts.')
flags.DEFINE_integer('process_id', None, 'With --coordinator: number of this one.')
flags.DEFINE_integer(
  'process_timeout',
  100,
  'With --multihost: seconds after which a process that is not heard of is taken for '
  'dead, and all others end.',
)
flags.mark_flags_as_required(['config', 'workdir'])


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags; a mistake is one line that lists what is known."""
  for argument in argv:
    name, _, _ = argument.lstrip('-').partition('=')
    if name.startswith('config.'):
      check_key(name.removeprefix('config.'))
  try:
    return FLAGS(argv)
  except flags.Error as error:
    fail(error)
  except Exception as error:  # a config file is a program: anything may go wrong
    reason = ' '.join(str(error).split())
    fail(f'--config: {type(error).__name__}: {reason[-300:]}')


def check_key(name: str) -> None:
  """Refuses an override of a key that no configuration has."""
  known = get_config()
  for i, key in enumerate(name.split('.')):
    if not isinstance(known, ConfigDict) or key not in known:
      at = '.'.join(['config', *name.split('.')[:i]])
      keys = ', '.join(known) if isinstance(known, ConfigDict) else 'a value, no keys'
      fail(f'no key config.{name}; {at} has: {keys}')
    known = known[key]


def fail(message: str) -> None:
  """Ends the program with a one-line error."""
  line = ' '.join(str(message).split())
  sys.exit(f'error: {line}')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    fail(f'unexpected argument {argv[1]!r}; flags look like --name=value')
  process_log.setup()
  if FLAGS.workdir.startswith('gs://') and not importlib.util.find_spec('gcsfs'):
    fail("a workdir on gs:// needs gcsfs: pip install 'sr3_jax[gcs]'")
  if FLAGS.multihost:
    join()
  devices.keep_programs(FLAGS.cache)
  # Of several processes one may fail before there is a workdir, and nobody sees it.
  try:
    with process_log.kept(FLAGS.workdir, make=FLAGS.multihost):
      explained()
  except BaseException as error:
    # Who was asked to go has agreed with the others on it.
    if jax.process_count() == 1 or isinstance(error.__context__, preemption.Preempted):
      raise
    if isinstance(error, SystemExit):
      print(error.code, file=sys.stderr)
    else:
      traceback.print_exception(error)
    devices.give_up(1)


def explained() -> None:
  """Runs what the flags ask for; what goes wrong is one line."""
  try:
    run(FLAGS.config, epath.Path(FLAGS.workdir), FLAGS.mode)
  except errors.UserError as error:
    fail(error)
  except OSError as error:
    fail(f'{error.filename or FLAGS.workdir}: {error.strerror or error}')
  except preemption.Preempted as error:
    print(f'{error}', file=sys.stderr)
    sys.exit(128 + signal.SIGTERM)  # as of a program that SIGTERM ended
  except jax.errors.JaxRuntimeError as error:
    if jax.process_count() == 1:
      raise
    fail(
      'another process ended, or was cut off; start all of them again, they go on from '
      f'the newest checkpoint: {errors.first_line(error)[:200]}'
    )
  except KeyboardInterrupt:
    fail('interrupted; the same command goes on from what is finished')


def join() -> None:
  """Makes this process one of several."""
  given = (FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
  if any(value is not None for value in given) and None in given:
    fail('--coordinator, --num_processes and --process_id go together')
  try:
    jax.distributed.initialize(*given, heartbeat_timeout_seconds=FLAGS.process_timeout)
  except (ValueError, RuntimeError) as error:
    fail(f'--multihost: {errors.first_line(error)}')


def run(config: ConfigDict, workdir: epath.Path, mode: str) -> None:
  """What the flags ask for."""
  if config.cascade.stages:
    cascade_run.run(config, workdir, mode)
    return
  check(config)
  if mode == 'eval':
    evaluation_run.evaluate_run(config, workdir)
  elif mode == 'sample':
    restoration_sample.sample_run(config, workdir)
  elif mode == 'sweep':
    sweep.sweep_run(config, workdir)
  elif mode == 'reference':
    evaluation_run.reference_run(config, workdir)
  elif mode == 'check-data':
    check_data_run.check_data_run(config, workdir)
  elif mode == 'plan':
    plan_run.plan_run(config, workdir)
  elif results := training_run.finished(config, workdir):
    print(f'{workdir}: finished, {results["step"]} steps; nothing left to do')
    print(summary.format_table(results['table']))
  else:
    # A mistake there must not come to light when the training is over. (Without a path
    # of their own the held-out images are those of training, checked in a moment.)
    if config.data.eval_path or config.data.source != 'folder':
      input_pipeline.evaluation_data(config, limit=1).close()
    if config.regression_steps and config.method != 'regression':
      # The same for the weights that the second training starts from.
      if config.train.init_from and not hub.is_run(workdir):
        hub.load_weights(config.train.init_from, SR3.from_config(config))
      train.train(train.regression_config(config), workdir / 'regression')
    train.train(config, workdir)
    evaluation_run.evaluate_run(config, workdir)


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
