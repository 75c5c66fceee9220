"""Translates the tensors of two PyTorch networks to Flax parameters.

The networks are the U-Net of Janspiry/Image-Super-Resolution-via-Iterative-Refinement
and the upsamplers of openai/guided-diffusion. Their architecture and noise levels are
read from the tensors; what no tensor shows comes from a preset or is given. A file is
converted as a whole or not at all: every tensor must find its place.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import ml_dtypes
import numpy as np
from flax import traverse_util

from sr3_jax.config import ConfigDict, get_config
from sr3_jax.core.networks import guided, janspiry
from sr3_jax.core.sr3 import SR3
from sr3_jax.runtime.errors import line, some
from sr3_jax.runtime.types import Params
from sr3_jax.weights import model_files
from sr3_jax.weights.released import RELEASED
from sr3_jax.weights.torch_files import Tensors, WeightsError

# Modules of the known networks, by the names that configurations use.
FAMILIES = {'janspiry': janspiry, 'guided': guided}

# Networks of the released files.
NETWORKS: dict[str, nn.Module] = {
  '16_128': janspiry.JanspiryUNet(dropout=0.2),
  '64_512': janspiry.JanspiryUNet(
    multipliers=(1, 2, 4, 8, 16), num_blocks=1, attention_levels=(), groups=16
  ),
  '64_256_upsampler': guided.GuidedUNet(gammas=()),
  # Its heads have 64 channels each, and all its attention is 768 wide.
  '128_512_upsampler': guided.GuidedUNet(
    gammas=(), attention_levels=(4, 5), num_heads=12
  ),
}

# Values of a network, by the names of its attributes.
Attributes = dict[str, Any]


def recognise(tensors: Tensors) -> str:
  """Return the key of FAMILIES that tensors belong to, or raise WeightsError."""
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
  """Return T, the first and the last beta of a linear schedule.

  Raises:
    WeightsError: `betas` are not [T] in (0, 1), or not linear.
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0) & (betas < 1)):
    raise WeightsError(f'its betas, {list(betas.shape)}, are no noise schedule')
  error = _rounding(betas)
  # The shortest numbers undo the rounding: 1e-6 and not 9.99999997e-07.
  start, end = (_shortest(betas[i], error[i]) for i in (0, -1))
  line_between = np.linspace(start, end, len(betas))
  if not np.all(np.abs(betas - line_between) <= 2 * error):
    raise WeightsError(
      f'its {len(betas)} betas, {start:g} to {end:g}, do not lie on a line; only '
      'linear schedules can be converted'
    )
  return len(betas), start, end


def _rounding(betas: np.ndarray) -> np.ndarray:
  """Return how far betas may be from what they were: the error of their precision."""
  for kind in (ml_dtypes.bfloat16, np.float16):
    if np.array_equal(betas, betas.astype(kind).astype(np.float64)):
      spacing = np.asarray(np.spacing(betas.astype(kind)), np.float64)
      return spacing / 2 + 1e-7 * betas
  return 5e-6 * betas  # float32, and what sums of it add


def _shortest(value: float, error: float) -> float:
  """Return the number with the fewest digits that is `value` within an error."""
  shown = (float(f'{value:.{digits}g}') for digits in range(1, 18))
  return next((number for number in shown if abs(number - value) <= error), value)


