"""Kills every command that writes, again and again, and compares what it leaves.

    python -m tests.system.kill_commands --kills=100 --seed=0

Each command runs once undisturbed, and then with `kill -9` at random moments: anywhere
from its start on, or inside of a write (`tests/support/killed_writes.py`). The same
command is given again until it ends. Then every file must be there, hold the same, and
no other: no temporary file, no lock. It prints a line for each kill and exits with 1 if
anything differs. `kill_loop.py` does the same with long trainings, bit for bit.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]
RUN = ['sr3_jax.main', '--config=tests/support/runs.py', '--workdir={out}']
RUN += [
  '--cache={base}/xla',
  '--config.eval.every_steps=5',
  '--config.train.log_every=1',
]
PICTURES = ['sr3_jax.upscale', '{base}/in', '-o', '{out}', '-m', '{base}/model']
# What is run; its name in front of a '+' is that of a folder that it starts from.
COMMANDS = {
  'upscale': [*PICTURES, '--steps=2', '--cache={base}/xla', '--compare'],
  'samples': [*PICTURES, '--cache={base}/xla', '--num_samples=2', '--spread'],
  'evaluate': [
    *('sr3_jax.evaluation', '--truth={base}/in', '--outputs', 'a={base}/worse'),
    *('--report={out}', '--networks', '--batch_size=2', '--cache={base}/xla'),
  ],
  'run+eval': [*RUN, '--mode=eval', '--config.eval.save_images=True'],
  'run+sample': [*RUN, '--mode=sample'],
  'run+sweep': [
    *(*RUN, '--mode=sweep', '--config.sweep.num_steps=(1,2)'),
    *('--config.sweep.num_images=8', '--config.sweep.search_steps=0'),
  ],
  'check-data': [*RUN, '--mode=check-data'],
  'train': [*RUN, '--config.train.num_steps=10'],
  'cascade': [
    *(*RUN, '--mode=sample', '--config.cascade.stages=("{base}/one","{base}/two")'),
    '--config.cascade.images_per_class=2',
  ],
}
# What says how long something took, when, or where; and what another loop compares.
CLOCKS = (
  *('logs/', 'timing/', 'heartbeat/', 'report.html', 'times.json'),
  *('checkpoints/', 'checkpoints.json'),
)
KEYS = ('command', 'time', 'images_per_second', 'input_wait_seconds', 'curves')
ENDS = {0, -9}


def prepare(base: pathlib.Path) -> None:
  """Make what the commands read: pictures, a run, its model folder, two stages."""
  sys.path.insert(0, str(ROOT))
  from tests.support import cascades, model_folders

  model_folders.make(base / 'run', base / 'model')
  shutil.rmtree(base / 'run' / 'report', ignore_errors=True)
  for name in ('results.json', 'presets.json'):
    (base / 'run' / name).unlink(missing_ok=True)
  cascades.save(base / 'one', cascades.stage_config(8), 1)
  cascades.save(base / 'two', cascades.stage_config(16, **cascades.UP), 2)
  rng = np.random.default_rng(0)
  for folder in ('in', 'worse'):
    (base / folder).mkdir()
    for i in range(5):
      pixels = rng.integers(0, 256, (16 + i, 20, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(base / folder / f'{i}.png')


class Command:
  """A command of `COMMANDS` with its outputs in the folder `out`."""

  def __init__(self, name: str, base: pathlib.Path, out: pathlib.Path):
    self._out, self._base = out, base
    self._changes = base / 'changes'
    module, *arguments = COMMANDS[name]
    self._rest = [module, *(a.format(base=base, out=out) for a in arguments)]
    if '+' in name:
      shutil.copytree(base / name.partition('+')[0], out)

  def run(self, at: int = 0, seconds: float | None = None) -> tuple[int, int]:
    """Run it, with a kill at a change or after seconds; return its code and changes."""
    command = [sys.executable, '-m', 'tests.support.killed_writes']
    with open(self._base / 'log.txt', 'w') as log:
      process = subprocess.Popen(
        [*command, str(self._out), str(at), *self._rest],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'CHANGES': str(self._changes)},
        stdout=log,
        stderr=log,
      )
      try:
        code = process.wait(seconds)
      except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code not in ENDS:
      sys.exit(f'{self._rest}: exit code {code}\n{self.said()}')
    size = self._changes.stat().st_size if self._changes.exists() else 0
    return code, size

  def said(self) -> str:
    """Return the last output."""
    return (self._base / 'log.txt').read_text()[-3000:]


def read(path: pathlib.Path) -> object:
  """Return what a file says, in a form that is the same for equal results."""
  if path.suffix == '.png':
    return np.asarray(Image.open(path)).astype(int)
  if path.suffix in ('.npz', '.npy'):
    found = np.load(path)
    return {k: found[k] for k in found.files} if path.suffix == '.npz' else found
  if path.suffix == '.json':
    return without_clocks(json.loads(path.read_text()))
  if path.suffix == '.jsonl':
    return [without_clocks(json.loads(x)) for x in path.read_text().splitlines()]
  return path.read_bytes()


def without_clocks(value: object) -> object:
  """Return JSON without what depends on time."""
  if isinstance(value, dict):
    return {k: without_clocks(v) for k, v in value.items() if k not in KEYS}
  return [without_clocks(v) for v in value] if isinstance(value, list) else value


def same(one: object, other: object) -> bool:
  """Return whether two results are equal, but for rounding of numbers and pixels."""
  if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
    if one.shape != other.shape or one.dtype != other.dtype:
      return False
    if one.dtype.kind not in 'fiu':
      return np.array_equal(one, other)
    # Pictures of a resumed command are in other batches, which rounds differently.
    return np.allclose(one, other, rtol=1e-3, atol=1 if one.ndim == 3 else 1e-4)
  if isinstance(one, dict) and isinstance(other, dict):
    return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
  if isinstance(one, list) and isinstance(other, list):
    return len(one) == len(other) and all(map(same, one, other))
  if isinstance(one, float) and isinstance(other, int | float):
    return bool(np.isclose(one, other, rtol=1e-3, atol=1e-4))
  return one == other


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
  """Return the names of files that only one folder has, or that differ."""

  def names(folder: pathlib.Path) -> set[str]:
    files = (p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
    return {name for name in files if not any(clock in name for clock in CLOCKS)}

  found = sorted(names(one) ^ names(other))
  both = sorted(names(one) & names(other))
  return found + [n for n in both if not same(read(one / n), read(other / n))]


def loop(name: str, base: pathlib.Path, kills: int, rng: random.Random) -> str:
  """Kill a command so often, and again to its end; return a line about it."""
  # Reports have the name of the folder in their title.
  straight, out = base / 'straight' / name, base / 'killed' / name
  began = time.monotonic()
  code, changes = Command(name, base, straight).run()
  if code:
    sys.exit(f'{name}: {code}')
  whole = time.monotonic() - began
  done, ends, kinds = 0, 0, collections.Counter()
  while done < kills:
    command, code = Command(name, base, out), -9
    while code and done < kills:
      kind = rng.choice(['moment', 'write', 'write'])
      if kind == 'write':
        code, _ = command.run(at=rng.randint(1, changes))
      else:
        code, _ = command.run(seconds=rng.random() * whole)
      if code:
        done += 1
        kinds[kind] += 1
        print(f'{name}: kill {done}, {kind}', flush=True)
    while code:
      code, _ = command.run()
    ends += 1
    if found := differences(straight, out):
      sys.exit(f'{name}: DIFFERENT in {out}: {", ".join(found[:10])}')
    said = command.said()
    if 'Traceback' in said or 'rror reading' in said:
      sys.exit(f'{name}: the last start says:\n{said}')
    shutil.rmtree(out)
  counts = ', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))
  return f'{name}: {done} kills ({counts}), {ends} ends equal to the undisturbed one'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=10, help='of each command')
  parser.add_argument('--seed', type=int, default=0, help='seed of the moments')
  parser.add_argument('--commands', nargs='+', choices=COMMANDS, default=[*COMMANDS])
  parser.add_argument('--folder', type=pathlib.Path, help='where files stay')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    base = (options.folder or pathlib.Path(temporary)).resolve()
    base.mkdir(parents=True, exist_ok=True)
    prepare(base)
    for name in options.commands:
      rng = random.Random(f'{options.seed} {name}')
      print(loop(name, base, options.kills, rng), flush=True)


if __name__ == '__main__':
  main()
