"""Lists all targets, and runs one with one seed."""

import pathlib
import random
import shutil
import signal
from collections.abc import Callable

from tests.fuzz import command_lines, configurations, pictures, stored

Target = Callable[[random.Random, pathlib.Path], str]
TARGETS: dict[str, Target] = {
  'configurations': configurations.attack,
  'pictures': pictures.attack,
  'command_lines': command_lines.attack,
  'models': stored.model,
  'stored_configurations': stored.configuration,
  'checkpoints': stored.one_checkpoint,
  'reports': stored.report,
  'arrays': stored.arrays,
}
# After so many seconds an attack counts as endless: of the processor, which a busy
# machine changes little, or of waiting.
SECONDS, PATIENCE = 120, 1800


def attack(name: str, seed: int, folder: pathlib.Path) -> str:
  """Run a target once; return the outcome. What it raises is a fault."""
  place = folder / f'{name}{seed}'
  place.mkdir()

  def stop(*_: object) -> None:
    raise TimeoutError(f'still at it after {SECONDS} s of work, or {PATIENCE} s')

  signals = signal.SIGALRM, signal.SIGPROF
  before = [signal.signal(number, stop) for number in signals]
  signal.alarm(PATIENCE)
  signal.setitimer(signal.ITIMER_PROF, SECONDS)
  try:
    return TARGETS[name](random.Random(f'{name} {seed}'), place)
  finally:
    signal.alarm(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    for number, handler in zip(signals, before, strict=True):
      signal.signal(number, handler)
    shutil.rmtree(place, ignore_errors=True)
