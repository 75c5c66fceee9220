"""What an evaluation needs: weights of a run and its baseline, networks that judge."""

from collections.abc import Iterable
from typing import Any

import jax
import ml_collections
from absl import logging
from etils import epath

from sr3_jax import feature_nets, lpips, net_weights
from sr3_jax.core.sr3 import SR3
from sr3_jax.restorer import Restorer
from sr3_jax.scoring import unsuited
from sr3_jax.weights import checkpoint, hub, model_files

# Of a network that several metrics need.
_METRICS = {'inception': ['fid', 'kid', 'is']}


def load_methods(
  config: ml_collections.ConfigDict, workdir: epath.PathLike
) -> tuple[int, dict[str, Restorer], dict[str, str]]:
  """The newest averaged weights of a run, and of its regression baseline if any.

  Returns:
    The step of the run's weights; name -> restorer, the baseline first; name -> hash
    of the weights.

  Raises:
    checkpoint.CheckpointError: there are none, or they belong to another network.
  """
  methods, hashes = {}, {}
  baseline = epath.Path(config.eval.regression or epath.Path(workdir) / 'regression')
  there = config.eval.regression or checkpoint.folder(baseline).exists()
  if there and config.method != 'regression':
    regression = config.copy_and_resolve_references()
    regression.method = 'regression'
    _, methods['regression'], hashes['regression'] = load_method(regression, baseline)
  step, method, weights = load_method(config, workdir)
  return step, methods | {config.method: method}, hashes | {config.method: weights}


def load_method(
  config: ml_collections.ConfigDict, place: epath.PathLike
) -> tuple[int, Restorer, str]:
  """Step, restorer and hash of the averaged weights of a run or model folder."""
  model = SR3.from_config(config)
  if (epath.Path(place) / model_files.WEIGHTS).exists():
    step, ema = hub.load_weights(place, model)
  else:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    step, ema = checkpoint.load_ema(place, shapes)
  restorer = Restorer(model, ema, config.seed, guidance=config.sampler.guidance)
  return step, restorer, hub.fingerprint(ema)


def load_nets(
  names: Iterable[str], folder: str, side: int, channels: int = 3
) -> tuple[dict[str, feature_nets.FeatureNet], list[dict[str, Any]]]:
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
      nets[name] = feature_nets.load(name, folder)
    except net_weights.WeightsMissing as error:
      keys = _METRICS.get(name, [name])
      left_out.append({'metrics': keys, 'why': str(error)})
      logging.warning('left out: %s: %s', ', '.join(keys), error)
  if 'inception' in nets and nets['inception'].probabilities is None:
    why = 'The weights of Inception come without its last layer, of the classes.'
    left_out.append({'metrics': ['is'], 'why': why})
  return nets, left_out
