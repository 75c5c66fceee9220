"""Reads the text (HLO) that XLA prints of a program, compiled or only lowered.

`hlo_costs` says what the operations cost.
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
  """One array of a program."""

  dtype: str  # as XLA writes it: 'f32', 'bf16'
  dims: tuple[int, ...]  # length of every axis
  # The same lengths from the slowest axis in memory to the fastest.
  physical: tuple[int, ...]
  # Sides of the tiles that the fastest axes are padded to; () for none.
  tile: tuple[int, ...] = ()
  space: int = 0  # 0 for the device's memory, 1 for that of the core (VMEM on TPUs)

  @property
  def size(self) -> int:
    """The number of elements."""
    return math.prod(self.dims)

  @property
  def item_bytes(self) -> float:
    """The bytes of an element."""
    if self.dtype in _BYTES:
      return _BYTES[self.dtype]
    bits = re.search(r'\d+', self.dtype)
    return int(bits[0]) / 8 if bits else 4

  @property
  def bytes(self) -> int:
    """The bytes that it takes in memory, with the padding to whole tiles."""
    tile = self.tile
    sides = (1,) * (len(tile) - len(self.physical)) + self.physical
    outer, inner = sides[: len(sides) - len(tile)], sides[len(sides) - len(tile) :]
    padded = (-(-side // t) * t for side, t in zip(inner, tile, strict=True))
    return math.ceil(math.prod(outer) * math.prod(padded) * self.item_bytes)

  @property
  def moved(self) -> int:
    """The bytes that reading or writing it moves to or from the device's memory."""
    return self.bytes if self.space == 0 else 0


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a program."""

  name: str  # by which others refer to its result
  opcode: str  # 'fusion', 'convolution' and others
  arrays: tuple[Array, ...]  # results
  operands: tuple[str, ...]  # names of what it works on
  inside: str  # the text in the brackets after the opcode
  rest: str  # all text behind these brackets
  is_root: bool  # whether its result is that of the computation

  def attribute(self, name: str) -> str:
    """Return the name that an attribute refers to; '' without the attribute."""
    found = re.search(rf'\b{name}=%?([\w.\-]+)', self.rest)
    return found[1] if found else ''

  @property
  def source(self) -> str:
    """The place in the traced program it comes from: 'jit(step)/UNet/conv1/...'."""
    found = re.search(r'op_name="([^"]*)"', self.rest)
    return found[1] if found else ''


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Program:
  """A program of several computations."""

  # By name; each has its instructions by name, in their order.
  computations: dict[str, Computation]
  entry: str  # name of the computation that runs first
  devices: int  # number of devices that the program is for


def arrays(text: str) -> tuple[Array, ...]:
  """Return the arrays of a shape as XLA writes it, with tuples flattened."""
  found = []
  for dtype, dims, order, layout in _SHAPE.findall(text):
    sides = tuple(int(d.replace('<=', '')) for d in dims.split(',') if d)
    minor_first = [int(i) for i in order.split(',') if i]
    if len(minor_first) != len(sides):
      minor_first = range(len(sides))[::-1]
    tile = re.search(r'T\(([\d,]+)\)', layout)
    space = re.search(r'S\((\d+)\)', layout)
    physical = tuple(sides[i] for i in reversed(minor_first))
    tile = tuple(map(int, tile[1].split(','))) if tile else ()
    found.append(Array(dtype, sides, physical, tile, int(space[1]) if space else 0))
  return tuple(found)


def parse(text: str) -> Program:
  """Read a program from its text.

  Args:
    text: result of `compiled.as_text()` or `lowered.as_text(dialect='hlo')`.

  Raises:
    ValueError: there is no program in the text.
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
  """Read a line of a program from the text behind its `name = `."""
  end = _close(text, 0) if text.startswith('(') else text.index(' ')
  opening = text.index('(', end)
  closing = _close(text, opening)
  inside = text[opening + 1 : closing - 1]
  plain = re.sub(r'/\*.*?\*/', '', inside)
  if '%' in plain:
    operands = re.findall(r'%([\w.\-]+)', plain)
  else:  # programs that are not compiled write names without the sign
    operands = [part.split()[-1] for part in plain.split(',') if part.split()]
  opcode = text[end:opening].strip()
  made, rest = arrays(text[:end]), text[closing:]
  return Instruction(name, opcode, made, tuple(operands), inside, rest, is_root)


def _close(text: str, opening: int) -> int:
  """Return the position behind the bracket that closes the one at `opening`."""
  depth = 0
  for found in re.compile(r'[()]').finditer(text, opening):
    depth += 1 if found[0] == '(' else -1
    if depth == 0:
      return found.end()
  return len(text)
