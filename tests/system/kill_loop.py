"""Kills a training run many times and compares its end with an undisturbed run.

    python tests/system/kill_loop.py --kills=20 --seed=0

It runs the main program once undisturbed and once with `kill -9` at random moments:
while it starts, between steps, and while it saves. Then it compares the last
checkpoints bit for bit (parameters, average, optimizer, position in the data) and
metrics.jsonl line by line. It prints one line and exits with 1 if anything differs.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

ROOT = pathlib.Path(__file__).parents[2]
CLOCKS = ('time', 'images_per_second', 'input_wait_seconds')
PARTS = ('params', 'ema', 'optimizer')


def start(workdir: pathlib.Path, num_steps: int, log) -> subprocess.Popen:
  """Start the main program, by the same command every time."""
  command = [sys.executable, '-m', 'sr3_jax.main', '--config=tests/support/runs.py']
  command += [f'--config.train.num_steps={num_steps}', '--config.train.log_every=1']
  command += ['--config.checkpoint.every_steps=3', '--config.eval.every_steps=20']
  command += [f'--workdir={workdir}', f'--cache={workdir.parent / "xla"}']
  return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def last_step(workdir: pathlib.Path) -> int:
  """Return the step of the last whole line of metrics.jsonl; 0 without any."""
  path = workdir / 'metrics.jsonl'
  text = path.read_text() if path.exists() else ''
  lines = [line for line in text.splitlines(keepends=True) if line.endswith('\n')]
  return json.loads(lines[-1])['step'] if lines else 0


def unfinished(workdir: pathlib.Path) -> set[str]:
  """Return names of checkpoints that are being written, or were when the run died."""
  folder = workdir / 'checkpoints'
  names = os.listdir(folder) if folder.exists() else []
  return {name for name in names if not name.isdigit()}


def newest(workdir: pathlib.Path) -> int:
  """Return the step of the newest complete checkpoint; 0 without any."""
  folder = workdir / 'checkpoints'
  names = os.listdir(folder) if folder.exists() else []
  return max((int(name) for name in names if name.isdigit()), default=0)


def kill_at(
  process: subprocess.Popen,
  workdir: pathlib.Path,
  when: str,
  startup: float,
  rng: random.Random,
) -> float | None:
  """Kill a run at a random moment of the kind `when`.

  Args:
    process: the run, just started.
    workdir: the folder of the run.
    when: 'starting', 'stepping' or 'saving'.
    startup: approximate seconds from the start to the first step.
    rng: chooses the moment.

  Returns:
    Seconds until the first step; None if the run was killed before it.
  """
  metrics = workdir / 'metrics.jsonl'

  def time_written():
    return metrics.stat().st_mtime_ns if metrics.exists() else 0

  began, first = time.monotonic(), None
  resumed, torn, stamp = newest(workdir), unfinished(workdir), time_written()
  deadline = began + rng.random() * startup
  enough = resumed + rng.randint(1, 12)
  pause = rng.random() * {'starting': 0.0, 'stepping': 0.03, 'saving': 0.1}[when]
  while process.poll() is None:
    step = last_step(workdir)
    # The start drops lines beyond the checkpoint, and the run writes them again.
    if first is None and time_written() != stamp and step > resumed:
      first = time.monotonic() - began
    if (
      (when == 'starting' and (first or time.monotonic() > deadline))
      or (when == 'stepping' and first and step >= enough)
      or (when == 'saving' and first and unfinished(workdir) - torn)
    ):
      time.sleep(pause)
      process.send_signal(signal.SIGKILL)
      break
    time.sleep(0.002)
  if process.wait() != -signal.SIGKILL:
    sys.exit(f'the run ended by itself with {process.returncode}, before it was killed')
  return first


def contents(workdir: pathlib.Path) -> tuple[int, dict[str, np.ndarray], object]:
  """Return step, arrays by name, and data position of the newest checkpoint."""
  with ocp.CheckpointManager(workdir / 'checkpoints') as manager:
    step = manager.latest_step()
    args = {name: ocp.args.StandardRestore() for name in PARTS}
    restored = manager.restore(step, args=ocp.args.Composite(**args))
  leaves = jax.tree_util.tree_leaves_with_path({name: restored[name] for name in PARTS})
  arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
  position = workdir / 'checkpoints' / str(step) / 'data' / 'metadata'
  return step, arrays, json.loads(position.read_text())


def log_lines(workdir: pathlib.Path) -> list[dict[str, object]]:
  """Return the lines of metrics.jsonl without times and speeds."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Return the names of what differs between the ends of two runs."""
  (step, arrays, position), (step2, arrays2, position2) = map(contents, (one, other))
  found = []
  if step != step2:
    found.append(f'step {step} and {step2}')
  if position != position2:
    found.append(f'data position {position} and {position2}')
  if arrays.keys() != arrays2.keys():
    found.append('names of arrays')
  else:
    found += [name for name in arrays if not same_bits(arrays[name], arrays2[name])]
  if log_lines(one) != log_lines(other):
    found.append('metrics.jsonl')
  return found


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
  """Return whether two arrays are equal bit for bit; NaN equals the same NaN."""
  return (one.shape, one.dtype, one.tobytes()) == (
    other.shape,
    other.dtype,
    other.tobytes(),
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--seed', type=int, default=0, help='seed of the moments')
  parser.add_argument(
    '--folder', type=pathlib.Path, help='where files stay; default a temporary folder'
  )
  options = parser.parse_args()
  rng = random.Random(options.seed)
  num_steps = 5 * options.kills + 20
  with tempfile.TemporaryDirectory() as temporary:
    folder = (options.folder or pathlib.Path(temporary)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    straight, killed = folder / 'straight', folder / 'killed'
    began = time.monotonic()
    with open(folder / 'log.txt', 'w') as log:
      if start(straight, num_steps, log).wait():
        sys.exit(f'the undisturbed run failed, see {folder / "log.txt"}')
      startup, kinds, torn = 20.0, collections.Counter(), 0
      for i in range(options.kills):
        # Close to the end of the run, only a kill at the start is still possible.
        when = rng.choice(['starting', 'stepping', 'stepping', 'saving'])
        if newest(killed) > num_steps - 15:
          when = 'starting'
        before = unfinished(killed)
        first = kill_at(start(killed, num_steps, log), killed, when, startup, rng)
        startup = first or startup
        kinds['starting' if first is None else when] += 1
        torn += bool(unfinished(killed) - before)
        print(f'kill {i + 1}: {when}, checkpoint of step {newest(killed)}', flush=True)
      if start(killed, num_steps, log).wait():
        sys.exit(f'the run does not continue, see {folder / "log.txt"}')
    found = differences(straight, killed)
    seconds = time.monotonic() - began
  summary = (
    f'{options.kills} kills (' + ', '.join(f'{n} {when}' for when, n in kinds.items())
  ) + f'; {torn} left a torn checkpoint), {num_steps} steps, {seconds:.0f} s: '
  if found:
    sys.exit(f'{summary}DIFFERENT: {", ".join(found)}')
  print(f'{summary}equal to the undisturbed run, bit for bit')


if __name__ == '__main__':
  main()
