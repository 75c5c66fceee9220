"""Reads weights that PyTorch wrote: .pth, .pt and .safetensors as NumPy arrays."""

import pathlib
import pickle
import re
import warnings
import zipfile
from typing import Any

import ml_dtypes  # noqa: F401 (makes NumPy know bfloat16)
import numpy as np

from sr3_jax.runtime import foreign_files
from sr3_jax.runtime.errors import UserError, line, some
from sr3_jax.runtime.printing import one_line
from sr3_jax.weights import safetensors_files

Tensors = dict[str, np.ndarray]

_TORCH_SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin')
_ZIP = b'PK\x03\x04'
# Files of PyTorch 1.6 and later are archives, those before pickles.
_TORCH_STARTS = (_ZIP, b'\x80')
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
  try:
    foreign_files.check_memory(path, path.stat().st_size)
    foreign_files.check_file(path)
    if path.suffix == '.safetensors':
      tensors = _read_safetensors(path)
    elif path.suffix in _TORCH_SUFFIXES:
      _check_torch(path)
      tensors = _read_torch(path)
    else:
      raise WeightsError(
        f'should end in .safetensors, {", ".join(_TORCH_SUFFIXES)}, or be a folder'
      )
  except FileNotFoundError:
    raise WeightsError('no such file') from None
  except OSError as error:
    raise WeightsError(f'{error.strerror}') from None
  except foreign_files.FileError as error:
    raise WeightsError(str(error).removeprefix(f'{path}: ')) from None
  stripped = {}
  for name, tensor in tensors.items():
    name = re.sub(r'^((module|_orig_mod|denoise_fn)\.)+', '', name)
    if name in stripped:
      raise WeightsError(f'{name} is there twice, under different prefixes')
    stripped[name] = tensor
  return stripped


def _read_safetensors(path: pathlib.Path) -> Tensors:
  """Return the tensors of a .safetensors file."""
  with safetensors_files.opened(path) as file:
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  # Integers keep their type: they are tables, no weights.
  return {
    name: tensor if tensor.dtype.kind in 'iub' else np.asarray(tensor, np.float32)
    for name, tensor in tensors.items()
  }


def _check_torch(path: pathlib.Path) -> None:
  """Refuse what `torch.save` did not write, before anything of it is unpickled."""
  start = foreign_files.start_of(path)
  if not start.startswith(_TORCH_STARTS):
    found = foreign_files.describe(start) or ': it begins otherwise'
    raise WeightsError(f'no PyTorch file{found}; download it again')
  if start.startswith(_ZIP):
    try:
      with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # damage to an archive raises many types
      raise WeightsError(f'damaged, download it again: {line(error)}') from None
    # PyTorch stores its tensors as they are.
    if unpacked > path.stat().st_size:
      raise WeightsError('a compressed archive, which PyTorch does not write')


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
        + one_line(path.name.replace('_opt.', '_gen.'))
      )
    stored = inner[0] if inner else stored
  if not isinstance(stored, dict) or not stored:
    raise WeightsError(f'should hold a state dict, holds a {type(stored).__name__}')
  if other := [str(k) for k, v in stored.items() if not isinstance(v, torch.Tensor)]:
    raise WeightsError(f'should hold tensors only; these are not: {some(other)}')
  return {str(name): _as_numpy(path, name, t) for name, t in stored.items()}


def _as_numpy(path: pathlib.Path, name: object, tensor: Any) -> np.ndarray:
  """Return a PyTorch tensor as an array, floats as float32."""
  kinds = {
    'a meta tensor, without values': tensor.is_meta,
    'quantized': tensor.is_quantized,
    'sparse': str(tensor.layout) != 'torch.strided',
    'nested': tensor.is_nested,
    'complex': tensor.is_complex(),
  }
  if found := [kind for kind, is_kind in kinds.items() if is_kind]:
    raise WeightsError(
      f'{one_line(name)} is {found[0]}: save the weights as plain tensors of floats'
    )
  size = tensor.numel() * tensor.element_size()
  if size > path.stat().st_size:  # a view of few numbers may pretend to be large
    raise WeightsError(f'{one_line(name)} has {size} bytes, more than its file')
  try:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
  except Exception as error:  # types that NumPy lacks
    raise WeightsError(f'{one_line(name)} cannot be read: {line(error)}') from None
