r"""Says where the time of a trace went: by kind of operation, and waiting.

  sr3-train --config=quickstart --workdir=runs/traced --config.train.num_steps=30 \
    --config.train.profile="(20,25)"
  python benchmarks/trace.py runs/traced/profile

It reads the newest trace in the folder. Operations are those of compiled programs, by
the names that the compiler gave them, without their numbers. Shares are of the time
from the first operation to the last; where several run at once they add up to more than
1. Time in which none runs is waiting: for data, for the host or for another device.
"""

import argparse
import collections
import gzip
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Event(NamedTuple):
  """One run of an operation."""

  device: str
  name: str
  began: float  # microseconds
  seconds: float


def newest(folder: pathlib.Path) -> pathlib.Path:
  """Return the newest trace of a folder.

  Raises:
    FileNotFoundError: there is none.
  """
  found = sorted(folder.rglob('*.trace.json.gz'), key=lambda path: path.stat().st_mtime)
  if not found:
    raise FileNotFoundError(f'{folder}: no trace (*.trace.json.gz) in this folder')
  return found[-1]


def operations(path: pathlib.Path) -> Iterator[Event]:
  """Yield the operations of compiled programs in a trace."""
  events = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  devices = {
    event['pid']: event['args']['name']
    for event in events
    if event.get('name') == 'process_name'
  }
  for event in events:
    known = event.get('args') or {}
    if event.get('ph') == 'X' and ('hlo_op' in known or 'hlo_category' in known):
      name = known.get('hlo_op') or event['name']
      yield Event(devices[event['pid']], name, event['ts'], event['dur'] / 1e6)


def busy(events: Iterable[Event]) -> float:
  """Return the seconds in which at least one operation runs."""
  total, end = 0.0, float('-inf')
  for event in sorted(events, key=lambda event: event.began):
    after = event.began / 1e6 + event.seconds
    total += max(0.0, after - max(end, event.began / 1e6))
    end = max(end, after)
  return total


def table(events: list[Event], rows: int) -> str:
  """Return the kinds of operations of one device that take longest, as Markdown."""
  began = min(event.began for event in events) / 1e6
  span = max(event.began / 1e6 + event.seconds for event in events) - began
  times: collections.Counter[str] = collections.Counter()
  counts: collections.Counter[str] = collections.Counter()
  for event in events:
    kind = re.sub(r'[.\d]+$', '', event.name)
    times[kind] += event.seconds
    counts[kind] += 1
  lines = ['| operations | runs | seconds | share |', '|---|---|---|---|']
  for kind, seconds in times.most_common(rows):
    lines.append(f'| {kind} | {counts[kind]} | {seconds:.4f} | {seconds / span:.1%} |')
  rest = span - busy(events)
  lines.append(f'| waiting | | {rest:.4f} | {rest / span:.1%} |')
  lines.append(f'| from first to last | {len(events)} | {span:.4f} | |')
  return '\n'.join(lines)


def main() -> None:
  """Run the command."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('folder', type=pathlib.Path, help='WORKDIR/profile of a run')
  parser.add_argument('--rows', type=int, default=15, help='kinds of operations shown')
  args = parser.parse_args()
  try:
    path = newest(args.folder)
  except FileNotFoundError as error:
    parser.exit(2, f'{error}\n')
  by_device: dict[str, list[Event]] = {}
  for event in operations(path):
    by_device.setdefault(event.device, []).append(event)
  if not by_device:
    parser.exit(2, f'{path}: no operations of compiled programs in this trace\n')
  for device, events in by_device.items():
    print(f'{device}\n\n{table(events, args.rows)}\n')


if __name__ == '__main__':
  main()
