"""The networks behind FID, KID, the inception score and LPIPS, ready to be called."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from absl import logging

from sr3_jax.metrics import inception, lpips, net_weights

NAMES = tuple(net_weights.WEIGHTS)


@dataclasses.dataclass(frozen=True)
class FeatureNet:
  """A network with its weights; `apply` can be jitted and takes no other state.

  Attributes:
    name: of `NAMES`.
    params: tree of float32 NumPy arrays.
    apply: inception: (params, image) -> features [B, 2048]; LPIPS: (params, image,
      truth) -> distance [B]. Images are float32 [B, H, W, 3] in [-1, 1].
    probabilities: inception: features [n, 2048] -> probabilities [n, 1008], in NumPy;
      None for LPIPS and where the weights come without the last layer.
    fingerprint: 16 hexadecimal digits of the files that the weights come from.
    about: one line for a protocol: network, files, what happens to the images.
  """

  name: str
  params: Any
  apply: Callable[..., Any]
  probabilities: Callable[[np.ndarray], np.ndarray] | None
  fingerprint: str
  about: str


def load(name: str, path: str = '') -> FeatureNet:
  """A network by its name.

  Args:
    name: 'inception', 'lpips_alex' or 'lpips_vgg'.
    path: a file or folder of weights, instead of those that are kept or fetched.

  Raises:
    WeightsMissing: there are no weights, or they are others; one line.
    KeyError: no such network.
  """
  loaded = net_weights.load(name, path)
  try:
    if name == 'inception':
      params = inception.from_torch(loaded.tensors)
      classes = inception.class_weights(loaded.tensors)
    else:
      kind = name.removeprefix('lpips_')
      params = lpips.from_torch(kind, loaded.tensors, loaded.tensors)
  except ValueError as error:
    raise net_weights.WeightsMissing(f'{name}: {loaded.source}: {error}') from None
  about = f'{net_weights.WEIGHTS[name].about.split(",")[0]}, weights {loaded.source}; '
  if name == 'inception':
    return FeatureNet(
      name,
      params,
      inception.features,
      None if classes is None else functools.partial(inception.probabilities, classes),
      loaded.fingerprint,
      about + f'images {inception.RESIZE}',
    )
  return FeatureNet(
    name,
    params,
    lpips.distance,
    None,
    loaded.fingerprint,
    about + 'images at their own size',
  )


# Of a network that several metrics need.
_METRICS = {'inception': ['fid', 'kid', 'is']}


def load_nets(
  names: Iterable[str], folder: str, side: int, channels: int = 3
) -> tuple[dict[str, FeatureNet], list[dict[str, Any]]]:
  """The networks whose weights can be had, and what is left out for want of others.

  Args:
    names: of `feature_nets.NAMES`.
    folder: of weights; '' for those that are kept or fetched.
    side: the shortest of all images: LPIPS needs some pixels.
    channels: of the images.
  """
  nets, left_out = {}, []
  for name in names:
    if why := unsuited(name, channels):
      left_out.append({'metrics': _METRICS.get(name, [name]), 'why': why})
      continue
    least = lpips.SMALLEST.get(name.removeprefix('lpips_'), 0)
    if side < least:
      why = f'It needs images of at least {least} x {least} pixels.'
      left_out.append({'metrics': [name], 'why': why})
      continue
    try:
      nets[name] = load(name, folder)
    except net_weights.WeightsMissing as error:
      keys = _METRICS.get(name, [name])
      left_out.append({'metrics': keys, 'why': str(error)})
      logging.warning('left out: %s: %s', ', '.join(keys), error)
  if 'inception' in nets and nets['inception'].probabilities is None:
    why = 'The weights of Inception come without its last layer, of the classes.'
    left_out.append({'metrics': ['is'], 'why': why})
  return nets, left_out


def unsuited(name: str, channels: int) -> str:
  """Why a network says nothing about images of so many channels; '' if it does."""
  if channels in (1, 3):  # grey is shown to it as R = G = B
    return ''
  return f'{name} was trained on photographs: it needs 1 or 3 channels, not {channels}.'
