"""Reads the files of a model folder without trusting them.

A model may come from anywhere. Sizes are bounded before anything is read or built,
settings are compared with the known keys and their types, arrays with the names and
shapes of the network. What doesn't fit is named in one line.
"""

import math
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
from absl import logging
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from sr3_jax.config import ConfigError, find_option, get_config, refused
from sr3_jax.core.check import param_shapes
from sr3_jax.core.sr3 import SR3
from sr3_jax.options import OPTIONS
from sr3_jax.runtime import foreign_files, printing
from sr3_jax.runtime.errors import UserError, line, some
from sr3_jax.runtime.types import Array, Params
from sr3_jax.runtime.values import cut, shown
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import safetensors_files

WEIGHTS, CONFIG = 'model.safetensors', 'config.json'
PRESETS, CARD = 'presets.json', 'README.md'
FILES = WEIGHTS, CONFIG, PRESETS, CARD
FORMAT = 1  # of config.json
_STORED = ('F32', 'BF16', 'F16')  # dtypes of weights, as safetensors calls them
# Bytes of a JSON file: no model has a larger one.
_MAX_JSON = 2**20


class HubError(UserError):
  """One line: which file or folder, what is wrong, what to do."""


class Preset(TypedDict):
  """A sampler setting of presets.json: arguments of `samplers.make_trajectory`."""

  name: str
  num_steps: int
  spacing: str
  eta: NotRequired[float]
  temperature: NotRequired[float]
  start: NotRequired[float]
  end: NotRequired[float]


Presets = dict[str, Preset]


def flatten(params: Params) -> dict[str, Array]:
  """Return parameters by 'module/leaf' names."""
  return cast('dict[str, Array]', traverse_util.flatten_dict(params, sep='/'))


def checkpoint_folder(workdir: epath.PathLike) -> epath.Path:
  """Return the folder of a run's checkpoints; absolute, as Orbax wants it."""
  path = epath.Path(workdir) / 'checkpoints'
  # `resolve` would take gs:// for a folder of this machine.
  return path if '://' in os.fspath(path) else path.resolve()


def read_json(path: epath.Path) -> dict[str, Any]:
  """Return the object in a JSON file.

  Raises:
    HubError: the file is missing, larger than 1 MiB, or holds no JSON object.
  """
  if not foreign_files.exists(path):
    raise HubError(f'{path}: missing; a model needs it beside its weights')
  return foreign_files.read_json(
    path, what='a file of a model', most=_MAX_JSON, error=HubError
  )


# Keys that are newer than some runs and models, and what their absence means there,
# where that is not the default.
_ABSENT = {('data', 'area'): 'pixels'}


def keep_ways(config: ConfigDict, workdir: epath.Path) -> None:
  """Set in `config` what a run that was begun by an older version goes on with.

  A run keeps it, whatever the configuration says: its data must not change on the way.
  A configuration file of the run that can't be read changes nothing here.
  """
  try:
    stored = read_json(workdir / CONFIG)
  except (HubError, OSError):
    return
  stored = stored.get('config', stored)
  for (group, key), old in _ABSENT.items():
    values = stored.get(group) if isinstance(stored, dict) else None
    begun = values.get(key, old) if isinstance(values, dict) else config[group][key]
    if begun == old != config[group][key]:
      logging.info('config.%s.%s stays %r, as the run began', group, key, old)
      config[group][key] = old


def read_config(stored: dict[str, Any], where: str, maker: str) -> ConfigDict:
  """Return the default configuration with the stored values in it.

  Keys that are not stored are newer than the file. They mean what was done before there
  was the key, which for nearly all is the default. Messages name the file, `where`, and
  the version of sr3_jax that wrote it, `maker`.

  Raises:
    HubError: a key is unknown, or its value is one that it can't have.
  """
  config = get_config()
  for (group, key), old in _ABSENT.items():
    config[group][key] = old
  for name, value in _flat(stored, OPTIONS):
    try:
      option = find_option(name)
    except ConfigError as error:
      if name in OPTIONS:  # a section that is no object
        raise HubError(f'{where}: {error}') from None
      raise HubError(
        f'{where}: unknown key config.{cut(name)}; written by sr3_jax {maker}, this is '
        f'{__version__}: update, or remove the key if it does not matter'
      ) from None
    value = option.kind.from_json(value)
    if not option.kind.fits(value):
      raise HubError(f'{where}: {refused(name, option, shown(value))}')
    section, _, key = name.rpartition('.')
    (config[section] if section else config)[key] = value
  return config


