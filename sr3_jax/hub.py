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

from sr3_jax import (
  __version__,
  checkpoint,
  model_card,
  model_files,
  sources,
)
from sr3_jax.config import as_json
from sr3_jax.messages import line
from sr3_jax.model_files import CARD, CONFIG, PRESETS, WEIGHTS, HubError
from sr3_jax.sr3 import SR3, make_walk

FORMAT = 1
# Models that come with the package, folders named as they are asked for.
SHIPPED = epath.Path(__file__).parent / 'models'
# How weights may be stored, by our names; what is loaded is float32.
DTYPES = {
  'float32': np.float32,
  'bfloat16': ml_dtypes.bfloat16,
  'float16': np.float16,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
  """A model with its weights.

  Attributes:
    model: the model.
    params: float32 NumPy arrays, on the host.
    config: of the run that made it.
    presets: name -> sampler setting, for `sr3.make_walk`; may be empty.
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


# ------------------------------------------------------------------------ loading


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
  place, name = _find(path)
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
    source=str(header.get('source') or f'trained on {_data_name(config)}'),
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
  place, _ = _find(path)
  try:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
  except Exception as error:
    raise HubError(f'{place}: no network can be built: {line(error)}') from None
  if is_run(place):
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
      make_walk(gammas, **preset)
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
  return checkpoint.folder(path).is_dir()


def shipped() -> list[str]:
  """Names of the models that come with the package."""
  return sorted(path.parent.name for path in SHIPPED.glob(f'*/{WEIGHTS}'))


def _find(path: epath.PathLike) -> tuple[epath.Path, str]:
  """The weights (.safetensors file, or workdir of a run) and the model's name."""
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
    advice = 'convert it first: python -m sr3_jax.convert'
  elif not place.exists():
    names = ', '.join(shipped())
    advice = 'no such file or folder' + (names and f', and not one of ours: {names}')
  else:
    advice = f'a model folder has {WEIGHTS}, a run has checkpoints'
  raise HubError(f'{text}: no model: {advice}')


# ------------------------------------------------------------------------- saving


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
  hours: float | None = None,
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
    hours: that the training took.
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
  public = publishable(config)
  source = ' '.join(source.split()) or f'trained on {_data_name(config)}'
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
    fingerprint=fingerprint(stored),
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
) -> Loaded:
  """Makes a model folder of a run (or of another model), its results and presets.

  Args:
    path: as `load` takes it.
    folder: as `save` takes it.
    license: as `save` takes it.
    dtype: as `save` takes it.
    notes: as `save` takes them.

  Returns:
    What was exported.

  Raises:
    HubError, checkpoint.CheckpointError: as `load` and `save`.
  """
  loaded = load(path)
  results = None
  place, _ = _find(path)
  if is_run(place) and (place / 'results.json').exists():
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
    hours=_hours(place, loaded.config.train.batch_size) if is_run(place) else None,
    notes=notes,
  )
  return loaded


def _hours(run: epath.Path, batch_size: int) -> float | None:
  """Time that the steps of a run took, without pauses; None if its log doesn't say."""
  seconds, before = 0.0, 0
  try:
    for text in (run / 'metrics.jsonl').read_text().splitlines():
      entry = json.loads(text)
      if 'images_per_second' in entry:
        images = (entry['step'] - before) * batch_size
        seconds += max(images, 0) / entry['images_per_second']
        before = entry['step']
  except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
    return None
  return seconds / 3600 or None


def _is_ours(folder: epath.Path) -> bool:
  """Whether `save` may write there."""
  if not folder.is_dir():
    return False
  return (folder / WEIGHTS).exists() or not any(itertools.islice(folder.iterdir(), 1))


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


def _data_name(config: ml_collections.ConfigDict) -> str:
  data = publishable(config).data
  return data.path or data.source
