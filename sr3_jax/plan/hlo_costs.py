"""What every operation of a compiled program computes, moves and sends.

From shapes, layouts and attributes alone follow the multiplications of every
convolution and matrix product, the bytes that every operation moves to and from the
device's memory, and the bytes that a device sends to others. The conventions are those
of XLA's own cost analysis (`xla/service/hlo_cost_analysis.cc`), but each operation is
kept by itself, bodies of loops count as often as they run, and arrays are as large as
their tiles make them.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

from sr3_jax.plan import hlo_flops
from sr3_jax.plan.hlo import Array, Computation, Instruction, Program

# Nothing is moved: names for what is there, or ends of what was begun before.
_FREE = {
  'parameter',
  'constant',
  'tuple',
  'get-tuple-element',
  'bitcast',
  'after-all',
  'partition-id',
  'replica-id',
  'opt-barrier',
  'async-update',
  'domain',
}
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)


@dataclasses.dataclass(frozen=True)
class Operation:
  """What one operation costs each time that it runs, on one device.

  Attributes:
    name: in the program.
    opcode: 'fusion', 'convolution', ...
    source: see `Instruction.source`; that of the heaviest part of a fusion.
    times: how often it runs.
    flops: of convolutions and matrix products; an addition and a multiplication are 2.
    bytes: read from and written to the device's memory.
    collective: one of COLLECTIVES, or ''.
    payload: bytes that a collective gathers, scatters or reduces: the whole array.
    group: devices that take part in it.
    background: whether it runs beside others: a copy or collective with a start and an
      end.
    cycles: the compiler's own estimate; 0 where it says nothing.
  """

  name: str
  opcode: str
  source: str
  times: int
  flops: float
  bytes: int
  collective: str = ''
  payload: int = 0
  group: int = 1
  background: bool = False
  cycles: int = 0

  @property
  def sent(self) -> float:
    """Bytes that a device sends to others, see `ring`."""
    return ring(self.collective, self.payload, self.group)


def ring(collective: str, payload: float, group: int) -> float:
  """Bytes that each of `group` devices sends in a ring, which is the least possible.

  All-gather and reduce-scatter send every part but one's own once; an all-reduce is one
  after the other.

  Args:
    collective: one of COLLECTIVES, or ''.
    payload: bytes of the whole array.
    group: devices.
  """
  if not collective or group < 2:
    return 0.0
  if collective.startswith('collective-'):
    return float(payload)
  return payload * (group - 1) / group * (2 if collective == 'all-reduce' else 1)


def operations(program: Program) -> list[Operation]:
  """Everything that costs something, in the order in which it stands."""
  return list(_walk(program, program.computations[program.entry], 1, set()))


def _walk(
  program: Program, computation: Computation, times: int, chains: set[str]
) -> Iterator[Operation]:
  for one in computation.values():
    opcode = one.opcode
    inner = lambda name, one=one: program.computations.get(one.attribute(name), {})
    if opcode == 'while':
      yield from _walk(
        program, inner('body'), times * (trips(program, one) or 1), chains
      )
    elif opcode == 'call':
      yield from _walk(program, inner('to_apply'), times, chains)
    elif opcode == 'conditional':
      yield from _heaviest_branch(program, one, times, chains)
    elif opcode == 'async-start':
      for made in _walk(program, inner('calls'), times, chains):
        yield dataclasses.replace(made, background=True)
    elif opcode not in _FREE and not opcode.endswith('-done'):
      yield _operation(program, computation, one, times, chains)


def _heaviest_branch(program, one, times, chains) -> Iterable[Operation]:
  names = re.search(r'branch_computations=\{([^}]*)\}', one.rest)
  found = (
    names[1]
    if names
    else ','.join(one.attribute(f'{side}_computation') for side in ('true', 'false'))
  )
  branches = [name.strip().lstrip('%') for name in found.split(',')]
  walked = [
    list(_walk(program, program.computations.get(name, {}), times, chains))
    for name in branches
  ]
  weight = lambda branch: sum(o.times * (o.flops + o.bytes) for o in branch)
  return max(walked, key=weight, default=[])


def trips(program: Program, loop: Instruction) -> int | None:
  """How often a loop's body runs; None where it depends on data.

  XLA writes down what it finds out; before optimisation, JAX's loops count from 0 up to
  a constant in their condition.
  """
  known = re.search(r'known_trip_count"?:?=?\{"?n"?:"?(\d+)', loop.rest)
  if known:
    return int(known[1])
  condition = program.computations.get(loop.attribute('condition'), {})
  root = next((i for i in condition.values() if i.is_root), None)
  if root is None or root.opcode != 'compare' or 'direction=LT' not in root.rest:
    return None
  limit = condition.get(root.operands[1])
  is_number = limit and limit.opcode == 'constant' and limit.inside.isdigit()
  return int(limit.inside) if is_number else None


def _operation(program, computation, one, times, chains) -> Operation:
  collective, inside = one, {}
  if one.opcode == 'fusion':
    inside = program.computations.get(one.attribute('calls'), {})
    joined = [i for i in inside.values() if _kind(i)]
    collective = next((i for i in joined if _is_new(i, chains)), None)
  kind = _kind(collective) if collective else ''
  scope = inside if collective is not one else computation
  parts = hlo_flops.parts(program, inside or {one.name: one}, computation)
  heaviest = parts[-1][1] if parts else collective if kind else one
  cycles = re.search(r'"estimated_cycles":"(\d+)"', one.rest)
  return Operation(
    name=one.name,
    opcode=one.opcode,
    source=heaviest.source or one.source,
    times=times,
    flops=sum(count for count, _ in parts),
    bytes=_bytes(program, computation, one, inside),
    collective=kind,
    payload=_payload(scope, collective, kind) if kind else 0,
    group=_group(collective, program.devices) if kind else 1,
    background=one.opcode.endswith('-start') or _is_begun(inside),
    cycles=int(cycles[1]) if cycles else 0,
  )


def _kind(one: Instruction) -> str:
  kind = one.opcode.removesuffix('-start')
  return kind if kind in COLLECTIVES else ''


def _is_new(one: Instruction, chains: set[str]) -> bool:
  """Whether a collective is met for the first time.

  TPUs spread one over several fusions, each of which names it; they share a number.
  """
  chain = re.search(r'chain_id="?(\d+)', one.rest)
  if chain is None:
    return True
  is_new = chain[1] not in chains
  chains.add(chain[1])
  return is_new


def _group(one: Instruction, devices: int) -> int:
  """Return how many devices take part in a collective."""
  # XLA writes groups in three ways: {{0,1},{2,3}}, their members; [2,4]<=[8], their
  # number and size; mesh['a'=2,'b'=4] {'b'}, a mesh and the axes that a group spans.
  groups = one.rest.partition('replica_groups=')[2]
  if listed := re.match(r'\{\{([\d,]*)\}', groups):
    return listed[1].count(',') + 1
  if counted := re.match(r'\[(?:\d+,)*(\d+)\]<=', groups):
    return int(counted[1])
  if meshed := re.match(r'mesh\[(.*?)\] \{(.*?)\}', groups):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", meshed[2]))
  return devices


def _payload(scope: Computation, one: Instruction, kind: str) -> int:
  """Bytes of the whole array that a collective works on."""
  given = sum(_result_bytes(scope, name) for name in one.operands)
  if kind == 'all-gather':
    made = sum(array.bytes for array in one.arrays)
    # The start of an asynchronous one names its operands among its results.
    return made - given if one.opcode.endswith('-start') else made
  return given


def _result_bytes(scope: Computation, name: str) -> int:
  found = scope.get(name)
  return sum(array.bytes for array in found.arrays) if found else 0


# -------------------------------------------------------------------------------- bytes


def _bytes(
  program: Program, outer: Computation, one: Instruction, inside: Computation
) -> int:
  """What an operation reads from and writes to the device's memory."""
  if one.opcode == 'custom-call' and 'AssumeGatherIndices' in one.rest:
    return 0
  if inside:
    return _fusion_bytes(outer, one, inside)
  moved = lambda name: sum(a.moved for a in outer[name].arrays) if name in outer else 0
  made = sum(array.moved for array in one.arrays)
  if one.opcode == 'copy-start':  # its results are the copy, the original and a flag
    return one.arrays[0].moved + one.arrays[1].moved
  if one.opcode in ('slice-start', 'dynamic-slice-start'):
    whole, part = one.arrays[:2]
    return (part.bytes if whole.space == 0 else 0) + part.moved
  if one.opcode.endswith('-start') and _kind(one):
    return sum(map(moved, one.operands)) * 2 if _kind(one) != 'all-gather' else made
  if one.opcode in ('slice', 'dynamic-slice', 'gather'):
    return 2 * made  # no more is read than is made
  if one.opcode == 'dynamic-update-slice':
    return 2 * moved(one.operands[1])
  return made + sum(map(moved, one.operands))


