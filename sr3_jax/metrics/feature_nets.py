"""Loads the networks behind FID, KID, the inception score, LPIPS and DISTS."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TypedDict

import jax
import numpy as np
from absl import logging

from sr3_jax.metrics import dists, inception, lpips, net_weights
from sr3_jax.runtime import activity
from sr3_jax.runtime.types import Params

NAMES = tuple(net_weights.WEIGHTS)


@dataclasses.dataclass(frozen=True)
class FeatureNet:
  """A network with its weights; `apply` can be jitted and has no other state."""

  name: str  # of `NAMES`
  # Tree of float32 NumPy arrays.
  params: 'Params | lpips.Parameters | dists.Parameters'
  # inception: (params, image) -> features [B, 2048]; LPIPS and DISTS: (params, image,
  # truth) -> distance [B]. Images are float32 [B, H, W, 3] in [-1, 1].
  apply: Callable[..., jax.Array]
  # inception: features [n, 2048] -> probabilities [n, 1008], in NumPy; None for LPIPS,
  # DISTS and where the weights come without the last layer.
  probabilities: Callable[[np.ndarray], np.ndarray] | None
  fingerprint: str  # 16 hexadecimal digits of the files that the weights come from
  about: str  # one line for a protocol: network, files, what happens to the images
  smallest: int = 0  # shortest side, in pixels, of images that it can measure


def load(name: str, path: str = '') -> FeatureNet:
  """Load the network 'inception', 'lpips_alex', 'lpips_vgg' or 'dists'.

  `path` is a file or folder of weights, instead of those that are cached or fetched.

  Raises:
    WeightsMissing: there are no weights, or those of another network.
  """
  loaded = net_weights.load(name, path)
  probabilities = None
  try:
    if name == 'inception':
      params, apply = inception.from_torch(loaded.tensors), inception.features
      classes = inception.class_weights(loaded.tensors)
      if classes is not None:
        probabilities = functools.partial(inception.probabilities, classes)
      sizes = inception.RESIZE
    elif name == 'dists':
      params = dists.from_torch(loaded.tensors)
      apply, sizes = dists.distance, 'at their own size'
    else:
      kind = name.removeprefix('lpips_')
      params = lpips.from_torch(kind, loaded.tensors, loaded.tensors)
      apply, sizes = lpips.distance, 'at their own size'
  except ValueError as error:
    raise net_weights.WeightsMissing(f'{name}: {loaded.source}: {error}') from None
  about = net_weights.WEIGHTS[name].about.split(',')[0]
  about += f', weights {loaded.source}; images {sizes}'
  digits, least = loaded.fingerprint, smallest(name)
  return FeatureNet(name, params, apply, probabilities, digits, about, least)


class LeftOut(TypedDict):
  """Metrics that a report does not have, and a sentence that says why."""

  metrics: list[str]
  why: str


# The metrics of a network, if they aren't one of its name.
_METRICS = {'inception': ['fid', 'kid', 'is']}


def load_nets(
  names: Iterable[str], folder: str, side: int, channels: int = 3
) -> tuple[dict[str, FeatureNet], list[LeftOut]]:
  """Load the networks whose weights can be had.

  Args:
    names: some of `NAMES`.
    folder: of weights; '' for those that are cached or fetched.
    side: the largest of the images' shorter sides: LPIPS and DISTS need some.
    channels: of the images.

  Returns:
    The networks by name, and the metrics that are left out for want of others.
  """
  nets: dict[str, FeatureNet] = {}
  left_out: list[LeftOut] = []
  for name in names:
    metrics = _METRICS.get(name, [name])
    least = smallest(name)
    why = unsuited(name, channels)
    if not why and side < least:
      why = f'It needs images of at least {least} x {least} pixels.'
    if not why:
      try:
        with activity.doing(f'loading the network {name}'):
          nets[name] = load(name, folder)
      except net_weights.WeightsMissing as error:
        why = str(error)
        logging.warning('left out: %s: %s', ', '.join(metrics), error)
    if why:
      left_out.append({'metrics': metrics, 'why': why})
  if 'inception' in nets and nets['inception'].probabilities is None:
    why = 'The weights of Inception come without its last layer, of the classes.'
    left_out.append({'metrics': ['is'], 'why': why})
  return nets, left_out


def smallest(name: str) -> int:
  """Return the shortest side, in pixels, of images that a network can measure."""
  if name == 'dists':
    return dists.SMALLEST
  return lpips.SMALLEST.get(name.removeprefix('lpips_'), 0)


def unsuited(name: str, channels: int) -> str:
  """Return why a network cannot measure images of so many channels; '' if it can."""
  if channels in (1, 3):  # grey images become R = G = B
    return ''
  return f'{name} was trained on photographs: it needs 1 or 3 channels, not {channels}.'
