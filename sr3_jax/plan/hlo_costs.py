"""Finds out what every operation of a compiled program computes, moves and sends.

Shapes, layouts and attributes alone tell the multiplications of every convolution and
matrix product, the bytes that every operation moves to and from the device's memory,
and the bytes that a device sends to others. The conventions are those of XLA's own cost
analysis (`xla/service/hlo_cost_analysis.cc`), with three differences: every operation
is listed by itself, bodies of loops count as often as they run, and arrays are as large
as their tiles make them.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

from sr3_jax.plan import hlo_flops
from sr3_jax.plan.hlo import Array, Computation, Instruction, Program

# These move nothing: they name what is there already, or end what was begun before.
_FREE = re.compile(
  'parameter|constant|tuple|get-tuple-element|bitcast|after-all|partition-id|'
  'replica-id|opt-barrier|async-update|domain|.*-done'
)
_SLICES = ('slice', 'dynamic-slice', 'gather')  # they read a part of their operand
_COLLECTIVE = re.compile(
  '(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|'
  'collective-permute|collective-broadcast)(-start)?'
)


@dataclasses.dataclass(frozen=True)
class Operation:
  """The cost of one operation each time that it runs, on one device."""

  name: str  # in the program
  opcode: str  # 'fusion', 'convolution' and others
  source: str  # see `Instruction.source`; of a fusion, that of its heaviest part
  times: int  # how often it runs
  # Of convolutions and matrix products; an addition and a multiplication are 2.
  flops: float
  bytes: int  # read from and written to the device's memory
  collective: str = ''  # its name as 'all-reduce'; '' for other operations
  # Bytes of the whole array that a collective gathers, scatters or reduces.
  payload: int = 0
  group: int = 1  # number of devices that take part in it
  # Whether it runs beside others, as a copy or collective with a start and an end does.
  background: bool = False
  cycles: int = 0  # the compiler's own estimate; 0 where it has none

  @property
  def sent(self) -> float:
    """The bytes that a device sends to others, see `ring_bytes`."""
    return ring_bytes(self.collective, self.payload, self.group)


def ring_bytes(collective: str, payload: float, group: int) -> float:
  """Return the bytes that each device of a ring sends, which is the least possible.

  In an all-gather or a reduce-scatter, a device sends every part but its own once; an
  all-reduce is one after the other.

  Args:
    collective: 'all-reduce', ...; '' sends nothing.
    payload: bytes of the whole array.
    group: number of devices in the ring.
  """
  if not collective or group < 2:
    return 0.0
  if collective.startswith('collective-'):
    return float(payload)
  return payload * (group - 1) / group * (2 if collective == 'all-reduce' else 1)


def operations(program: Program) -> list[Operation]:
  """Return all operations that cost something, in the order of the program."""
  return list(_Costs(program).of_computation(program.entry, 1))


def total_flops(operations: Iterable[Operation]) -> float:
  """Return the FLOPs of all runs of all operations."""
  return sum(o.times * o.flops for o in operations)


class _Costs:
  """The costs of a program's operations.

  Attributes:
    chains: numbers of the collectives met so far. TPUs spread a collective over several
      fusions, each of which names it with the same number.
  """

  def __init__(self, program: Program):
    self.program = program
    self.chains: set[str] = set()

  def of_computation(self, name: str, times: int) -> Iterator[Operation]:
    """List what a computation, which runs so often, and those that it calls cost."""
    computation = self.program.computations.get(name, {})
    for one in computation.values():
      opcode = one.opcode
      if opcode == 'while':
        rounds = times * (trips(self.program, one) or 1)
        yield from self.of_computation(one.attribute('body'), rounds)
      elif opcode == 'call':
        yield from self.of_computation(one.attribute('to_apply'), times)
      elif opcode == 'conditional':
        yield from self._heaviest_branch(one, times)
      elif opcode == 'async-start':
        for made in self.of_computation(one.attribute('calls'), times):
          yield dataclasses.replace(made, background=True)
      elif not _FREE.fullmatch(opcode):
        yield self.of_instruction(computation, one, times)

  def _heaviest_branch(self, one: Instruction, times: int) -> list[Operation]:
    """Return the operations of the branch that costs most."""
    listed = re.search(r'branch_computations=\{([^}]*)\}', one.rest)
    if listed:
      names = [name.strip().lstrip('%') for name in listed[1].split(',')]
    else:
      names = [one.attribute(f'{side}_computation') for side in ('true', 'false')]

    def weight(branch: list[Operation]) -> float:
      return sum(o.times * (o.flops + o.bytes) for o in branch)

    branches = [list(self.of_computation(name, times)) for name in names]
    return max(branches, key=weight, default=[])

  def of_instruction(
    self, outer: Computation, one: Instruction, times: int
  ) -> Operation:
    """Return what an instruction costs."""
    inside: Computation = {}
    collective = one if _kind(one) else None
    if one.opcode == 'fusion':
      inside = self.program.computations.get(one.attribute('calls'), {})
      joined = [i for i in inside.values() if _kind(i)]
      collective = next((i for i in joined if self._is_new(i)), None)
    parts = hlo_flops.products(self.program, inside or {one.name: one}, outer)
    heaviest = parts[-1][1] if parts else collective or one
    # A fusion may start a collective that other fusions continue.
    begun = any('AsyncCollectiveStart' in part.rest for part in inside.values())
    cycles = re.search(r'"estimated_cycles":"(\d+)"', one.rest)
    return Operation(
      name=one.name,
      opcode=one.opcode,
      source=heaviest.source or one.source,
      times=times,
      flops=sum(count for count, _ in parts),
      bytes=_bytes(outer, one, inside),
      collective=_kind(collective) if collective else '',
      payload=_payload(inside or outer, collective) if collective else 0,
      group=_group(collective, self.program.devices) if collective else 1,
      background=one.opcode.endswith('-start') or begun,
      cycles=int(cycles[1]) if cycles else 0,
    )

  def _is_new(self, one: Instruction) -> bool:
    """Return whether a collective is met for the first time, and note that it was."""
    chain = re.search(r'chain_id="?(\d+)', one.rest)
    if chain is None:
      return True
    is_new = chain[1] not in self.chains
    self.chains.add(chain[1])
    return is_new


def trips(program: Program, loop: Instruction) -> int | None:
  """Return how often a loop's body runs; None where it depends on data.

  A compiled program has the number as an attribute. In one that is not compiled, JAX's
  loops count from 0 up to a constant in their condition.
  """
  known = re.search(r'known_trip_count"?:?=?\{"?n"?:"?(\d+)', loop.rest)
  if known:
    return int(known[1])
  condition = program.computations.get(loop.attribute('condition'), {})
  root = next((i for i in condition.values() if i.is_root), None)
  if root is None or root.opcode != 'compare' or 'direction=LT' not in root.rest:
    return None
  limit = condition.get(root.operands[1])
  if limit is None or limit.opcode != 'constant' or not limit.inside.isdigit():
    return None
  return int(limit.inside)


def _kind(one: Instruction) -> str:
  """Return the collective that an instruction is or starts; '' for others."""
  found = _COLLECTIVE.fullmatch(one.opcode)
  return found[1] if found else ''


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


def _payload(scope: Computation, one: Instruction) -> int:
  """Return the bytes of the whole array that a collective works on."""
  given = sum(a.bytes for name in one.operands for a in _results(scope, name))
  if _kind(one) == 'all-gather':
    made = sum(array.bytes for array in one.arrays)
    # The start of an asynchronous one names its operands among its results.
    return made - given if one.opcode.endswith('-start') else made
  return given


def _results(scope: Computation, name: str) -> tuple[Array, ...]:
  """Return an instruction's results; none where it is not in the scope."""
  return scope[name].arrays if name in scope else ()


