"""Loads and runs cascades: one model samples small images, others upsample them.

Every stage is a model of its own, trained by itself (arXiv:2104.07636,
arXiv:2106.15282). Between stages images are rounded to 8 bits, as the images were that
the stages were trained on, so a saved image is exactly what the next stage was given.
Stages of the task 'cascade' are given a blurred and noisy version of it, and the levels
of both. These levels are arguments of the compiled program and are chosen when one
samples.

What stage s makes of image k is a function of (seed, s, k) alone. k is the class times
2^20 plus the image's number in it, so more images or more classes change none of the
images that were there before.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from sr3_jax.config import ConfigDict, as_json
from sr3_jax.core import degradations
from sr3_jax.core.samplers import make_trajectory, trajectory_options
from sr3_jax.core.sr3 import SR3
from sr3_jax.evaluation.scoring import quantize
from sr3_jax.restoration.restorer import OnSteps, Restorer, keys
from sr3_jax.runtime import activity, devices
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub

FIRST_TASK = 'generation'
LATER_TASKS = ('cascade', 'super_resolution')
LATER_TASKS += ('photo_super_resolution', 'blind_super_resolution')
IMAGES_PER_CLASS = 2**20  # as many images a class can have
MOST_CLASSES = 2**11 - 1
# Added to a stage's number, it makes the noise of a stage's input independent of the
# noise that the stage samples with.
_AUGMENTATION = 2**16
# Options of `config.cascade` that have a value for each stage.
_STAGE_OPTIONS = ('blur', 'noise', 'guidance', 'num_steps')

# 'index' int32 [D, b], and 'label' int32 [D, b] if there are classes.
Batch = Mapping[str, jax.Array]


class Job(NamedTuple):
  """One image to sample: its class (0 where there are none) and its number in it."""

  label: int
  number: int


class CascadeError(UserError):
  """A cascade can't do what was asked for."""


