"""Tasks: pure functions `degrade(key, hr, **options) -> condition`.

`hr` is float32 [B, H, W, C] in [-1, 1]; `key` holds one key for each example, and all
that is random in example b is a function of key[b] alone. A condition is an image of C
channels (a bicubic kernel may overshoot slightly), of the same size or `scale` times
smaller, followed by the channels that `Task.extras` names. The same function makes
training pairs, evaluation inputs and the consistency metric, inside the compiled step,
so they cannot drift apart.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sr3_jax.core.degradations import blind, blurring, jpeg, masks
from sr3_jax.core.degradations.resizing import area, resize

# Luma of BT.601, as Pillow's convert('L') has it.
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Task:
  """What is done to images, and what a condition holds.

  Attributes:
    degrade: (key [B], hr [B, H, W, C], **options) -> condition [B, h, w, K].
    extras: channels after those of the image: 'mask' (1 is missing, 0 known; what is
      known stays exactly known), 'blur' and 'noise' (levels, constant).
    conditional: False: nothing is observed, K = 0.
    scale: output side over condition side.
    colour: it is about colour: images must have 3 channels.
  """

  degrade: Callable[..., jax.Array]
  extras: tuple[str, ...] = ()
  conditional: bool = True
  scale: int = 1
  colour: bool = False

  def num_channels(self, channels: int) -> int:
    """K, for images of that many channels."""
    return channels + len(self.extras) if self.conditional else 0


def super_resolution(
  key: jax.Array, hr: jax.Array, *, scale: int, through: int = 0
) -> jax.Array:
  """The small image: bicubic, anti-aliased, `scale` times smaller (paper, section 4).

  Args:
    key: not used: nothing is random.
    hr: [B, H, W, C].
    scale: magnification.
    through: if not 0, the image is first reduced to this side and then enlarged to
      H // scale, as the paper does for its classification test (56, then 64).

  Returns:
    [B, H // scale, W // scale, C].

  Raises:
    ValueError: a side that scale does not divide.
  """
  del key  # nothing random
  height, width = hr.shape[1:3]
  if height % scale or width % scale:
    raise ValueError(f'images of {height} x {width} cannot be made {scale}x smaller')
  if through:
    hr = resize(
      hr, through * height // min(height, width), through * width // min(height, width)
    )
  return resize(hr, height // scale, width // scale)


def cascade(
  key: jax.Array,
  hr: jax.Array,
  *,
  scale: int,
  augment_blur: Sequence[float],
  augment_noise: Sequence[float],
) -> jax.Array:
  """The small image, spoiled a little: for stages that enlarge generated images.

  Conditioning augmentation (arXiv:2106.15282, section 3): a stage learns not to trust
  its input to the last detail, and is told how far it can. Reduced by area, as the
  training images of the stage before are.

  Args:
    key: [B].
    hr: [B, H, W, C].
    scale: magnification.
    augment_blur: range of sigma in pixels of the small image; half of the images are
      not blurred, unless the range is a single value.
    augment_noise: range of the amplitude's share that is noise, see `augment`.

  Returns:
    [B, H // scale, W // scale, C + 2].
  """
  low = area(hr, scale)
  part = functools.partial(_fold, key)
  sigma = _uniform(part(0), augment_blur)
  if augment_blur[0] < augment_blur[1]:
    sigma = jnp.where(_coin(part(1)), sigma, 0.0)
  return augment(part(2), low, sigma, _uniform(part(3), augment_noise))


def augment(
  key: jax.Array, low: jax.Array, blur: jax.Array, noise: jax.Array
) -> jax.Array:
  """Blurs images, adds noise to them, and says how much of both.

  Noise as the forward process has it: sqrt(1 - noise^2) image + noise z.

  Args:
    key: [B].
    low: [B, h, w, C] in [-1, 1].
    blur: [B], sigma of a Gaussian in pixels, at most 2.
    noise: [B], 0 to 1.

  Returns:
    [B, h, w, C + 2]: the image, then `blur` and `noise` as constant channels.
  """
  amplitude = noise[:, None, None, None]
  image = blurring.gaussian_blur(low, blur, size=9)
  draw = lambda k: jax.random.normal(k, low.shape[1:])
  image = jnp.sqrt(1 - amplitude**2) * image + amplitude * jax.vmap(draw)(key)
  level = lambda value: jnp.broadcast_to(
    value[:, None, None, None], (*low.shape[:3], 1)
  )
  return jnp.concatenate([image, level(blur), level(noise)], axis=-1)


def generation(key: jax.Array, hr: jax.Array) -> jax.Array:
  """Nothing is observed: [B, H, W, 0]. The network has noise and class only."""
  del key
  return hr[..., :0]


def inpainting(key: jax.Array, hr: jax.Array, *, masks: str) -> jax.Array:
  """Holes: grey (0) where pixels are missing, and the mask. [B, H, W, C + 1].

  Args:
    key: [B].
    hr: [B, H, W, C].
    masks: 'mix' (Palette's: 60 % free-form, 40 % rectangles), 'free_form' or
      'rectangles'.
  """
  if masks not in MASKS:
    raise ValueError(f'unknown masks {masks!r}; known: {", ".join(MASKS)}')
  return with_hole(hr, MASKS[masks](key, *hr.shape[1:3]))


def uncropping(key: jax.Array, hr: jax.Array, *, sides: str) -> jax.Array:
  """Half of the image is beyond the border of what is known. [B, H, W, C + 1].

  Args:
    key: [B].
    hr: [B, H, W, C].
    sides: 'mix' (Palette's), 'one' or 'all'.
  """
  return with_hole(hr, masks.uncropping(key, *hr.shape[1:3], sides=sides))


def with_hole(image: jax.Array, mask: jax.Array) -> jax.Array:
  """A condition: an image [B, H, W, C] without what `mask` [B, H, W, 1] hides."""
  return jnp.concatenate([jnp.where(mask > 0, 0.0, image), mask], axis=-1)


def colorization(key: jax.Array, hr: jax.Array) -> jax.Array:
  """Luma in all three channels: [B, H, W, 3]."""
  del key
  grey = jnp.tensordot(hr, jnp.array(LUMA), 1, precision='highest')
  return jnp.broadcast_to(grey[..., None], hr.shape)


def jpeg_artefacts(
  key: jax.Array, hr: jax.Array, *, quality: Sequence[int]
) -> jax.Array:
  """What JPEG leaves of an image, of a low quality Q with a share of exp(-Q / 10).

  Palette's distribution (arXiv:2111.05826); half of the images with chroma at half the
  size, as files mostly have it. [B, H, W, C].
  """
  chosen = jpeg.sample_quality(_fold(key, 0), *quality)
  return jpeg.compress(hr, chosen, _coin(_fold(key, 1)))


def deblurring(
  key: jax.Array, hr: jax.Array, *, blur: Sequence[float], motion: Sequence[float]
) -> jax.Array:
  """Out of focus (a Gaussian) or moved, one as often as the other. [B, H, W, C].

  Args:
    key: [B].
    hr: [B, H, W, C].
    blur: range of sigma, pixels.
    motion: range of the length of the movement, pixels.
  """
  part = functools.partial(_fold, key)
  size = 2 * int(max(3 * blur[1], motion[1] / 2) + 0.999) + 1
  sigma, length = _uniform(part(0), blur), _uniform(part(1), motion)
  focus = blurring.gaussian_kernels(sigma, sigma, jnp.zeros_like(sigma), size)
  moved = blurring.motion_kernels(part(2), length, size=size)
  kernels = jnp.where(_coin(part(3))[:, None, None], focus, moved)
  return blurring.convolve(hr, kernels)


def denoising(key: jax.Array, hr: jax.Array, *, noise: Sequence[float]) -> jax.Array:
  """Gaussian noise of a standard deviation in the range `noise`. [B, H, W, C]."""
  sigma = _uniform(_fold(key, 0), noise)
  return blurring.gaussian_noise(_fold(key, 1), hr, sigma)


def blind_super_resolution(key: jax.Array, hr: jax.Array, *, scale: int) -> jax.Array:
  """Small images as they are found: blurred, noisy, compressed, twice over.

  After Real-ESRGAN (arXiv:2107.10833). [B, H // scale, W // scale, C].
  """
  return blind.second_order(key, hr, scale=scale)


def photo_super_resolution(key: jax.Array, hr: jax.Array, *, scale: int) -> jax.Array:
  """Small images as cameras and web pages have them: a little soft, noisy, compressed.

  Half of them are nothing but bicubic. [B, H // scale, W // scale, C].
  """
  clean = super_resolution(key, hr, scale=scale)
  used = blind.second_order(
    _fold(key, 0), hr, scale=scale, orders=(blind.MILD,), final_sinc=0.0
  )
  return jnp.where(_coin(_fold(key, 1))[:, None, None, None], clean, used)


MASKS = {
  'mix': masks.inpainting,
  'free_form': masks.free_form,
  'rectangles': masks.rectangles,
}

TASKS: dict[str, Task] = {
  'super_resolution': Task(super_resolution),
  'photo_super_resolution': Task(photo_super_resolution, colour=True),
  'blind_super_resolution': Task(blind_super_resolution, colour=True),
  'cascade': Task(cascade, extras=('blur', 'noise')),
  'generation': Task(generation, conditional=False),
  'inpainting': Task(inpainting, extras=('mask',)),
  'uncropping': Task(uncropping, extras=('mask',)),
  'colorization': Task(colorization, colour=True),
  'jpeg': Task(jpeg_artefacts, colour=True),
  'deblurring': Task(deblurring),
  'denoising': Task(denoising),
}
MIXTURE = 'mixture'


def make(name: str, options: Mapping[str, Any]) -> Task:
  """The task of that name with those of the options that it takes.

  'mixture' is one of the tasks that its option of that name lists, another for every
  image, all at the size of the output and with a mask, which says that all is missing
  where a task knows of no holes.

  Raises:
    ValueError: an unknown name, answered with the known ones, or a task that doesn't
      go with others.
  """
  if name == MIXTURE:
    parts = [make(part, options) for part in options[MIXTURE]]
    if not parts:
      raise ValueError("the task 'mixture' needs task.mixture, names of tasks")
    for part, single in zip(options[MIXTURE], parts, strict=True):
      if not single.conditional or single.extras not in ((), ('mask',)):
        raise ValueError(f'{part!r} cannot be a part of a mixture of tasks')
    degrade = functools.partial(_mixed, parts=parts)
    return Task(degrade, ('mask',), colour=any(part.colour for part in parts))
  if name not in TASKS:
    known = ', '.join((*TASKS, MIXTURE))
    raise ValueError(f'unknown task {name!r}; known: {known}')
  task = TASKS[name]
  parameters = inspect.signature(task.degrade).parameters.values()
  taken = {p.name: options[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
  return dataclasses.replace(
    task, degrade=functools.partial(task.degrade, **taken), scale=taken.get('scale', 1)
  )


def describe(name: str, options: Mapping[str, Any]) -> str:
  """A task and those of the options that matter to it, in a line."""
  task = make(name, options)
  first = (task.degrade.func.__doc__ or '').split('\n')[0]
  settings = [f'{key} {value}' for key, value in task.degrade.keywords.items()]
  return '; '.join([first, *settings])


def _mixed(key: jax.Array, hr: jax.Array, *, parts: Sequence[Task]) -> jax.Array:
  """Every image with a task of its own: all are done, one is taken."""
  everything = jnp.ones((*hr.shape[:3], 1))

  def whole(part):
    condition = part.degrade(key, hr)
    if part.extras:
      return condition
    condition = resize(condition, *hr.shape[1:3]) if part.scale > 1 else condition
    return jnp.concatenate([condition, everything], axis=-1)

  draw = lambda k: jax.random.randint(jax.random.fold_in(k, 17), (), 0, len(parts))
  chosen = jax.vmap(draw)(key)[:, None, None, None]
  return jnp.select([chosen == i for i in range(len(parts))], [*map(whole, parts)])


def _fold(key: jax.Array, number: int) -> jax.Array:
  return jax.vmap(jax.random.fold_in, (0, None))(key, number)


def _uniform(key: jax.Array, limits: Sequence[float]) -> jax.Array:
  low, high = limits
  return jax.vmap(lambda k: jax.random.uniform(k, (), minval=low, maxval=high))(key)


def _coin(key: jax.Array) -> jax.Array:
  return jax.vmap(jax.random.bernoulli)(key)
