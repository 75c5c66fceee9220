"""Runs an image classifier in an ONNX file, for the accuracy of outputs.

The paper upscales 56 x 56 crops four times, gives them to a ResNet-50 at 224 x 224, and
counts how often the true class comes first, or is among the first five (table 3). Every
network will do that takes RGB images and gives a score per class: from
`torch.onnx.export`, Keras through tf2onnx, the ONNX model zoo. onnxruntime is needed:
`pip install 'sr3_jax[classify]'`.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import TYPE_CHECKING

import jax
import numpy as np
from numpy.typing import DTypeLike

from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import UserError, line

if TYPE_CHECKING:
  from onnxruntime import InferenceSession

# Mean and standard deviation of images in [0, 1] by which networks for ImageNet scale.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 224

_TYPES = {'tensor(float)': np.float32, 'tensor(float16)': np.float16}


class ClassifierError(UserError):
  """One line: which file, what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A classifier, ready to be called."""

  name: str  # of the file
  session: 'InferenceSession'  # onnxruntime's
  channels_first: bool  # whether it takes [B, 3, H, W] and not [B, H, W, 3]
  side: tuple[int, int]  # (height, width) that images are resized to
  batch: int  # images it takes at once; 0 for any number
  dtype: DTypeLike  # of its input
  mean: tuple[float, ...]  # subtracted from images in [0, 1], per channel
  std: tuple[float, ...]  # images are then divided by it, per channel
  fingerprint: str  # 16 hexadecimal digits of the file

  @property
  def about(self) -> str:
    """One line for a protocol."""
    return (
      f'{self.name} ({self.fingerprint}), images at {self.side[0]} x {self.side[1]}, '
      'bicubic with antialiasing where they have another size, '
      f'mean {self.mean} and deviation {self.std} of [0, 1]'
    )

  def logits(self, images: jax.Array | np.ndarray) -> np.ndarray:
    """Return the scores of images [B, H, W, 3] in [-1, 1], of any size.

    They are float32 [B, classes]; only their order matters: probabilities do as well.

    Raises:
      ClassifierError: the network failed, or doesn't give a score per class.
    """
    shape = (len(images), *self.side, 3)
    if images.shape != shape:
      images = jax.image.resize(
        images, shape, 'cubic', antialias=True, precision=jax.lax.Precision.HIGHEST
      )
    x = (np.asarray(images, np.float32) + 1) / 2
    mean, std = (np.asarray(v, np.float32) for v in (self.mean, self.std))
    x = (x - mean) / std
    if self.channels_first:
      x = np.moveaxis(x, -1, 1)
    x = np.ascontiguousarray(x, self.dtype)
    step = self.batch or max(1, len(x))
    scores = [self._run(x[i : i + step]) for i in range(0, len(x), step)]
    return np.concatenate(scores)

  def _run(self, x: np.ndarray) -> np.ndarray:
    """Return the scores [B, classes] of one batch of inputs, which need not be full."""
    count = len(x)
    if self.batch > count:  # a fixed batch is filled up
      x = np.concatenate([x, np.repeat(x[-1:], self.batch - count, axis=0)])
    try:
      scores = self.session.run(None, {self.session.get_inputs()[0].name: x})[0]
    except Exception as error:  # onnxruntime's have no common type
      raise ClassifierError(f'{self.name}: failed: {line(error)}') from None
    scores = np.asarray(scores, np.float32)
    if scores.ndim < 2 or len(scores) != len(x) or scores.size // len(x) < 2:
      raise ClassifierError(
        f'{self.name}: its first output should be [images, classes], for {len(x)} '
        f'images it is {list(scores.shape)}'
      )
    return scores.reshape(len(x), -1)[:count]


def load(
  path: str | os.PathLike,
  *,
  mean: tuple[float, ...] = MEAN,
  std: tuple[float, ...] = STD,
) -> Classifier:
  """Read an ONNX file.

  Layout, size, batch and type of its input are taken from the file; where it leaves the
  size open, images are given at 224 x 224. `mean` and `std` are those of `Classifier`.

  Raises:
    ClassifierError: no such file, no onnxruntime, or not a classifier of RGB images.
  """
  path = pathlib.Path(path).expanduser()
  with foreign_files.explained(path, 'a classifier', ClassifierError):
    data = foreign_files.read_bytes(path)
  try:
    session = _session(path)
    given = _input(session)
  except ValueError as error:
    raise ClassifierError(f'{path}: {error}') from None
  digest = hashlib.sha256(data).hexdigest()
  return Classifier(path.name, session, *given, tuple(mean), tuple(std), digest[:16])


def _session(path: pathlib.Path) -> 'InferenceSession':
  """Return a file's network, ready to run, or raise ValueError."""
  try:
    import onnxruntime
  except ImportError:
    raise ValueError("needs onnxruntime: pip install 'sr3_jax[classify]'") from None
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # errors, which are raised anyway
  providers = onnxruntime.get_available_providers()
  try:
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
  except Exception as error:  # onnxruntime's have no common type
    raise ValueError(f'cannot be read as an ONNX model: {line(error)}') from None


def _input(
  session: 'InferenceSession',
) -> tuple[bool, tuple[int, int], int, DTypeLike]:
  """Return channels_first, side, batch and dtype of a `Classifier`.

  Raises:
    ValueError: it takes something else than RGB images.
  """
  inputs = session.get_inputs()
  if len(inputs) != 1:
    raise ValueError(f'takes {len(inputs)} inputs, a classifier takes one: images')
  (given,) = inputs
  if given.type not in _TYPES:
    raise ValueError(f'takes {given.type}, should take {" or ".join(_TYPES)}')
  # Sizes are numbers, or names and None where any number will do.
  sizes = [size if isinstance(size, int) else 0 for size in given.shape or ()]
  if len(sizes) != 4 or (sizes[1] not in (0, 3) and sizes[3] != 3):
    known = '[images, 3, height, width] or [images, height, width, 3]'
    raise ValueError(f'takes {given.shape}, should take {known}')
  channels_first = sizes[1] == 3 or sizes[3] != 3
  height, width = sizes[2:] if channels_first else sizes[1:3]
  side = height or SIDE, width or SIDE
  return channels_first, side, max(0, sizes[0]), _TYPES[given.type]


def top_k_hits(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
  """Return whether the true class is among the k with the highest scores: bool [B].

  Ties count for the label only if at most k classes score as high: a network that says
  the same of all classes hits nothing. `logits` are [B, classes], `labels` int [B].

  Raises:
    ClassifierError: a label that the classifier doesn't have.
  """
  logits, labels = np.asarray(logits), np.asarray(labels)
  classes = logits.shape[1]
  if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
    given = f'labels go from {labels.min()} to {labels.max()}'
    raise ClassifierError(f'{given}, the classifier has classes 0 to {classes - 1}')
  own = np.take_along_axis(logits, labels[:, None], axis=1)
  return np.sum(logits >= own, axis=1) <= k
