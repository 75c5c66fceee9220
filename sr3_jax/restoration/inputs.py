"""What an input becomes for the network: its channels, its holes, what was done to it.

NumPy only: a condition is made once for each run, on the host, of any size.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np
from PIL import Image

from sr3_jax.core import degradations
from sr3_jax.core.degradations.tasks import LUMA
from sr3_jax.core.sr3 import SR3
from sr3_jax.images import rasters
from sr3_jax.restoration.settings import UpscalerError
from sr3_jax.weights.hub import Loaded

# Tasks whose images have missing parts.
HOLES = frozenset({'inpainting', 'uncropping'})
# Of the kernel of `degradations.augment`.
BLUR_RADIUS = 4
MAX_GUIDANCE = 100

Expand = tuple[int | str, ...]  # top, right, bottom, left: pixels, or 'N%' of the side


@dataclasses.dataclass(frozen=True)
class Prepared:
  """An input, checked.

  Attributes:
    observed: float32 [h, w, 1 or C] in [-1, 1], what is known of the image, as large
      as the canvas; 0 where pixels are missing.
    mask: float32 [h, w, 1], 1 is missing; None where nothing is known to be.
    channels: of the output: 1, or C.
  """

  observed: np.ndarray
  mask: np.ndarray | None
  channels: int


def parts(config: ml_collections.ConfigDict) -> tuple[str, ...]:
  """Names of the tasks that a model was trained for."""
  mixed = config.task.name == degradations.MIXTURE
  return tuple(config.task.mixture) if mixed else (config.task.name,)


def describe(config: ml_collections.ConfigDict) -> str:
  """What a model is for, as messages say it."""
  names = ', '.join(name.replace('_', ' ') for name in dict.fromkeys(parts(config)))
  return names if config.task.name != degradations.MIXTURE else f'a mixture of {names}'


def takes_mask(config: ml_collections.ConfigDict) -> bool:
  """Whether parts of an input may be missing."""
  return bool(HOLES & set(parts(config)))


def needs_mask(config: ml_collections.ConfigDict) -> bool:
  """Whether the model can do nothing else than fill in what is missing."""
  return set(parts(config)) <= HOLES


def check_options(
  loaded: Loaded,
  *,
  consistency: bool,
  expand: Any,
  blur: float,
  noise: float,
  guidance: float | None,
) -> None:
  """Refuses what a model has no use for, in words that say what it is for.

  Raises:
    UpscalerError: an option that doesn't fit the model.
  """
  model, config = loaded.model, loaded.config
  kind = f'this model is for {describe(config)}'
  if not model.task.conditional:
    raise UpscalerError(
      f'{kind}: it restores nothing; python -m sr3_jax.main --mode=sample draws images'
    )
  if consistency and model.scale == 1:
    raise UpscalerError(f'no consistency: {kind} and enlarges nothing')
  if expand is not None and not takes_mask(config):
    raise UpscalerError(f'no expand: {kind} and fills in nothing')
  for name, level in (('blur', blur), ('noise', noise)):
    if not level:
      continue
    if name not in model.task.extras:
      raise UpscalerError(f'no {name}: {kind}; only stages of cascades take that')
    known = config.task[f'augment_{name}'][1]
    if not 0 <= level <= known:
      raise UpscalerError(f'{name} {level:g}: this model knows 0 to {known:g}')
  if consistency and (blur or noise):
    raise UpscalerError('consistency goes without blur and noise of the input')
  if guidance is not None and not model.label_dropout:
    raise UpscalerError(
      f'no guidance: {kind}, trained '
      + ('with all its labels' if model.num_classes else 'without classes')
    )
  if guidance is not None and not 0 <= guidance <= MAX_GUIDANCE:
    raise UpscalerError(f'guidance {guidance:g} is not from 0 to {MAX_GUIDANCE}')


# ----------------------------------------------------------------------- the canvas


def parse_expand(value: int | str | Sequence[int | str]) -> Expand:
  """What is added to the four sides of an image: top, right, bottom, left.

  Args:
    value: one for all sides, or four of them, in a sequence or with commas in between:
      pixels, or with '%' a share of the image's height or width.

  Raises:
    UpscalerError: not such a value.
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
  """Pixels that `expand` adds above, on the right, below and on the left."""
  if expand is None:
    return 0, 0, 0, 0
  return tuple(
    round(float(side[:-1]) * length / 100) if isinstance(side, str) else side
    for side, length in zip(expand, (height, width) * 2, strict=True)
  )


# ------------------------------------------------------------------------ the input


