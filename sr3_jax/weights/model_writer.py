"""Writes model folders; `hub` says what is in them and reads them."""

import contextlib
import json
import os
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import safetensors.numpy
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import atomic_files, foreign_files, interruption, metrics_log
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.types import Params
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import hub, model_card, model_files
from sr3_jax.weights.model_card import Results
from sr3_jax.weights.model_files import CONFIG, PRESETS, WEIGHTS, HubError, Presets

# How weights may be stored; loading makes them float32.
DTYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16}


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
  license_link: str = '',
  dtype: str = 'float32',
  hours: float = 0.0,
  notes: str = '',
) -> None:
  """Write a model folder; of paths of image folders only the last name is written.

  Args:
    folder: of this machine; new, empty, or a model folder, whose files are replaced.
    params: of the network, host or device arrays.
    config: of the run.
    step: training steps done.
    source: where the weights come from, in words.
    presets: sampler settings by name.
    results: results.json of the run.
    license: an identifier as model hubs use them, such as 'apache-2.0', or a name.
    license_link: to its words, where the license is no such identifier.
    dtype: 'float32', exact; 'bfloat16' or 'float16', half the size.
    hours: that the training took; 0 if that is not known.
    notes: Markdown for the card: data and their terms, the command, known failures.

  Raises:
    HubError: the folder holds something else, or the weights are not the network's.
  """
  folder = _destination(folder)
  tensors = _stored(folder, params, config, dtype)
  public = hub.publishable(config)
  source = ' '.join(source.split()) or f'trained on {hub.data_name(config)}'
  header = {'format': model_files.FORMAT, 'sr3_jax': __version__}
  digits = hub.fingerprint(tensors)
  header |= {'fingerprint': digits, 'config': as_json(public)}
  header |= {'step': int(step), 'source': source}
  card = model_card.make(
    public,
    presets=presets or {},
    results=results,
    license=license,
    license_link=license_link,
    notes=notes,
    name=folder.name,
    num_params=sum(tensor.size for tensor in tensors.values()),
    fingerprint=digits,
    step=int(step),
    source=source,
    dtype=dtype,
    hours=hours,
  )
  with atomic_files.naming(folder), _replacement(folder) as part:
    safetensors.numpy.save_file(tensors, os.fspath(part / WEIGHTS), {'format': 'np'})
    if presets:
      (part / PRESETS).write_text(json.dumps(presets, indent=2) + '\n')
    (part / model_files.CARD).write_text(card)
    (part / CONFIG).write_text(json.dumps(header, indent=2) + '\n')
    # The library makes a file that only its owner can read.
    os.chmod(part / WEIGHTS, os.stat(part / CONFIG).st_mode)


def _destination(folder: epath.PathLike) -> epath.Path:
  """Return the absolute path of a folder of this machine that a model may be put in."""
  if '://' in os.fspath(folder):
    raise HubError(f'{folder}: write a model to a folder of this machine, then copy it')
  path = epath.Path(folder).expanduser().resolve()
  if path.is_dir():
    fits = (path / WEIGHTS).exists() or not any(path.iterdir())
  else:
    fits = not path.exists()
  if not fits:
    raise HubError(f'{path}: not a model folder and not empty; not touched')
  return path


def _stored(
  folder: epath.Path, params: Params, config: ConfigDict, dtype: str
) -> dict[str, np.ndarray]:
  """Return the tensors of the weights file by name, or refuse what it can't hold."""
  if dtype not in DTYPES:
    raise HubError(f'unknown dtype {dtype!r}; known: {", ".join(DTYPES)}')
  wanted = model_files.flat_shapes(SR3.from_config(config))
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


@contextlib.contextmanager
def _replacement(folder: epath.Path) -> Iterator[epath.Path]:
  """Yield a new folder whose files take the place of those in `folder` at the end.

  A folder that doesn't exist appears when it is complete. In an old one, which may be a
  clone of a repository, only the files of a model are replaced; meanwhile it has no
  config.json, so that no reader combines weights with another model's configuration.
  """
  with atomic_files.temporary_folder(folder.parent) as part:
    yield part
    with interruption.writing():
      if not folder.exists():
        part.replace(folder)
        return
      for name in (CONFIG, PRESETS):
        (folder / name).unlink(missing_ok=True)
      for name in (WEIGHTS, PRESETS, model_files.CARD, CONFIG):
        if (part / name).exists():
          (part / name).replace(folder / name)


def export(path: epath.PathLike, folder: epath.PathLike, **card: str) -> hub.Loaded:
  """Write the model folder of a run or of another model, with results and presets.

  It reads `path` as `hub.load` does, writes as `save` does, and raises their errors.
  `card` are license, license_link, dtype and notes of `save`; without them the license
  stays as it is. It returns what was exported.
  """
  loaded = hub.load(path)
  card = {'license': loaded.license, **card}
  place, _ = hub.find(path)
  results, hours = None, 0.0
  if hub.is_run(place):
    results = _results(place, loaded.step)
    batch_size = loaded.config.train.batch_size
    hours = metrics_log.training_seconds(place, batch_size) / 3600
  save(
    folder,
    loaded.params,
    loaded.config,
    step=loaded.step,
    source=loaded.source,
    presets=loaded.presets,
    results=results,
    hours=hours,
    **card,
  )
  return loaded


def _results(run: epath.Path, step: int) -> Results | None:
  """Return results.json of a run, or None if there is none of this step."""
  path = run / 'results.json'
  if not foreign_files.exists(path):
    return None
  wanted = {'step': int, 'config': dict, 'table': dict}
  try:
    results = foreign_files.read_json(path, wanted, what='the results of a run')
    foreign_files.check_numbers(results['table'])
  except ValueError as error:
    logging.warning('%s; left out of the card', line(error))
    return None
  if results['step'] != step:
    of = f'of step {results["step"]}, the weights of step {step}'
    logging.warning('%s: results.json is %s; left out of the card', run, of)
    return None
  return results
