"""Checks inputs and makes the model's conditions of them.

It decides on channels and missing pixels, and makes canvases larger. All is NumPy: a
condition has any size and is made once for each run, on the host.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from sr3_jax.core import degradations
from sr3_jax.core.degradations.tasks import LUMA
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import rasters, resizing
from sr3_jax.restoration.given import ImageLike, read_mask
from sr3_jax.restoration.settings import UpscalerError
from sr3_jax.weights.hub import Loaded

# Tasks whose images have missing parts.
HOLES = frozenset({'inpainting', 'uncropping'})
# Radius in pixels of the kernel of `degradations.augment`.
BLUR_RADIUS = 4

# Top, right, bottom and left: pixels, or 'N%' of the image's height or width.
Expand = tuple[int | str, ...]


class Prepared(NamedTuple):
  """A checked input: the known image, 0 where it is missing, and its mask.

  The mask is 1 where pixels are missing, else 0; None if nothing says that some are.
  """

  observed: np.ndarray  # float32 [h, w, 1 or C] in [-1, 1], already expanded
  mask: np.ndarray | None  # float32 [h, w, 1]
  channels: int  # of the output: 1 or C; of pairs always C


def tasks(config: ConfigDict) -> tuple[str, ...]:
  """Return the names of the tasks that a model was trained for."""
  mixed = config.task.name == degradations.MIXTURE
  return tuple(config.task.mixture) if mixed else (config.task.name,)


def describe(config: ConfigDict) -> str:
  """Return what a model is for, as messages say it."""
  names = ', '.join(name.replace('_', ' ') for name in dict.fromkeys(tasks(config)))
  return names if config.task.name != degradations.MIXTURE else f'a mixture of {names}'


def check_scale(loaded: Loaded, outscale: float | None) -> float:
  """Return output sides over input sides; None is the model's own scale.

  Raises:
    UpscalerError: the model can't take it.
  """
  model, kind = loaded.model, f'this model is for {describe(loaded.config)}'
  outscale = outscale or model.scale
  if model.task.paired and not 0 < outscale <= model.scale:
    own = f'{float(model.task.ratio):g}'
    raise UpscalerError(f'outscale {outscale:g}: {kind} of {own} times the sides')
  if model.scale == 1 and outscale != 1:
    raise UpscalerError(f'outscale {outscale:g}: {kind} and upscales nothing')
  return outscale


def check_label(loaded: Loaded, label: int | None, guided: bool) -> int:
  """Return the class that the network is given; the number of classes for "none".

  `guided` says that guidance was asked for, which needs a class.

  Raises:
    UpscalerError: the model has no such class, or needs one.
  """
  classes = loaded.config.model.num_classes
  if label is None and loaded.config.model.network == 'guided' and classes:
    raise UpscalerError(f'this model wants a class: a label from 0 to {classes - 1}')
  if label is None and guided:
    raise UpscalerError('guidance needs a class: a label')
  if label is None:
    return classes  # "no class"
  if not 0 <= label < classes:
    known = f'labels from 0 to {classes - 1}' if classes else 'no classes'
    raise UpscalerError(f'label {label}: this model has {known}')
  return label


def takes_mask(config: ConfigDict) -> bool:
  """Return whether parts of an input may be missing."""
  return bool(HOLES & set(tasks(config)))


def needs_mask(config: ConfigDict) -> bool:
  """Return whether a model can do nothing but fill in missing pixels."""
  return set(tasks(config)) <= HOLES


def check_options(
  loaded: Loaded,
  consistency: bool,
  expands: bool,
  augmentation: Mapping[str, float],
  guidance: float | None,
) -> None:
  """Raise UpscalerError if an option of `Upscaler` doesn't fit the model."""
  model, config = loaded.model, loaded.config
  kind = f'this model is for {describe(config)}'
  if not model.task.conditional:
    raise UpscalerError(
      f'{kind}: it restores nothing; sr3-train --mode=sample samples images'
    )
  if consistency and model.task.paired:
    raise UpscalerError(
      f'no consistency: {kind}, whose inputs nothing makes of outputs'
    )
  if consistency and model.scale == 1:
    raise UpscalerError(f'no consistency: {kind} and upscales nothing')
  if expands and not takes_mask(config):
    raise UpscalerError(f'no expand: {kind} and fills in nothing')
  for name, level in augmentation.items():
    if not level:
      continue
    if name not in model.task.extras:
      raise UpscalerError(f'no {name}: {kind}; only stages of cascades take that')
    known = config.task[f'augment_{name}'][1]
    if not 0 <= level <= known:
      raise UpscalerError(f'{name} {level:g}: this model knows 0 to {known:g}')
  if consistency and any(augmentation.values()):
    raise UpscalerError('consistency goes without blur and noise of the input')
  if guidance is not None and not model.label_dropout:
    raise UpscalerError(
      f'no guidance: {kind}, trained '
      + ('with all its labels' if model.num_classes else 'without classes')
    )