def prepare(
  image: Any,
  mask: Any,
  loaded: Loaded,
  expand: Expand | None = None,
  note: Callable[[str], None] = lambda text: None,
) -> Prepared:
  """Checks an input and its mask, and makes the canvas as large as asked for.

  Args:
    image: as `as_float` takes it; transparent pixels of a PIL image are missing for
      models that fill in, where no mask says otherwise.
    mask: as `as_mask` takes it; None for none.
    loaded: the model.
    expand: from `parse_expand`.
    note: told what is worth knowing.

  Raises:
    UpscalerError: the model can't take it.
  """
  model, config = loaded.model, loaded.config
  fills = takes_mask(config)
  if fills and isinstance(image, Image.Image) and image.has_transparency_data:
    image = image.convert('LA' if image.mode in ('LA', 'La') else 'RGBA')
    if mask is None:
      mask = np.asarray(image)[..., -1] < 128
    image = image.convert('L' if image.mode == 'LA' else 'RGB')
  given = as_float(image, model)
  channels = given.shape[-1]
  if mask is not None:
    if not fills:
      raise UpscalerError(f'no masks: this model is for {describe(config)}')
    mask = as_mask(mask, given.shape[:2])
  elif fills and needs_mask(config) and expand is None:
    raise UpscalerError(
      'nothing says what is missing: give a mask (white is missing), a picture with '
      'transparent pixels, or expand'
    )
  if expand is not None:
    mask = np.zeros((*given.shape[:2], 1), np.float32) if mask is None else mask
    top, right, bottom, left = margins(expand, *given.shape[:2])
    around = (top, bottom), (left, right), (0, 0)
    given = np.pad(given, around)
    mask = np.pad(mask, around, constant_values=1)
  colours = channels == 3 and bool(np.ptp(given, axis=-1).any())
  if mask is None and channels == 3 and set(parts(config)) <= HOLES | {'colorization'}:
    if colours:
      note('pictures in colour are made grey first, for the model to colour them')
    given = _luma(given)
  elif model.channels == 1 and channels == 3:
    if colours:
      note('pictures in colour are made grey: this model has one channel')
    given = _luma(given)
  if mask is not None:
    given = np.where(mask > 0, np.float32(0), given)
  grey = given.shape[-1] == 1 and 'colorization' not in parts(config)
  return Prepared(given, mask, 1 if grey else model.channels)


def as_float(image: Any, model: SR3) -> np.ndarray:
  """An image of any kind as float32 [h, w, c], about [-1, 1], c = 1 or the model's.

  Models of one channel take three, too. Integers are scaled as the model's images were.

  Raises:
    UpscalerError: not such an image.
  """
  if isinstance(image, Image.Image) and image.mode not in ('L', 'RGB', 'I;16'):
    if image.has_transparency_data:
      raise UpscalerError(
        f'a {image.mode} image with transparency: convert it, or use the command'
      )
    image = image.convert('RGB')  # palettes, CMYK, black and white
  array = np.asarray(image)
  array = array[..., None] if array.ndim == 2 else array
  known = (1, 3) if model.channels in (1, 3) else (model.channels,)
  if array.ndim != 3 or array.shape[-1] not in known or 0 in array.shape:
    raise UpscalerError(
      f'not an image of {" or ".join(map(str, known))} channels: an array of shape '
      f'{np.shape(image)}'
    )
  if np.issubdtype(array.dtype, np.integer) and model.value_range is not None:
    return rasters.to_float(array, *map(np.ravel, model.value_range))
  if array.dtype in (np.uint8, np.uint16):
    return (array / (np.iinfo(array.dtype).max / 2) - 1).astype(np.float32)
  if not np.issubdtype(array.dtype, np.floating):
    raise UpscalerError(f'pixels must be uint8, uint16 or float, not {array.dtype}')
  array = array.astype(np.float32)
  # Bicubic kernels overshoot; measurements may be beyond the range, as in training.
  # NaN is refused, too.
  most = 1.5 if model.value_range is None else np.finfo(np.float32).max
  if not np.abs(array).max() <= most:
    raise UpscalerError('float pixels must be in [-1, 1]')
  return array


def as_mask(mask: Any, size: tuple[int, int]) -> np.ndarray:
  """A mask of any kind as float32 [h, w, 1]: 1 is missing, 0 known.

  Args:
    mask: [h, w] or [h, w, 1]: bool, True is missing; integers or floats from 0 to 1,
      where what is brighter than half is missing; or a PIL image.
    size: that it must have.

  Raises:
    UpscalerError: not such a mask.
  """
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


def _luma(image: np.ndarray) -> np.ndarray:
  """[h, w, 3] -> [h, w, 1]."""
  return image @ np.array(LUMA, np.float32)[:, None]


# --------------------------------------------------------------------- the condition


def assemble(
  model: SR3,
  image: np.ndarray,
  mask: np.ndarray | None,
  blur: float,
  noise: float,
  seed: Sequence[int],
) -> np.ndarray:
  """What the network is given: the image, then what the model's task adds.

  Args:
    model: the model.
    image: float32 [h, w, C]; 0 where pixels are missing.
    mask: [h, w, 1]; None: all is to be made anew, and nothing hidden.
    blur: as `degradations.augment` has it.
    noise: as `degradations.augment` has it.
    seed: of that noise, numbers from 0 up.

  Returns:
    float32 [h, w, K].
  """
  plane = lambda value: np.full((*image.shape[:2], 1), value, np.float32)
  if model.task.extras == ('mask',):
    return np.concatenate([image, plane(1) if mask is None else mask], axis=-1)
  if model.task.extras == ('blur', 'noise'):
    if blur:
      import scipy.ndimage  # 0.3 s that other models need not wait for

      image = scipy.ndimage.gaussian_filter(
        image, (blur, blur, 0), mode='mirror', radius=(BLUR_RADIUS, BLUR_RADIUS, 0)
      )
    if noise:
      drawn = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
      image = np.float32(np.sqrt(1 - noise**2)) * image + np.float32(noise) * drawn
    return np.concatenate([image, plane(blur), plane(noise)], axis=-1)
  return image
