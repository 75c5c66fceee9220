"""The multiplications and additions of convolutions and matrix products.

Of shapes and attributes, as XLA's own cost analysis counts them: an addition and a
multiplication are two, and what meets padding is none.
"""

import functools
import math
import re

from sr3_jax.plan.hlo import Computation, Instruction, Program, arrays


def parts(
  program: Program, computation: Computation, outer: Computation
) -> list[tuple[float, Instruction]]:
  """FLOPs of all convolutions and products in a computation, and what does them.

  Args:
    program: for fusions within fusions.
    computation: what to count.
    outer: where operands stand that are not in it.

  Returns:
    Pairs, the smallest first.
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
      found += parts(program, nested, computation)
  return sorted(found, key=lambda pair: pair[0])


def _dims(scope: Computation, one: Instruction, place: int) -> tuple[int, ...]:
  """Sides of an operand, from where it is made or from the text itself."""
  made = scope.get(one.operands[place])
  if made is not None:
    return made.arrays[0].dims
  return arrays(one.inside)[place].dims


def _dot_flops(scope: Computation, one: Instruction) -> float:
  left = _dims(scope, one, 0)
  listed = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', one.rest)
  axes = [int(i) for i in listed[1].split(',') if i] if listed else []
  return 2.0 * one.arrays[0].size * math.prod(left[i] for i in axes)


def _convolution_flops(scope: Computation, one: Instruction) -> float:
  left, right = _dims(scope, one, 0), _dims(scope, one, 1)
  made = one.arrays[0].dims
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', one.rest)
  window = re.search(r'window=\{([^}]*)\}', one.rest)
  parts = dict(p.split('=') for p in window[1].split()) if window else {}
  number = lambda name: int((re.search(rf'\b{name}=(\d+)', one.rest) or (0, 1))[1])
  of_kernel = {label: right[i] for i, label in enumerate(labels[2])}
  positions = 1
  spatial = sorted(label for label in labels[1] if label.isdigit())
  for axis, label in enumerate(spatial):
    side = lambda name, default, axis=axis: (
      (parts[name].split('x')[axis]) if (name in parts) else default
    )
    positions *= valid_positions(
      size=left[labels[1].index(label)],
      kernel=of_kernel[label],
      made=made[labels[3].index(label)],
      stride=int(side('stride', 1)),
      before=int(side('pad', '0_0').split('_')[0]),
      left_dilation=int(side('lhs_dilate', 1)),
      right_dilation=int(side('rhs_dilate', 1)),
    )
  batch = left[labels[1].index('b')] // number('batch_group_count')
  # Kernels are made for the inputs of one feature group.
  return 2.0 * batch * of_kernel['i'] * of_kernel['o'] * positions


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
  """Pairs of output and kernel places along an axis that meet an input, not padding.

  Args:
    size: of the input along the axis.
    kernel: of the kernel.
    made: of the output.
    stride: steps of the window.
    before: padding at the start; may be negative.
    left_dilation, right_dilation: of the input and of the kernel.
  """
  count, last = 0, (size - 1) * left_dilation
  for k in range(kernel):
    shift = k * right_dilation - before
    places = range(shift, shift + made * stride, stride)
    count += sum(0 <= p <= last and p % left_dilation == 0 for p in places)
  return count
