"""What an evaluation needs: weights of a run and its baseline, networks that judge."""

import jax
import ml_collections
from etils import epath

from sr3_jax.core.sr3 import SR3
from sr3_jax.restorer import Restorer
from sr3_jax.weights import checkpoint, hub, model_files


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