def parse_expand(value: int | str | Sequence[int | str]) -> Expand:
  """Return what is to be added above, right of, below and left of images.

  Args:
    value: one value for all sides, or four of them, in a sequence or with commas in
      between: pixels, or with '%' a share of the image's height or width.

  Raises:
    UpscalerError: it is not such a value, or adds nothing.
  """
  texts = str(value).split(',') if isinstance(value, int | str) else map(str, value)
  texts = [text.strip() for text in texts]
  if len(texts) == 1:
    texts *= 4
  good = all(re.fullmatch(r'\d{1,6}|\d{1,4}(\.\d+)?%', text) for text in texts)
  if len(texts) != 4 or not good:
    raise UpscalerError(
      f'expand={value}: one number of pixels for all sides, or TOP,RIGHT,BOTTOM,LEFT; '
      "or per cent of the sides: '25%'"
    )
  if not any(float(text.rstrip('%')) for text in texts):
    raise UpscalerError(f'expand={value} adds nothing')
  return tuple(text if text.endswith('%') else int(text) for text in texts)


def margins(expand: Expand | None, height: int, width: int) -> tuple[int, ...]:
  """Return how many pixels `expand` adds: above, on the right, below, on the left."""
  if expand is None:
    return 0, 0, 0, 0
  return tuple(
    round(float(side[:-1]) * length / 100) if isinstance(side, str) else side
    for side, length in zip(expand, (height, width) * 2, strict=True)
  )


def prepare(
  image: ImageLike,
  mask: ImageLike | None,
  loaded: Loaded,
  expand: Expand | None = None,
  note: Callable[[str], None] = lambda text: None,
) -> Prepared:
  """Check an input and its mask, as `as_float` and `as_mask` take them; expand them.

  Transparent pixels of a PIL image are missing for models that fill in, if no mask is
  given. `note` is called with a line of text if colours of the image are not used.

  Raises:
    UpscalerError: the model can't take the input.
  """
  model, config = loaded.model, loaded.config
  if takes_mask(config) and isinstance(image, Image.Image):
    image, transparent = _split_transparency(image)
    mask = transparent if mask is None else mask
  given = as_float(image, model)
  if mask is not None and not takes_mask(config):
    raise UpscalerError(f'no masks: this model is for {describe(config)}')
  known = None if mask is None else as_mask(mask, given.shape[:2])
  if known is None and expand is None and needs_mask(config):
    raise UpscalerError(
      'nothing says what is missing: give a mask (white is missing), a picture with '
      'transparent pixels, or expand'
    )
  if expand is not None:  # what is around the image is missing
    if known is None:
      known = np.zeros((*given.shape[:2], 1), np.float32)
    top, right, bottom, left = margins(expand, *given.shape[:2])
    around = (top, bottom), (left, right), (0, 0)
    given, known = np.pad(given, around), np.pad(known, around, constant_values=1)
  given = _fit_channels(given, known is not None, loaded, note)
  if known is not None:
    given = np.where(known > 0, np.float32(0), given)
  given = resizing.resize(given, *grid_size(model, given.shape[:2]))
  grey = given.shape[-1] == 1 and 'colorization' not in tasks(config)
  grey &= not model.task.paired
  return Prepared(given, known, 1 if grey else model.channels)


def grid_size(model: SR3, size: tuple[int, int]) -> tuple[int, int]:
  """Return the height and width of the model's condition for an input of a size.

  They differ for pairs whose scale is no whole number, as `real_pairs` says.
  """
  ratio = model.task.ratio
  if ratio.denominator == 1:
    return size
  height, width = (max(1, round(side * ratio)) for side in size)
  return height, width


