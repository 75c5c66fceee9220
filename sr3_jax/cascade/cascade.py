"""Cascades: a model draws small images, others enlarge them, stage by stage.

Every stage is a model of its own, trained by itself (arXiv:2104.07636,
arXiv:2106.15282). Between stages images are rounded to 8 bits, as those were that the
stages were trained on, so that a saved image is exactly what the next stage has seen.
Stages of the task 'cascade' are given a blurred and noisy version of it and are told
how much of both: levels are arguments of the compiled program, chosen when one samples.

What stage s makes of image k is a function of (seed, s, k) alone. k is the class times
2^20 plus the image's number in it, so that more images or classes change none of those
that were there before.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from sr3_jax.config import as_json
from sr3_jax.core import degradations
from sr3_jax.core.samplers import make_trajectory, trajectory_options
from sr3_jax.core.sr3 import SR3
from sr3_jax.evaluation.scoring import quantize
from sr3_jax.restoration.restorer import OnSteps, Restorer, keys
from sr3_jax.runtime import devices
from sr3_jax.runtime.errors import UserError, line
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub

DRAWING = 'generation'  # the task of the first stage
ENLARGING = (
  'cascade',
  'super_resolution',
  'photo_super_resolution',
  'blind_super_resolution',
)
CLASS_PITCH = 2**20  # images a class can have
MOST_CLASSES = 2**11 - 1
# Added to a stage's number: its input's noise is independent of its sampling noise.
_AUGMENTATION = 2**16
_RANGE = ('low', 'high')
_VALUES = ('blur', 'noise', 'guidance', 'num_steps')

Job = tuple[int, int]  # class (0 where there are none) and number in it


class CascadeError(UserError):
  """One line: what about a cascade is not possible, and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
  """One model of a cascade, compiled for all devices.

  Attributes:
    place: 0 draws, the others enlarge.
    name: of the model.
    side: of its images.
    model: the model.
    restorer: draws from it.
    seed: of all noise.
    blur: of its input, sigma in pixels.
    noise: of its input, share in the amplitude.
    guidance: how much the class counts.
    trained: the highest blur and noise it was trained on.
    about: what its images depend on, as JSON.
  """

  place: int
  name: str
  side: int
  model: SR3
  restorer: Restorer
  seed: int
  blur: float
  noise: float
  guidance: float
  trained: tuple[float, float]
  about: dict[str, Any]

  @property
  def augmented(self) -> bool:
    """Whether it knows levels of blur and noise."""
    return bool(self.model.task.extras)

  @property
  def num_steps(self) -> int:
    """Sampling steps of an image."""
    return self.restorer.num_steps

  def __call__(
    self,
    image: jax.Array | None,
    batch: dict[str, jax.Array],
    on_steps: OnSteps = lambda steps: None,
    *,
    blur: float | None = None,
    noise: float | None = None,
  ) -> jax.Array:
    """One image for each of the batch.

    Args:
      image: [D, b, h, w, C] in [-1, 1], of the stage before; None for the first.
      batch: 'index' int32 [D, b], k; 'label' int32 [D, b] where there are classes.
      on_steps: called with the number of sampling steps just done.
      blur: instead of the stage's own.
      noise: the same.

    Returns:
      [D, b, H, W, C] in [-1, 1], of 256 levels.
    """
    condition = self._condition(image, batch, blur, noise)
    batch = self._known(batch)
    return quantize(self.restorer(condition, batch, self.place, on_steps))

  def prepare(self, batch: dict[str, jax.Array]) -> jax.Array:
    """Compiles all that a call with a batch of this shape needs; a blank image."""
    index = batch['index']
    image = None
    if self.place:
      image = _blank(self.side // self.model.scale, self.model.channels)(index)
    condition = self._condition(image, batch, None, None)
    self.restorer.prepare(condition, self._known(batch))
    return quantize(_blank(self.side, self.model.channels)(index))

  def _condition(self, image, batch, blur, noise) -> jax.Array:
    if image is None:
      return _blank(self.side, 0)(batch['index'])
    if not self.augmented:
      return image
    blur = self.blur if blur is None else blur
    noise = self.noise if noise is None else noise
    levels = devices.replicate((np.float32(blur), np.float32(noise)))
    return _augment(self.seed, self.place)(image, batch['index'], *levels)

  def _known(self, batch) -> dict[str, jax.Array]:
    """What the model takes of a batch."""
    known = ('index', 'label') if self.model.num_classes else ('index',)
    return {name: batch[name] for name in known}


@functools.lru_cache(maxsize=8)
def _augment(seed: int, place: int) -> Callable[..., jax.Array]:
  """Compiled: image, index, blur, noise -> condition [D, b, h, w, C + 2]."""

  def augment(image, index, blur, noise):
    fill = lambda value: jnp.broadcast_to(value, index.shape)
    key = keys(seed, index, _AUGMENTATION + place)
    return degradations.augment(key, image, fill(blur), fill(noise))

  return devices.pmap(augment)


@functools.lru_cache(maxsize=16)
def _blank(side: int, channels: int) -> Callable[[jax.Array], jax.Array]:
  """Compiled: index [D, b] -> zeros [D, b, side, side, channels]."""
  return devices.pmap(lambda index: jnp.zeros((len(index), side, side, channels)))


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
  """Stages that fit together.

  Attributes:
    stages: the first draws.
    num_classes: 0: none.
    seed: of all noise.
    config: of the first stage's run.
  """

  stages: list[Stage]
  num_classes: int
  seed: int
  config: ml_collections.ConfigDict

  @property
  def side(self) -> int:
    """Of the last stage's images."""
    return self.stages[-1].side

  @property
  def about(self) -> dict[str, Any]:
    """What images depend on, as JSON."""
    stages = {f'stage {s.place + 1}': s.about for s in self.stages}
    return {'seed': self.seed} | stages | {'sr3_jax': __version__}

  def labels(self, chosen: Sequence[int]) -> list[int]:
    """The classes to draw, all if none is chosen; [0] where there are no classes.

    Raises:
      CascadeError: one is not there, or chosen twice.
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
    """This process's part of a batch: 'index' k and 'label', filled up to `size`."""
    index, label = np.full(size, -1, np.int32), np.zeros(size, np.int32)
    for row, (kind, number) in enumerate(jobs):
      index[row], label[row] = kind * CLASS_PITCH + number, kind
    return devices.shard({'index': index, 'label': label})


def job(position: int, labels: Sequence[int]) -> Job:
  """Number `position` of the order of drawing: one of each class in turn."""
  number, place = divmod(position, len(labels))
  return labels[place], number


def drawn_name(cascade: Cascade, stage: Stage) -> str:
  """The row of a stage in the cascade."""
  if not stage.place:
    return f'{stage.side} drawn'
  return f'{stage.side} from drawn {cascade.stages[stage.place - 1].side}'


def alone_name(cascade: Cascade, stage: Stage) -> str:
  """The row of a stage on true inputs."""
  return f'{stage.side} from true {cascade.stages[stage.place - 1].side}'


@contextlib.contextmanager
def fits(key: str) -> Iterator[None]:
  """Turns a batch that can't be split over the devices into a line that names `key`."""
  try:
    yield
  except ValueError as error:
    if type(error) is not ValueError:  # of others that have their own words
      raise
    raise CascadeError(f'{key}: {error}') from None


def load(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> Cascade:
  """The models of `config.cascade`, checked against each other.

  Args:
    config: of the cascade.
    workdir: relative paths of stages stand beside it.

  Raises:
    CascadeError: they don't fit together, or a value is none for them.
    hub.HubError, checkpoint.CheckpointError: a model can't be loaded.
  """
  c = config.cascade
  for name in _VALUES:
    if len(c[name]) not in (0, len(c.stages)):
      raise CascadeError(
        f'cascade.{name}={tuple(c[name])}: must be {len(c.stages)} values, one for '
        'each stage, or none'
      )
  stages, before = [], None
  for place, path in enumerate(c.stages):
    loaded = hub.load(where(path, workdir))
    _check_task(loaded, place)
    if before:
      _check_chain(loaded, stages[-1], before)
    before = before or loaded
    own = {name: c[name][place] if len(c[name]) else None for name in _VALUES}
    stages.append(_stage(loaded, place, config.seed, **own))
  num_classes = before.model.num_classes
  if num_classes > MOST_CLASSES:
    raise CascadeError(f'{num_classes} classes are more than {MOST_CLASSES}')
  return Cascade(stages, num_classes, config.seed, before.config)


def where(path: str, workdir: epath.PathLike) -> str:
  """A stage's path: relative ones stand beside the workdir."""
  if '://' in path or path.startswith(('/', '~')):
    return path
  return str(epath.Path(workdir).parent / path)


def _stage(
  loaded: hub.Loaded,
  place: int,
  seed: int,
  *,
  blur: float | None,
  noise: float | None,
  guidance: float | None,
  num_steps: int | None,
) -> Stage:
  """A stage with its settings; None is what the model's configuration says."""
  config, model = loaded.config, loaded.model
  settings = trajectory_options(config.sampler)
  guidance = float(config.sampler.guidance if guidance is None else guidance)
  if guidance != 1 and not model.label_dropout:
    raise CascadeError(
      f'{loaded.name}: guidance {guidance:g} needs a model trained with '
      'model.label_dropout; 1 is without'
    )
  if num_steps is not None:
    settings['num_steps'] = int(num_steps)
  try:
    trajectory = make_trajectory(model.gammas, **settings)
  except ValueError as error:
    raise CascadeError(f'{loaded.name}: {line(error)}') from None
  restorer = Restorer(model, loaded.params, seed, guidance=guidance)
  restorer.choose(*trajectory)
  blur, noise = float(blur or 0), float(noise or 0)
  _check_levels(loaded, blur, noise)
  about = {
    'weights': loaded.fingerprint,
    'blur': blur,
    'noise': noise,
    'guidance': guidance,
    'sampler': as_json(ml_collections.ConfigDict(settings)),
  }
  return Stage(
    place=place,
    name=loaded.name,
    side=model.image_size,
    model=model,
    restorer=restorer,
    seed=seed,
    blur=blur,
    noise=noise,
    guidance=guidance,
    trained=trained_levels(loaded.config),
    about=about,
  )


def trained_levels(config: ml_collections.ConfigDict) -> tuple[float, float]:
  """The highest blur and noise that a stage has seen in training; 0 for none."""
  if config.task.name != 'cascade':
    return 0.0, 0.0
  return float(config.task.augment_blur[1]), float(config.task.augment_noise[1])


# ------------------------------------------------------------------- what must fit


def _check_task(loaded: hub.Loaded, place: int) -> None:
  name, model = loaded.config.task.name, loaded.model
  if place == 0 and name != DRAWING:
    raise CascadeError(
      f'{loaded.name}: the first stage must draw images (task {DRAWING!r}), this one '
      f'is of the task {name!r}'
    )
  if place and (name not in ENLARGING or model.scale < 2):
    raise CascadeError(
      f'{loaded.name}: a later stage must enlarge images (task '
      f'{", ".join(map(repr, ENLARGING))}), this one is of the task {name!r}'
    )
  if model.channels not in (1, 3):
    raise CascadeError(
      f'{loaded.name}: images of {model.channels} channels; a cascade has 1 or 3'
    )


def _check_chain(loaded: hub.Loaded, last: Stage, first: hub.Loaded) -> None:
  """A stage against the one before it, and against the first."""
  model = loaded.model
  name, side = loaded.name, model.image_size
  if side != last.side * model.scale:
    raise CascadeError(
      f'{name}: enlarges {side // model.scale} x {side // model.scale} to {side} x '
      f'{side}, but {last.name} before it makes {last.side} x {last.side}'
    )
  known = [tuple(c.data[k]) for c in (loaded.config, first.config) for k in _RANGE]
  if model.channels != first.model.channels or known[:2] != known[2:]:
    raise CascadeError(f'{name}: not the channels and range of values of {first.name}')
  if model.num_classes not in (0, first.model.num_classes):
    raise CascadeError(
      f'{name}: {model.num_classes} classes, but {first.name} has '
      f'{first.model.num_classes or "none"}'
    )


def _check_levels(loaded: hub.Loaded, blur: float, noise: float) -> None:
  for name, value, most in zip(
    ('blur', 'noise'), (blur, noise), trained_levels(loaded.config), strict=True
  ):
    if not 0 <= value <= most:
      raise CascadeError(
        f'{loaded.name}: cascade.{name} {value:g} is not of the levels it was trained '
        f'on: 0 to {most:g}'
      )
