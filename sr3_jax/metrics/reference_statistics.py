"""Computes, writes and reads the reference statistics of FID and KID.

A file holds the mean and covariance of Inception's features, some features for KID, and
what they were made of. The files of pytorch-fid ('mu' and 'sigma') are read as well;
they have no features, so KID is left out.
"""

import dataclasses
import functools
import io
import json
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from sr3_jax.images import pixels
from sr3_jax.metrics.feature_nets import FeatureNet
from sr3_jax.metrics.fid_kid_is import Moments, merge
from sr3_jax.runtime import atomic_files, devices, foreign_arrays, foreign_files
from sr3_jax.runtime.errors import UserError

FORMAT = 1
MOST_KID = 10_000  # features that KID compares at most
_STORED = 2_000  # features in a file: 16 MB


class StatisticsError(UserError):
  """One line: what is wrong with a file of statistics."""


@dataclasses.dataclass(frozen=True)
class Reference:
  """The features of a set of images, as FID and KID need them."""

  moments: Moments  # of the features of all images
  # float32 [k, 2048] of some of them, chosen at random; None if unknown.
  features: np.ndarray | None
  about: Mapping[str, object]  # what the set is, by key; shown in every protocol


def choose(count: int, most: int, seed: int = 0) -> np.ndarray:
  """Return at most `most` of the numbers 0 to count - 1, at random, sorted."""
  return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def of_features(features: np.ndarray, about: Mapping[str, object]) -> Reference:
  """Return statistics of the features of all images, [n, 2048]."""
  chosen = features[choose(len(features), MOST_KID)]
  return Reference(moments_of(features), chosen, about)


def moments_of(features: np.ndarray) -> Moments:
  """Return the moments of features [n, d], which may be mapped from a file."""
  blocks = (features[i : i + 1000] for i in range(0, len(features), 1000))
  return functools.reduce(merge, map(Moments.of, blocks))


def of_batches(
  net: FeatureNet,
  batches: Iterable[dict[str, np.ndarray]],
  about: Mapping[str, object],
  on_images: Callable[[int], None] = lambda count: None,
) -> Reference:
  """Return statistics of this process's batches, as evaluation reads them.

  `net` is Inception; `on_images` is called with the number of images just done.

  Raises:
    StatisticsError: there are fewer than two images.
  """
  params = devices.replicate(net.params)
  program = devices.pmap(lambda p, image: net.apply(p, pixels.to_float(image)))
  moments, chosen, order = None, np.zeros((0, 0), np.float32), np.zeros(0)
  for batch in batches:
    mask = batch['mask']
    features = devices.gather(program(params, devices.shard(batch['image'])))[mask]
    on_images(len(features))
    if not len(features):
      continue
    part = Moments.of(features)
    moments = part if moments is None else merge(moments, part)
    # The images of the lowest random numbers are a random choice of all.
    drawn = [np.random.default_rng((0, int(i))).random() for i in batch['index'][mask]]
    order = np.concatenate([order, drawn])
    chosen = np.concatenate([chosen.reshape(-1, features.shape[1]), features])
    best = np.argsort(order)[:_STORED]
    order, chosen = order[best], chosen[best]
  all_have_some = devices.everywhere([moments is not None])[0]
  if moments is not None and all_have_some and jax.process_count() > 1:
    moments, chosen = _over_processes(moments, chosen)
  if moments is None or not all_have_some or moments.count < 2:
    raise StatisticsError(
      'statistics need at least two images that can be read, and one in each process'
    )
  return Reference(moments, chosen, {**about, 'images': int(moments.count)})


def _over_processes(moments: Moments, chosen: np.ndarray) -> tuple[Moments, np.ndarray]:
  """Merge the parts of all processes; each must have had at least one image."""
  share = -(-_STORED // jax.process_count())
  filled = np.full((share, chosen.shape[1]), np.nan, np.float32)
  filled[: len(chosen[:share])] = chosen[:share]
  gathered = multihost_utils.process_allgather((dataclasses.asdict(moments), filled))
  parts, chosen = jax.tree.map(np.asarray, gathered)
  each = [
    Moments(**{name: value[i] for name, value in parts.items()})
    for i in range(jax.process_count())
  ]
  chosen = chosen.reshape(-1, chosen.shape[-1])
  return functools.reduce(merge, each), chosen[np.isfinite(chosen[:, 0])]


def check(reference: Reference, net: FeatureNet) -> None:
  """Check that statistics are of the features of a network.

  Raises:
    StatisticsError: they are of other weights, or of another number of features.
  """
  of = f'{reference.about.get("file", "the reference set")}: statistics of'
  made_with = reference.about.get('fingerprint', net.fingerprint)
  if made_with != net.fingerprint:
    other = f'weights of {net.name} ({made_with}, here {net.fingerprint})'
    raise StatisticsError(f'{of} other {other}: make them again')
  image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
  wanted = jax.eval_shape(net.apply, net.params, image).shape[1]
  if reference.moments.mean.size != wanted:
    size = reference.moments.mean.size
    raise StatisticsError(f'{of} {size} features, {net.name} has {wanted}')


def save(path: epath.PathLike, reference: Reference) -> None:
  """Write a file, .npz, that `load` reads, whole or not at all.

  Raises:
    OSError: it cannot be written.
  """
  buffer = io.BytesIO()
  values = {
    'mu': reference.moments.mean,
    'sigma': reference.moments.covariance.astype(np.float32),
    'count': np.int64(reference.moments.count),
    'about': np.array(json.dumps({**reference.about, 'format': FORMAT})),
  }
  if reference.features is not None:
    values['features'] = reference.features[:_STORED]
  np.savez(buffer, **values)
  atomic_files.write_bytes(path, buffer.getvalue())


def load(path: epath.PathLike) -> Reference:
  """Read a file of `save`, or the 'mu' and 'sigma' of pytorch-fid.

  Raises:
    StatisticsError: not such a file.
  """
  path, what = foreign_files.place(path), 'reference statistics'
  with foreign_files.explained(path, what, StatisticsError):
    stored = foreign_arrays.read_npz(path, ('mu', 'sigma'), what=what)
    mean, covariance = (np.asarray(stored[k], np.float64) for k in ('mu', 'sigma'))
    features = stored.get('features')
    size = mean.size
    if mean.shape != (size,) or covariance.shape != (size, size):
      raise ValueError(f'mu {mean.shape} and sigma {covariance.shape} do not fit')
    if features is not None and (features.shape[1:] != (size,) or len(features) < 2):
      raise ValueError(f'mu {mean.shape} and features {features.shape} do not fit')
    count = int(stored.get('count', 50_000))  # only scales what is divided by it
    if count < 2:
      raise ValueError(f'of {count} images')
    moments = Moments(count, mean, covariance * (count - 1))
    about = foreign_files.parse_json(str(stored.get('about', '{}')))
    about = foreign_files.checked(about, {})
    return Reference(moments, features, {'file': path.name} | about)
