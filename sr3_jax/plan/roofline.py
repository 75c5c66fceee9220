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

from sr3_jax.plan.figures import Place, SliceScaling
from sr3_jax.plan.hlo_costs import Operation
from sr3_jax.plan.machines import Machine


@dataclasses.dataclass(frozen=True)
class Time:
  """The time of one run of a program, on every chip at once, in seconds.

  Attributes:
    seconds: with copies and collectives beside the rest where the program does so.
    serial: the same with one operation after the other.
    arithmetic: all FLOPs at the chip's peak.
    memory: all bytes at the memory's bandwidth.
    network: all that is sent, over the links.
    waited: the part of `network` that nothing else runs beside.
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
  """Return the seconds of one run of one operation, without what it sends."""
  chip = machine.chip
  return max(operation.flops / chip.flops, operation.bytes / chip.bandwidth)


def estimate(
  operations: Sequence[Operation],
  machine: Machine,
  optimal_seconds: float | None = None,
) -> Time:
  """Estimate the time of a program.

  Args:
    operations: result of `hlo_costs.operations`.
    machine: that runs it.
    optimal_seconds: what the compiler's cost analysis says; used where it is possible.
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
  return Time(
    seconds=max(front, memory, network - waited) + waited,
    serial=one_by_one + network,
    arithmetic=arithmetic,
    memory=memory,
    network=network,
    waited=waited,
    compiler=_plausible(
      [optimal_seconds or math.nan, cycles / (chip.clock or math.nan)], arithmetic
    ),
  )


def _plausible(candidates: Sequence[float], arithmetic: float) -> float | None:
  """Return the first estimate that is a time and at least that of the arithmetic."""
  possible = (c for c in candidates if math.isfinite(c) and c > 0 and c >= arithmetic)
  return next(possible, None)


def at_size(operations: Sequence[Operation], was: int, now: int) -> list[Operation]:
  """Return the operations of a program as if it were made for another number of chips.

  Each chip has as much to do as before. Collectives over all chips go over all of the
  new number. Gathered and scattered arrays are whole ones and stay as large as they
  are; the part that each chip has of them changes its memory, not its time.

  Args:
    operations: of the program.
    was: number of chips that the program is for.
    now: number of chips to change it to.
  """
  return [
    dataclasses.replace(o, group=now) if o.group == was else o for o in operations
  ]


def weak_scaling(
  operations: Sequence[Operation], machine: Machine, sizes: Sequence[int]
) -> list[SliceScaling]:
  """Return time and efficiency when chips and batch grow together.

  Args:
    operations: of a program for `machine`.
    machine: that the program was made for; it has several chips.
    sizes: numbers of chips.
  """
  rows: list[SliceScaling] = []
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
) -> list[Place]:
  """Return the places in the program that take most of the time, longest first."""
  groups: dict[str, list[Operation]] = {}
  for o in operations:
    groups.setdefault(o.source or o.opcode, []).append(o)
  places = [_place(source, group, machine) for source, group in groups.items()]
  whole = sum(place['seconds'] for place in places) or 1.0
  for place in places:
    place['share'] = place['seconds'] / whole
  return sorted(places, key=lambda place: -place['seconds'])[:count]


def _place(source: str, group: Sequence[Operation], machine: Machine) -> Place:
  """Return the sums over a place's operations, without the share of the whole."""
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
  return {
    'source': source,
    'seconds': seconds,
    'flops': flops,
    'bytes': moved,
    'sent': sent,
    'share': 0.0,
    'bound': max(times, key=lambda name: times[name]),
  }