def _split_transparency(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
  """Return an image without transparency, and where it was transparent: bool [h, w]."""
  if not image.has_transparency_data:
    return image, None
  image = image.convert('LA' if image.mode in ('LA', 'La') else 'RGBA')
  transparent = np.asarray(image)[..., -1] < 128
  return image.convert('L' if image.mode == 'LA' else 'RGB'), transparent


def _fit_channels(
  image: np.ndarray, masked: bool, loaded: Loaded, note: Callable[[str], None]
) -> np.ndarray:
  """Return an image [h, w, c], made grey where the model works from grey.

  Models of one input channel do, and without a mask those that only colour and fill in.
  """
  if image.shape[-1] != 3:
    return image
  if not masked and set(tasks(loaded.config)) <= HOLES | {'colorization'}:
    reason = 'are made grey first, for the model to colour them'
  elif loaded.model.input_channels == 1:
    reason = 'are made grey: this model has one channel'
  else:
    return image
  if np.ptp(image, axis=-1).any():
    note(f'pictures in colour {reason}')
  return image @ np.array(LUMA, np.float32)[:, None]


def as_float(image: ImageLike, model: SR3) -> np.ndarray:
  """Return an image of any kind as float32 [h, w, c], about [-1, 1].

  Args:
    image: a PIL image, or an array [h, w] or [h, w, c], where c is 1 or the model's
      number of input channels; models of one channel also take 3. Floats are in
      [-1, 1], integers are scaled as the model's inputs were.
    model: that will be given the image.

  Raises:
    UpscalerError: it is not such an image.
  """
  if isinstance(image, Image.Image) and image.mode not in ('L', 'RGB', 'I;16'):
    if image.has_transparency_data:
      raise UpscalerError(
        f'a {image.mode} image with transparency: convert it, or use the command'
      )
    image = image.convert('RGB')  # palettes, CMYK, black and white
  array = np.asarray(image)
  array = array[..., None] if array.ndim == 2 else array
  known = (1, 3) if model.input_channels in (1, 3) else (model.input_channels,)
  if array.ndim != 3 or array.shape[-1] not in known or 0 in array.shape:
    raise UpscalerError(
      f'not an image of {" or ".join(map(str, known))} channels: an array of shape '
      f'{np.asarray(image).shape}'
    )
  if np.issubdtype(array.dtype, np.integer) and model.input_range is not None:
    return rasters.to_float(array, *map(np.ravel, model.input_range))
  if array.dtype in (np.uint8, np.uint16):
    return (array / (np.iinfo(array.dtype).max / 2) - 1).astype(np.float32)
  if not np.issubdtype(array.dtype, np.floating):
    raise UpscalerError(f'pixels must be uint8, uint16 or float, not {array.dtype}')
  array = array.astype(np.float32)
  # Bicubic kernels overshoot, and calibrated values may leave the model's range, as
  # in training. The comparison also refuses NaN.
  most = 1.5 if model.input_range is None else np.finfo(np.float32).max
  if not np.abs(array).max() <= most:
    raise UpscalerError('float pixels must be in [-1, 1]')
  return array


def as_mask(mask: ImageLike, size: tuple[int, int]) -> np.ndarray:
  """Return a mask of any kind as float32 [h, w, 1]: 1 is missing, 0 is known.

  Args:
    mask: [h, w] or [h, w, 1]: bool, where True is missing; integers or floats from 0 to
      1, where more than half of the largest value is missing; a PIL image; or a path.
    size: height and width that it must have.

  Raises:
    UpscalerError: it has another size.
  """
  if isinstance(mask, str | os.PathLike):
    mask = read_mask(mask)
  if isinstance(mask, Image.Image):
    mask = mask if mask.mode == 'I;16' else mask.convert('L')
  array = np.asarray(mask)
  array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
  if array.shape != size:
    have = ' x '.join(str(side) for side in array.shape[::-1])
    raise UpscalerError(
      f'the mask has {have} pixels, the image {size[1]} x {size[0]}: they must agree'
    )
  if np.issubdtype(array.dtype, np.integer):
    array = array > np.iinfo(array.dtype).max / 2
  elif array.dtype != bool:
    array = array > 0.5
  return array.astype(np.float32)[..., None]


def assemble(
  model: SR3,
  image: np.ndarray,
  mask: np.ndarray | None,
  blur: float,
  noise: float,
  seed: Sequence[int],
) -> np.ndarray:
  """Return a model's condition [h, w, K]: the image [h, w, C], then what its task adds.

  Without a mask it is 1 everywhere: no pixel is hidden, but all may change. Blur,
  standard deviation in pixels, and noise, share of the amplitude, are those of
  `degradations.augment`; the numbers of the noise's seed are 0 or more.
  """

  def plane(value: float) -> np.ndarray:
    return np.full((*image.shape[:2], 1), value, np.float32)

  if model.task.extras == ('mask',):
    return np.concatenate([image, plane(1) if mask is None else mask], axis=-1)
  if model.task.extras == ('blur', 'noise'):
    if blur:
      import scipy.ndimage  # 0.3 s that other models need not wait for

      image = scipy.ndimage.gaussian_filter(
        image, (blur, blur, 0), mode='mirror', radius=(BLUR_RADIUS, BLUR_RADIUS, 0)
      )
    if noise:
      eps = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
      image = np.float32(np.sqrt(1 - noise**2)) * image + np.float32(noise) * eps
    return np.concatenate([image, plane(blur), plane(noise)], axis=-1)
  return image
