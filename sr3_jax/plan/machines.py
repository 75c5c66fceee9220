"""Knows the published figures of the machines that plans are made for.

A machine is named as 'v5e:4x4' (a TPU slice by its sides), 'h100:8' (GPUs by their
number) or 'cpu'. Peaks are those that makers publish; no program reaches them.
"""

import dataclasses
import math
import os
import re

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """One accelerator, or one processor."""

  flops: float  # peak of dense bfloat16 arithmetic, FLOP/s
  bandwidth: float  # of its memory, bytes/s
  memory: float  # bytes that a program may use; infinite where it is not known
  link: float  # bytes/s that one link to another chip carries one way
  links: int  # number of links; on a TPU two for each axis of the slice
  source: str  # where the figures are from
  # An axis of a TPU slice is closed to a ring if its side is a multiple of this; 0
  # where a switch connects all chips.
  ring: int = 0
  clock: float = 0.0  # cycles/s; 0 where no compiler estimates cycles
  # What libtpu must be told to describe this chip.
  options: tuple[tuple[str, str], ...] = ()


_TPU = 'cloud.google.com/tpu/docs/{}; memory: what libtpu 0.0.42 says is available'
_NVIDIA = 'NVIDIA {} SXM data sheet'
_V4 = 'v4, arXiv:2304.01433'  # a chip has the memory of two cores
_MEGACORE = (('chip_config_name', 'megacore'),)  # both cores as one device

# The memory of a TPU is what its compiler leaves to programs, which is less than what
# is sold. Its clock follows from the peak and the number of its matrix units, which are
# 128 x 128 (on v6e 256 x 256).
CHIPS: dict[str, Chip] = {
  'v4': Chip(
    275e12, 1228e9, 30.5 * GIB, 50e9, 6, _TPU.format(_V4), 4, 1.05e9, _MEGACORE
  ),
  'v5e': Chip(197e12, 819e9, 15.75 * GIB, 50e9, 4, _TPU.format('v5e'), 16, 1.5e9),
  'v5p': Chip(459e12, 2765e9, 95.74 * GIB, 100e9, 6, _TPU.format('v5p'), 4, 1.75e9),
  'v6e': Chip(918e12, 1640e9, 31.25 * GIB, 100e9, 4, _TPU.format('v6e'), 16, 1.75e9),
  'a100': Chip(312e12, 2039e9, 80e9, 25e9, 12, _NVIDIA.format('A100 80GB')),
  'h100': Chip(989e12, 3350e9, 80e9, 25e9, 18, f'{_NVIDIA}, dense'.format('H100')),
  'h200': Chip(989e12, 4800e9, 141e9, 25e9, 18, f'{_NVIDIA}, dense'.format('H200')),
}


@dataclasses.dataclass(frozen=True)
class Machine:
  """Several equal chips and how they are connected."""

  name: str  # as the user writes it, 'v5e:4x4'
  chip: Chip
  sides: tuple[int, ...]  # of a TPU slice; for others only the number of chips
  is_tpu: bool  # whether its compiler runs without the machine

  @property
  def count(self) -> int:
    """The number of chips."""
    return math.prod(self.sides)

  @property
  def kind(self) -> str:
    """The name of the chips, 'v5e'."""
    return self.name.partition(':')[0]

  @property
  def platform(self) -> str:
    """Return what a network is made for: 'tpu', or 'other', which folds no pixels."""
    return 'tpu' if self.is_tpu else 'other'

  @property
  def network(self) -> float:
    """The bytes/s that a chip sends to others over all links that a ring can use.

    Of an axis of a TPU slice that is not closed to a ring, only one link of the two
    counts, because the chips at its ends have no second one. Infinite for one chip.
    """
    if self.count == 1:
      return math.inf
    if not self.chip.ring:
      return self.chip.link * self.chip.links
    axes = [side for side in self.sides if side > 1]
    return self.chip.link * sum(2 if side % self.chip.ring == 0 else 1 for side in axes)

  def of_size(self, count: int) -> 'Machine':
    """Return a machine of `count` such chips, as near to a cube or square as possible.

    Args:
      count: the number of chips, a power of two.
    """
    sides = [1] * _axes(self.chip)
    while math.prod(sides) < count:
      sides[0] *= 2
      sides.sort()
    name = f'{self.kind}:{"x".join(map(str, sides))}'
    return dataclasses.replace(self, name=name, sides=tuple(sides))


def _axes(chip: Chip) -> int:
  """Return the number of sides that a machine of these chips is named by."""
  return chip.links // 2 if chip.ring else 1


def parse(name: str) -> Machine:
  """Return the machine of a name such as 'v5e:4x4', 'h100:8' or 'cpu'.

  Raises:
    ValueError: the name is unknown; the text gives examples of known ones.
  """
  kind, _, size = name.partition(':')
  if name == 'cpu':
    return Machine(name, cpu(), (1,), is_tpu=False)
  if kind not in CHIPS:
    known = ', '.join([*map(_example, CHIPS), 'cpu'])
    raise ValueError(f'plan.topology: no machine {name!r}; known are, e.g., {known}')
  chip = CHIPS[kind]
  sides = re.fullmatch(r'[1-9]\d*(x[1-9]\d*)*', size)
  sides = tuple(map(int, size.split('x'))) if sides else ()
  if len(sides) != _axes(chip):
    raise ValueError(f'plan.topology: no machine {name!r}; write {_example(kind)}')
  return Machine(name, chip, sides, is_tpu=bool(chip.ring))


def _example(kind: str) -> str:
  """Return the name of a machine of these chips."""
  return f'{kind}:' + ('8', '4x4', '2x2x4')[_axes(CHIPS[kind]) - 1]


def cpu() -> Chip:
  """Return this machine's processor, with peaks assumed from its number of cores."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
  try:
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  except (ValueError, OSError):
    memory = math.inf
  # With AVX-512 a core does two multiply-adds of 16 floats a cycle. The peak is that of
  # float32, because few processors compute bfloat16 any faster.
  source = f'{cores} cores: 64 FLOP a cycle at 2.5 GHz and 10 GB/s each, assumed'
  return Chip(cores * 2.5e9 * 64, cores * 10e9, memory, link=0, links=0, source=source)
