"""Writes model folders; `hub` says what is in them and reads them."""

import contextlib
import itertools
import json
import os
import uuid
from collections.abc import Iterator

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import metrics_log
from sr3_jax.runtime.types import Params
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub, model_card, model_files
from sr3_jax.weights.model_card import Results
from sr3_jax.weights.model_files import (
  CARD,
  CONFIG,
  FORMAT,
  PRESETS,
  WEIGHTS,
  HubError,
  Presets,
)

# How weights may be stored; loading makes them float32.
DTYPES = {
  'float32': np.float32,
  'bfloat16': ml_dtypes.bfloat16,
  'float16': np.float16,
}


def save(
  folder: epath.PathLike,
  params: Params,
  config: ConfigDict,
  *,
  step: int,
  source: str = '',
  presets: Presets | None = None,
  results: Results | None = None,
  license: str = 'unknown',
  dtype: str = 'float32',
  hours: float = 0.0,
  notes: str = '',
) -> None:
  """Write a model folder.

  Of paths of image folders only the last name is written.

  Args:
    folder: of this machine; new, empty, or a model folder, whose files are replaced.
    params: of the network, host or device arrays.
    config: of the run.
    step: training steps done.
    source: where the weights come from, in words.
    presets: sampler settings by name.
    results: results.json of the run.
    license: an identifier as model hubs use them, such as 'apache-2.0', or a name.
    dtype: 'float32', exact; 'bfloat16' or 'float16', half the size.
    hours: that the training took; 0 if that is not known.
    notes: Markdown for the card: data and their terms, the command, known failures.

  Raises:
    HubError: the folder holds something else, or the weights are not the network's.
  """
  folder = _destination(folder)
  tensors = _stored(folder, params, config, dtype)
  public = hub.publishable(config)
  facts = model_card.Facts(
    name=folder.name,
    num_params=sum(tensor.size for tensor in tensors.values()),
    fingerprint=hub.fingerprint(tensors),
    step=int(step),
    source=' '.join(source.split()) or f'trained on {hub.data_name(config)}',
    presets=presets or {},
    results=results,
    license=license,
    dtype=dtype,
    hours=hours,
    notes=notes,
  )
  with _replacement(folder) as part:
    _write(part, tensors, public, facts)


def _destination(folder: epath.PathLike) -> epath.Path:
  """Return the absolute path of a folder that a model may be written to.

  Raises:
    HubError: it is not of this machine, or holds something else than a model.
  """
  if '://' in os.fspath(folder):
    raise HubError(f'{folder}: write a model to a folder of this machine, then copy it')
  path = epath.Path(folder).expanduser().resolve()
  if path.exists() and not _is_model_or_empty(path):
    raise HubError(f'{path}: not a model folder and not empty; not touched')
  return path


def _is_model_or_empty(path: epath.Path) -> bool:
  """Return whether a path is a model folder or an empty one."""
  if not path.is_dir():
    return False
  return (path / WEIGHTS).exists() or not any(itertools.islice(path.iterdir(), 1))


def _stored(
  folder: epath.Path, params: Params, config: ConfigDict, dtype: str
) -> dict[str, np.ndarray]:
  """Return the tensors of the weights file, by names joined with '/'.

  Args:
    folder: for messages.
    params: of the network.
    config: that describes the network.
    dtype: a key of DTYPES.

  Raises:
    HubError: the dtype is unknown or can't hold a value, or the parameters are not
      those of the network.
  """
  if dtype not in DTYPES:
    raise HubError(f'unknown dtype {dtype!r}; known: {", ".join(DTYPES)}')
  shapes = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  wanted = {k: v.shape for k, v in model_files.flatten(shapes).items()}
  flat = model_files.flatten(params)
  model_files.check_same(folder, {k: np.shape(v) for k, v in flat.items()}, wanted)
  with np.errstate(over='ignore'):  # what overflows is named below
    stored = {
      k: np.array(v, np.float32, order='C').astype(DTYPES[dtype])
      for k, v in flat.items()
    }
  for name, tensor in stored.items():
    if not np.isfinite(tensor).all():
      raise HubError(f'{folder}: {name} holds values that are not finite in {dtype}')
  return stored


def _write(
  folder: epath.Path,
  tensors: dict[str, np.ndarray],
  config: ConfigDict,
  facts: model_card.Facts,
) -> None:
  """Write the files of a model into an empty folder."""
  header = {
    'format': FORMAT,
    'sr3_jax': __version__,
    'config': as_json(config),
    'step': facts.step,
    'source': facts.source,
  }
  safetensors.numpy.save_file(tensors, os.fspath(folder / WEIGHTS), {'format': 'np'})
  if facts.presets:
    (folder / PRESETS).write_text(json.dumps(facts.presets, indent=2) + '\n')
  (folder / CARD).write_text(model_card.make(config, facts))
  (folder / CONFIG).write_text(json.dumps(header, indent=2) + '\n')
  # The library makes a file that only its owner can read.
  os.chmod(folder / WEIGHTS, os.stat(folder / CONFIG).st_mode)


@contextlib.contextmanager
def _replacement(folder: epath.Path) -> Iterator[epath.Path]:
  """Yield a new folder whose files take the place of those in `folder` at the end.

  If `folder` doesn't exist, it appears when it is complete. In an old one, which may be
  a clone of a repository, only the files of a model are replaced; in the meantime it
  has no config.json, so that no reader combines one model's weights with the other's
  configuration.
  """
  folder.parent.mkdir(parents=True, exist_ok=True)
  part = folder.parent / f'.{folder.name}.{uuid.uuid4().hex}.tmp'
  part.mkdir()
  try:
    yield part
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
  """Write the model folder of a run or of another model, with results and presets.

  Args:
    path: as `hub.load` takes it.
    folder: as `save` takes it.
    license: as `save` takes it.
    dtype: as `save` takes it.
    notes: as `save` takes them.

  Returns:
    What was exported.

  Raises:
    HubError: as `hub.load` and `save` raise it.
    CheckpointError: as `hub.load` raises it.
  """
  loaded = hub.load(path)
  place, _ = hub.find(path)
  run = place if hub.is_run(place) else None
  save(
    folder,
    loaded.params,
    loaded.config,
    step=loaded.step,
    source=loaded.source,
    presets=loaded.presets,
    results=_results(run, loaded.step) if run else None,
    license=license,
    dtype=dtype,
    hours=_hours(run, loaded.config) if run else 0.0,
    notes=notes,
  )
  return loaded


def _hours(run: epath.Path, config: ConfigDict) -> float:
  """Return how long a run trained, in hours; 0 if its log doesn't tell."""
  return metrics_log.training_seconds(run, config.train.batch_size) / 3600


def _results(run: epath.Path, step: int) -> Results | None:
  """Return results.json of a run, or None if there is none of this step."""
  path = run / 'results.json'
  if not path.exists():
    return None
  results = model_files.read_json(path)
  if results.get('step') == step:
    return results
  logging.warning(
    '%s: results.json is of step %s, the weights of step %d; left out of the card',
    *(run, results.get('step'), step),
  )
  return None
