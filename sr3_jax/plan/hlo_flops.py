"""Counts the multiplications and additions of convolutions and matrix products.

They follow from shapes and attributes, and are counted as XLA's own cost analysis does:
a multiplication and an addition are two, and what meets padding does not count.
"""

import functools
import math
import re

from sr3_jax.plan.hlo import Computation, Instruction, Program, arrays


def products(
  program: Program, computation: Computation, outer: Computation
) -> list[tuple[float, Instruction]]:
  """Return the FLOPs of all convolutions and products in a computation.

  Fusions within fusions are looked up in the program. Operands that are not in
  `computation` are in `outer`.

  Returns:
    Pairs of FLOPs and the instruction that does them, the smallest first.
  """
  found = []
  for one in computation.values():
    scope = computation if all(name in computation for name in one.operands) else outer
    if one.opcode == 'convolution':
      found.append((_convolution_flops(scope, one), one))
    elif one.opcode == 'dot':
      found.append((_dot_flops(scope, one), one))
    elif one.opcode == 'fusion':
      nested = program.computations.get(one.attribute('calls'), {})
      found += products(program, nested, computation)
  return sorted(found, key=lambda pair: pair[0])


def _dims(scope: Computation, one: Instruction, place: int) -> tuple[int, ...]:
  """Return the sides of an operand, from where it is made or from the text itself."""
  made = scope.get(one.operands[place])
  if made is not None:
    return made.arrays[0].dims
  return arrays(one.inside)[place].dims


def _dot_flops(scope: Computation, one: Instruction) -> float:
  """Return the FLOPs of a matrix product."""
  left = _dims(scope, one, 0)
  listed = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', one.rest)
  axes = [int(i) for i in listed[1].split(',') if i] if listed else []
  return 2.0 * one.arrays[0].size * math.prod(left[i] for i in axes)


def _convolution_flops(scope: Computation, one: Instruction) -> float:
  """Return the FLOPs of a convolution of any number of axes."""
  left, right = _dims(scope, one, 0), _dims(scope, one, 1)
  made = one.arrays[0].dims
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', one.rest)
  if labels is None:
    raise ValueError(f'{one.name}: a convolution without dim_labels')
  of_kernel = {label: right[i] for i, label in enumerate(labels[2])}
  positions = 1
  spatial = sorted(label for label in labels[1] if label.isdigit())
  for axis, label in enumerate(spatial):
    positions *= valid_positions(
      size=left[labels[1].index(label)],
      kernel=of_kernel[label],
      made=made[labels[3].index(label)],
      **_window(one, axis),
    )
  groups = re.search(r'\bbatch_group_count=(\d+)', one.rest)
  batch = left[labels[1].index('b')] // (int(groups[1]) if groups else 1)
  # Kernels are made for the inputs of one feature group.
  return 2.0 * batch * of_kernel['i'] * of_kernel['o'] * positions


def _window(one: Instruction, axis: int) -> dict[str, int]:
  """Return what a convolution's window does along an axis, for `valid_positions`."""
  window = re.search(r'window=\{([^}]*)\}', one.rest)
  names = {'stride': 'stride', 'pad': 'before'}
  names |= {'lhs_dilate': 'left_dilation', 'rhs_dilate': 'right_dilation'}
  found = {}
  for part in window[1].split() if window else ():
    name, values = part.split('=')
    if name in names:  # padding is written 1_1x0_2: before and after, for each axis
      found[names[name]] = int(values.split('x')[axis].split('_')[0])
  return found


@functools.cache
def valid_positions(
  *,
  size: int,
  kernel: int,
  made: int,
  stride: int = 1,
  before: int = 0,
  left_dilation: int = 1,
  right_dilation: int = 1,
) -> int:
  """Count the pairs of output and kernel positions that meet an input, not padding.

  Args:
    size: length of the input along the axis.
    kernel: length of the kernel.
    made: length of the output.
    stride: step of the window.
    before: padding at the start; may be negative.
    left_dilation: of the input.
    right_dilation: of the kernel.
  """
  count, last = 0, (size - 1) * left_dilation
  for k in range(kernel):
    shift = k * right_dilation - before
    places = range(shift, shift + made * stride, stride)
    count += sum(0 <= p <= last and p % left_dilation == 0 for p in places)
  return count