class Levels(NamedTuple):
  """Levels of the augmentation of a stage's input: blur and noise."""

  blur: float = 0.0  # sigma in pixels
  noise: float = 0.0  # share in the amplitude, 0 to 1


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
  """One model of a cascade, compiled for all devices."""

  place: int  # number of the stage; 0 samples small images, the others upsample
  name: str  # of the model
  model: SR3
  restorer: Restorer
  seed: int  # of all noise
  levels: Levels  # of its input, where the caller names no others
  max_levels: Levels  # the highest ones that it was trained on
  guidance: float  # how much the class counts; 1 is as much as in training
  made_by: dict[str, object]  # all that its images depend on, as JSON

  @property
  def side(self) -> int:
    """The side of its images, in pixels."""
    return self.model.image_size

  @property
  def augmented(self) -> bool:
    """Return whether the stage is given levels of blur and noise."""
    return bool(self.model.task.extras)

  @property
  def num_steps(self) -> int:
    """Sampling steps of an image."""
    return self.restorer.num_steps

  def __call__(
    self,
    image: jax.Array | None,
    batch: Batch,
    on_steps: OnSteps = lambda steps: None,
    levels: Levels | None = None,
  ) -> jax.Array:
    """Sample one image for each k of a batch.

    Args:
      image: [D, b, h, w, C] in [-1, 1], made by the stage before; None for the first.
      batch: 'index' int32 [D, b], the k; 'label' int32 [D, b] where there are classes.
      on_steps: called with the number of sampling steps just done.
      levels: of the input's augmentation; None is the stage's own.

    Returns:
      [D, b, H, W, C] in [-1, 1], of 256 levels.
    """
    levels = self.levels if levels is None else levels
    condition = self._condition(image, batch, levels)
    return quantize(self.restorer(condition, self._used(batch), self.place, on_steps))

  def prepare(self, batch: Batch) -> None:
    """Compile all that a call with a batch of this shape needs."""
    index, channels = batch['index'], self.model.channels
    low = _blank(self.side // self.model.scale, channels)(index) if self.place else None
    condition = self._condition(low, batch, self.levels)
    self.restorer.prepare(condition, self._used(batch))
    jax.block_until_ready(quantize(_blank(self.side, channels)(index)))

  def _condition(
    self, image: jax.Array | None, batch: Batch, levels: Levels
  ) -> jax.Array:
    """Return what the model is given: an image, augmented if the stage knows levels."""
    if image is None:
      return _blank(self.side, 0)(batch['index'])
    if not self.augmented:
      return image
    shared = devices.replicate(tuple(map(np.float32, levels)))
    return _augment(self.seed, self.place)(image, batch['index'], *shared)

  def _used(self, batch: Batch) -> dict[str, jax.Array]:
    """Return the part of a batch that the model uses."""
    names = ('index', 'label') if self.model.num_classes else ('index',)
    return {name: batch[name] for name in names}


@functools.lru_cache(maxsize=8)
def _augment(seed: int, place: int) -> Callable[..., jax.Array]:
  """Compile image, index, blur, noise -> condition [D, b, h, w, C + 2]."""

  def augment(image, index, blur, noise):
    key = keys(seed, index, _AUGMENTATION + place)
    blur, noise = (jnp.broadcast_to(level, index.shape) for level in (blur, noise))
    return degradations.augment(key, image, blur, noise)

  return devices.pmap(augment)


@functools.lru_cache(maxsize=16)
def _blank(side: int, channels: int) -> Callable[[jax.Array], jax.Array]:
  """Compile index [D, b] -> zeros [D, b, side, side, channels]."""
  return devices.pmap(lambda index: jnp.zeros((len(index), side, side, channels)))


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
  """Stages that fit together."""

  stages: list[Stage]  # in their order; the first samples small images
  num_classes: int  # 0 where there are no classes
  seed: int  # of all noise
  config: ConfigDict  # of the first stage's run

  @property
  def side(self) -> int:
    """The side of the last stage's images, in pixels."""
    return self.stages[-1].side

  @property
  def made_by(self) -> dict[str, object]:
    """Return all that images depend on, as JSON."""
    stages = {f'stage {s.place + 1}': s.made_by for s in self.stages}
    return {'seed': self.seed, **stages, 'sr3_jax': __version__}

  def labels(self, chosen: Sequence[int]) -> list[int]:
    """Return the classes to sample; [0] where the models have none.

    Args:
      chosen: classes that the user asks for; all if it is empty.

    Raises:
      CascadeError: there is no such class, or it is chosen twice.
    """
    if not self.num_classes:
      if chosen:
        raise CascadeError('cascade.classes: the models have no classes')
      return [0]
    wrong = [k for k in chosen if not 0 <= k < self.num_classes]
    if wrong or len(set(chosen)) < len(chosen):
      raise CascadeError(
        f'cascade.classes={tuple(chosen)}: must be different numbers from 0 to '
        f'{self.num_classes - 1}'
      )
    return list(chosen) or list(range(self.num_classes))

  def batch(self, jobs: Sequence[Job], size: int) -> dict[str, jax.Array]:
    """Return this process's part of a batch: at most `size` jobs, then -1 and 0.

    Returns:
      'index', the k, and 'label', int32 [D, size / D] each.
    """
    index, label = np.full(size, -1, np.int32), np.zeros(size, np.int32)
    for row, (kind, number) in enumerate(jobs):
      index[row], label[row] = kind * IMAGES_PER_CLASS + number, kind
    return devices.shard({'index': index, 'label': label})


def job(position: int, labels: Sequence[int]) -> Job:
  """Return image `position` of the order of sampling: one of each class in turn."""
  number, place = divmod(position, len(labels))
  return Job(labels[place], number)


def load(config: ConfigDict, workdir: epath.PathLike) -> Cascade:
  """Load the models of `config.cascade` and check that they fit together.

  Args:
    config: of the cascade.
    workdir: of the cascade; relative paths of stages begin in the folder around it.

  Raises:
    CascadeError: a model cannot be loaded, the models do not fit together, or an
      option does not fit them.
  """
  c = config.cascade
  for name in _STAGE_OPTIONS:
    if len(c[name]) not in (0, len(c.stages)):
      raise CascadeError(
        f'cascade.{name}={tuple(c[name])}: must be {len(c.stages)} values, one for '
        'each stage, or none'
      )
  stages: list[Stage] = []
  models: list[hub.Loaded] = []
  for place, path in enumerate(c.stages):
    try:
      with activity.doing(f'reading the model {path}'):
        loaded = hub.load(stage_path(path, workdir))
    except UserError as error:
      raise CascadeError(f'stage {place + 1} of cascade.stages: {error}') from None
    _check_task(loaded, place)
    if stages:
      _check_chain(loaded, stages[-1], models[0])
    models.append(loaded)
    stages.append(_stage(loaded, place, config))
  num_classes = models[0].model.num_classes
  if num_classes > MOST_CLASSES:
    raise CascadeError(f'{num_classes} classes are more than {MOST_CLASSES}')
  return Cascade(stages, num_classes, config.seed, models[0].config)


def stage_path(path: str, workdir: epath.PathLike) -> str:
  """Return a stage's path; relative ones begin in the folder around the workdir."""
  if '://' in path or path.startswith(('/', '~')):
    return path
  return str(epath.Path(workdir).parent / path)


def _stage(loaded: hub.Loaded, place: int, config: ConfigDict) -> Stage:
  """Return a stage with its options of `config.cascade`, or else its model's own."""
  c, own, model, name = config.cascade, loaded.config, loaded.model, loaded.name
  blur, noise, guidance, num_steps = (
    c[option][place] if len(c[option]) else None for option in _STAGE_OPTIONS
  )
  settings = trajectory_options(own.sampler)
  guidance = float(own.sampler.guidance if guidance is None else guidance)
  if guidance != 1 and not model.label_dropout:
    raise CascadeError(
      f'{name}: guidance {guidance:g} needs a model trained with model.label_dropout; '
      '1 is without'
    )
  if num_steps is not None:
    settings['num_steps'] = int(num_steps)
  try:
    trajectory = make_trajectory(model.gammas, **settings)
  except ValueError as error:
    raise CascadeError(f'{name}: {line(error)}') from None
  restorer = Restorer(model, loaded.params, config.seed, guidance=guidance)
  restorer.choose(*trajectory)
  levels, max_levels = Levels(float(blur or 0), float(noise or 0)), Levels()
  if own.task.name == 'cascade':
    ranges = own.task.augment_blur, own.task.augment_noise
    max_levels = Levels(*(float(most) for _, most in ranges))
  for option, value, most in zip(Levels._fields, levels, max_levels, strict=True):
    if not 0 <= value <= most:
      raise CascadeError(
        f'{name}: cascade.{option} {value:g} is not of the levels it was trained on: '
        f'0 to {most:g}'
      )
  made_by: dict[str, object] = {
    'weights': loaded.fingerprint,
    **levels._asdict(),
    'guidance': guidance,
    'sampler': as_json(ConfigDict(settings)),
  }
  return Stage(
    place, name, model, restorer, config.seed, levels, max_levels, guidance, made_by
  )


# ------------------------------------------------------------------- what must fit


def _check_task(loaded: hub.Loaded, place: int) -> None:
  """Refuse a model whose task is not one for its place."""
  task, model, name = loaded.config.task.name, loaded.model, loaded.name
  if place == 0 and task != FIRST_TASK:
    raise CascadeError(
      f'{name}: the first stage must sample images from noise (task {FIRST_TASK!r}), '
      f'this one is of the task {task!r}'
    )
  if place and (task not in LATER_TASKS or model.scale < 2):
    raise CascadeError(
      f'{name}: a later stage must upsample images (task '
      f'{", ".join(map(repr, LATER_TASKS))}), this one is of the task {task!r}'
    )
  if model.channels not in (1, 3):
    raise CascadeError(f'{name}: images of {model.channels} channels; must be 1 or 3')


def _check_chain(loaded: hub.Loaded, last: Stage, first: hub.Loaded) -> None:
  """Refuse a model that fits neither the stage before it nor the first one."""
  model, name = loaded.model, loaded.name
  low, side = model.image_size // model.scale, model.image_size
  if side != last.side * model.scale:
    raise CascadeError(
      f'{name}: upsamples {low} x {low} to {side} x {side}, but {last.name} before it '
      f'makes {last.side} x {last.side}'
    )
  data = loaded.config.data, first.config.data
  ranges = [(tuple(d.low), tuple(d.high)) for d in data]
  if model.channels != first.model.channels or ranges[0] != ranges[1]:
    raise CascadeError(f'{name}: not the channels and range of values of {first.name}')
  if model.num_classes not in (0, first.model.num_classes):
    raise CascadeError(
      f'{name}: {model.num_classes} classes, but {first.name} has '
      f'{first.model.num_classes or "none"}'
    )
