"""Says what an exported file is: what goes in, what comes out, whose it is."""

import re
from typing import Any

import jax
import numpy as np
import yaml
from etils import epath

from sr3_jax.core import samplers
from sr3_jax.core.samplers import Trajectory
from sr3_jax.export.program import Program
from sr3_jax.restoration import inputs
from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub
from sr3_jax.weights.hub import Loaded

_CARD = 'README.md'
_MAX_CARD = 2**20  # bytes


def describe(
  loaded: Loaded,
  program: Program,
  options: dict[str, Any],
  trajectory: Trajectory,
  card: str,
) -> dict[str, Any]:
  """Return the metadata of a file, fit for JSON.

  Args:
    loaded: the model.
    program: what the file holds.
    options: `part`, `format` and what the command was given or chose beside them.
    trajectory: the sampler's.
    card: the text of the model card, '' for none.
  """
  model = loaded.model
  whole = options['part'] == 'trajectory'
  upsampling = 'none: input and output have the same size'
  if model.scale > 1:
    kernel = f'{model.scale} times, {model.upsampling}'
    upsampling = f'{"included" if whole else "not included"}: {kernel}'
  ratio = model.task.ratio
  if ratio.denominator > 1:
    upsampling += f'; first resample inputs by {ratio}, bicubic'
  return {
    'made_by': f'sr3_jax {__version__}, jax {jax.__version__}',
    'model': {
      'name': loaded.name,
      'weights': loaded.fingerprint,
      'source': loaded.source,
      'training_steps': loaded.step,
      'task': inputs.describe(loaded.config),
      'licence': licence(card),
      'card': card,
    },
    **options,
    'inputs': {name: _value(value) for name, value in program.inputs.items()},
    'output': _value(program.output),
    'layout': 'batch, height, width, channels',
    'range': _range(model.input_range, model.value_range),
    'upsampling': upsampling,
    'network': {
      'prediction': model.prediction,
      'residual': model.residual,
      'y0_scale': model.y0_scale,
      'trained_levels': model.gammas.tolist(),
    },
    'levels': trajectory.gammas.tolist(),
    'coefficients': samplers.steps(*trajectory).coefficients.tolist(),
    'coefficients_about': 'rows a, b, c, d, e, s from the noisiest step on: '
    'y = a y + b y0 + c y0_previous + d noise; the network sees s y; e is the largest '
    'd where the variance is learned',
  }


def _value(value) -> dict[str, Any]:
  """Return an input or output, fit for JSON."""
  shape = [side if isinstance(side, int) else str(side) for side in value.shape]
  return {'shape': shape, 'dtype': value.dtype, 'meaning': value.meaning}


def _range(given, made) -> dict[str, Any]:
  """Return what -1 and 1 mean in inputs and outputs."""
  if given is None and made is None:
    return {
      'image': [-1, 1],
      'about': 'sRGB values 0 to 255 as value / 127.5 - 1, also of 16 bits and of grey',
    }
  ends = {'inputs': given, 'outputs': made}
  return {
    'image': [-1, 1],
    **{
      f'{name}_at_{end}': np.ravel(limit).tolist()
      for name, limits in ends.items()
      if limits is not None
      for end, limit in zip(('-1', '1'), limits, strict=True)
    },
  }


def read_card(path: epath.PathLike) -> str:
  """Return the text of a model's card; '' if it has none, as runs have.

  Raises:
    FileError: it is no text.
  """
  place, _ = hub.find(path)
  card = (place if hub.is_run(place) else place.parent) / _CARD
  return foreign_files.read_text(card, _MAX_CARD) if card.exists() else ''


def licence(card: str) -> str:
  """Return the licence that the front matter of a model card names, or 'unknown'."""
  found = re.match(r'---\n(.*?)\n---', card, re.DOTALL)
  try:
    front = yaml.safe_load(found[1]) if found else {}
  except yaml.YAMLError:
    front = {}
  front = front if isinstance(front, dict) else {}
  return str(front.get('license_name') or front.get('license') or 'unknown')
