"""Model folders, written: `hub` says what is in them and reads them."""

import itertools
import json
import os
import uuid
from typing import Any

import jax
import ml_collections
import ml_dtypes
import numpy as np
import safetensors.numpy
from absl import logging
from etils import epath
from flax import traverse_util

from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import metrics_log
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub, model_card, model_files
from sr3_jax.weights.model_files import CARD, CONFIG, FORMAT, PRESETS, WEIGHTS, HubError

# How weights may be stored; loading makes them float32.
DTYPES = {
  'float32': np.float32,
  'bfloat16': ml_dtypes.bfloat16,
  'float16': np.float16,
}


def save(
  folder: epath.PathLike,
  params: Any,
  config: ml_collections.ConfigDict,
  *,
  step: int,
  source: str = '',
  presets: dict[str, dict[str, Any]] | None = None,
  results: dict[str, Any] | None = None,
  license: str = 'unknown',
  dtype: str = 'float32',
  hours: float = 0.0,
  notes: str = '',
) -> None:
  """Writes a model folder.

  A new folder appears when it is complete. In an old one only our four files are
  replaced (it may be a clone of a repository); while that is done it has no
  config.json, so nobody loads one's weights with the other's configuration. Of paths
  of image folders only the last name is kept.

  Args:
    folder: of this machine; new, empty, or a model folder.
    params: of the network, host or device arrays.
    config: of the run.
    step: training steps done.
    source: where the weights come from, in words.
    presets: sampler settings by name.
    results: as results.json of a run holds them.
    license: an identifier as model hubs use them, such as 'apache-2.0', or a name.
    dtype: 'float32', exact; 'bfloat16' or 'float16', half the size.
    hours: that the training took; 0 if that is not known.
    notes: Markdown for the card: data and their terms, the command, known failures.

  Raises:
    HubError: the folder holds something else, or the weights are not the network's.
  """
  if dtype not in DTYPES:
    raise HubError(f'unknown dtype {dtype!r}; known: {", ".join(DTYPES)}')
  if '://' in os.fspath(folder):
    raise HubError(f'{folder}: write a model to a folder of this machine, then copy it')
  folder = epath.Path(folder).expanduser().resolve()
  if folder.exists() and not _is_ours(folder):
    raise HubError(f'{folder}: not a model folder and not empty; not touched')
  model = SR3.from_config(config)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  wanted = {k: v.shape for k, v in traverse_util.flatten_dict(shapes, sep='/').items()}
  flat = traverse_util.flatten_dict(params, sep='/')
  model_files.check_same(folder, {k: np.shape(v) for k, v in flat.items()}, wanted)
  flat = {k: np.array(v, np.float32, order='C') for k, v in flat.items()}
  with np.errstate(over='ignore'):  # said below, with the name
    stored = {k: v.astype(DTYPES[dtype]) for k, v in flat.items()}
  for name, tensor in stored.items():
    if not np.isfinite(tensor).all():
      raise HubError(f'{folder}: {name} holds values that are not finite in {dtype}')
  public = hub.publishable(config)
  source = ' '.join(source.split()) or f'trained on {hub.data_name(config)}'
  header = {
    'format': FORMAT,
    'sr3_jax': __version__,
    'config': as_json(public),
    'step': int(step),
    'source': source,
  }
  card = model_card.make(
    public,
    name=folder.name,
    version=__version__,
    num_params=sum(v.size for v in flat.values()),
    fingerprint=hub.fingerprint(stored),
    step=step,
    source=source,
    presets=presets or {},
    results=results,
    license=license,
    dtype=dtype,
    hours=hours,
    notes=notes,
  )
  folder.parent.mkdir(parents=True, exist_ok=True)
  part = folder.parent / f'.{folder.name}.{uuid.uuid4().hex}.tmp'
  part.mkdir()
  try:
    safetensors.numpy.save_file(stored, os.fspath(part / WEIGHTS), {'format': 'np'})
    if presets:
      (part / PRESETS).write_text(json.dumps(presets, indent=2) + '\n')
    (part / CARD).write_text(card)
    (part / CONFIG).write_text(json.dumps(header, indent=2) + '\n')
    # The library makes a file that only its owner can read.
    os.chmod(part / WEIGHTS, os.stat(part / CONFIG).st_mode)
    if not folder.exists():
      part.replace(folder)
      return
    for name in (CONFIG, PRESETS):
      (folder / name).unlink(missing_ok=True)
    for name in (WEIGHTS, PRESETS, CARD, CONFIG):
      if (part / name).exists():
        (part / name).replace(folder / name)
  finally:
    if part.exists():
      part.rmtree()


def export(
  path: epath.PathLike,
  folder: epath.PathLike,
  *,
  license: str = 'unknown',
  dtype: str = 'float32',
  notes: str = '',
) -> hub.Loaded:
  """Makes a model folder of a run (or of another model), its results and presets.

  Args:
    path: as `hub.load` takes it.
    folder: as `save` takes it.
    license: as `save` takes it.
    dtype: as `save` takes it.
    notes: as `save` takes them.

  Returns:
    What was exported.

  Raises:
    HubError, checkpoint.CheckpointError: as `hub.load` and `save`.
  """
  loaded = hub.load(path)
  results, hours = None, 0.0
  place, _ = hub.find(path)
  if hub.is_run(place):
    hours = metrics_log.training_seconds(place, loaded.config.train.batch_size) / 3600
  if hub.is_run(place) and (place / 'results.json').exists():
    results = model_files.read_json(place / 'results.json')
    if results.get('step') != loaded.step:
      logging.warning(
        '%s: results.json is of step %s, the weights of step %d; left out of the card',
        *(place, results.get('step'), loaded.step),
      )
      results = None
  save(
    folder,
    loaded.params,
    loaded.config,
    step=loaded.step,
    source=loaded.source,
    presets=loaded.presets,
    results=results,
    license=license,
    dtype=dtype,
    hours=hours,
    notes=notes,
  )
  return loaded


def _is_ours(folder: epath.Path) -> bool:
  """Whether `save` may write there."""
  if not folder.is_dir():
    return False
  return (folder / WEIGHTS).exists() or not any(itertools.islice(folder.iterdir(), 1))
