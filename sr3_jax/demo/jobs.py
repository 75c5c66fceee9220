"""Says what visitors of a demo may ask for, checks it, and does it; knows no page.

What arrives comes from strangers: every value is checked here, and pictures are read by
the package's own decoders, after their headers have been held against the limits.
"""

import dataclasses
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sr3_jax.images import (
  contact_sheets,
  image_files,
  picture_codec,
  raster_codec,
  resizing,
)
from sr3_jax.images.picture_codec import Header
from sr3_jax.restoration import given, inputs
from sr3_jax.restoration.result import Result
from sr3_jax.restoration.upscaler import Upscaler, UpscalerError
from sr3_jax.runtime import activity
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.printing import one_line
from sr3_jax.runtime.values import Whole, shown
from sr3_jax.weights import hub, terms

Models = Mapping[str, Upscaler]
OnProgress = Callable[[float, str], None]  # how much is done, 0 to 1, and in words


class Limits(NamedTuple):
  """Bounds what one visitor may ask for."""

  pixels: int = 2**18  # of an input
  megabytes: float = 20  # of an uploaded file
  samples: int = 8
  steps: int = 250
  queue: int = 20  # jobs that may wait


class Request(NamedTuple):
  """Holds what a visitor asks for, unchecked but for the files the server stored."""

  picture: pathlib.Path
  name: str  # of the picture, as its owner calls it
  model: Any
  steps: Any = 'balanced'
  num_samples: Any = 1
  temperature: Any = 0  # 0 and None are the preset's
  seed: Any = 0
  # Files whose bright pixels are missing in the picture, together.
  masks: Sequence[pathlib.Path] = ()


class Done(NamedTuple):
  """The files that a job has written, and what it says in words."""

  before: pathlib.Path
  samples: list[pathlib.Path]
  spread: pathlib.Path | None  # None for one sample
  about: str


def load_models(names: Sequence[str]) -> dict[str, Upscaler]:
  """Load models, and then those of the package, by their names; its default first.

  Raises:
    UserError: one of them can't be loaded, or not be offered on a page.
  """
  models: dict[str, Upscaler] = {}
  places: dict[str, str] = {}
  shipped = sorted(hub.shipped(), key=lambda name: name != 'photo-x4')
  for place in dict.fromkeys([*names, *shipped]):
    with activity.doing(f'reading the model {place}'):
      model = Upscaler(hub.load(place), on_note=lambda text: None)
      check_model(model, place)
    name = model.loaded.name
    if name in models:
      raise UserError(f'--model={place}: {places[name]} is {name!r}, too: rename one')
    models[name], places[name] = model, place
  return models


def check_model(model: Upscaler, place: str) -> None:
  """Raise UserError if a page can't show what the model restores."""
  network = model.model
  for kind in (
    (network.input_channels, network.input_range),
    (network.channels, network.value_range),
  ):
    if raster_codec.needs_rasters(*kind):
      raise UserError(f'--model={place}: for measurements: use sr3-upscale')
  try:
    model.check(None, None)
  except UpscalerError as error:
    raise UserError(f'--model={place}: {error}: use sr3-upscale') from None


def describe(model: Upscaler) -> str:
  """Return a line that says what a model does, and its terms if they aren't free."""
  task, scale = inputs.describe(model.loaded.config), model.model.scale
  text = f'{task[:1].upper()}{task[1:]}'
  if scale > 1:
    text += f', {scale:g} times larger'
  if model.model.network.has_attention:
    side = model.model.image_size // scale
    text += f'; made for pictures of {side:g} x {side:g} pixels'
  if not terms.are_free(model.license):
    text += f'; terms of use: {one_line(model.license)}'
  return f'{text}.'


def restore(
  request: Request,
  models: Models,
  limits: Limits,
  folder: pathlib.Path,
  on_progress: OnProgress = lambda share, text: None,
) -> Done:
  """Do what a visitor asks for; write the files into `folder`, which is made.

  Raises:
    UserError: one line, without paths of this machine, that says what is wrong with the
      request.
  """
  began, notes = time.monotonic(), []
  model = _model(request, models, limits, notes.append)
  count = _whole(request.num_samples)
  if not (kind := Whole(1, limits.samples)).fits(count):
    raise UserError(f'samples {shown(count)} must be {kind}')
  header = check_picture(request.picture, request.name, limits)
  size = header.height, header.width
  mask = _mask(request.masks, size) if model.takes_masks else None
  if model.needs_masks and mask is None and not header.transparent:
    raise UserError(
      f'{request.name}: paint over what is missing, or give a picture with transparent '
      'pixels'
    )
  needed = model.memory(*size, num_samples=count)
  if not needed.fits:
    raise UserError(f'{request.name}: needs more memory than there is, {needed}')
  total, done, steps = model.work(*size, num_samples=count), 0, model.num_steps

  def on_steps(work: int) -> None:
    nonlocal done
    # Steps that are repeated because memory ran out count once.
    done = min(done + work, total)
    on_progress(done / total, f'Step {done * steps // total} of {steps}')

  on_progress(0, f'Step 0 of {steps}')
  try:
    result = model.upscale(
      request.picture, mask=mask, num_samples=count, on_steps=on_steps
    )
  except UserError as error:
    raise UserError(_without(request, str(error))) from None
  on_progress(1, 'Writing the files')
  written = _write(result, _stem(request), folder)
  about = [_about(result, time.monotonic() - began), *notes]
  return written._replace(about=' '.join(about))