def convert(
  tensors: Tensors, preset: str | None = None, **given: int | None
) -> tuple[ConfigDict, Params]:
  """Return the configuration and the parameters that equal a PyTorch network.

  Args:
    tensors: as `torch_files.read` returns them.
    preset: a key of NETWORKS and `RELEASED`.
    **given: groups, num_heads, scale (output side over input side), image_size (side of
      the outputs in training, pixels); they replace the preset's; None is "not given".

  Returns:
    The configuration, and float32 NumPy arrays for the network that it describes.

  Raises:
    WeightsError: the network is unknown, a number is missing, or tensors are missing or
      left over.
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
  family: str, found: Attributes, preset: str | None, given: dict[str, int | None]
) -> Attributes:
  """Return the values that no tensor shows: those given, else those of the preset."""
  project, hidden = FAMILIES[family].PROJECT, FAMILIES[family].HIDDEN
  given = {key: value for key, value in given.items() if value is not None}
  asked = (hidden, 'scale', 'image_size')
  if foreign := given.keys() - set(asked):
    raise WeightsError(f'is of {project}, where --{min(foreign)} means nothing')
  facts: Attributes = {'dropout': 0.0}
  if preset:
    if differences := _differences(family, found, preset):
      raise WeightsError(
        f'is not the network of --preset={preset}: {differences}; instead of it give '
        f'{_flags(asked)}'
      )
    facts = {key: getattr(NETWORKS[preset], key) for key in ('dropout', hidden)}
    facts |= RELEASED[preset]._asdict()
  facts |= given
  if missing := [key for key in asked if key not in facts]:
    alike = [name for name in NETWORKS if not _differences(family, found, name)]
    hint = f' (its shapes are those of --preset={alike[0]})' if alike else ''
    raise WeightsError(
      f'no tensor tells {_flags(missing)}: give them, or a --preset{hint}'
    )
  return facts


def _differences(family: str, found: Attributes, preset: str) -> str:
  """Return how the attributes of a network differ from a preset's; '' if they don't."""
  network = NETWORKS[preset]
  if not isinstance(network, FAMILIES[family].Network):
    return f'it is of {FAMILIES[family].PROJECT}'
  return ', '.join(
    f'{key} {value} where that has {getattr(network, key)}'
    for key, value in found.items()
    if key != 'affine' and value != getattr(network, key)
  )


def _check_widths(shapes: Mapping[str, tuple[int, ...]], facts: Attributes) -> None:
  """Refuse groups or heads that do not divide the channels of their layers."""
  groups = facts.get('groups', 32)
  for name, shape in shapes.items():
    if name.endswith('.weight') and len(shape) == 1 and shape[0] % groups:
      raise WeightsError(f'{groups} groups do not divide the {shape[0]} of {name}')
    heads = facts.get('num_heads', 1)
    if name.endswith('.qkv.weight') and shape[0] % (3 * heads):
      raise WeightsError(f'{heads} heads do not divide the {shape[0] // 3} of {name}')


def _make_config(
  family: str, found: Attributes, facts: Attributes, levels: tuple[int, float, float]
) -> ConfigDict:
  """Return a configuration whose network has exactly these tensors."""
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
  # A configuration names levels with attention by their sides in training.
  c.model.attention_resolutions = tuple(
    side // 2**level for level in found['attention_levels']
  )
  c.diffusion.num_levels, c.diffusion.start, c.diffusion.end = levels
  # Both sample as their originals do; Janspiry's takes all levels.
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
) -> Params:
  """Return all tensors as parameters of the network of `config`, or refuse them."""
  flat, names = {}, {}
  for name, tensor in tensors.items():
    module, _, leaf = name.rpartition('.')
    module = flax_name(module)
    leaf, array = _leaf(module, leaf, np.asarray(tensor, np.float32))
    flat[f'{module}/{leaf}'] = array
    names[f'{module}/{leaf}'] = name
  try:
    wanted = model_files.flat_shapes(SR3.from_config(config))
  except Exception as error:  # sizes may be absurd in any way
    raise WeightsError(f'no network can be built: {line(error)}') from None
  other = [k for k in flat.keys() & wanted.keys() if flat[k].shape != wanted[k]]
  differ = {
    'missing': wanted.keys() - flat.keys(),
    'left over': {names[k] for k in flat.keys() - wanted.keys()},
    'of another shape': {f'{names[k]} {list(tensors[names[k]].shape)}' for k in other},
  }
  if parts := [f'{len(v)} {k}: {some(v)}' for k, v in differ.items() if v]:
    raise WeightsError(
      'its tensors are not those of the network that they seem to be: '
      + '; '.join(parts)
    )
  for name, array in flat.items():
    if not np.isfinite(array).all():
      raise WeightsError(f'{names[name]} holds values that are not finite')
  return traverse_util.unflatten_dict(flat, sep='/')


def _leaf(module: str, leaf: str, array: np.ndarray) -> tuple[str, np.ndarray]:
  """Return the name of a parameter and its array in Flax's layout."""
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
  """Return names as command-line flags."""
  return ', '.join(f'--{name}' for name in names)
