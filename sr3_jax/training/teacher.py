"""Reads the model that a run is distilled from, and keeps the run to it."""

import jax
import ml_collections
from etils import epath

from sr3_jax.core.check import param_shapes
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime import activity, atomic_files, foreign_files
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.types import Params
from sr3_jax.runtime.values import shown
from sr3_jax.weights import hub

# What decides about the meaning of weights and leaves their shapes as they are.
_SAME = {
  'data': ('low', 'high', 'input_low', 'input_high'),
  'model': (
    *('network', 'patch', 'num_heads', 'groups', 'affine'),
    *('upsampling', 'smooth_holes'),
  ),
  'diffusion': (
    *('schedule', 'num_levels', 'start', 'end'),
    *('prediction', 'residual', 'y0_scale'),
  ),
}
# WORKDIR/teacher.json has the weights and steps that a run began with.
_RECORD = 'teacher.json'
_STEPS = ('num_steps', 'spacing', 'clip', 'consistency')


def load(config: ml_collections.ConfigDict, model: SR3) -> hub.Loaded:
  """Load the teacher that `train.distill_from` names.

  Raises:
    UserError: there is none, or `model`, a student, can't begin with its weights.
  """
  path = config.train.distill_from
  where = f'train.distill_from={path}'
  with activity.doing(f'reading the weights of {path}'):
    loaded = hub.load(path)
  if loaded.model.method != 'sr3':
    raise UserError(f"{where}: method='regression' has one step already")
  for section, keys in _SAME.items():
    for key in keys:
      there, here = loaded.config[section][key], config[section][key]
      if there != here:
        raise UserError(
          f'{where}: has {section}.{key}={shown(there)}, this run {shown(here)}: a '
          'student needs what its teacher has'
        )
  wanted, found = (
    {jax.tree_util.keystr(k, simple=True, separator='/'): leaf.shape for k, leaf in of}
    for of in map(
      jax.tree_util.tree_leaves_with_path, (param_shapes(model), loaded.params)
    )
  )
  for name in sorted(wanted.keys() | found.keys()):
    there, here = found.get(name, 'missing'), wanted.get(name, 'missing')
    if there != here:
      raise UserError(
        f"{where}: of another network than this run's: {name} is {there} there, {here} "
        'here; a student needs the model and the task of its teacher'
      )
  return loaded


def weights(
  config: ml_collections.ConfigDict,
  model: SR3,
  workdir: epath.PathLike,
  resumed: bool = False,
) -> 'Params | None':
  """Return the teacher's weights; None for a run that is not distilled.

  The first start writes down which they are. A later start must have the same.

  Raises:
    UserError: as `load`, or a `resumed` run has learned something else so far.
  """
  if not config.train.distill_from:
    return None
  loaded = load(config, model)
  now = {'fingerprint': loaded.fingerprint}
  now |= {f'sampler.{key}': config.sampler[key] for key in _STEPS}
  path = epath.Path(workdir) / _RECORD
  if not resumed:
    if jax.process_index() == 0:
      atomic_files.write_json(path, now)
    return loaded.params
  if not foreign_files.exists(path):
    raise UserError(
      f'{workdir}: was begun without a teacher; give train.distill_from with another '
      '--workdir'
    )
  begun = foreign_files.read_json(path)
  for key, value in now.items():
    if begun.get(key) != value:
      raise UserError(
        f'{path}: this run was begun with {key}={shown(begun.get(key))} and a teacher '
        f'{config.train.distill_from}, now it is {shown(value)}; go back to that, or '
        'take another --workdir'
      )
  return loaded.params