def check_picture(path: pathlib.Path, name: str, limits: Limits) -> Header:
  """Return the header of an uploaded picture.

  Raises:
    UserError: it can't be read, or has too many pixels.
  """
  with image_files.errors(path, one_line(name)):
    header = picture_codec.header(image_files.read_bytes(path), one_line(name))
  height, width = header.height, header.width
  if height * width > limits.pixels:
    side = int(limits.pixels**0.5)
    raise UserError(
      f'{one_line(name)}: {width} x {height} pixels are more than the {limits.pixels} '
      f'that this demo takes (such as {side} x {side}): make it smaller, or use '
      'sr3-upscale'
    )
  return header


def preview(path: pathlib.Path, name: str, limits: Limits) -> np.ndarray:
  """Return an uploaded picture as it is looked at, uint8 [h, w, 3].

  Raises:
    UserError: as `check_picture`.
  """
  check_picture(path, name, limits)
  return image_files.read(path, one_line(name))


def _model(
  request: Request, models: Models, limits: Limits, on_note: Callable[[str], None]
) -> Upscaler:
  """Return the model with the settings of a request."""
  if not isinstance(request.model, str) or request.model not in models:
    known = ', '.join(models)
    raise UserError(f'model {shown(request.model)}: choose one of {known}')
  # Notes are shown to strangers: they don't name the folder of the model.
  loaded = dataclasses.replace(models[request.model].loaded, place='')
  steps = _whole(request.steps)
  if isinstance(steps, str) and steps.strip().isdecimal():
    steps = int(steps)
  if type(steps) not in (int, str):
    raise UserError(f'steps {shown(steps)}: a preset or a whole number')
  model = Upscaler(
    loaded,
    steps=steps,
    temperature=request.temperature or None,
    seed=0 if request.seed is None else _whole(request.seed),
    on_note=on_note,
  )
  if model.num_steps > limits.steps:
    raise UserError(f'{model.num_steps} steps: this demo takes up to {limits.steps}')
  return model


def _whole(value: Any) -> Any:
  """Return a whole number that JSON may write as 1.0 as such, and all else as it is."""
  return int(value) if isinstance(value, float) and value.is_integer() else value


def _mask(masks: Sequence[pathlib.Path], size: tuple[int, int]) -> np.ndarray | None:
  """Return what is missing, bool [h, w]; None if nothing was drawn."""
  missing = np.zeros(size, bool)
  for mask in masks:
    with image_files.errors(mask, 'the mask'):
      have = picture_codec.header(mask, 'the mask')[:2]
      if have != size:
        raise UpscalerError(
          f'{have[1]} x {have[0]} pixels, the picture {size[1]} x {size[0]}'
        )
      missing |= given.read_mask(mask)
  return missing if missing.any() else None


def _without(request: Request, text: str) -> str:
  """Return a message that calls the picture as its owner does."""
  return text.replace(str(request.picture), one_line(request.name))


def _stem(request: Request) -> str:
  """Return how the names of a job's files begin; nothing of it is a path."""
  stem = re.sub(r'[^\w-]+', '_', pathlib.PurePath(request.name).stem)[:60].strip('_')
  return f'{stem or "picture"}_{re.sub(r"[^A-Za-z0-9-]+", "_", request.model)}'


def _about(result: Result, seconds: float) -> str:
  """Return what was made, with what, and how long it took."""
  height, width = result.samples.shape[1:3]
  used = result.settings
  steps = used.get('num_steps', 1)
  return (
    f'{width} x {height} pixels in {seconds:.1f} s: {used["model"]}, {steps} '
    f'step{"s"[: steps != 1]} of {used["sampler"]}, seed {used["seed"]}.'
  )


def _write(result: Result, stem: str, folder: pathlib.Path) -> Done:
  """Write the files of a result."""
  shape = result.image.shape
  before = np.clip(resizing.resize(result.observed, *shape[:2]), -1, 1)
  paths = [folder / f'{stem}_{i + 1}.png' for i in range(len(result.samples))]
  if len(paths) == 1:
    paths = [folder / f'{stem}.png']
  for path, sample in zip(paths, result.samples, strict=True):
    result.save(path, sample)
  small = folder / f'{stem}_before.png'
  result.save(small, np.broadcast_to(before, shape))
  spread = None
  if len(paths) > 1:
    spread = folder / f'{stem}_spread.png'
    legend = f'spread of {len(paths)} samples, in levels of 255'
    drawing = contact_sheets.heat_map(result.spread * 127.5, legend)
    image_files.write(spread, drawing)
  return Done(small, paths, spread, '')
