"""Says what memory a picture needs before any is taken for it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax

from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration.tiling import Layout, Size
from sr3_jax.runtime import devices
from sr3_jax.runtime import memory as runtime_memory

# float32 canvases that the program holds at the least: condition, two of the carry,
# predictions, their sum and a copy. The compiler says what it is exactly.
CANVASES = 6
# Bytes of a channel of a pixel at the largest moment of ...
READING = 13  # ... decoding a file: its bytes, 8 bits, float32 and a copy of it
FINISHING = 28  # ... making an output consistent: output and its copies, and 8 bits
ENCODING = 8  # ... writing a sample: 8 or 16 bits, Pillow's copy, and the file
# What Python, libraries and threads take when pictures are done, beside all above.
# Measured on Linux with the models of the package.
OVERHEAD = 30 * 10**6


class Memory(NamedTuple):
  """Bytes that a picture needs, and bytes that there are."""

  peak: int  # of this process, with what it has already
  limit: int | None  # what this process may have; None if not known
  # On each device, and free on the fullest; None where devices use the host's memory.
  device: int | None = None
  device_limit: int | None = None

  @property
  def fits(self) -> bool:
    """Return whether host and devices have enough, as far as that is known."""
    return not (_more(self.peak, self.limit) or _more(self.device, self.device_limit))

  def __str__(self):
    """Return what is needed and what there is, in GB."""
    text = f'{self.peak / 1e9:.2f} GB'
    if self.limit is not None:
      text += f' of {self.limit / 1e9:.2f} GB'
    if self.device is None:
      return text
    text += f', on each device {self.device / 1e9:.2f} GB'
    if self.device_limit is None:
      return text
    return f'{text} of {self.device_limit / 1e9:.2f} GB'


class Sizes(NamedTuple):
  """The numbers that the memory of one picture follows from; all of float32 values."""

  inputs: int  # of the picture
  conditions: int  # of all samples in the largest run
  outputs: int  # of one sample, in the largest run
  samples: int
  frames: int = 1  # of an animation; outputs are kept compressed until the last is made


class Planned(NamedTuple):
  """Says what is done with one picture."""

  input: Size
  runs: Sequence[Size]  # of the conditions of the model's runs
  outputs: Sequence[Size]  # of these runs, and of the picture
  layouts: Sequence[Layout]  # of the canvases of these runs
  samples: int
  frames: int


def sizes(model: SR3, planned: Planned) -> Sizes:
  """Return the numbers that the memory of a picture follows from."""
  given = model.input_channels
  conditions = max(map(math.prod, planned.runs)) * model.task.num_channels(given)
  return Sizes(
    inputs=math.prod(planned.input) * given,
    conditions=planned.samples * conditions,
    outputs=max(map(math.prod, planned.outputs)) * model.channels,
    samples=planned.samples,
    frames=planned.frames,
  )


def at_least(model: SR3, planned: Planned, weights: int) -> Memory:
  """Return what a picture needs at the least, before any program is compiled.

  `weights` are the bytes that are on the devices already.
  """
  pixels = max(k.images * k.height * k.width for k in planned.layouts)
  canvases = 4 * CANVASES * pixels * model.channels
  return of_picture(sizes(model, planned), weights + canvases, weights)


def of_picture(sizes: Sizes, program: int, weights: int) -> Memory:
  """Return what a picture needs, from the bytes of its program on each device.

  `weights` of these bytes are on the devices already.
  """
  now, before = runtime_memory.resident()
  on_host = jax.default_backend() == 'cpu'
  held = 4 * (2 * sizes.inputs + sizes.conditions)
  held += 2 * (sizes.frames - 1) * sizes.samples * sizes.outputs
  earlier = 4 * (sizes.samples - 1) * sizes.outputs
  running = held + earlier
  if on_host:
    running += (program - weights) * jax.local_device_count()
  else:
    running += 12 * sizes.outputs
  finishing = held + earlier + FINISHING * sizes.outputs
  writing = held + earlier + (4 + ENCODING) * sizes.outputs
  later = max(READING * sizes.inputs, running, finishing, writing) + OVERHEAD
  free = runtime_memory.free()
  peak, limit = max(before, now + later), None if free is None else now + free
  if on_host:
    return Memory(peak, limit)
  return Memory(peak, limit, program, devices.free_memory())


def _more(needed: int | None, limit: int | None) -> bool:
  """Return whether more is needed than there is."""
  return needed is not None and limit is not None and needed > limit
