"""Models as folders that can be copied, uploaded and loaded from anywhere.

A model folder holds

  model.safetensors  the averaged weights; names joined by '/': 'conv_in/kernel'
  config.json        {"format": 1, "sr3_jax": version, "config": ..., "step", "source"}
  presets.json       sampler settings by name, as `--mode=sweep` finds them; optional
  README.md          a model card, made from the run

Nothing in it is code or a pickle, and no file names another. What comes from outside is
checked before it is used: names and shapes of all weights against the network that the
configuration describes, the configuration against the known keys and their types.
"""

import dataclasses
import hashlib
import os
from typing import Any

import jax
import ml_collections
import numpy as np
from etils import epath
from flax import traverse_util

from sr3_jax.core.samplers import make_trajectory
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import sources
from sr3_jax.runtime.errors import line
from sr3_jax.runtime.version import __version__
from sr3_jax.weights import model_files
from sr3_jax.weights.model_files import CONFIG, FORMAT, PRESETS, WEIGHTS, HubError

# Models that come with the package, folders named as they are asked for.
SHIPPED = epath.Path(__file__).parent.parent / 'models'


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
  """A model with its weights.

  Attributes:
    model: the model.
    params: float32 NumPy arrays, on the host.
    config: of the run that made it.
    presets: name -> sampler setting, for `samplers.make_trajectory`; may be empty.
    fingerprint: of the weights, 16 hexadecimal digits; the same for the run and for
      the float32 folder made from it.
    name: of the folder, or owner/name.
    step: training steps done.
    source: where the weights come from, in words.
  """

  model: SR3
  params: Any
  config: ml_collections.ConfigDict
  presets: dict[str, dict[str, Any]]
  fingerprint: str
  name: str
  step: int
  source: str


def load(path: epath.PathLike) -> Loaded:
  """Loads a model.

  Args:
    path: a model folder; a run's workdir (its newest averaged weights); a .safetensors
      file with config.json beside it; hf://owner/name, hf://owner/name@revision; or the
      name of a model that comes with the package, unless a model lies at that path.

  Raises:
    HubError: there is no model, or a file of it is not what it should be.
    checkpoint.CheckpointError: a run's checkpoint is missing or damaged.
  """
  place, name = find(path)
  folder = place if is_run(place) else place.parent
  header = model_files.read_json(folder / CONFIG)
  if is_run(place):
    header = {'format': FORMAT, 'config': header}
  where = f'{folder / CONFIG}'
  if 'format' not in header or not isinstance(header.get('config'), dict):
    raise HubError(f'{where}: not the configuration of a model folder')
  if header['format'] != FORMAT:
    raise HubError(
      f'{where}: format {header["format"]!r}, made by a newer version '
      f'({header.get("sr3_jax")}) than this one ({__version__}): update sr3_jax'
    )
  maker = str(header.get('sr3_jax', __version__))
  config = model_files.read_config(header['config'], where, maker)
  try:
    model = SR3.from_config(config)
  except Exception as error:  # a file from anywhere: sizes may be absurd in any way
    raise HubError(f'{where}: {line(error)}') from None
  step, params = load_weights(place, model)
  return Loaded(
    model=model,
    params=params,
    config=config,
    presets=load_presets(folder, model.gammas),
    fingerprint=fingerprint(params),
    name=name,
    step=step,
    source=str(header.get('source') or f'trained on {data_name(config)}'),
  )


def load_weights(path: epath.PathLike, model: SR3) -> tuple[int, Any]:
  """Training steps done, and the weights of `path` if they are of `model`'s network.

  Args:
    path: as in `load`.
    model: says names and shapes.

  Returns:
    The step and float32 NumPy arrays.

  Raises:
    HubError, checkpoint.CheckpointError: as `load`.
  """
  place, _ = find(path)
  try:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
  except Exception as error:
    raise HubError(f'{place}: no network can be built: {line(error)}') from None
  if is_run(place):
    from sr3_jax.weights import checkpoint  # Orbax takes 0.3 s to import

    step, params = checkpoint.load_ema(place, shapes)
    return step, jax.tree.map(np.asarray, params)
  header = model_files.read_json(place.parent / CONFIG)
  step = header.get('step', 0)
  wanted = {k: v.shape for k, v in traverse_util.flatten_dict(shapes, sep='/').items()}
  params = model_files.read_tensors(place, wanted)
  tree = traverse_util.unflatten_dict(params, sep='/')
  return step if isinstance(step, int) else 0, tree


