"""Loads models from folders, runs, the package and the Hugging Face hub.

A model folder can be copied, uploaded and loaded from anywhere. It holds

  model.safetensors  the averaged weights; names joined by '/': 'conv_in/kernel'
  config.json        {"format": 1, "sr3_jax": version, "config": ..., "step", "source",
                     "fingerprint": of the weights, which are refused if they changed}
  presets.json       sampler settings by name, as `--mode=sweep` finds them; optional
  README.md          a model card, made from the run

Nothing in it is code or a pickle, and no file names another. Everything is checked
before it is used: names and shapes of all weights against the network that the
configuration describes, the configuration against the known keys and their types.
`model_writer` writes model folders.
"""

import dataclasses
import hashlib
import os

import jax
import numpy as np
from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from sr3_jax.config import ConfigError, check_value
from sr3_jax.core.check import param_shapes
from sr3_jax.core.samplers import make_trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.options import DIFFUSION, SAMPLER
from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.types import Params
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import model_files, terms
from sr3_jax.weights.model_files import CONFIG, PRESETS, WEIGHTS, HubError, Presets

# Models that come with the package: folders named as users name the models.
SHIPPED = epath.Path(__file__).parent.parent / 'models'


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
  """A model with its weights.

  The fingerprint of the weights has 16 hexadecimal digits; a run and the float32 folder
  made from it have the same.
  """

  model: SR3
  params: Params  # float32 NumPy arrays, on the host
  config: ConfigDict  # of the run that trained it
  presets: Presets  # sampler settings by name; may be empty
  fingerprint: str
  name: str  # of the folder, or owner/name on the hub
  step: int  # training steps done
  source: str  # where the weights come from, in words
  license: str = 'unknown'  # terms of use, as the card states them
  place: epath.PathLike = ''  # the path or name that it was loaded by


def load(path: epath.PathLike) -> Loaded:
  """Load a model.

  Args:
    path: a model folder; a run's workdir (its newest averaged weights); a .safetensors
      file with config.json beside it; hf://owner/name, hf://owner/name@revision; or the
      name of a model that comes with the package. A path that exists goes first.

  Raises:
    HubError: there is no model, or one of its files is damaged or doesn't fit.
    CheckpointError: a run's checkpoint is missing or damaged.
  """
  place, name = find(path)
  folder = place if is_run(place) else place.parent
  header = model_files.read_json(folder / CONFIG)
  if is_run(place):
    header = {'format': model_files.FORMAT, 'config': header}
  where = str(folder / CONFIG)
  if 'format' not in header or not isinstance(header.get('config'), dict):
    raise HubError(f'{where}: not the configuration of a model folder')
  if header['format'] != model_files.FORMAT:
    raise HubError(
      f'{where}: format {header["format"]!r}, made by a newer version '
      f'({header.get("sr3_jax")}) than this one ({__version__}): update sr3_jax'
    )
  maker = str(header.get('sr3_jax', __version__))
  config = model_files.read_config(header['config'], where, maker)
  try:
    model = SR3.from_config(config)
  except ConfigError as error:
    raise HubError(f'{where}: {error}') from None
  step, params = load_weights(place, model)
  presets = _presets(folder, model.gammas)
  source = str(header.get('source') or f'trained on {data_name(config)}')
  digits = fingerprint(params)
  license = terms.of_folder(folder)
  facts = digits, name, step, source, license, path
  return Loaded(model, params, config, presets, *facts)


def load_weights(path: epath.PathLike, model: SR3) -> tuple[int, Params]:
  """Load the weights at a path, as in `load`, that must be of the network of `model`.

  Returns:
    The number of training steps done, and float32 NumPy arrays.

  Raises:
    HubError: as `load`, or the weights are of another network.
    CheckpointError: as `load`.
  """
  place, _ = find(path)
  try:
    shapes = param_shapes(model)
  except ConfigError as error:
    raise HubError(f'{place}: {error}') from None
  if is_run(place):
    from sr3_jax.weights import checkpoint  # Orbax takes 0.3 s to import

    step, params = checkpoint.load_ema(place, shapes)
    return step, jax.tree.map(np.asarray, params)
  header = model_files.read_json(place.parent / CONFIG)
  step = header.get('step', 0)
  wanted = {name: leaf.shape for name, leaf in model_files.flatten(shapes).items()}
  params = model_files.read_tensors(place, wanted)
  tree = traverse_util.unflatten_dict(params, sep='/')
  # Folders that were written before have none; bits that flip change no shape.
  if header.get('fingerprint') not in (None, digits := fingerprint(tree)):
    raise HubError(
      f'{place}: damaged: its weights have the fingerprint {digits}, its {CONFIG} says '
      f'{header["fingerprint"]}; get it again (for other weights remove that line)'
    )
  return step if isinstance(step, int) else 0, tree


