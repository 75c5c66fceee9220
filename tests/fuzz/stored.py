"""Damaged model folders, checkpoints, results, reports and arrays."""

import functools
import json
import pathlib
import random
import shutil
import tempfile

import jax
import numpy as np

from sr3_jax.config import get_config
from sr3_jax.reports import command as report_command
from sr3_jax.runtime import foreign_arrays
from sr3_jax.runtime.errors import UserError
from sr3_jax.weights import checkpoint, hub, model_files
from tests.fuzz import damage, lines
from tests.support import checkpoints, file_damage, model_folders, report_folders


@functools.cache
def _models() -> pathlib.Path:
  """Make a run and its model folder once; return the folder of both."""
  folder = pathlib.Path(tempfile.mkdtemp())
  model_folders.make_run(folder / 'run', model_folders.make_state())
  from sr3_jax.weights import model_writer

  model_writer.export(folder / 'run', folder / 'model', license='MIT')
  (folder / 'model' / 'presets.json').write_text(json.dumps(model_folders.PRESETS))
  # Without it damaged weights get as far as they did in folders of before.
  config = folder / 'model' / 'config.json'
  model_folders.rewrite(config, lambda header: header.pop('fingerprint'))
  return folder


@functools.cache
def _checkpoints() -> pathlib.Path:
  """Make a workdir with two checkpoints once."""
  folder = pathlib.Path(tempfile.mkdtemp())
  checkpoints.save(folder, 2, 5)
  return folder


@functools.cache
def _report() -> pathlib.Path:
  """Make a report folder once."""
  folder = pathlib.Path(tempfile.mkdtemp())
  report_folders.make(folder, count=4)
  return folder


def _of_safetensors(data: bytes, rng: random.Random) -> bytes:
  """Damage a .safetensors file: its header, that is right by itself, or its bytes."""
  if rng.random() < 0.4:
    return damage.of_bytes(data, rng)
  length = int.from_bytes(data[:8], 'little')
  header = damage.of_json_text(data[8 : 8 + length].decode(), rng)
  return len(header).to_bytes(8, 'little') + header + data[8 + length :]


def model(rng: random.Random, folder: pathlib.Path) -> str:
  """Load a model folder one file of which is damaged."""
  place = shutil.copytree(_models() / 'model', folder / 'model')
  file = place / rng.choice(['config.json', 'config.json', 'presets.json', hub.WEIGHTS])
  if rng.random() < 0.1:
    rng.choice(file_damage.OF_FILES)(file)
  elif file.name == hub.WEIGHTS:
    file.write_bytes(_of_safetensors(file.read_bytes(), rng))
  else:
    file.write_bytes(damage.of_json_text(file.read_text(), rng))
  try:
    loaded = hub.load(place)
  except UserError as error:
    assert str(place) in str(error) or 'network of' in str(error), error
    return lines.refused(error)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded.params))
  return 'loaded'


def configuration(rng: random.Random, folder: pathlib.Path) -> str:
  """Read a damaged configuration, as that of a stranger's model."""
  del folder
  stored = get_config().to_dict()
  for _ in range(rng.choice([1, 1, 2, 5])):
    stored = damage.of_json(stored, rng) if isinstance(stored, dict) else stored
  if not isinstance(stored, dict):
    return 'no object'
  try:
    model_files.read_config(stored, 'config.json', '1.0')
  except UserError as error:
    return lines.refused(error)
  return 'read'


def one_checkpoint(rng: random.Random, folder: pathlib.Path) -> str:
  """Read a run whose newest checkpoint, or record of checkpoints, is damaged."""
  workdir = shutil.copytree(_checkpoints(), folder / 'run', symlinks=True)
  newest = workdir / 'checkpoints' / '5'
  places = [newest, *sorted(newest.rglob('*')), *sorted(workdir.glob('*.json'))]
  if rng.random() < 0.3:
    places = sorted(workdir.glob('*.json'))  # the record alone
  for _ in range(rng.choice([1, 1, 3])):
    place = rng.choice(places)
    if not place.is_file() and not place.is_dir():  # damaged already
      continue
    if place.is_file() and rng.random() < 0.6:
      place.write_bytes(damage.of_bytes(place.read_bytes(), rng))
    else:
      kinds = file_damage.OF_FOLDERS if place.is_dir() else file_damage.OF_FILES
      rng.choice(kinds)(place)
  shapes = jax.eval_shape(lambda: checkpoints.make_state(0)['params'])
  step, ema = checkpoint.load_ema(workdir, shapes)
  checkpoints.assert_equal_trees(ema, checkpoints.make_state(step)['ema'])
  return f'step {step}'


def report(rng: random.Random, folder: pathlib.Path) -> str:
  """Draw the page of a report whose JSON or arrays are damaged."""
  place = shutil.copytree(_report(), folder / 'report')
  files = [f for f in sorted(place.rglob('*')) if f.is_file() and f.suffix != '.html']
  file = rng.choice([place / 'report.json'] * len(files) + files)
  data = file.read_bytes()
  if file.suffix == '.json':
    file.write_bytes(damage.of_json_text(data.decode(), rng))
  else:
    file.write_bytes(damage.of_bytes(data, rng))
  places = [str(place), str(_report())][: rng.choice([1, 2])]
  code, said = lines.run(report_command.main, [*places, f'--out={folder}'])
  del said
  return f'exit {code}'


def arrays(rng: random.Random, folder: pathlib.Path) -> str:
  """Read a damaged .npz file."""
  path = folder / 'a.npz'
  save = rng.choice([np.savez, np.savez_compressed])
  save(path, mean=np.zeros(4), covariance=np.eye(4), names=np.array(['a', 'bc']))
  path.write_bytes(damage.of_bytes(path.read_bytes(), rng))
  try:
    foreign_arrays.read_npz(path, ('mean', 'covariance'))
  except UserError as error:
    return lines.refused(error)
  return 'read'
