"""Restores images of any size at any output scale.

Images are float32 [h, w, C] in [-1, 1]. A large one is denoised tile by tile on one
canvas; small ones are canvases of one tile, several at a time (`canvas`). An image's
result is a function of that image and the settings, never of the other images of a
batch.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from sr3_jax.images import resizing
from sr3_jax.restoration import finishing, inputs, memory
from sr3_jax.restoration import given as given_images
from sr3_jax.restoration.canvas_arguments import Item
from sr3_jax.restoration.canvas_runner import CanvasRunner
from sr3_jax.restoration.given import Given, ImageLike
from sr3_jax.restoration.inputs import Prepared
from sr3_jax.restoration.memory import Memory
from sr3_jax.restoration.result import Result, Settings
from sr3_jax.restoration.settings import (
  UpscalerError,
  check_limits,
  choose_tiles,
  choose_trajectory,
)
from sr3_jax.restoration.tiling import Planner, Size, output_size
from sr3_jax.runtime import activity
from sr3_jax.runtime.progress import counted
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import terms
from sr3_jax.weights.hub import Loaded

OnSteps = Callable[[int], None]


class Upscaler:
  """A model ready to restore images of any size.

  Args:
    loaded: from `hub.load`.
    steps: a number of sampling steps, or 'fast', 'balanced' or 'best': presets of the
      model (written by --mode=sweep), or general ones.
    sampler: a key of `samplers.SAMPLERS`; None takes the preset's.
    temperature: of the noise, above 0 and at most 1: less gives less detail and less
      grain; None takes the preset's.
    tile: side of tiles in input pixels; 0 is the whole image, None chooses.
    tile_pad: half of the overlap of tiles in input pixels; None chooses.
    seed: of all noise.
    consistency: whether to correct every prediction of y0, and the result, so that the
      downsampled output is the input; for models that upscale. None does what the
      model's configuration says (`sampler.consistency`).
    expand: what to add around images, for models that fill in missing pixels: pixels or
      '25%' for all sides, or four of them: top, right, bottom, left.
    blur: of the inputs of cascade stages, standard deviation in their pixels.
    noise: of the inputs of cascade stages, share of the amplitude.
    guidance: how much the class counts, for models trained for that; None takes theirs.
    batch: tiles at a time on each device; None chooses.
    on_note: called with a line of text when something is worth telling the user, such
      as terms of use that don't allow everything; None prints it on stderr.
    progress: say on stderr what is being done, and how far it is.

  Raises:
    UpscalerError: an option doesn't fit the model.
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
    on_note: Callable[[str], None] | None = None,
    progress: bool = False,
  ):
    check_limits(temperature=temperature, tile=tile, tile_pad=tile_pad, seed=seed)
    check_limits(blur=blur, noise=noise, guidance=guidance)
    if consistency is None:
      consistency = loaded.model.consistency
    augmentation = {'blur': float(blur), 'noise': float(noise)}
    has_expand = expand is not None
    inputs.check_options(loaded, consistency, has_expand, augmentation, guidance)
    self.loaded, self.model = loaded, loaded.model
    self._seed, self._consistency, self._progress = seed, consistency, progress
    note = functools.cache(on_note or functools.partial(print, file=sys.stderr))
    self._note_once = note
    if not terms.are_free(loaded.license):
      note(terms.note(loaded.name, loaded.license, loaded.place))
    self._expand = None if expand is None else inputs.parse_expand(expand)
    self._augmentation, self._guidance = augmentation, guidance
    own = loaded.config.sampler.guidance
    self._class_weight = own if guidance is None else guidance
    self._sampler, trajectory = choose_trajectory(loaded, steps, sampler, temperature)
    self.num_steps = len(trajectory.coefficients)
    batch = batch or (1 if jax.default_backend() == 'cpu' else 8)
    self._sides, pad = choose_tiles(self.model, tile, tile_pad)
    grid = self.model.scale, self.model.network.multiple
    self._plan = Planner(*grid, self._sides, pad, at_once=batch)
    self._runner = CanvasRunner(
      self.model, loaded.params, trajectory, self._plan, batch, consistency, note
    )

  def __repr__(self) -> str:
    task, sampler = inputs.describe(self.loaded.config), self._sampler['name']
    what = task if self.model.scale == 1 else f'{task}, {self.model.scale:g} times'
    return f'<Upscaler {self.loaded.name}: {what}; {sampler}, {self.num_steps} steps>'

  @property
  def license(self) -> str:
    """The terms of use that the model's card states; 'unknown' if it states none."""
    return self.loaded.license

  def push_to_hub(
    self,
    repo: str,
    *,
    public: bool = False,
    message: str = '',
    token: str | None = None,
  ) -> str:
    """Upload the model to the Hugging Face hub; see `sr3_jax.weights.push.push`.

    Args:
      repo: owner/name; it is made if it isn't there, private unless `public`.
      public: let everybody see it; needed to write to a repository that is public.
      message: of the commit.
      token: of the hub; None takes that of $HF_TOKEN or of `hf auth login`.

    Returns:
      The address of the model's page.

    Raises:
      HubError: no token, no library, or the hub refuses; one line.
    """
    from sr3_jax.weights import push  # few need it

    shown = activity.shown(f'pushing to {repo}') if self._progress else None
    options = {'public': public, 'message': message, 'token': token}
    with shown or contextlib.nullcontext():
      return push.push(self.loaded.place, repo, **options)

  def settings(self, outscale: float | None = None) -> Settings:
    """Return all that results depend on beside the input, fit for JSON."""
    own: Settings = {}
    if self._expand:
      own['expand'] = list(self._expand)
    if 'blur' in self.model.task.extras:
      own |= self._augmentation
    if self.model.label_dropout:
      own['guidance'] = self._class_weight
    return {
      'model': self.loaded.name,
      'weights': self.loaded.fingerprint,
      'version': __version__,
      'task': inputs.describe(self.loaded.config),
      **own,
      'outscale': self._scale(outscale),
      **{'sampler' if k == 'name' else k: v for k, v in self._sampler.items()},
      'seed': self._seed,
      'tiles': list(self._sides),
      'tile_pad': self._plan.pad,
      'consistency': self._consistency,
    }

  def _scale(self, outscale: float | None) -> float:
    """Return output sides over input sides."""
    ratio = self.model.task.ratio
    return float(ratio) if ratio.denominator > 1 else outscale or self.model.scale

  @property
  def takes_masks(self) -> bool:
    """Whether pixels of an input may be missing."""
    return inputs.takes_mask(self.loaded.config)

  @property
  def needs_masks(self) -> bool:
    """Whether an input without missing pixels is a mistake."""
    return inputs.needs_mask(self.loaded.config) and self._expand is None

  def margins(self, height: int, width: int) -> tuple[int, ...]:
    """Return how many pixels are added above, right of, below and left of an input."""
    return inputs.margins(self._expand, height, width)

  def output_size(
    self, height: int, width: int, outscale: float | None = None
  ) -> tuple[int, int]:
    """Return the height and width of the output for an input of this size."""
    scale = outscale or self.model.scale
    return output_size(self._condition_size(height, width), scale)

  def _condition_size(self, height: int, width: int) -> Size:
    """Return the size of what the model sees of an input, with what is added."""
    top, right, bottom, left = self.margins(height, width)
    size = height + top + bottom, width + left + right
    return inputs.grid_size(self.model, size)

  def _passes(self, size: Size, outscale: float | None) -> list[Size]:
    """Return the sizes of the conditions of the model's runs for one input."""
    return self._plan.passes(self._condition_size(*size), outscale or self.model.scale)

  def _guidance_of(self, label: int) -> float | None:
    """Return how much the class counts; None where guidance changes nothing."""
    useful = self.model.label_dropout and label != self.model.num_classes
    return self._class_weight if useful and self._class_weight != 1 else None

  def work(
    self, height: int, width: int, outscale: float | None = None, num_samples: int = 1
  ) -> int:
    """Return what `on_steps` will have counted when an input of this size is done."""
    runs = self._passes((height, width), outscale)
    return num_samples * self.num_steps * sum(map(self._plan.work, runs))

  def reserve(
    self, sizes: Iterable[tuple[int, int]], outscale: float | None = None
  ) -> None:
    """Plan canvases for inputs of some sizes, so that few programs are compiled."""
    self._plan.reserve([run for size in sizes for run in self._passes(size, outscale)])

  def canvas(self, height: int, width: int, outscale: float | None = None) -> int:
    """Return the pixels of the largest canvas that an input of this size needs."""
    runs = self._passes((height, width), outscale)
    layouts = [self._plan.layout(run) for run in runs]
    return max(layout.images * layout.height * layout.width for layout in layouts)

  def memory(
    self,
    height: int,
    width: int,
    outscale: float | None = None,
    label: int | None = None,
    num_samples: int = 1,
    frames: int = 1,
  ) -> Memory:
    """Return the memory that an input of this size needs and that there is.

    Takes none for the input. Compiles the program, as the first image would, but not
    for an input whose canvases alone don't fit.

    Raises:
      UpscalerError: the model can't take the scale or the label.
    """
    outscale, label = self.check(outscale, label)
    runs = self._passes((height, width), outscale)
    planned = memory.Planned(
      input=(height, width),
      runs=runs,
      outputs=[
        *map(self._plan.output, runs),
        self.output_size(height, width, outscale),
      ],
      layouts=list(map(self._plan.layout, runs)),
      samples=num_samples,
      frames=frames,
    )
    weights = self._runner.resident
    found = memory.at_least(self.model, planned, weights)
    if not found.fits:
      return found
    program = self._runner.memory(runs, self._guidance_of(label))
    return memory.of_picture(memory.sizes(self.model, planned), program, weights)

  def upscale(
    self,
    image: ImageLike,
    outscale: float | None = None,
    *,
    mask: ImageLike | None = None,
    num_samples: int = 1,
    label: int | None = None,
    number: int = 0,
    on_steps: OnSteps = lambda steps: None,
  ) -> Result:
    """Restore one image; for the arguments and errors see `upscale_many`."""
    same = {'num_samples': num_samples, 'label': label, 'on_steps': on_steps}
    each = {'masks': [mask], 'numbers': [number]}
    return self.upscale_many([image], outscale, **each, **same)[0]

  def upscale_many(
    self,
    images: Sequence[ImageLike],
    outscale: float | None = None,
    *,
    masks: Sequence[ImageLike | None] | None = None,
    num_samples: int = 1,
    label: int | None = None,
    numbers: Sequence[int] | None = None,
    on_steps: OnSteps = lambda steps: None,
    allow_broken: bool = False,
  ) -> list[Result]:
    """Restore images, small ones several at a time.

    Args:
      images: float [h, w, K] in [-1, 1], where K is the model's or 1 for grey; uint8 or
        uint16 arrays, also [h, w]; or PIL images, with transparency only for models
        that fill in missing pixels.
      outscale: output sides over input sides; None is the model's scale. The model runs
        at its own scale, repeatedly if need be, and too large outputs are downsampled.
      masks: what is missing in each image, for models that fill in: [h, w], bool, or
        bright where pixels are missing; None for none, in place of all or of one.
      num_samples: how many to sample for each image.
      label: class, for models that have classes.
      numbers: noise is a function of (seed, number, sample); None means 0 for all.
      on_steps: called with how much work was just done; `work` says the sum.
      allow_broken: return results that are not finite, in place of an error.

    Raises:
      UpscalerError: the model can't take an image or the label, or memory runs out.
      NotFiniteError: the model gives NaN or infinity.
    """
    outscale, label = self.check(outscale, label)
    masks = [None] * len(images) if masks is None else masks
    given = [given_images.read(image, self.model) for image in images]
    prepared = [self._prepare(*pair) for pair in zip(given, masks, strict=True)]
    numbers = numbers or [0] * len(prepared)
    channels = self.model.input_channels
    current = [
      np.repeat(p.observed, channels // p.observed.shape[-1], -1)  # grey is repeated
      for p in prepared
      for _ in range(num_samples)
    ]
    sizes = [self._plan.passes(p.observed.shape[:2], outscale) for p in prepared]
    work = num_samples * sum(self._plan.work(run) for runs in sizes for run in runs)
    shown = counted(work, self.num_steps, on_steps) if self._progress else None
    with shown or contextlib.nullcontext(on_steps) as on_steps:
      for p in range(len(sizes[0]) if sizes else 0):
        items = []
        for k, image in enumerate(current):
          source, sample = divmod(k, num_samples)
          seed = (self._seed, numbers[source], sample, p)
          image = resizing.resize(image, *sizes[source][p])
          known = self.model, image, prepared[source].mask
          condition = inputs.assemble(*known, seed=seed, **self._augmentation)
          items.append(Item(condition, seed, label))
        current = self._runner(items, self._guidance_of(label), on_steps)
    results = []
    for g, p, mask in zip(given, prepared, masks, strict=True):
      outputs, current = current[:num_samples], current[num_samples:]
      # Where transparent pixels of the input were those to fill in, none are left.
      filled = self.takes_masks and mask is None
      shape = None if filled or g.alpha is None else g.alpha.shape
      margins = None if shape is None else self.margins(*shape)
      result = self._result(p, outputs, outscale)
      results.append(finishing.with_belongings(result, g, self.model, margins))
    if not allow_broken:
      for result in results:
        result.check_finite()
    return results

  def _prepare(self, given: Given, mask: ImageLike | None) -> Prepared:
    """Return a checked input; what is transparent is missing, if it can be."""
    image, alpha = given.image, given.alpha
    if alpha is not None and self.takes_masks and mask is None:
      mask = alpha < 0.5
    else:
      image = given_images.visible(image, alpha)
    return inputs.prepare(image, mask, self.loaded, self._expand, self._note_once)

  def _result(
    self, given: Prepared, outputs: list[np.ndarray], outscale: float
  ) -> Result:
    """Return the result for an input from the model's outputs, [H, W, C] each.

    Outputs are taken off their list, as `finish` says.
    """
    size = output_size(given.observed.shape[:2], outscale)
    samples = finishing.finish(outputs, given, size, self._consistency)
    settings = self.settings(outscale)
    if self._plan.sides != self._sides:  # it ran out of memory
      settings['tiles_used'] = list(self._plan.sides)
    return Result(samples, given.observed, settings, self.model.scale > 1)

  def check(
    self, outscale: float | None, label: int | None, masked: bool = False
  ) -> tuple[float, int]:
    """Return the scale and the class that images will be restored with.

    Raises:
      UpscalerError: the model can't take one of them, or masks if they are given.
    """
    if masked and not self.takes_masks:
      task = inputs.describe(self.loaded.config)
      raise UpscalerError(f'no masks: this model is for {task}')
    check_limits(outscale=outscale, label=label)
    label = inputs.check_label(self.loaded, label, self._guidance is not None)
    return inputs.check_scale(self.loaded, outscale), label
