"""Published figures of the machines that plans are made for.

A machine is named as 'v5e:4x4' (a TPU slice by its sides), 'h100:8' (GPUs by their
number) or 'cpu'. Peaks are what makers publish; nobody reaches them.
"""

import dataclasses
import math
import os
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator.

  Attributes:
    flops: bfloat16, dense, FLOP/s.
    bandwidth: of its memory, bytes/s.
    memory: bytes that a program may use.
    link: to another chip, bytes/s one way, each.
    links: of these; on a TPU two for each axis of the slice.
    ring: sides of a TPU slice that are multiples of it are closed to rings; 0: a switch
      connects all chips.
    clock: cycles/s; 0 where no compiler estimates cycles.
    options: with which libtpu describes it.
    source: where the figures are from.
  """

  flops: float
  bandwidth: float
  memory: float
  link: float
  links: int
  ring: int
  clock: float
  source: str
  options: tuple[tuple[str, str], ...] = ()


_CLOUD = 'cloud.google.com/tpu/docs/'
_MEMORY = '; memory: what libtpu 0.0.42 says is available'

# Memory is what the compiler leaves to programs, less than what is sold; the clock
# follows from the peak and the number of 128 x 128 (v6e: 256 x 256) matrix units.
CHIPS: dict[str, Chip] = {
  'v4': Chip(
    flops=275e12,
    bandwidth=1228e9,
    memory=30.5 * GIB,
    link=50e9,
    links=6,
    ring=4,
    clock=1.05e9,
    source=f'{_CLOUD}v4, arXiv:2304.01433{_MEMORY}, twice that of a core',
    options=(('chip_config_name', 'megacore'),),
  ),
  'v5e': Chip(
    flops=197e12,
    bandwidth=819e9,
    memory=15.75 * GIB,
    link=50e9,
    links=4,
    ring=16,
    clock=1.5e9,
    source=f'{_CLOUD}v5e{_MEMORY}',
  ),
  'v5p': Chip(
    flops=459e12,
    bandwidth=2765e9,
    memory=95.74 * GIB,
    link=100e9,
    links=6,
    ring=4,
    clock=1.75e9,
    source=f'{_CLOUD}v5p{_MEMORY}',
  ),
  'v6e': Chip(
    flops=918e12,
    bandwidth=1640e9,
    memory=31.25 * GIB,
    link=100e9,
    links=4,
    ring=16,
    clock=1.75e9,
    source=f'{_CLOUD}v6e{_MEMORY}',
  ),
  'a100': Chip(
    flops=312e12,
    bandwidth=2039e9,
    memory=80e9,
    link=25e9,
    links=12,
    ring=0,
    clock=0,
    source='NVIDIA A100 80GB SXM data sheet',
  ),
  'h100': Chip(
    flops=989e12,
    bandwidth=3350e9,
    memory=80e9,
    link=25e9,
    links=18,
    ring=0,
    clock=0,
    source='NVIDIA H100 SXM data sheet, without sparsity',
  ),
  'h200': Chip(
    flops=989e12,
    bandwidth=4800e9,
    memory=141e9,
    link=25e9,
    links=18,
    ring=0,
    clock=0,
    source='NVIDIA H200 SXM data sheet, without sparsity',
  ),
}
TPUS = tuple(name for name, chip in CHIPS.items() if chip.options or chip.ring)
GPUS = tuple(name for name in CHIPS if name not in TPUS)


@dataclasses.dataclass(frozen=True)
class Machine:
  """Chips and how they are connected.

  Attributes:
    name: as the user says it.
    chip: one of them.
    sides: of a TPU slice; the number of others.
    is_tpu: whether there is a compiler for it that needs no machine.
  """

  name: str
  chip: Chip
  sides: tuple[int, ...]
  is_tpu: bool

  @property
  def count(self) -> int:
    """Chips."""
    return math.prod(self.sides)

  @property
  def kind(self) -> str:
    """'v5e'."""
    return self.name.partition(':')[0]

  @property
  def network(self) -> float:
    """Bytes/s that a chip sends to others with all links that a ring can use.

    An axis of a TPU slice that is not closed to a ring has the use of one link of its
    two: at its ends there is no other.
    """
    if self.count == 1:
      return math.inf
    if not self.chip.ring:
      return self.chip.link * self.chip.links
    used = sum(
      2 if side % self.chip.ring == 0 else 1 for side in self.sides if side > 1
    )
    return self.chip.link * used

  def of_size(self, count: int) -> 'Machine':
    """The same chips in another number, as near to a cube (or square) as can be.

    Args:
      count: a power of two.
    """
    if not self.is_tpu:
      return dataclasses.replace(self, name=f'{self.kind}:{count}', sides=(count,))
    axes = self.chip.links // 2
    sides = [1] * axes
    while math.prod(sides) < count:
      sides[-1 - sides[::-1].index(min(sides))] *= 2
    sides = tuple(sorted(sides))
    name = f'{self.kind}:{"x".join(map(str, sides))}'
    return dataclasses.replace(self, name=name, sides=sides)


def parse(name: str) -> Machine:
  """A machine by its name.

  Raises:
    ValueError: an unknown name, answered with the known ones.
  """
  kind, _, size = name.partition(':')
  if name == 'cpu':
    return Machine(name, cpu(), (1,), is_tpu=False)
  if kind not in CHIPS:
    known = ', '.join([*map(_example, CHIPS), 'cpu'])
    raise ValueError(f'plan.topology: no machine {name!r}; known are, say, {known}')
  is_tpu = kind in TPUS
  sides = re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', size)
  sides = tuple(map(int, size.split('x'))) if sides else ()
  if len(sides) != (CHIPS[kind].links // 2 if is_tpu else 1):
    raise ValueError(f'plan.topology: no machine {name!r}; write {_example(kind)}')
  return Machine(name, CHIPS[kind], sides, is_tpu)


def _example(kind: str) -> str:
  axes = CHIPS[kind].links // 2 if kind in TPUS else 1
  return f'{kind}:{ {1: "8", 2: "4x4", 3: "2x2x4"}[axes] }'.replace(' ', '')


def cpu() -> Chip:
  """This machine's processor, by what its cores could do; nothing is measured."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
  try:
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (ValueError, OSError):
    memory = math.inf
  # AVX-512: two multiply-adds of 16 floats a cycle, in float32: few processors compute
  # bfloat16 any faster.
  return Chip(
    flops=cores * 2.5e9 * 64,
    bandwidth=cores * 10e9,
    memory=memory,
    link=0,
    links=0,
    ring=0,
    clock=0,
    source=f'{cores} cores: 64 FLOP a cycle at 2.5 GHz and 10 GB/s each, assumed',
  )
