"""Makes conditions by task: pure functions `degrade(key, hr, **options) -> condition`.

`hr` is float32 [B, H, W, C] in [-1, 1]; `key` holds one key for each example, and all
that is random in example b is a function of key[b] alone. A condition is an image of C
channels (a bicubic kernel may overshoot slightly), of the same size or `scale` times
smaller, followed by the channels that `Task.extras` names; options that are a pair are
the ends of a uniform range, and `scale` is the magnification. The same function makes
training pairs, evaluation inputs and the consistency metric, inside the compiled step,
so they cannot drift apart.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from sr3_jax.config import check_name
from sr3_jax.core.degradations import blind, blurring, jpeg, masks
from sr3_jax.core.degradations.pairs import real_pairs
from sr3_jax.core.degradations.resizing import area, downsampled_size, resize
from sr3_jax.images import pair_grid

# Options of a task by name, as `config.task` has them.
Options = Mapping[str, Any]

# Luma of BT.601, as Pillow's convert('L') has it.
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Task:
  """A degradation of images, and what its condition holds."""

  degrade: Callable[..., jax.Array]  # (key, hr, **options) -> condition [B, h, w, K]
  about: str  # what is done to images, for reports
  # Channels after those of the image: 'mask' (1 is missing, 0 known; what is known
  # stays exactly known), 'blur' and 'noise' (conditioning levels, constant).
  extras: tuple[str, ...] = ()
  conditional: bool = True  # False: nothing is observed, K = 0
  scale: int = 1  # output side over condition side
  colour: bool = False  # it is about colour: images must have 3 channels
  # Conditions come from files, and `degrade` is given those in the place of images;
  # `ratio` is then the target's side over that of the file.
  paired: bool = False
  ratio: Fraction = Fraction(1)
  # Those that `degrade` was given, for reports.
  options: Options = dataclasses.field(default_factory=dict)

  def num_channels(self, channels: int) -> int:
    """Return K, for images of that many channels."""
    return channels + len(self.extras) if self.conditional else 0


def super_resolution(
  key: jax.Array, hr: jax.Array, *, scale: int, through: int = 0
) -> jax.Array:
  """Downsample images `scale` times: bicubic, anti-aliased (paper, section 4).

  With `through` an image is first downsampled to this side and then upsampled to
  H // scale, as the paper does for its classification test (56, then 64).

  Raises:
    ValueError: a side that scale does not divide.
  """
  del key  # nothing is random
  size = downsampled_size(hr, scale)
  if through:
    height, width = hr.shape[1:3]
    shorter = min(height, width)
    hr = resize(hr, through * height // shorter, through * width // shorter)
  return resize(hr, *size)


def cascade(
  key: jax.Array,
  hr: jax.Array,
  *,
  scale: int,
  augment_blur: Sequence[float],
  augment_noise: Sequence[float],
) -> jax.Array:
  """Downsample images and augment them: for stages that upsample generated images.

  Conditioning augmentation (arXiv:2106.15282, section 3): a stage learns not to trust
  its input to the last detail, and the conditioning levels tell it how far it can.
  Images are downsampled by area, as the training images of the stage before are.
  `augment_blur` and `augment_noise` are the ranges of what `augment` takes; half of the
  images are not blurred, unless the range is a single value.
  """
  low = area(hr, scale)
  part = functools.partial(blurring.fold_in, key)
  sigma = _uniform(part(0), augment_blur)
  if augment_blur[0] < augment_blur[1]:
    sigma = jnp.where(_coin(part(1)), sigma, 0.0)
  return augment(part(2), low, sigma, _uniform(part(3), augment_noise))


def augment(
  key: jax.Array, low: jax.Array, blur: jax.Array, noise: jax.Array
) -> jax.Array:
  """Blur images, add noise to them, and append how much of both.

  The noise is that of the forward process: sqrt(1 - noise^2) image + noise z.

  Args:
    key: [B].
    low: [B, h, w, C] in [-1, 1].
    blur: [B], sigma of a Gaussian in pixels, at most 2.
    noise: [B], 0 to 1.

  Returns:
    [B, h, w, C + 2]: the image, then the conditioning levels as constant channels.
  """
  amplitude = noise[:, None, None, None]
  image = blurring.gaussian_blur(low, blur, size=9)
  drawn = jax.vmap(lambda k: jax.random.normal(k, low.shape[1:]))(key)
  image = jnp.sqrt(1 - amplitude**2) * image + amplitude * drawn
  levels = jnp.stack([blur, noise], axis=-1)[:, None, None]
  levels = jnp.broadcast_to(levels, (*low.shape[:3], 2))
  return jnp.concatenate([image, levels], axis=-1)


def generation(key: jax.Array, hr: jax.Array) -> jax.Array:
  """Return conditions without channels, [B, H, W, 0]: nothing is observed."""
  del key
  return hr[..., :0]


def inpainting(key: jax.Array, hr: jax.Array, *, masks: str) -> jax.Array:
  """Make holes: grey (0) where pixels are missing, and the mask. [B, H, W, C + 1].

  `masks` is a key of `MASKS`.
  """
  return with_hole(hr, MASKS[masks](key, *hr.shape[1:3]))


def uncropping(key: jax.Array, hr: jax.Array, *, sides: str) -> jax.Array:
  """Hide half of the image beyond a border. [B, H, W, C + 1].

  `sides` is 'mix' (Palette's), 'one' or 'all'.
  """
  return with_hole(hr, masks.uncropping(key, *hr.shape[1:3], sides=sides))


def with_hole(image: jax.Array, mask: jax.Array) -> jax.Array:
  """Return the condition of an image [B, H, W, C] and a mask [B, H, W, 1] of holes."""
  return jnp.concatenate([jnp.where(mask > 0, 0.0, image), mask], axis=-1)


def colorization(key: jax.Array, hr: jax.Array) -> jax.Array:
  """Return the luma in all three channels: [B, H, W, 3]."""
  del key
  grey = jnp.tensordot(hr, jnp.array(LUMA), 1, precision='highest')
  return jnp.broadcast_to(grey[..., None], hr.shape)


def jpeg_artefacts(
  key: jax.Array, hr: jax.Array, *, quality: Sequence[int]
) -> jax.Array:
  """Compress images as JPEG, at a low quality Q in proportion to exp(-Q / 10).

  This is Palette's distribution (arXiv:2111.05826), from the lowest `quality` to the
  highest. Half of the images have chroma at half the size, as most files.
  """
  chosen = jpeg.sample_quality(blurring.fold_in(key, 0), *quality)
  return jpeg.compress(hr, chosen, _coin(blurring.fold_in(key, 1)))


def deblurring(
  key: jax.Array, hr: jax.Array, *, blur: Sequence[float], motion: Sequence[float]
) -> jax.Array:
  """Blur images by defocus (a Gaussian) or motion, equally often.

  `blur` is the range of sigma, `motion` that of the movement's length, in pixels.
  """
  part = functools.partial(blurring.fold_in, key)
  size = 2 * int(max(3 * blur[1], motion[1] / 2) + 0.999) + 1
  sigma, length = _uniform(part(0), blur), _uniform(part(1), motion)
  focus = blurring.gaussian_kernels(sigma, sigma, jnp.zeros_like(sigma), size)
  moved = blurring.motion_kernels(part(2), length, size=size)
  kernels = jnp.where(_coin(part(3))[:, None, None], focus, moved)
  return blurring.convolve(hr, kernels)


def denoising(key: jax.Array, hr: jax.Array, *, noise: Sequence[float]) -> jax.Array:
  """Add Gaussian noise of a standard deviation in the range `noise`."""
  sigma = blurring.per_example(_uniform(blurring.fold_in(key, 0), noise))
  return hr + blurring.normal(blurring.fold_in(key, 1), hr) * sigma


def blind_super_resolution(key: jax.Array, hr: jax.Array, *, scale: int) -> jax.Array:
  """Blur, downsample, add noise and compress, twice over (see `blind`)."""
  return blind.second_order(key, hr, scale=scale)


def photo_super_resolution(key: jax.Array, hr: jax.Array, *, scale: int) -> jax.Array:
  """Downsample images as cameras and web pages do: a little soft, noisy, compressed.

  Half of them are only downsampled, bicubic.
  """
  clean = super_resolution(key, hr, scale=scale)
  used = blind.second_order(
    blurring.fold_in(key, 0), hr, scale=scale, orders=(blind.MILD,), final_sinc=0.0
  )
  return jnp.where(_coin(blurring.fold_in(key, 1))[:, None, None, None], clean, used)


MASKS = {
  'mix': masks.inpainting,
  'free_form': masks.free_form,
  'rectangles': masks.rectangles,
}

TASKS: dict[str, Task] = {
  'super_resolution': Task(
    super_resolution, 'downsampled, bicubic with anti-aliasing (paper, section 4)'
  ),
  'photo_super_resolution': Task(
    photo_super_resolution,
    'downsampled, and half of the images a little soft, noisy and compressed',
    colour=True,
  ),
  'blind_super_resolution': Task(
    blind_super_resolution,
    'downsampled, blurred, noisy and compressed twice over, after Real-ESRGAN',
    colour=True,
  ),
  'cascade': Task(
    cascade,
    'downsampled by area, blurred and noisy to known levels',
    extras=('blur', 'noise'),
  ),
  'generation': Task(generation, 'nothing is observed', conditional=False),
  'inpainting': Task(inpainting, 'holes', extras=('mask',)),
  'uncropping': Task(
    uncropping, 'half of the image hidden beyond a border', extras=('mask',)
  ),
  'colorization': Task(colorization, 'luma alone', colour=True),
  'jpeg': Task(
    jpeg_artefacts,
    'JPEG, at a low quality Q in proportion to exp(-Q / 10)',
    colour=True,
  ),
  'deblurring': Task(deblurring, 'blurred by defocus or motion, equally often'),
  'denoising': Task(denoising, 'Gaussian noise of a random standard deviation'),
  'pairs': Task(real_pairs, 'inputs come from files, as they are', paired=True),
}
MIXTURE = 'mixture'


def make(name: str, options: Options) -> Task:
  """Return the task of a name, with those of the options that it takes.

  'mixture' does to every image what one of the tasks does that the option of that name
  lists, chosen at random. All are at the size of the output and have a mask, which says
  that all is missing where a task makes no holes.

  Raises:
    ValueError: an unknown name, answered with the known ones, or a task that doesn't
      go with others.
  """
  if name == MIXTURE:
    parts = [make(part, options) for part in options[MIXTURE]]
    if not parts:
      raise ValueError("task.name='mixture' needs task.mixture, names of tasks")
    for part, single in zip(options[MIXTURE], parts, strict=True):
      alone = single.paired or not single.conditional
      if alone or single.extras not in ((), ('mask',)):
        raise ValueError(f'task.mixture: {part!r} cannot be a part of a mixture')
    degrade = functools.partial(_mixed, parts=parts)
    about = 'every image by one of these tasks'
    names = {MIXTURE: tuple(options[MIXTURE])}
    colour = any(part.colour for part in parts)
    return Task(degrade, about, ('mask',), colour=colour, options=names)
  task = TASKS[check_name('task', (*TASKS, MIXTURE), name)]
  if task.paired:
    ratio = pair_grid.side_ratio(options['pair_scale'])
    return dataclasses.replace(
      task,
      degrade=functools.partial(task.degrade, ratio=ratio),
      scale=ratio.numerator if ratio.denominator == 1 else 1,
      ratio=ratio,
      options={'pair_scale': f'{float(ratio):g}'},
    )
  parameters = inspect.signature(task.degrade).parameters.values()
  taken = {p.name: options[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
  return dataclasses.replace(
    task,
    degrade=functools.partial(task.degrade, **taken),
    scale=taken.get('scale', 1),
    options=taken,
  )


def describe(name: str, options: Options) -> str:
  """Return a line about a task and those of the options that matter to it."""
  task = make(name, options)
  settings = [f'{key} {value}' for key, value in task.options.items()]
  return '; '.join([task.about, *settings])


def _mixed(key: jax.Array, hr: jax.Array, *, parts: Sequence[Task]) -> jax.Array:
  """Degrade every image by one of the tasks: all are computed, one is taken."""
  all_missing = jnp.ones((*hr.shape[:3], 1))

  def whole(part):
    condition = part.degrade(key, hr)
    if part.extras:
      return condition
    height, width = hr.shape[1:3]
    condition = resize(condition, height, width) if part.scale > 1 else condition
    return jnp.concatenate([condition, all_missing], axis=-1)

  def choose(key):
    return jax.random.randint(jax.random.fold_in(key, 17), (), 0, len(parts))

  chosen = jax.vmap(choose)(key)[:, None, None, None]
  return jnp.select([chosen == i for i in range(len(parts))], [*map(whole, parts)])


def _uniform(key: jax.Array, limits: Sequence[float]) -> jax.Array:
  """Draw a number between two limits for each key: [B]."""
  low, high = limits
  return jax.vmap(lambda k: jax.random.uniform(k, (), minval=low, maxval=high))(key)


def _coin(key: jax.Array) -> jax.Array:
  """Draw a truth value for each key: bool [B]."""
  return jax.vmap(jax.random.bernoulli)(key)
