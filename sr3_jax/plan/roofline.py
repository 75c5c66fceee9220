"""Turns what a program does into how long it takes at best: a roofline.

An operation takes as long as its arithmetic at the chip's peak or its bytes at the
memory's bandwidth, whichever is longer (Williams et al., CACM 52(4), 2009). Copies and
collectives that have a start and an end run beside the others, as far as the memory and
the links have time left; the program waits for those that have none. So the sum is a
bound that no run beats and that good programs come near. `serial` is the sum with
nothing beside anything else.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.machines import Machine


@dataclasses.dataclass(frozen=True)
class Time:
  """The time of one run of a program, on every chip at once, in seconds."""

  # With copies and collectives beside the rest where the program does so.
  seconds: float
  serial: float  # the same with one operation after the other
  arithmetic: float  # all FLOPs at the chip's peak
  memory: float  # all bytes at the memory's bandwidth
  network: float  # all that is sent, over the links
  waited: float  # the part of `network` that nothing else runs beside
  # The compiler's own estimate; None where it has none or an impossible one.
  compiler: float | None


def seconds_of(operation: Operation, machine: Machine) -> float:
  """Return the seconds of one run of one operation, without what it sends."""
  chip = machine.chip
  return max(operation.flops / chip.flops, operation.bytes / chip.bandwidth)


def estimate(
  operations: Sequence[Operation], machine: Machine, optimal: float | None = None
) -> Time:
  """Estimate the time of a program.

  `optimal` is what the compiler's cost analysis says, in seconds; it is used where it
  is possible.
  """
  chip = machine.chip
  beside = [o for o in operations if o.background]
  waiting = [o for o in operations if not o.background]
  front = sum(o.times * seconds_of(o, machine) for o in waiting)
  # A fusion may carry a part of a collective and compute at the same time.
  front += sum(o.times * o.flops / chip.flops for o in beside)
  memory = sum(o.times * o.bytes for o in operations) / chip.bandwidth
  network = sum(o.times * o.sent for o in operations) / machine.network
  waited = sum(o.times * o.sent for o in waiting) / machine.network
  arithmetic = sum(o.times * o.flops for o in operations) / chip.flops
  cycles = sum(o.times * o.cycles for o in operations)
  one_by_one = sum(o.times * seconds_of(o, machine) for o in operations)
  own = optimal or math.nan, cycles / (chip.clock or math.nan)
  own = [c for c in own if math.isfinite(c) and c > 0]
  return Time(
    seconds=max(front, memory, network - waited) + waited,
    serial=one_by_one + network,
    arithmetic=arithmetic,
    memory=memory,
    network=network,
    waited=waited,
    compiler=next((c for c in own if c >= arithmetic), None),
  )


def at_size(operations: Sequence[Operation], was: int, now: int) -> list[Operation]:
  """Return the operations of a program for `was` chips as if it were made for `now`.

  Each chip has as much to do as before. Collectives over all chips go over all of the
  new number. Gathered and scattered arrays are whole ones and stay as large as they
  are; the part that each chip has of them changes its memory, not its time.
  """
  return [
    o if o.group != was else dataclasses.replace(o, group=now) for o in operations
  ]


def weak_scaling(
  operations: Sequence[Operation], machine: Machine, sizes: Sequence[int]
) -> list[dict[str, Any]]:
  """Return time and efficiency when chips and batch grow together.

  The operations are those of a program for `machine`, which has several chips.

  Returns:
    A row for each number of chips in `sizes`. 'efficiency' is images/s and chip over
    those of the first.
  """
  rows = []
  for size in sizes:
    other = machine.of_size(size)
    seconds = estimate(at_size(operations, machine.count, size), other).seconds
    first = rows[0]['seconds'] if rows else seconds
    row = {'topology': other.name, 'chips': size, 'seconds': seconds}
    rows.append(row | {'efficiency': first / seconds})
  return rows


def heaviest(
  operations: Sequence[Operation], machine: Machine, count: int = 10
) -> list[dict[str, Any]]:
  """Return the places in the program that take most of the time, longest first.

  Returns:
    The sums over each place's operations. 'bound' is what takes most of its time:
    'arithmetic', 'memory' or 'network'; 'share' is of the seconds of all places.
  """
  groups: dict[str, list[Operation]] = {}
  for o in operations:
    groups.setdefault(o.source or o.opcode, []).append(o)
  places: list[dict[str, Any]] = []
  for source, group in groups.items():
    flops = sum(o.times * o.flops for o in group)
    moved = float(sum(o.times * o.bytes for o in group))
    sent = sum(o.times * o.sent for o in group)
    times = {
      'arithmetic': flops / machine.chip.flops,
      'memory': moved / machine.chip.bandwidth,
      'network': sent / machine.network,
    }
    seconds = sum(
      o.times * (seconds_of(o, machine) + o.sent / machine.network) for o in group
    )
    place = {'source': source, 'seconds': seconds, 'flops': flops, 'bytes': moved}
    places.append(place | {'sent': sent, 'bound': max(times, key=times.__getitem__)})
  whole = sum(place['seconds'] for place in places) or 1.0
  for place in places:
    place['share'] = place['seconds'] / whole
  return sorted(places, key=lambda place: -place['seconds'])[:count]