def _fusion_bytes(outer: Computation, one: Instruction, inside: Computation) -> int:
  """Operands and results of a fusion, as far as it touches them."""
  users: dict[str, list[Instruction]] = {}
  for part in inside.values():
    for name in part.operands:
      users.setdefault(name, []).append(part)
  total = 0
  for part in inside.values():
    if part.opcode == 'parameter' and int(part.inside) < len(one.operands):
      given = outer.get(one.operands[int(part.inside)])
      # The memory space stands with the one outside.
      array = given.arrays[0] if given and len(given.arrays) == 1 else part.arrays[0]
      total += _read(part, array, users, inside)
  root = next(part for part in inside.values() if part.is_root)
  results = root.operands if root.opcode == 'tuple' else (root.name,)
  for name, array in zip(results, one.arrays, strict=False):
    made = inside.get(name)
    while made is not None and made.opcode in ('bitcast', 'get-tuple-element'):
      made = inside.get(made.operands[0])
    if made is None or made.opcode == 'parameter' or _is_collective(made):
      continue  # handed on
    if made.opcode == 'dynamic-update-slice' and array.space == 0:
      update = inside.get(made.operands[1])
      total += update.arrays[0].bytes if update else array.moved
    else:
      total += array.moved
  return total


def _is_collective(one: Instruction) -> bool:
  return bool(_kind(one)) or 'AsyncCollective' in one.rest


def _is_begun(inside: Computation) -> bool:
  """Whether a fusion starts a collective that others go on with."""
  return any('AsyncCollectiveStart' in part.rest for part in inside.values())


def _read(
  parameter: Instruction,
  array: Array,
  users: dict[str, list[Instruction]],
  inside: Computation,
) -> int:
  """Bytes of a fusion's parameter that it reads: of slices no more than the slice."""
  read = 0
  waiting = [(parameter.name, user) for user in users.get(parameter.name, [])]
  while waiting:
    name, user = waiting.pop()
    if user.opcode == 'bitcast':
      waiting += [(user.name, next_user) for next_user in users.get(user.name, [])]
    elif user.opcode == 'tuple' or _is_collective(user):
      continue  # handed on
    elif (
      user.opcode in ('slice', 'dynamic-slice', 'gather') and user.operands[0] == name
    ):
      read += user.arrays[0].bytes
    elif user.opcode == 'dynamic-update-slice' and user.operands[0] == name:
      continue  # the rest of it stays where it is
    else:
      return array.moved
  return min(read, array.bytes) if array.space == 0 else 0
