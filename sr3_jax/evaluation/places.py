"""Says where an evaluation of a run is written: none replaces that of the run."""

import hashlib
import json
import re
from typing import Any

import flax.traverse_util
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from sr3_jax.config import as_json
from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import UserError

FOLDER = 'evaluations'
# Settings that an evaluation depends on, and those of them that change no number.
_PARTS = ('method', 'seed', 'task', 'data', 'sampler', 'eval', 'sample')
_SILENT = (
  *('eval.every_steps', 'eval.num_images', 'eval.batch_size', 'eval.max_seconds'),
  *('eval.weights', 'eval.reference_images', 'eval.save_images'),
  *('data.workers', 'data.data_dir'),
)
_LONGEST = 80  # letters of a name


def place(config: ConfigDict, workdir: epath.PathLike) -> epath.Path:
  """Return the folder for report/, results.json and samples.png of an evaluation.

  It is the workdir for the settings that the run was trained with, those of its
  config.json. For others it is WORKDIR/evaluations/NAME, where NAME says what differs.
  """
  workdir = epath.Path(workdir)
  written, own = _written(workdir), _flat(as_json(config))
  changed = sorted(
    key
    for key, value in own.items()
    if key.split('.')[0] in _PARTS
    and key not in _SILENT
    and written.get(key, value) != value
  )
  if not changed:
    return workdir
  found = workdir / FOLDER / _name({key: own[key] for key in changed})
  logging.info('settings of its own (%s): results go to %s', ', '.join(changed), found)
  return found


def _written(workdir: epath.Path) -> dict[str, Any]:
  """Return the settings of a run's config.json by name; {} if it isn't one."""
  try:
    # A model folder's has another form; its evaluation is its own.
    return _flat(foreign_files.read_json(workdir / 'config.json', {'train': dict}))
  except UserError:
    return {}


def _flat(config: dict[str, Any]) -> dict[str, Any]:
  return flax.traverse_util.flatten_dict(config, sep='.')


def _name(changed: dict[str, Any]) -> str:
  """Return a name for a folder that says which settings it has, such as 'seed=1'."""
  parts = (f'{key}={json.dumps(value)}' for key, value in changed.items())
  whole = ','.join(parts).replace('"', '')
  name = re.sub(r'[^\w.,=+-]+', '_', whole).strip('_')
  if name == whole and len(name) <= _LONGEST:
    return name
  digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
  return f'{name[: _LONGEST - 9]}-{digest}'
