"""Measures what saving a checkpoint costs a training.

  python benchmarks/saving.py --config=configs/quickstart.py
  python benchmarks/saving.py --config=configs/quickstart.py --config.model.channels=128
  python benchmarks/saving.py --config=configs/quickstart.py --processes=2

It runs a real training in a temporary folder, with a save every few steps. It prints
the median step without a save, how long the training loop waits for a save, and what a
save costs in all, because the steps after it run while it is being written. Several
processes all run on this machine, and the figures are those of the first.
"""

import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import jax
from absl import app, flags
from etils import epath
from ml_collections import config_flags

from sr3_jax.runtime import devices, process_log, progress
from sr3_jax.training import train
from sr3_jax.weights import checkpoint

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file('config', None, 'Experiment.', lock_config=True)
flags.DEFINE_integer('saves', 12, 'How many; the first does not count: it compiles.')
flags.DEFINE_integer('every', 6, 'Steps between two of them.')
flags.DEFINE_string('cache', '', 'Folder of compiled programs.')
flags.DEFINE_integer('processes', 1, 'How many train together.')
flags.DEFINE_string('one_of', '', 'Set for each of several: RANK,PORT,FOLDER.')
flags.mark_flag_as_required('config')


def times(config, workdir) -> tuple[dict[int, float], list[float]]:
  """Train; return when each step was given to the devices, and the seconds of saves."""
  moments, saves = {}, []
  update, save = progress.Progress.update, checkpoint.save

  def note_moment(self, step, **values):
    moments[step] = time.monotonic()
    update(self, step, **values)

  def time_save(*args):
    # The wait for a step that is still being computed is no cost of the save.
    jax.block_until_ready(args[2])
    began = time.monotonic()
    save(*args)
    saves.append(time.monotonic() - began)

  progress.Progress.update, checkpoint.save = note_moment, time_save
  train.train(config, workdir)
  return moments, saves


def measure(config, workdir: epath.Path) -> None:
  """Train, and print what saving costs."""
  every = FLAGS.every
  config.train.num_steps = every * FLAGS.saves
  config.checkpoint.every_steps = config.train.log_every = every
  config.eval.every_steps = 0
  moments, held = times(config, workdir)
  if jax.process_index():
    return
  newest = pathlib.Path(workdir) / 'checkpoints' / str(config.train.num_steps)
  size = sum(p.stat().st_size for p in newest.rglob('*') if p.is_file())
  # The save of step s lies between the moments of s and s + 1. Most of the time it is
  # written before the second half of the way to the next save begins.
  saves = range(2 * every, config.train.num_steps, every)
  calm = [
    moments[s + i + 1] - moments[s + i] for s in saves for i in range(every // 2, every)
  ]
  step = statistics.median(calm)
  whole = [moments[s + every] - moments[s] - every * step for s in saves]
  print(
    f'{size / 2**20:.0f} MiB a checkpoint; a step takes {step:.3f} s (median)\n'
    f'{len(held) - 1} saves hold the loop up for {_steps(held[1:], step)}\n'
    f'and cost {_steps(whole, step)} in all'
  )


def main(arguments: list[str]) -> None:
  """Run the command."""
  del arguments
  with tempfile.TemporaryDirectory() as folder:
    if FLAGS.processes > 1 and not FLAGS.one_of:
      with socket.socket() as listener:
        listener.bind(('localhost', 0))
        port = listener.getsockname()[1]
      started = [
        subprocess.Popen(
          [sys.executable, *sys.argv, f'--one_of={rank},{port},{folder}']
        )
        for rank in range(FLAGS.processes)
      ]
      sys.exit(max(process.wait() for process in started))
    if FLAGS.one_of:
      rank, port, folder = FLAGS.one_of.split(',', 2)
      jax.config.update('jax_cpu_collectives_implementation', 'gloo')
      jax.distributed.initialize(f'localhost:{port}', FLAGS.processes, int(rank))
    process_log.setup()
    devices.cache_programs(FLAGS.cache)
    measure(FLAGS.config, epath.Path(folder) / 'run')


def _steps(seconds: list[float], step: float) -> str:
  """Return seconds as text, also as numbers of steps of so many seconds."""
  median = statistics.median(seconds)
  return (
    f'{median:.3f} s, {median / step:.2f} steps (median), '
    f'{max(seconds) / step:.2f} (longest)'
  )


if __name__ == '__main__':
  app.run(main)
