"""Restores images of any size: which tiles, canvas and sampler, how many times.

Images are float32 [h, w, C] in [-1, 1]. A large one is denoised tile by tile on one
canvas, small ones are canvases of one tile, several at a time (canvas.py). Everything
that an image's result depends on follows from that image and the settings, never from
the other images of a batch.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from sr3_jax.images import resizing
from sr3_jax.restoration import inputs as restoration_inputs
from sr3_jax.restoration.canvas_arguments import Item
from sr3_jax.restoration.canvas_runner import CanvasRunner
from sr3_jax.restoration.inputs import Prepared
from sr3_jax.restoration.settings import UpscalerError, choose_tiles, choose_trajectory
from sr3_jax.restoration.tiling import Planner, output_size
from sr3_jax.runtime import devices
from sr3_jax.runtime.version import __version__
from sr3_jax.weights.hub import Loaded

MAX_OUTSCALE = 64


@dataclasses.dataclass(frozen=True)
class Result:
  """Restored images of one input; in [-1, 1] but for known pixels beyond it.

  Attributes:
    samples: float32 [n, H, W, C], C = 1 for grey inputs.
    observed: float32 [h, w, C or 1], the input as the model sees it: 0 where pixels
      are missing.
    bicubic: float32 [H, W, C or 1], that enlarged without a model, for comparison; None
      where outputs are as large as inputs.
    settings: all that the result depends on beside the input; a JSON object.
  """

  samples: np.ndarray
  observed: np.ndarray
  bicubic: np.ndarray | None
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
    temperature: of the noise, above 0, at most 1: less gives less detail and less
      grain; None takes the preset's.
    tile: side of tiles in input pixels; 0 is the whole image, None chooses.
    tile_pad: half of the overlap of tiles in input pixels; None chooses.
    seed: of all noise.
    consistency: correct every prediction of y0, and the result, such that the output
      downsampled is the input; of models that enlarge. None does what the model's
      configuration says (`sampler.consistency`).
    expand: what to add around images, of models that fill in what is missing: pixels,
      or '25%', for all sides, or four of them: top, right, bottom, left.
    blur: of what stages of a cascade are given, sigma in its pixels.
    noise: of what stages of a cascade are given, share of the amplitude.
    guidance: how much a class counts, of models trained for that; None takes theirs.
    batch: tiles at a time on each device; None chooses.
    on_note: called with a line of text when something is worth telling the user.

  Raises:
    UpscalerError: options that don't fit the model.
  """

  def __init__(
    self,
    loaded: Loaded,
    *,
    steps: int | str = 'balanced',
    sampler: str | None = None,
    temperature: float | None = None,
    tile: int | None = None,
    tile_pad: int | None = None,
    seed: int = 0,
    consistency: bool | None = None,
    expand: int | str | Sequence[int | str] | None = None,
    blur: float = 0.0,
    noise: float = 0.0,
    guidance: float | None = None,
    batch: int | None = None,
    on_note: Callable[[str], None] = print,
  ):
    if consistency is None:
      consistency = loaded.model.consistency
    restoration_inputs.check_options(
      loaded,
      consistency=consistency,
      expand=expand,
      blur=blur,
      noise=noise,
      guidance=guidance,
    )
    self.loaded, self.model = loaded, loaded.model
    self._seed, self._consistency, self._note = seed, consistency, on_note
    self._noted: set[str] = set()
    self._expand = None if expand is None else restoration_inputs.parse_expand(expand)
    self._augmentation = {'blur': float(blur), 'noise': float(noise)}
    self._guidance = guidance
    self._sampler, trajectory = choose_trajectory(loaded, steps, sampler, temperature)
    self.num_steps = len(trajectory.coefficients)
    batch = batch or (1 if jax.default_backend() == 'cpu' else 8)
    self._plan = Planner(
      self.model.scale,
      self.model.network.multiple,
      *choose_tiles(self.model, tile, tile_pad),
      at_once=batch,
    )
    self._asked = self._plan.sides
    self._runner = CanvasRunner(
      self.model, loaded.params, trajectory, self._plan, batch, consistency, on_note
    )

  # -------------------------------------------------------------- what it will do

  def settings(self, outscale: float | None = None) -> dict[str, Any]:
    """All that results depend on beside the input; a JSON object."""
    own = {}
    if self._expand:
      own['expand'] = list(self._expand)
    if 'blur' in self.model.task.extras:
      own |= self._augmentation
    if self.model.label_dropout:
      own['guidance'] = self._weight
    return {
      'model': self.loaded.name,
      'weights': self.loaded.fingerprint,
      'version': __version__,
      'task': restoration_inputs.describe(self.loaded.config),
      **own,
      'outscale': outscale or self.model.scale,
      **{'sampler' if k == 'name' else k: v for k, v in self._sampler.items()},
      'seed': self._seed,
      'tiles': list(self._asked),
      'tile_pad': self._plan.pad,
      'consistency': self._consistency,
    }

  @property
  def channels(self) -> int:
    """Of the model's images."""
    return self.model.channels

  @property
  def value_range(self) -> tuple[np.ndarray, np.ndarray] | None:
    """Stored values [C] that mean -1 and 1; None for those of the type."""
    return self.model.value_range

  @property
  def takes_masks(self) -> bool:
    """Whether pixels of an input may be missing."""
    return restoration_inputs.takes_mask(self.loaded.config)

  @property
  def needs_masks(self) -> bool:
    """Whether an input without missing pixels is a mistake."""
    return restoration_inputs.needs_mask(self.loaded.config) and self._expand is None

  def margins(self, height: int, width: int) -> tuple[int, ...]:
    """Pixels added to an input of this size: top, right, bottom, left."""
    return restoration_inputs.margins(self._expand, height, width)

  def output_size(
    self, height: int, width: int, outscale: float | None = None
  ) -> tuple[int, int]:
    """Height and width of what an input of this size becomes."""
    size = self._canvas(height, width)
    return output_size(size, outscale or self.model.scale)

  def _canvas(self, height, width):
    top, right, bottom, left = self.margins(height, width)
    return height + top + bottom, width + left + right

  @property
  def _weight(self) -> float:
    """How much a class counts."""
    own = self.loaded.config.sampler.guidance
    return own if self._guidance is None else self._guidance

  def _guide(self, label: int) -> float | None:
    """The same, None where it changes nothing."""
    useful = self.model.label_dropout and label != self.model.num_classes
    return self._weight if useful and self._weight != 1 else None

  def work(
    self, height: int, width: int, outscale: float | None = None, num_samples: int = 1
  ) -> int:
    """What `on_steps` will have counted when an input of this size is done."""
    size = self._canvas(height, width)
    runs = self._plan.passes(size, outscale or self.model.scale)
    return num_samples * self.num_steps * sum(map(self._plan.work, runs))

  def reserve(
    self, sizes: Iterable[tuple[int, int]], outscale: float | None = None
  ) -> None:
    """Plans canvases for inputs (height, width) to come, so that few are compiled."""
    outscale = outscale or self.model.scale
    self._plan.reserve(
      [
        run
        for size in sizes
        for run in self._plan.passes(self._canvas(*size), outscale)
      ]
    )

  def memory(
    self,
    height: int,
    width: int,
    outscale: float | None = None,
    label: int | None = None,
  ) -> tuple[int, int | None]:
    """Bytes a device needs for inputs of this size, and has free if that is known.

    Compiles the program, as the first image would.
    """
    outscale, label = self.check(outscale, label)
    runs = self._plan.passes(self._canvas(height, width), outscale)
    guidance = self._guide(label)
    return self._runner.memory(runs, guidance), devices.free_memory()

  # ------------------------------------------------------------------ doing it

  def upscale(
    self,
    image: Any,
    outscale: float | None = None,
    *,
    mask: Any = None,
    num_samples: int = 1,
    label: int | None = None,
    number: int = 0,
    on_steps: Callable[[int], None] = lambda steps: None,
  ) -> Result:
    """Restores one image: `upscale_many` of one."""
    return self.upscale_many(
      [image],
      outscale,
      masks=[mask],
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
    masks: Sequence[Any] | None = None,
    num_samples: int = 1,
    label: int | None = None,
    numbers: Sequence[int] | None = None,
    on_steps: Callable[[int], None] = lambda steps: None,
  ) -> list[Result]:
    """Restores images, small ones several at a time.

    Args:
      images: float [h, w, C] in [-1, 1], C the model's or 1 for grey, or uint8 or
        uint16 arrays (also [h, w]), or PIL images; with alpha only for models that fill
        in what is missing.
      outscale: output sides over input sides; None is the model's scale. The model runs
        at its own scale, repeatedly if need be, and what is too large is reduced.
      masks: what is missing in each image, for models that fill in: [h, w], bool, or
        bright where pixels are missing; None, also in places, for none.
      num_samples: how many to draw of each image.
      label: class, for models that have classes.
      numbers: noise is a function of (seed, number, sample); 0 for all if None.
      on_steps: called with how much was just done; the sum is what `work` says.

    Raises:
      UpscalerError: an image or a label that the model can't take, or no memory.
    """
    outscale, label = self.check(outscale, label)
    masks = [None] * len(images) if masks is None else masks
    inputs = [
      restoration_inputs.prepare(
        image, mask, self.loaded, self._expand, self._note_once
      )
      for image, mask in zip(images, masks, strict=True)
    ]
    numbers = numbers or [0] * len(inputs)
    whole = lambda image: np.repeat(image, self.model.channels // image.shape[-1], -1)
    current = [whole(p.observed) for p in inputs for _ in range(num_samples)]
    sizes = [self._plan.passes(p.observed.shape[:2], outscale) for p in inputs]
    for p in range(len(sizes[0]) if sizes else 0):
      items = []
      for k, image in enumerate(current):
        source, sample = divmod(k, num_samples)
        seed = (self._seed, numbers[source], sample, p)
        small = resizing.resize(image, *sizes[source][p])
        mask = inputs[source].mask
        condition = restoration_inputs.assemble(
          self.model, small, mask, seed=seed, **self._augmentation
        )
        items.append(Item(condition, seed, label))
      current = self._runner(items, self._guide(label), on_steps)
    return [
      self._result(p, current[k * num_samples : (k + 1) * num_samples], outscale)
      for k, p in enumerate(inputs)
    ]

  def _result(self, given: Prepared, samples, outscale) -> Result:
    size = output_size(given.observed.shape[:2], outscale)
    samples = np.stack([self._finished(sample, given, size) for sample in samples])
    bicubic = None
    if self.model.scale > 1:
      bicubic = np.clip(resizing.resize(given.observed, *size), -1, 1)
    settings = self.settings(outscale)
    if self._plan.sides != self._asked:  # it ran out of memory
      settings['tiles_used'] = list(self._plan.sides)
    return Result(samples, given.observed, bicubic, settings)

  def _finished(self, sample, given: Prepared, size):
    """At the output's size, grey if the input is, consistent if asked for."""
    image = given.observed
    if sample.shape[:2] != size:  # else it is in range, and what is known is as given
      sample = np.clip(resizing.resize(sample, *size), -1, 1)
    if given.channels < sample.shape[-1]:
      sample = sample.mean(-1, keepdims=True)
    enlarged = all(out >= had for out, had in zip(size, image.shape, strict=False))
    if self._consistency and enlarged:
      sample = resizing.make_consistent(sample, image)
    return sample

  def _note_once(self, text: str) -> None:
    if text not in self._noted:
      self._noted.add(text)
      self._note(text)

  def check(
    self, outscale: float | None, label: int | None, masked: bool = False
  ) -> tuple[float, int]:
    """Factor and class that images are restored with.

    Args:
      outscale: as asked for.
      label: as asked for.
      masked: whether masks will be given.

    Raises:
      UpscalerError: the model can't take one of them.
    """
    kind = f'this model is for {restoration_inputs.describe(self.loaded.config)}'
    if masked and not self.takes_masks:
      raise UpscalerError(f'no masks: {kind}')
    outscale = outscale or self.model.scale
    if self.model.scale == 1 and outscale != 1:
      raise UpscalerError(f'outscale {outscale:g}: {kind} and enlarges nothing')
    if not 0 < outscale <= MAX_OUTSCALE:
      raise UpscalerError(
        f'outscale must be above 0, at most {MAX_OUTSCALE}: {outscale}'
      )
    return outscale, self._checked_label(label)

  def _checked_label(self, label):
    classes = self.loaded.config.model.num_classes
    if label is None and self.loaded.config.model.network == 'guided' and classes:
      raise UpscalerError(f'this model wants a class: a label from 0 to {classes - 1}')
    if label is None and self._guidance is not None:
      raise UpscalerError('guidance needs a class: a label')
    if label is None:
      return classes  # "no class"
    if not 0 <= label < classes:
      known = f'labels from 0 to {classes - 1}' if classes else 'no classes'
      raise UpscalerError(f'label {label}: this model has {known}')
    return label
