"""Runs a model on many conditions: canvas by canvas, smaller where memory ends."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import canvas
from sr3_jax.restoration.canvas import Item
from sr3_jax.restoration.settings import PipelineError
from sr3_jax.restoration.tiling import Layout, Planner, Size
from sr3_jax.runtime import devices as runtime_devices

OnSteps = Callable[[int], None]


class Runner:
  """A model on this process's devices.

  Args:
    model: the model.
    params: its weights, on the host.
    trajectory: of the sampler.
    plan: which canvases to use; its tiles are halved when memory ends.
    batch: tiles at a time on each device.
    consistency: whether predictions of y0 are corrected to downsample to the condition.
    on_note: told when memory ends.
  """

  def __init__(
    self,
    model: SR3,
    params: Any,
    trajectory: samplers.Trajectory,
    plan: Planner,
    batch: int,
    consistency: bool,
    on_note: Callable[[str], None],
  ):
    self._model, self._plan, self._batch = model, plan, batch
    self._consistency, self._note = consistency, on_note
    self._num_steps = len(trajectory.coefficients)
    steps = samplers.steps(*trajectory, capacity=canvas.MAX_STEPS)
    self._steps = runtime_devices.replicate(steps)
    self._params = runtime_devices.replicate(params)
    runtime_devices.compiler_options()

  def memory(self, sizes: Sequence[Size], guidance: float | None) -> int:
    """Bytes that a device needs for the largest of conditions; compiles for them."""
    needed = 0
    for size in sizes:
      layout = self._plan.layout(size)
      args = self._arguments(layout, [], guidance)
      needed = max(needed, self._program(layout).memory(*args))
    return needed

  def __call__(
    self, items: Sequence[Item], guidance: float | None, on_steps: OnSteps
  ) -> list[np.ndarray]:
    """Draws an image for each item.

    Args:
      items: conditions of any sizes.
      guidance: how much the class counts; None for no guidance.
      on_steps: called with the work just done, in units of `Planner.work`.

    Returns:
      float32 [H, W, C] in [-1, 1] each, in the order of `items`.

    Raises:
      PipelineError: memory ends with the smallest tiles.
    """
    outputs: dict[int, np.ndarray] = {}
    while waiting := [k for k in range(len(items)) if k not in outputs]:
      # Asked for anew each time: having run out of memory changes the layouts.
      layouts = {k: self._plan.layout(items[k].condition.shape[:2]) for k in waiting}
      layout = layouts[waiting[0]]
      most = layout.images * (1 if layout.shared else jax.local_device_count())
      few = [k for k in waiting if layouts[k] == layout][:most]
      try:
        done = self._run(layout, [items[k] for k in few], guidance, on_steps)
      except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error) and 'emory' not in str(error):
          raise
        self._shrink(layout)
      else:
        outputs.update(zip(few, done, strict=True))
    return [outputs[k] for k in range(len(items))]

  def _shrink(self, layout: Layout) -> None:
    """Halves what takes the memory: tiles at a time, then their size.

    Raises:
      PipelineError: nothing is left to halve.
    """
    if self._batch > 1:
      self._batch //= 2
      self._note(f'out of memory: going on with {self._batch} tiles at a time')
    elif half := self._plan.halve(layout):
      small = half // self._model.scale
      self._note(f'out of memory: going on with tiles of {small} input pixels')
    else:
      raise PipelineError(
        'out of memory with the smallest tiles: the image itself is too large for this '
        'device; choose a smaller --outscale or cut the image'
      )

  def _run(
    self, layout: Layout, items: Sequence[Item], guidance, on_steps: OnSteps
  ) -> list[np.ndarray]:
    """Sample images from noise, on one canvas each."""
    program = self._program(layout)
    args = self._arguments(layout, items, guidance)
    fixed, carry = args[:4], args[6:]
    work = sum(self._plan.work(item.condition.shape[:2]) for item in items)
    done, stretch = 0, 1
    while done < self._num_steps:
      count = min(stretch, self._num_steps - done)
      began = time.monotonic()
      span = runtime_devices.replicate((np.int32(done), np.int32(count)))
      carry = jax.block_until_ready(program(*fixed, *span, *carry))
      seconds = time.monotonic() - began
      done += count
      on_steps(count * work)
      # Progress about once a second, without waiting for the device more than that.
      # The first call may have compiled.
      stretch = 1 if done == 1 else max(1, int(stretch / max(seconds, 1e-3)))
    devices = 1 if layout.shared else jax.local_device_count()
    canvases = runtime_devices.gather(carry[0]) if devices > 1 else _first(carry[0])
    outputs = []
    for k, item in enumerate(items):
      height, width = self._plan.output(item.condition.shape[:2])
      y = canvases[k % devices * layout.images + k // devices, :height, :width]
      outputs.append(canvas.finish(self._model, item.condition, y))
    return outputs

  def _program(self, layout: Layout):
    return canvas.program(
      self._model, layout.tile, self._batch, self._consistency, layout.shared
    )

  def _arguments(self, layout: Layout, items: Sequence[Item], guidance) -> list[Any]:
    image, work, *rest = canvas.arguments(
      self._model, self._plan, layout, items, self._batch, self._consistency, guidance
    )
    return [self._params, image, work, self._steps, *rest]


def _first(array: jax.Array) -> np.ndarray:
  """The first device's part, on the host."""
  return np.asarray(array.addressable_data(0))[0]