# -------------------------------------------------------------------------------- bytes


def _bytes(outer: Computation, one: Instruction, inside: Computation) -> int:
  """Return the bytes that an operation reads from and writes to the memory."""
  if one.opcode == 'custom-call' and 'AssumeGatherIndices' in one.rest:
    return 0
  if inside:
    return _fusion_bytes(outer, one, inside)
  made = sum(array.moved for array in one.arrays)
  given = [sum(a.moved for a in _results(outer, name)) for name in one.operands]
  if one.opcode == 'copy-start':  # its results are the copy, the original and a flag
    return one.arrays[0].moved + one.arrays[1].moved
  if one.opcode in ('slice-start', 'dynamic-slice-start'):
    whole, part = one.arrays[:2]
    return (part.bytes if whole.space == 0 else 0) + part.moved
  if one.opcode.endswith('-start') and (kind := _kind(one)):
    return made if kind == 'all-gather' else sum(given) * 2
  if one.opcode in _SLICES:
    return 2 * made  # of the operand only the slice is read
  if one.opcode == 'dynamic-update-slice':
    return 2 * given[1]
  return made + sum(given)


def _fusion_bytes(outer: Computation, one: Instruction, inside: Computation) -> int:
  """Return the bytes of a fusion's operands and results, as far as it touches them."""
  users: dict[str, list[Instruction]] = {}
  for part in inside.values():
    for name in part.operands:
      users.setdefault(name, []).append(part)
  total = 0
  for part in inside.values():
    if part.opcode == 'parameter' and int(part.inside) < len(one.operands):
      given = outer.get(one.operands[int(part.inside)])
      # Only the operand outside of the fusion says in which memory it is.
      array = given.arrays[0] if given and len(given.arrays) == 1 else part.arrays[0]
      total += _read(part, array, users, inside)
  root = next(part for part in inside.values() if part.is_root)
  results = root.operands if root.opcode == 'tuple' else (root.name,)
  for name, array in zip(results, one.arrays, strict=False):
    made = inside.get(name)
    while made is not None and made.opcode in ('bitcast', 'get-tuple-element'):
      made = inside.get(made.operands[0])
    if made is None or made.opcode == 'parameter' or _is_collective(made):
      continue  # it is only passed on
    if made.opcode == 'dynamic-update-slice' and array.space == 0:
      update = inside.get(made.operands[1])
      total += update.arrays[0].bytes if update else array.moved
    else:
      total += array.moved
  return total


def _is_collective(one: Instruction) -> bool:
  """Return whether an instruction is a collective, or a part of one on TPUs."""
  return bool(_kind(one)) or 'AsyncCollective' in one.rest


def _read(
  parameter: Instruction,
  array: Array,
  users: dict[str, list[Instruction]],
  inside: Computation,
) -> int:
  """Return the bytes that a fusion reads of a parameter; of a slice only the slice."""
  read = 0
  waiting = [(parameter.name, user) for user in users.get(parameter.name, [])]
  while waiting:
    name, user = waiting.pop()
    if user.opcode == 'bitcast':
      waiting += [(user.name, next_user) for next_user in users.get(user.name, [])]
    elif user.opcode == 'tuple' or _is_collective(user):
      continue  # it is only passed on
    elif user.operands[0] != name:
      return array.moved
    elif user.opcode in _SLICES:
      read += user.arrays[0].bytes
    elif user.opcode != 'dynamic-update-slice':  # only this leaves the rest in place
      return array.moved
  return min(read, array.bytes) if array.space == 0 else 0