def _flat(stored: Any, options: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """List the values of a stored configuration by the names of their keys."""
  for key, value in stored.items():
    section = options.get(key)
    if isinstance(section, dict) and isinstance(value, dict):
      yield from _flat(value, section, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def read_tensors(
  path: epath.Path, wanted: dict[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Return the arrays of a .safetensors file, local or gs://, by name as float32.

  It must hold exactly those that are `wanted`, shapes by name.

  Raises:
    HubError: it is no such file, other arrays are in it, or a value is not finite.
  """
  if '://' in os.fspath(path):  # the library can only map a file of this machine
    with tempfile.TemporaryDirectory() as folder:
      local = epath.Path(folder) / WEIGHTS
      path.copy(local)
      return read_tensors(local, wanted)
  with safetensors_files.opened(path, HubError) as file:
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    check_same(path, {k: tuple(s.get_shape()) for k, s in slices.items()}, wanted)
    for name, stored in slices.items():
      if stored.get_dtype() not in _STORED:
        raise HubError(f'{path}: {name} is {stored.get_dtype()}, not a float')
    count = sum(math.prod(shape) for shape in wanted.values())
    foreign_files.check_memory(path, 4 * count)
    tensors = {k: np.array(file.get_tensor(k), np.float32) for k in wanted}
  for name, tensor in tensors.items():
    if not np.isfinite(tensor).all():
      raise HubError(f'{path}: {name} holds values that are not finite')
  return tensors


def flat_shapes(model: SR3) -> dict[str, tuple[int, ...]]:
  """Return the shapes of a model's parameters by name: 'conv_in/kernel'."""
  return {k: v.shape for k, v in flatten(param_shapes(model)).items()}


def check_same(
  path: epath.Path,
  stored: dict[str, tuple[int, ...]],
  wanted: dict[str, tuple[int, ...]],
) -> None:
  """Compare the names and shapes of weights with those of a network.

  Raises:
    HubError: they differ; names up to five arrays of each kind of difference.
  """
  parts = []
  if missing := wanted.keys() - stored.keys():
    parts.append(f'missing: {some(missing)}')
  if extra := stored.keys() - wanted.keys():
    parts.append(f'left over: {some(extra)}')
  if other := [k for k in wanted.keys() & stored.keys() if wanted[k] != stored[k]]:
    shapes = [f'{k} {list(stored[k])} instead of {list(wanted[k])}' for k in other]
    parts.append(f'of another shape: {some(shapes)}')
  if parts:
    raise HubError(f'{path}: not the weights of this network; {"; ".join(parts)}')


def download(text: str) -> tuple[epath.Path, str]:
  """Download a model from the Hugging Face hub, or find it in the hub's cache.

  Args:
    text: hf://owner/name or hf://owner/name@revision.

  Returns:
    The folder and owner/name.

  Raises:
    HubError: the address is none, the library is missing, or there is no such model.
  """
  match = re.fullmatch(r'hf://(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?', text)
  if not match:
    raise HubError(f'{text}: should be hf://owner/name or hf://owner/name@revision')
  name, revision = match.groups()
  try:
    import huggingface_hub
  except ImportError:
    raise HubError(
      f"{text}: needs huggingface_hub: pip install 'sr3_jax[hub]'"
    ) from None
  try:
    with printing.unguarded_errors():  # it shows its progress
      folder = huggingface_hub.snapshot_download(
        repo_id=name, revision=revision, allow_patterns=list(FILES)
      )
  except Exception as error:  # the library's own, and those of libraries it uses
    raise HubError(f'{text}: cannot be downloaded: {line(error)}') from None
  folder = epath.Path(folder)
  if not (folder / WEIGHTS).is_file():
    raise HubError(f'{text}: no model: it has no {WEIGHTS}')
  return folder, name
