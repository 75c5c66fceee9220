"""PyTorch networks of others as ours: from named tensors to Flax parameters.

Two networks are known: the U-Net of Janspiry/Image-Super-Resolution-via-Iterative-
Refinement and the upsamplers of openai/guided-diffusion. Architecture and noise levels
are read from the tensors; what no tensor shows comes from a preset or is given. A file
is converted as a whole or not at all: every tensor must find its place.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from sr3_jax.config import ConfigDict, get_config
from sr3_jax.core.networks import guided, janspiry
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime.errors import line, some
from sr3_jax.weights.torch_files import Tensors, WeightsError

# Modules of the known networks, by the names that configurations use.
FAMILIES = {'janspiry': janspiry, 'guided': guided}

# Released files -> their network, scale, and side of the outputs.
PRESETS: dict[str, tuple[Any, int, int]] = {
  '16_128': (janspiry.JanspiryUNet(dropout=0.2), 8, 128),
  '64_512': (
    janspiry.JanspiryUNet(
      multipliers=(1, 2, 4, 8, 16), num_blocks=1, attention_levels=(), groups=16
    ),
    8,
    512,
  ),
  '64_256_upsampler': (guided.GuidedUNet(gammas=()), 4, 256),
  # Its heads have 64 channels each, and all its attention is 768 wide.
  '128_512_upsampler': (
    guided.GuidedUNet(gammas=(), attention_levels=(4, 5), num_heads=12),
    4,
    512,
  ),
}


def recognise(tensors: Tensors) -> str:
  """The key of FAMILIES to which these tensors belong.

  Raises:
    WeightsError: to none, or to a sibling that is not supported.
  """
  if any(name.startswith('time_mlp.') for name in tensors):
    raise WeightsError(
      'is of the DDPM variant (ddpm_modules, "which_model_G": "ddpm"), which knows '
      'steps instead of noise levels; only "sr3" networks can be converted'
    )
  if {'noise_level_mlp.1.weight', 'downs.0.weight'} <= tensors.keys():
    return 'janspiry'
  if {'time_embed.0.weight', 'input_blocks.0.0.weight'} <= tensors.keys() and any(
    name.startswith('output_blocks.') for name in tensors
  ):
    return 'guided'
  if any('/' in name for name in tensors):
    raise WeightsError('is a model of sr3_jax already; give its folder')
  known = ' and '.join(family.PROJECT for family in FAMILIES.values())
  raise WeightsError(
    f'an unknown network, with {some(tensors)}; known are those of {known}'
  )


def linear_schedule(betas: np.ndarray) -> tuple[int, float, float]:
  """T, first and last beta of a linear schedule stored in float32.

  Raises:
    WeightsError: it is another one.
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0) & (betas < 1)):
    raise WeightsError(f'its betas, {list(betas.shape)}, are no noise schedule')
  # Six digits undo the rounding to float32: 1e-6 and not 9.99999997e-07.
  start, end = (float(f'{beta:.6g}') for beta in betas[[0, -1]])
  if not np.allclose(betas, np.linspace(start, end, len(betas)), rtol=1e-5, atol=0):
    raise WeightsError(
      f'its {len(betas)} betas, {start:g} to {end:g}, do not lie on a line; only '
      'linear schedules can be converted'
    )
  return len(betas), start, end


def convert(
  tensors: Tensors, preset: str | None = None, **given: int | None
) -> tuple[ConfigDict, Any]:
  """Configuration and parameters that equal a PyTorch network.

  Args:
    tensors: as `read` returns them.
    preset: a key of PRESETS.
    **given: groups, num_heads, scale (output side over input side), image_size (side
      for which it was trained); instead of or over the preset's; None is "not given".

  Returns:
    The configuration, and float32 NumPy arrays for the network that it describes.

  Raises:
    WeightsError: another network, missing facts, or tensors that are over on a side.
  """
  family = recognise(tensors)
  shapes = {name: tensor.shape for name, tensor in tensors.items()}
  try:
    found = FAMILIES[family].architecture(shapes)
  except Exception as error:  # a file from anywhere: sizes may be absurd in any way
    raise WeightsError(line(error)) from None
  facts = _facts(family, found, preset, given)
  _check_widths(shapes, facts)
  levels = FAMILIES[family].SCHEDULE
  if family == 'janspiry':
    if 'betas' in tensors:
      levels = linear_schedule(tensors['betas'])
    tensors = {k: v for k, v in tensors.items() if k not in janspiry.BUFFERS}
  config = _make_config(family, found, facts, levels)
  return config, _translate(tensors, FAMILIES[family].flax_name, config)


def _facts(
  family: str,
  found: dict[str, Any],
  preset: str | None,
  given: dict[str, int | None],
) -> dict[str, Any]:
  """What no tensor shows: of the preset, and what is given."""
  project, hidden = FAMILIES[family].PROJECT, FAMILIES[family].HIDDEN
  given = {key: value for key, value in given.items() if value is not None}
  asked = (hidden, 'scale', 'image_size')
  if foreign := given.keys() - set(asked):
    raise WeightsError(f'is of {project}, where --{min(foreign)} means nothing')
  facts: dict[str, Any] = {'dropout': 0.0}
  if preset:
    network, scale, side = PRESETS[preset]
    if differences := _differences(family, found, preset):
      raise WeightsError(
        f'is not the network of --preset={preset}: {differences}; instead of it give '
        f'{_flags(asked)}'
      )
    facts = {key: getattr(network, key) for key in ('dropout', hidden)}
    facts |= {'scale': scale, 'image_size': side}
  facts |= given
  if missing := [key for key in asked if key not in facts]:
    alike = [name for name in PRESETS if not _differences(family, found, name)]
    hint = f' (its shapes are those of --preset={alike[0]})' if alike else ''
    raise WeightsError(
      f'no tensor tells {_flags(missing)}: give them, or a --preset{hint}'
    )
  return facts