def _presets(folder: epath.Path, gammas: np.ndarray) -> Presets:
  """Return the sampler presets of a folder, {} for none, each tried once."""
  path = folder / PRESETS
  if not path.exists():
    return {}
  presets: Presets = model_files.read_json(path)
  for name, preset in presets.items():
    try:
      for key, value in preset.items():
        # 'linear' is for presets only; `make_trajectory` knows it and its betas.
        if key in ('start', 'end'):
          check_value(key, DIFFUSION[key], value)
        elif (key, value) != ('spacing', 'linear'):
          check_value(key, SAMPLER[key], value)
      if preset['num_steps'] >= len(gammas):
        raise ValueError(f'num_steps {preset["num_steps"]} of {len(gammas) - 1} levels')
      make_trajectory(gammas, **preset)
    except Exception as error:
      raise HubError(f'{path}: preset {name!r}: {line(error)}') from None
  return presets


def fingerprint(params: Params) -> str:
  """Return 16 hexadecimal digits of the SHA-256 of all weights, names and shapes."""
  flat = model_files.flatten(params)
  digest = hashlib.sha256()
  for name in sorted(flat):
    leaf = np.asarray(flat[name], '<f4')
    digest.update(f'{name} {leaf.shape}\n'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def is_run(path: epath.PathLike) -> bool:
  """Return whether a path is the workdir of a run."""
  return model_files.checkpoint_folder(path).is_dir()


def shipped() -> list[str]:
  """Return the names of the models that come with the package, sorted."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{WEIGHTS}'))


def find(path: epath.PathLike) -> tuple[epath.Path, str]:
  """Find a model; `path` is as in `load`.

  Returns:
    Where its weights are, a .safetensors file or the workdir of a run; and its name.

  Raises:
    HubError: there is no model.
  """
  text = os.fspath(path)
  if text.startswith('hf://'):
    folder, name = model_files.download(text)
    return folder / WEIGHTS, name
  place = foreign_files.place(text).expanduser()
  if '://' not in text:
    place = epath.Path(os.path.abspath(place))  # a link gives the model its name
  try:
    if place.suffix == '.safetensors' and place.exists() and not place.is_dir():
      return place, place.parent.name if place.name == WEIGHTS else place.stem
    if foreign_files.exists(place / WEIGHTS):
      return place / WEIGHTS, place.name
    if is_run(place):
      return place, place.name
  # OSError: a name that is too long. Buckets raise whatever their library has.
  except Exception as error:
    raise HubError(f'{text}: cannot be reached: {line(error)}') from None
  if text in shipped():  # a name, never a path that could lead out of the folder
    return SHIPPED / text / WEIGHTS, text
  if place.suffix in ('.pth', '.pt', '.ckpt', '.bin', '.pkl'):
    advice = 'convert it first: sr3-convert'
  elif not place.exists():
    names = ', '.join(shipped())
    advice = 'no such file or folder' + (
      names and f', and no model of the package: {names}'
    )
  else:
    advice = f'a model folder has {WEIGHTS}, a run has checkpoints'
  raise HubError(f'{text}: no model: {advice}')


def publishable(config: ConfigDict) -> ConfigDict:
  """Return a copy of a configuration whose paths, but hf://, are without folders."""
  config = config.copy_and_resolve_references()
  config.data.data_dir = ''
  for key in ('path', 'eval_path', 'input_path', 'eval_input_path'):
    if sources.is_local(config.data.source, config.data[key]):
      config.data[key] = epath.Path(config.data[key]).name
  config.cascade.stages = tuple(
    path if path.startswith('hf://') else epath.Path(path).name
    for path in config.cascade.stages
  )
  for key in ('init_from', 'distill_from'):
    if not config.train[key].startswith('hf://'):
      config.train[key] = epath.Path(config.train[key]).name
  for key in ('weights', 'reference', 'classifier', 'regression'):
    config.eval[key] = epath.Path(config.eval[key]).name
  return config


def data_name(config: ConfigDict) -> str:
  """Return the name of the data that a model was trained on."""
  data = publishable(config).data
  return data.path or data.source
