"""Runs targets for as long as is asked for: `python -m tests.fuzz --minutes=60`.

Prints how often each outcome came, and every fault with its seed, which makes it again:
`python -m tests.fuzz pictures --seed=123`. Exits with 1 if there are faults.
"""

import argparse
import collections
import pathlib
import sys
import tempfile
import time
import traceback


def main() -> int:
  """Run the targets in turns; return the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  add = parser.add_argument
  add('targets', nargs='*', metavar='TARGET', help='default: all')
  add('--minutes', type=float, default=60)
  add('--start', type=int, default=1000, help='the first seed; default: 1000')
  add('--seed', type=int, help='this seed only, once for each target')
  args = parser.parse_args()
  from tests.fuzz.targets import TARGETS, attack

  names = args.targets or [*TARGETS]
  if unknown := set(names) - TARGETS.keys():
    parser.error(f'no target {", ".join(unknown)}; there are: {", ".join(TARGETS)}')
  counts = {name: collections.Counter() for name in names}
  spent = dict.fromkeys(names, 0.0)  # seconds: every target gets the same
  faults = 0
  with tempfile.TemporaryDirectory() as folder:
    while sum(spent.values()) < 60 * args.minutes:
      name = min(names, key=spent.__getitem__)
      done = sum(counts[name].values())
      seed = args.start + done if args.seed is None else args.seed
      begun = time.monotonic()
      try:
        outcome = attack(name, seed, pathlib.Path(folder))
      except Exception:
        faults, outcome = faults + 1, 'fault'
        print(f'FAULT: python -m tests.fuzz {name} --seed={seed}', flush=True)
        traceback.print_exc(limit=-6, chain=False)
      spent[name] += time.monotonic() - begun
      counts[name][outcome] += 1
      if args.seed is not None:
        names.remove(name)
        if not names:
          break
  for name, found in counts.items():
    shown = ', '.join(f'{count} {outcome}' for outcome, count in found.most_common())
    print(f'{name}: {sum(found.values())} in {spent[name]:.0f} s: {shown}')
  return 1 if faults else 0


if __name__ == '__main__':
  sys.exit(main())
