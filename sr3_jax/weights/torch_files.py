"""Reads weights that PyTorch wrote: .pth, .pt and .safetensors as NumPy arrays."""

import pathlib
import pickle
import re
import warnings

import ml_dtypes  # noqa: F401 (makes NumPy know bfloat16)
import numpy as np
import safetensors

from sr3_jax.runtime.errors import UserError, line, some

Tensors = dict[str, np.ndarray]

_TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin')
# Keys under which a file may hold its weights beside other things; averaged ones first.
_CONTAINERS = ('ema', 'params_ema', 'state_dict', 'params', 'model')


class WeightsError(UserError):
  """One line: what is wrong with a file of weights, and what to do."""


def read(path: pathlib.Path) -> Tensors:
  """Return the tensors of a .safetensors file, or of a PyTorch file of a state dict.

  Names lack 'module.', '_orig_mod.' and 'denoise_fn.' in front; floats are float32.

  Raises:
    WeightsError: the file cannot be read, or holds other things than named tensors.
  """
  if not path.is_file():
    raise WeightsError('no such file')
  if path.suffix == '.safetensors':
    tensors = _read_safetensors(path)
  elif path.suffix in _TORCH_SUFFIXES:
    tensors = _read_torch(path)
  else:
    raise WeightsError(
      f'should end in .safetensors, {", ".join(_TORCH_SUFFIXES)}, or be a folder'
    )
  stripped = {}
  for name, tensor in tensors.items():
    name = re.sub(r'^((module|_orig_mod|denoise_fn)\.)+', '', name)
    if name in stripped:
      raise WeightsError(f'{name} is there twice, under different prefixes')
    stripped[name] = tensor
  return stripped


def _read_safetensors(path: pathlib.Path) -> Tensors:
  """Return the tensors of a .safetensors file."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (safetensors.SafetensorError, TypeError) as error:  # TypeError: of 8 bits
    raise WeightsError(f'cannot be read as safetensors: {line(error)}') from None
  # Integers keep their type: they are tables, no weights.
  return {
    name: tensor if tensor.dtype.kind in 'iub' else np.asarray(tensor, np.float32)
    for name, tensor in tensors.items()
  }


def _read_torch(path: pathlib.Path) -> Tensors:
  """Return the tensors of a state dict that `torch.save` wrote."""
  try:
    import torch
  except ImportError:
    raise WeightsError(
      "PyTorch files need torch: pip install 'sr3_jax[convert]' (or save the state "
      'dict as .safetensors)'
    ) from None
  try:
    with warnings.catch_warnings(action='ignore'):
      # Never without weights_only: a pickle is a program.
      stored = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    found = re.search(r'GLOBAL (\S+)', str(error))
    more = f' ({found[1]})' if found else ''
    raise WeightsError(
      f'not loaded: it holds more than weights{more}, and unpickling that could run '
      'any program; save only the state dict'
    ) from None
  except Exception as error:  # a damaged file may raise anything
    raise WeightsError(f'cannot be read as a PyTorch file: {line(error)}') from None
  if isinstance(stored, dict):
    inner = [stored[key] for key in _CONTAINERS if isinstance(stored.get(key), dict)]
    if 'optimizer' in stored and not inner:
      raise WeightsError(
        'is the state of an optimizer; the weights are in the file beside it, '
        + path.name.replace('_opt.', '_gen.')
      )
    stored = inner[0] if inner else stored
  if not isinstance(stored, dict) or not stored:
    raise WeightsError(f'should hold a state dict, holds a {type(stored).__name__}')
  if other := [str(k) for k, v in stored.items() if not isinstance(v, torch.Tensor)]:
    raise WeightsError(f'should hold tensors only; these are not: {some(other)}')
  return {
    str(name): (t.float() if t.is_floating_point() else t).numpy()
    for name, t in stored.items()
  }