def _differences(family: str, found: dict[str, Any], preset: str) -> str:
  """In which attributes a network is not that of a preset; '' if it is."""
  network = PRESETS[preset][0]
  if not isinstance(network, FAMILIES[family].Network):
    return f'it is of {FAMILIES[family].PROJECT}'
  return ', '.join(
    f'{key} {value} where that has {getattr(network, key)}'
    for key, value in found.items()
    if key != 'affine' and value != getattr(network, key)
  )


def _check_widths(shapes: Mapping[str, tuple[int, ...]], facts: dict[str, Any]) -> None:
  """Refuses groups or heads that do not divide the channels they are of."""
  groups = facts.get('groups', 32)
  for name, shape in shapes.items():
    if name.endswith('.weight') and len(shape) == 1 and shape[0] % groups:
      raise WeightsError(f'{groups} groups do not divide the {shape[0]} of {name}')
    heads = facts.get('num_heads', 1)
    if name.endswith('.qkv.weight') and shape[0] % (3 * heads):
      raise WeightsError(f'{heads} heads do not divide the {shape[0] // 3} of {name}')


def _make_config(
  family: str,
  found: dict[str, Any],
  facts: dict[str, Any],
  levels: tuple[int, float, float],
) -> ConfigDict:
  """A configuration of which `SR3.from_config` makes the network of the tensors."""
  side, scale = facts['image_size'], facts['scale']
  multiple = 2 ** (len(found['multipliers']) - 1)
  if side % multiple or side % scale:
    raise WeightsError(
      f'an image size of {side} does not fit: the network halves it '
      f'{len(found["multipliers"]) - 1} times, and the scale is {scale}'
    )
  c = get_config()
  c.task.scale = scale
  c.data.image_size = side
  c.model.network = family
  c.model.dtype = 'float32'
  c.model.dropout = facts['dropout']
  for key in ('channels', 'multipliers', 'num_blocks'):
    c.model[key] = found[key]
  # Which levels have attention is stored as the sides that they have in training.
  c.model.attention_resolutions = tuple(
    side // 2**level for level in found['attention_levels']
  )
  c.diffusion.num_levels, c.diffusion.start, c.diffusion.end = levels
  # Both ways as the originals: one takes all levels.
  c.sampler.spacing = 'trained'
  if family == 'janspiry':
    c.model.groups = facts['groups']
    c.model.affine = found['affine']
    c.sampler.name = 'ddpm_posterior'
    c.sampler.num_steps = c.diffusion.num_levels
  else:
    c.model.num_heads = facts['num_heads']
    c.model.num_classes = found['num_classes']
    c.model.upsampling = 'bilinear'
    c.diffusion.loss = 'l2'
    c.diffusion.learned_variance = found['out_channels'] == 6
    c.sampler.name = 'ddpm_learned' if c.diffusion.learned_variance else 'ddpm'
    c.sampler.num_steps = 250
  return c


def _translate(
  tensors: Tensors, flax_name: Callable[[str], str], config: ConfigDict
) -> Any:
  """The tensors as parameters of the network of `config`: all of them, or none."""
  flat, names = {}, {}
  for name, tensor in tensors.items():
    module, _, leaf = name.rpartition('.')
    module = flax_name(module)
    leaf, array = _leaf(module, leaf, np.asarray(tensor, np.float32))
    flat[f'{module}/{leaf}'] = array
    names[f'{module}/{leaf}'] = name
  try:
    wanted = jax.eval_shape(SR3.from_config(config).init, jax.random.key(0))
  except Exception as error:  # sizes may be absurd in any way
    raise WeightsError(f'no network can be built: {line(error)}') from None
  wanted = {k: v.shape for k, v in traverse_util.flatten_dict(wanted, sep='/').items()}
  differ = {
    'missing': wanted.keys() - flat.keys(),
    'left over': {names[k] for k in flat.keys() - wanted.keys()},
    'of another shape': {
      f'{names[k]} {list(tensors[names[k]].shape)}'
      for k in flat.keys() & wanted.keys()
      if flat[k].shape != wanted[k]
    },
  }
  if any(differ.values()):
    raise WeightsError(
      'its tensors are not those of the network that they seem to be: '
      + '; '.join(f'{len(v)} {k}: {some(v)}' for k, v in differ.items() if v)
    )
  for name, array in flat.items():
    if not np.isfinite(array).all():
      raise WeightsError(f'{names[name]} holds values that are not finite')
  return traverse_util.unflatten_dict(flat, sep='/')


def _leaf(module: str, leaf: str, array: np.ndarray) -> tuple[str, np.ndarray]:
  """A tensor's name and layout in Flax."""
  if leaf != 'weight':
    return leaf, array
  if module == 'label':
    return 'embedding', array
  if array.ndim == 1:
    return 'scale', array
  if all(side == 1 for side in array.shape[2:]):  # a 1 x 1 convolution is a Dense
    return 'kernel', array.reshape(array.shape[:2]).T
  return 'kernel', np.moveaxis(array, (0, 1), (-1, -2))  # [O, I, H, W] -> [H, W, I, O]


def _flags(names: Iterable[str]) -> str:
  return ', '.join(f'--{name}' for name in names)
