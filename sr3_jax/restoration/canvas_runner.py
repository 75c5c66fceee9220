"""Runs a model on many conditions, canvas by canvas, and copes with full memory."""

import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from sr3_jax.core import samplers
from sr3_jax.core.sr3 import SR3
from sr3_jax.restoration import canvas, canvas_arguments
from sr3_jax.restoration.canvas_arguments import Canvases, Item, Tiles, Work
from sr3_jax.restoration.settings import UpscalerError
from sr3_jax.restoration.tiling import Layout, Planner, Size, round_up
from sr3_jax.runtime import devices as runtime_devices
from sr3_jax.runtime import errors
from sr3_jax.runtime.types import Params

OnSteps = Callable[[int], None]


class CanvasRunner:
  """A model on this process's devices.

  Args:
    model: the model.
    params: its weights, on the host.
    trajectory: of the sampler.
    plan: which canvases to use; its tiles are halved when memory runs out.
    batch: tiles at a time on each device; halved when memory runs out.
    consistency: whether predictions of y0 are corrected to downsample to the condition.
    on_note: called with a line of text when memory runs out.
  """

  def __init__(
    self,
    model: SR3,
    params: Params,
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
    """Return how many bytes a device needs for the largest of some conditions.

    Compiles the programs for them.
    """
    needed, devices = 0, jax.local_device_count()

    def shape(leaf: np.ndarray | np.generic) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct((devices, *np.shape(leaf)), leaf.dtype)

    for size in sizes:
      layout = self._plan.layout(size)
      canvases, work, y = self._host_arguments(layout, [], guidance)
      first, one = shape(y[0]), shape(np.int32(0))
      arrays = jax.tree.map(shape, (canvases[0], work[0]))
      args = self._params, *arrays, self._steps, one, one, first, first
      needed = max(needed, self._program(layout).memory(*args))
    return needed

  @property
  def resident(self) -> int:
    """The bytes of weights and sampler on each device: they are there already."""
    leaves = jax.tree.leaves((self._params, self._steps))
    return sum(leaf.nbytes for leaf in leaves) // jax.local_device_count()

  def __call__(
    self, items: Sequence[Item], guidance: float | None, on_steps: OnSteps
  ) -> list[np.ndarray]:
    """Sample an image for each item.

    Args:
      items: conditions of any sizes.
      guidance: how much the class counts; None for no guidance.
      on_steps: called with the work just done, in units of `Planner.work`.

    Returns:
      float32 [H, W, C] in [-1, 1] each, in the order of `items`.

    Raises:
      UpscalerError: memory runs out with the smallest tiles.
    """
    outputs: dict[int, np.ndarray] = {}
    while waiting := [k for k in range(len(items)) if k not in outputs]:
      # They are planned anew each time, because full memory changes the layouts.
      layouts = {k: self._plan.layout(items[k].condition.shape[:2]) for k in waiting}
      layout = layouts[waiting[0]]
      most = layout.images * (1 if layout.shared else jax.local_device_count())
      group = [k for k in waiting if layouts[k] == layout][:most]
      try:
        done = self._run(layout, [items[k] for k in group], guidance, on_steps)
      except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not errors.out_of_memory(error):
          raise
        self._shrink(layout)
      else:
        outputs.update(zip(group, done, strict=True))
    return [outputs[k] for k in range(len(items))]

  def _shrink(self, layout: Layout) -> None:
    """Halve what takes the memory: the number of tiles at a time, then their size."""
    if self._batch > 1:
      self._batch //= 2
      self._note(f'out of memory: going on with {self._batch} tiles at a time')
    elif half := self._plan.halve(layout):
      side = half // self._model.scale
      self._note(f'out of memory: going on with tiles of {side} input pixels')
    else:
      raise UpscalerError(
        'out of memory with the smallest tiles: the image itself is too large for this '
        'device; choose a smaller --outscale or cut the image'
      )

  def _run(
    self,
    layout: Layout,
    items: Sequence[Item],
    guidance: float | None,
    on_steps: OnSteps,
  ) -> list[np.ndarray]:
    """Sample one image for each item, all on canvases of one layout."""
    program = self._program(layout)
    canvases, work, carry = self._arguments(layout, items, guidance)
    units = sum(self._plan.work(item.condition.shape[:2]) for item in items)
    done, stretch = 0, 1
    while done < self._num_steps:
      count = min(stretch, self._num_steps - done)
      began = time.monotonic()
      span = runtime_devices.replicate((np.int32(done), np.int32(count)))
      carry = program(self._params, canvases, work, self._steps, *span, *carry)
      jax.block_until_ready(carry)
      seconds = time.monotonic() - began
      done += count
      on_steps(count * units)
      # Report progress about once a second, and wait for the device no more often. The
      # first call is not timed, because it may have compiled the program.
      stretch = 1 if done == 1 else max(1, int(stretch / max(seconds, 1e-3)))
    y = carry[0]
    del canvases, work, carry  # what is done next needs their memory
    return self._outputs(layout, items, y)

  def _outputs(
    self, layout: Layout, items: Sequence[Item], y: jax.Array
  ) -> list[np.ndarray]:
    """Return the finished image of each item from the canvases y, [D, N, H, W, C]."""
    devices = 1 if layout.shared else jax.local_device_count()
    own = devices > 1  # otherwise all devices hold the same
    canvases = (
      runtime_devices.gather(y) if own else np.asarray(y.addressable_data(0))[0]
    )
    outputs = []
    for k, item in enumerate(items):
      height, width = self._plan.output(item.condition.shape[:2])
      image = canvases[k % devices * layout.images + k // devices, :height, :width]
      outputs.append(finish(self._model, item.condition, image))
    return outputs

  def _program(self, layout: Layout) -> runtime_devices.Mapped:
    """Return the program for canvases of a layout."""
    return canvas.program(self._model, self._batch, layout.shared)

  def _arguments(
    self, layout: Layout, items: Sequence[Item], guidance: float | None
  ) -> tuple[Canvases, Work, samplers.Carry]:
    """Return the program's canvases, work and first carry, on the devices."""
    canvases, work, y = self._host_arguments(layout, items, guidance)

    def stack(*leaves: np.ndarray) -> np.ndarray:
      return np.stack(leaves) if len(leaves) > 1 else np.asarray(leaves[0])[None]

    put = runtime_devices.put
    on_devices = put(jax.tree.map(stack, *canvases)), put(jax.tree.map(stack, *work))
    return *on_devices, (put(y), put(y))

  def _host_arguments(
    self, layout: Layout, items: Sequence[Item], guidance: float | None
  ) -> tuple[list[Canvases], list[Work], np.ndarray]:
    """Return canvases and work of each device, and the first carry of all.

    Item k is on device k % D, or on all devices if they share canvases; then its tiles
    are dealt out to them. Canvases without an item stay empty.
    """
    model, plan, devices = self._model, self._plan, jax.local_device_count()
    groups = 1 if layout.shared else devices
    parts = [items[d::groups] for d in range(groups)]
    canvases = [
      canvas_arguments.make_canvases(
        model, plan, layout, part, self._consistency, guidance
      )
      for part in parts
    ]
    tiles = [canvas_arguments.tiles_of(plan, layout, part) for part in parts]
    if layout.shared:
      canvases = canvases * devices
      tiles = [
        Tiles(*(array[d::devices] for array in tiles[0])) for d in range(devices)
      ]
    # The capacity is that of full canvases, so that one program serves all images.
    most = plan.count((layout.height, layout.width), layout) * layout.images
    capacity = round_up(-(-most // (devices // groups)), self._batch)
    work = [canvas_arguments.make_work(part, capacity, self._batch) for part in tiles]
    shape = devices, layout.images, layout.height, layout.width, model.channels
    return canvases, work, np.zeros(shape, np.float32)


def finish(model: SR3, condition: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Return the image at the end of a trajectory, as `SR3.finish` does.

  It is [H, W, C] in [-1, 1], but for known pixels, which are as they were, and NaN
  where the model's output is not finite. NumPy makes it, so that there is no program to
  compile for each size.
  """
  x = canvas_arguments.upsample(model, condition)
  image = np.array(model.decode(y, x), np.float32)  # a copy, not the device's memory
  with np.errstate(over='ignore', invalid='ignore'):  # as `clip_finite` does it
    broken = ~np.isfinite(np.square(image))
    np.clip(image, -1, 1, out=image)
  image[broken] = np.nan
  if 'mask' not in model.task.extras:
    return image
  return np.where(model.missing(x) > 0, image, model.observed(x))
