"""From what a program does to how long it takes, at best: a roofline.

An operation takes as long as its arithmetic at the chip's peak or its bytes at the
memory's bandwidth, whichever is longer (Williams et al., CACM 52(4), 2009). Copies and
collectives that have a start and an end run beside the others, as far as the memory and
the links have time left; those that have none are waited for. So the sum is a bound
that no run beats and that good programs come near; `serial` is the same with nothing
beside anything else.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.machines import Machine


@dataclasses.dataclass(frozen=True)
class Time:
  """Seconds of one run of a program, on every chip at once.

  Attributes:
    seconds: with copies and collectives beside the rest where the program does so.
    serial: the same, one after the other.
    arithmetic: of all FLOPs at the chip's peak.
    memory: of all bytes at the memory's bandwidth.
    network: of all that is sent.
    waited: that of it which nothing runs beside.
    compiler: the compiler's own estimate; None where it has none or an impossible one.
  """

  seconds: float
  serial: float
  arithmetic: float
  memory: float
  network: float
  waited: float
  compiler: float | None


def seconds_of(operation: Operation, machine: Machine) -> float:
  """Of one run of one operation."""
  chip = machine.chip
  return max(operation.flops / chip.flops, operation.bytes / chip.bandwidth)


def estimate(
  operations: Sequence[Operation],
  machine: Machine,
  optimal_seconds: float | None = None,
) -> Time:
  """The time of a program.

  Args:
    operations: of `hlo_costs.operations`.
    machine: that runs it.
    optimal_seconds: what the compiler's cost analysis says; believed where it can be.
  """
  chip = machine.chip
  total = lambda value: sum(o.times * value(o) for o in operations)
  sent = lambda o: o.sent / machine.network
  waiting = [o for o in operations if not o.background]
  beside = [o for o in operations if o.background]
  # A fusion may carry a part of a collective and compute at the same time.
  front = sum(o.times * seconds_of(o, machine) for o in waiting)
  front += sum(o.times * o.flops / chip.flops for o in beside)
  memory = total(lambda o: o.bytes) / chip.bandwidth
  network, waited = total(sent), sum(o.times * sent(o) for o in waiting)
  arithmetic = total(lambda o: o.flops) / chip.flops
  return Time(
    seconds=max(front, memory, network - waited) + waited,
    serial=total(lambda o: seconds_of(o, machine)) + network,
    arithmetic=arithmetic,
    memory=memory,
    network=network,
    waited=waited,
    compiler=_plausible(
      [
        optimal_seconds or math.nan,
        total(lambda o: o.cycles) / (chip.clock or math.nan),
      ],
      arithmetic,
    ),
  )


def _plausible(candidates: Sequence[float], arithmetic: float) -> float | None:
  """The first estimate that is a time, and not below that of the arithmetic alone."""
  possible = (c for c in candidates if math.isfinite(c) and c > 0 and c >= arithmetic)
  return next(possible, None)


def at_size(operations: Sequence[Operation], was: int, now: int) -> list[Operation]:
  """A program for `was` chips as it would be for `now`, each with as much to do.

  Collectives over all chips go over all of the new number. Gathered and scattered
  arrays are whole ones and stay as large as they are; what each chip keeps of them
  changes its memory, not its time.
  """
  grown = lambda o: dataclasses.replace(o, group=now) if o.group == was else o
  return [grown(o) for o in operations]


def weak_scaling(
  operations: Sequence[Operation], machine: Machine, sizes: Sequence[int]
) -> list[dict[str, Any]]:
  """Time and efficiency when chips and batch grow together.

  Args:
    operations: of a program for `machine`, which has several chips.
    machine: that it was made for.
    sizes: numbers of chips.

  Returns:
    For each: its machine, 'chips', 'seconds' of a step and 'efficiency' in images a
    second and chip over those of the first.
  """
  rows = []
  for size in sizes:
    other = machine.of_size(size)
    time = estimate(at_size(operations, machine.count, size), other)
    first = rows[0]['seconds'] if rows else time.seconds
    rows.append(
      {
        'topology': other.name,
        'chips': size,
        'seconds': time.seconds,
        'efficiency': first / time.seconds,
      }
    )
  return rows


def heaviest(
  operations: Sequence[Operation], machine: Machine, count: int = 10
) -> list[dict[str, Any]]:
  """What takes most of the time, joined by where in the program it comes from.

  Returns:
    For each place, longest first: 'source', 'seconds', 'share' of all, 'flops',
    'bytes', 'sent', and 'bound' by 'arithmetic', 'memory' or 'network'.
  """
  groups: dict[str, dict[str, Any]] = {}
  for o in operations:
    place = groups.setdefault(
      o.source or o.opcode, {'seconds': 0.0, 'flops': 0.0, 'bytes': 0.0, 'sent': 0.0}
    )
    place['seconds'] += o.times * (seconds_of(o, machine) + o.sent / machine.network)
    place['flops'] += o.times * o.flops
    place['bytes'] += o.times * o.bytes
    place['sent'] += o.times * o.sent
  whole = sum(place['seconds'] for place in groups.values()) or 1.0
  longest = sorted(groups.items(), key=lambda item: -item[1]['seconds'])[:count]
  chip = machine.chip
  for _, place in longest:
    times = {
      'arithmetic': place['flops'] / chip.flops,
      'memory': place['bytes'] / chip.bandwidth,
      'network': place['sent'] / machine.network,
    }
    place |= {'share': place['seconds'] / whole, 'bound': max(times, key=times.get)}
  return [{'source': source} | place for source, place in longest]