def load_presets(
  folder: epath.PathLike, gammas: np.ndarray
) -> dict[str, dict[str, Any]]:
  """The presets in a model folder or a run's workdir, each tried once; {} if none.

  Raises:
    HubError: one is not possible with these levels, [T + 1].
  """
  path = epath.Path(folder) / PRESETS
  if not path.exists():
    return {}
  presets = model_files.read_json(path)
  for name, preset in presets.items():
    try:
      if not 1 <= preset['num_steps'] < len(gammas):
        raise ValueError(f'num_steps {preset["num_steps"]} of {len(gammas) - 1} levels')
      make_trajectory(gammas, **preset)
    except Exception as error:
      raise HubError(f'{path}: preset {name!r}: {line(error)}') from None
  return presets


def fingerprint(params: Any) -> str:
  """First 16 hexadecimal digits of the SHA-256 of all weights, names and shapes."""
  flat = traverse_util.flatten_dict(params, sep='/')
  digest = hashlib.sha256()
  for name in sorted(flat):
    leaf = np.asarray(flat[name], '<f4')
    digest.update(f'{name} {leaf.shape}\n'.encode())
    digest.update(leaf.tobytes())
  return digest.hexdigest()[:16]


def is_run(path: epath.PathLike) -> bool:
  """Whether a path is a run's workdir."""
  return model_files.checkpoint_folder(path).is_dir()


def shipped() -> list[str]:
  """Names of the models that come with the package."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{WEIGHTS}'))


def find(path: epath.PathLike) -> tuple[epath.Path, str]:
  """The weights (.safetensors file, or workdir of a run) and the model's name.

  Raises:
    HubError: there is no model.
  """
  text = os.fspath(path)
  if text.startswith('hf://'):
    folder, name = model_files.download(text)
    return folder / WEIGHTS, name
  place = epath.Path(text).expanduser()
  if '://' not in text:
    place = epath.Path(os.path.abspath(place))  # links stay: their names say what it is
  if place.suffix == '.safetensors' and place.is_file():
    return place, place.parent.name if place.name == WEIGHTS else place.stem
  if (place / WEIGHTS).is_file():
    return place / WEIGHTS, place.name
  if is_run(place):
    return place, place.name
  if text in shipped():  # a name, never a path that could lead out of the folder
    return SHIPPED / text / WEIGHTS, text
  if place.suffix in ('.pth', '.pt', '.ckpt', '.bin', '.pkl'):
    advice = 'convert it first: sr3-convert'
  elif not place.exists():
    names = ', '.join(shipped())
    advice = 'no such file or folder' + (names and f', and not one of ours: {names}')
  else:
    advice = f'a model folder has {WEIGHTS}, a run has checkpoints'
  raise HubError(f'{text}: no model: {advice}')


def publishable(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """A copy without the folders of this machine: they are nobody's business."""
  config = config.copy_and_resolve_references()
  config.data.data_dir = ''
  if config.data.source in sources.LOCAL:
    for key in ('path', 'eval_path'):
      config.data[key] = epath.Path(config.data[key]).name
  config.cascade.stages = tuple(
    path if path.startswith('hf://') else epath.Path(path).name
    for path in config.cascade.stages
  )
  if not config.train.init_from.startswith('hf://'):
    config.train.init_from = epath.Path(config.train.init_from).name
  for key in ('weights', 'reference', 'classifier', 'regression'):
    config.eval[key] = epath.Path(config.eval[key]).name
  return config


def data_name(config: ml_collections.ConfigDict) -> str:
  """What a model was trained on, in a word or two."""
  data = publishable(config).data
  return data.path or data.source
