"""Restores images of any size: which tiles, which canvas, which walk, how many times.

Images are float32 [h, w, C] in [-1, 1]. A large one is denoised tile by tile on one
canvas, small ones are canvases of one tile, several at a time (canvas.py). Everything
that an image's result depends on follows from that image and the settings, never from
the other images of a batch.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from sr3_jax import __version__, canvas, parallel, samplers, tiles
from sr3_jax.canvas import Item
from sr3_jax.choices import PipelineError, as_float, choose_tiles, choose_walk
from sr3_jax.hub import Loaded
from sr3_jax.layout import Layout, Planner, output_size

MAX_OUTSCALE = 64


@dataclasses.dataclass(frozen=True)
class Result:
  """Restored images of one input; all values in [-1, 1].

  Attributes:
    samples: float32 [n, H, W, C], C = 1 for grey inputs.
    bicubic: float32 [H, W, C], the input enlarged without a model, for comparison.
    settings: all that the result depends on beside the input; a JSON object.
  """

  samples: np.ndarray
  bicubic: np.ndarray
  settings: dict[str, Any]

  @property
  def image(self) -> np.ndarray:
    """The first sample, [H, W, C]."""
    return self.samples[0]

  @property
  def mean(self) -> np.ndarray:
    """[H, W, C]."""
    return self.samples.mean(0)

  @property
  def spread(self) -> np.ndarray:
    """Standard deviation over samples, mean over channels: [H, W]."""
    return self.samples.std(0).mean(-1)


class Upscaler:
  """A model ready to restore images of any size.

  Args:
    loaded: from `hub.load`.
    steps: a number of sampling steps, or 'fast', 'balanced' or 'best': presets of the
      model (written by --mode=sweep), or general ones.
    sampler: a key of `samplers.SAMPLERS`; None takes the preset's.
    tile: side of tiles in input pixels; 0 is the whole image, None chooses.
    tile_pad: half of the overlap of tiles in input pixels; None chooses.
    seed: of all noise.
    consistency: correct the estimate at every step, and the result, such that the
      output made small again is the input.
    batch: tiles at a time on each device; None chooses.
    on_note: called with a line of text when something is worth telling the user.

  Raises:
    PipelineError: options that don't fit the model.
  """

  def __init__(
    self,
    loaded: Loaded,
    *,
    steps: int | str = 'balanced',
    sampler: str | None = None,
    tile: int | None = None,
    tile_pad: int | None = None,
    seed: int = 0,
    consistency: bool = False,
    batch: int | None = None,
    on_note: Callable[[str], None] = print,
  ):
    self.loaded, self.model = loaded, loaded.model
    self._seed, self._consistency, self._note = seed, consistency, on_note
    self._sampler, walk = choose_walk(loaded, steps, sampler)
    self.num_steps = len(walk[1])
    self._batch = batch or (1 if jax.default_backend() == 'cpu' else 8)
    self._plan = Planner(
      self.model.scale,
      self.model.network.multiple,
      *choose_tiles(self.model, tile, tile_pad),
      at_once=self._batch,
    )
    self._asked = self._plan.sides
    self._walk = parallel.replicate(samplers.steps(*walk, room=canvas.MAX_STEPS))
    self._params = parallel.replicate(loaded.params)
    parallel.compiler_options()

  # -------------------------------------------------------------- what it will do

  def settings(self, outscale: float | None = None) -> dict[str, Any]:
    """All that results depend on beside the input; a JSON object."""
    return {
      'model': self.loaded.name,
      'weights': self.loaded.fingerprint,
      'version': __version__,
      'outscale': outscale or self.model.scale,
      **{'sampler' if k == 'name' else k: v for k, v in self._sampler.items()},
      'seed': self._seed,
      'tiles': list(self._asked),
      'tile_pad': self._plan.pad,
      'consistency': self._consistency,
    }

  def work(
    self, height: int, width: int, outscale: float | None = None, num_samples: int = 1
  ) -> int:
    """What `on_steps` will have counted when an input of this size is done."""
    runs = self._plan.passes((height, width), outscale or self.model.scale)
    return num_samples * self.num_steps * sum(map(self._plan.work, runs))

  def reserve(
    self, sizes: Iterable[tuple[int, int]], outscale: float | None = None
  ) -> None:
    """Plans canvases for inputs (height, width) to come, so that few are compiled."""
    outscale = outscale or self.model.scale
    self._plan.reserve(
      [run for size in sizes for run in self._plan.passes(size, outscale)]
    )

  def memory(
    self, height: int, width: int, outscale: float | None = None
  ) -> tuple[int, int | None]:
    """Bytes a device needs for inputs of this size, and has free if that is known.

    Compiles the program, as the first image would.
    """
    needed = 0
    for run in self._plan.passes((height, width), outscale or self.model.scale):
      layout = self._plan.layout(run)
      args = self._arguments(layout, [])
      needed = max(needed, parallel.memory(self._program(layout), *args))
    return needed, parallel.free_memory()

  # ------------------------------------------------------------------ doing it

  def upscale(
    self,
    image: Any,
    outscale: float | None = None,
    *,
    num_samples: int = 1,
    label: int | None = None,
    number: int = 0,
    on_steps: Callable[[int], None] = lambda steps: None,
  ) -> Result:
    """Restores one image: `upscale_many` of one."""
    return self.upscale_many(
      [image],
      outscale,
      num_samples=num_samples,
      label=label,
      numbers=[number],
      on_steps=on_steps,
    )[0]

  def upscale_many(
    self,
    images: Sequence[Any],
    outscale: float | None = None,
    *,
    num_samples: int = 1,
    label: int | None = None,
    numbers: Sequence[int] | None = None,
    on_steps: Callable[[int], None] = lambda steps: None,
  ) -> list[Result]:
    """Restores images, small ones several at a time.

    Args:
      images: float [h, w, C] in [-1, 1], C = 1 or 3, or uint8 or uint16 arrays (also
        [h, w]), or PIL images without alpha.
      outscale: output sides over input sides; None is the model's scale. The model runs
        at its own scale, repeatedly if need be, and what is too large is reduced.
      num_samples: how many to draw of each image.
      label: class, for models that have classes.
      numbers: noise is a function of (seed, number, sample); 0 for all if None.
      on_steps: called with how much was just done; the sum is what `work` says.

    Raises:
      PipelineError: an image or a label that the model can't take, or no memory.
    """
    outscale, label = self.check(outscale, label)
    inputs = [as_float(image) for image in images]
    numbers = numbers or [0] * len(inputs)
    current = [
      np.repeat(image, 3 // image.shape[-1], axis=-1)
      for image in inputs
      for _ in range(num_samples)
    ]
    sizes = [self._plan.passes(image.shape[:2], outscale) for image in inputs]
    for p in range(len(sizes[0]) if sizes else 0):
      items = []
      for k, image in enumerate(current):
        source, sample = divmod(k, num_samples)
        condition = tiles.resize(image, *sizes[source][p])
        seed = (self._seed, numbers[source], sample, p)
        items.append(Item(condition, seed, label))
      current = self._run_all(items, on_steps)
    results = []
    for k, image in enumerate(inputs):
      size = output_size(image.shape[:2], outscale)
      samples = [
        self._finished(sample, image, size)
        for sample in current[k * num_samples : (k + 1) * num_samples]
      ]
      bicubic = np.clip(tiles.resize(image, *size), -1, 1)
      settings = self.settings(outscale)
      if self._plan.sides != self._asked:  # it ran out of memory
        settings['tiles_used'] = list(self._plan.sides)
      results.append(Result(np.stack(samples), bicubic, settings))
    return results

  def _finished(self, sample, image, size):
    """At the output's size, grey if the input is, consistent if asked for."""
    sample = np.clip(tiles.resize(sample, *size), -1, 1)
    if image.shape[-1] == 1:
      sample = sample.mean(-1, keepdims=True)
    enlarged = all(out >= had for out, had in zip(size, image.shape, strict=False))
    if self._consistency and enlarged:
      sample = tiles.make_consistent(sample, image)
    return sample

  def check(self, outscale: float | None, label: int | None) -> tuple[float, int]:
    """Factor and class that images are restored with.

    Raises:
      PipelineError: the model can't take one of them.
    """
    outscale = outscale or self.model.scale
    if not 0 < outscale <= MAX_OUTSCALE:
      raise PipelineError(
        f'outscale must be above 0, at most {MAX_OUTSCALE}: {outscale}'
      )
    return outscale, self._checked_label(label)

  def _checked_label(self, label):
    classes = self.loaded.config.model.num_classes
    if label is None and self.loaded.config.model.network == 'guided' and classes:
      raise PipelineError(f'this model wants a class: a label from 0 to {classes - 1}')
    if label is None:
      return classes  # "no class"
    if not 0 <= label < classes:
      known = f'labels from 0 to {classes - 1}' if classes else 'no classes'
      raise PipelineError(f'label {label}: this model has {known}')
    return label

  # --------------------------------------------------------------------- running

  def _run_all(self, items: list[Item], on_steps) -> list[np.ndarray]:
    """Outputs of the model, in the order of `items`; those of a canvas together."""
    outputs: dict[int, np.ndarray] = {}
    while waiting := [k for k in range(len(items)) if k not in outputs]:
      # Asked for anew each time: having run out of memory changes the layouts.
      layouts = {k: self._plan.layout(items[k].condition.shape[:2]) for k in waiting}
      layout = layouts[waiting[0]]
      most = layout.images * (1 if layout.shared else jax.local_device_count())
      few = [k for k in waiting if layouts[k] == layout][:most]
      try:
        done = self._run(layout, [items[k] for k in few], on_steps)
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
      small = half // self.model.scale
      self._note(f'out of memory: going on with tiles of {small} input pixels')
    else:
      raise PipelineError(
        'out of memory with the smallest tiles: the image itself is too large for this '
        'device; choose a smaller --outscale or cut the image'
      )

  def _run(self, layout: Layout, items: list[Item], on_steps) -> list[np.ndarray]:
    """A walk from noise to images, on one canvas each."""
    program = self._program(layout)
    args = self._arguments(layout, items)
    fixed, carry = args[:4], args[6:]
    work = sum(self._plan.work(item.condition.shape[:2]) for item in items)
    done, stretch = 0, 1
    while done < self.num_steps:
      count = min(stretch, self.num_steps - done)
      began = time.monotonic()
      span = parallel.replicate((np.int32(done), np.int32(count)))
      carry = jax.block_until_ready(program(*fixed, *span, *carry))
      seconds = time.monotonic() - began
      done += count
      on_steps(count * work)
      # Progress about once a second, without waiting for the device more than that.
      # The first call may have compiled.
      stretch = 1 if done == 1 else max(1, int(stretch / max(seconds, 1e-3)))
    devices = 1 if layout.shared else jax.local_device_count()
    canvases = parallel.gather(carry[0]) if devices > 1 else _first(carry[0])
    outputs = []
    for k, item in enumerate(items):
      height, width = self._plan.output(item.condition.shape[:2])
      y = canvases[k % devices * layout.images + k // devices, :height, :width]
      image = self.model.decode(y, canvas.enlarge(self.model, item.condition))
      outputs.append(np.clip(image, -1, 1))
    return outputs

  def _program(self, layout: Layout):
    return canvas.program(
      self.model, layout.tile, self._batch, self._consistency, layout.shared
    )

  def _arguments(self, layout: Layout, items: list[Item]) -> list[Any]:
    image, work, *rest = canvas.arguments(
      self.model, self._plan, layout, items, self._batch, self._consistency
    )
    return [self._params, image, work, self._walk, *rest]


def _first(array: jax.Array) -> np.ndarray:
  """The first device's part, on the host."""
  return np.asarray(array.addressable_data(0))[0]
