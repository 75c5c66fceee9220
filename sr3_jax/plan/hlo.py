"""Reads the text ("HLO") that XLA prints of programs, compiled or only lowered.

What its operations cost is in `hlo_costs`.
"""

import dataclasses
import math
import re

_BYTES = {'pred': 1, 'bf16': 2, 'c64': 8, 'c128': 16, 'token': 0, 'opaque': 0}
_SHAPE = re.compile(r'([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*)(?::([^{}]*))?\})?')
_HEAD = re.compile(r'^(ENTRY\s+)?%?([\w.\-]+)(\s.*)?\{\s*$')
_NAME = re.compile(r'^\s+(ROOT\s+)?%?([\w.\-]+) = ')


@dataclasses.dataclass(frozen=True)
class Array:
  """One array of a program.

  Attributes:
    dtype: as XLA says it: 'f32', 'bf16'.
    dims: of every axis.
    physical: the same from the slowest axis in memory to the fastest.
    tile: sides of the tiles that the fastest axes are padded to; () for none.
    space: 0 for the device's memory, 1 for that of the core (VMEM on TPUs).
  """

  dtype: str
  dims: tuple[int, ...]
  physical: tuple[int, ...]
  tile: tuple[int, ...] = ()
  space: int = 0

  @property
  def size(self) -> int:
    """Elements."""
    return math.prod(self.dims)

  @property
  def item_bytes(self) -> float:
    """Bytes of an element."""
    if self.dtype in _BYTES:
      return _BYTES[self.dtype]
    bits = re.search(r'\d+', self.dtype)
    return int(bits[0]) / 8 if bits else 4

  @property
  def bytes(self) -> int:
    """As it lies in memory, padding to whole tiles included."""
    tile = self.tile
    sides = (1,) * (len(tile) - len(self.physical)) + self.physical
    outer, inner = sides[: len(sides) - len(tile)], sides[len(sides) - len(tile) :]
    padded = (-(-side // t) * t for side, t in zip(inner, tile, strict=True))
    return math.ceil(math.prod(outer) * math.prod(padded) * self.item_bytes)

  @property
  def moved(self) -> int:
    """Bytes that the device's memory sees of one reading or writing."""
    return self.bytes if self.space == 0 else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program; `arrays` are its results, `rest` all after the operands."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  operands: tuple[str, ...]
  inside: str  # the brackets after the opcode
  rest: str
  is_root: bool

  def attribute(self, name: str) -> str:
    """The name that an attribute refers to, '' without it."""
    found = re.search(rf'\b{name}=%?([\w.\-]+)', self.rest)
    return found[1] if found else ''

  @property
  def source(self) -> str:
    """Where in the traced program it comes from: 'jit(step)/UNet/conv1/...'."""
    found = re.search(r'op_name="([^"]*)"', self.rest)
    return found[1] if found else ''


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
  """Computations by name, and that of them which runs."""

  computations: dict[str, Computation]
  entry: str
  devices: int


def arrays(text: str) -> tuple[Array, ...]:
  """The arrays of a shape as XLA writes it, tuples flattened."""
  found = []
  for dtype, dims, order, layout in _SHAPE.findall(text):
    sides = tuple(int(d.replace('<=', '')) for d in dims.split(',') if d)
    minor_first = [int(i) for i in order.split(',') if i]
    if len(minor_first) != len(sides):
      minor_first = range(len(sides))[::-1]
    tile = re.search(r'T\(([\d,]+)\)', layout)
    space = re.search(r'S\((\d+)\)', layout)
    found.append(
      Array(
        dtype,
        sides,
        tuple(sides[i] for i in reversed(minor_first)),
        tuple(int(t) for t in tile[1].split(',')) if tile else (),
        int(space[1]) if space else 0,
      )
    )
  return tuple(found)


def parse(text: str) -> Program:
  """A program of its text.

  Args:
    text: of `compiled.as_text()` or `lowered.as_text(dialect='hlo')`.

  Raises:
    ValueError: no program in it.
  """
  computations: dict[str, Computation] = {}
  entry, current = '', None
  for line in text.splitlines():
    if line[:1] not in (' ', '}', ''):
      head = _HEAD.match(line)
      if head and not line.startswith('HloModule'):
        current = computations[head[2]] = {}
        entry = head[2] if head[1] else entry
    elif current is not None and (named := _NAME.match(line)):
      made = _instruction(named[2], line[named.end() :], bool(named[1]))
      current[made.name] = made
  if not entry:
    raise ValueError('no ENTRY computation in the text of the program')
  header = text[: text.find('\n')]
  counts = re.findall(r'(?:num_partitions|replica_count)=(\d+)', header)
  return Program(computations, entry, math.prod(map(int, counts)))


def _instruction(name: str, text: str, is_root: bool) -> Instruction:
  end = _close(text, 0) if text.startswith('(') else text.index(' ')
  opening = text.index('(', end)
  closing = _close(text, opening)
  inside = text[opening + 1 : closing - 1]
  plain = re.sub(r'/\*.*?\*/', '', inside)
  if '%' in plain:
    operands = re.findall(r'%([\w.\-]+)', plain)
  else:  # before optimisation names stand without the sign
    operands = [part.split()[-1] for part in plain.split(',') if part.split()]
  return Instruction(
    name=name,
    opcode=text[end:opening].strip(),
    arrays=arrays(text[:end]),
    operands=tuple(operands),
    inside=inside,
    rest=text[closing:],
    is_root=is_root,
  )


def _close(text: str, opening: int) -> int:
  """The place after the bracket that closes the one at `opening`."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, opening):
    depth += 1 if found[0] == '(' else -1
    if depth == 0:
      return found.end()
  return len(text)
