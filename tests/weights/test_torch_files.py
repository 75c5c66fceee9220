"""PyTorch files of strangers: refused by what they are, without PyTorch's help."""

import io
import os
import sys
import types
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sr3_jax.weights import safetensors_files, torch_files, torch_to_flax
from sr3_jax.weights.torch_files import WeightsError
from tests.support import file_damage

POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 391015721\n'


def archive(data: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
  """Return a zip archive of one file."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as file:
    file.writestr('archive/data.pkl', data)
  return buffer.getvalue()


OTHERS = {
  'page': (
    b'\n<!DOCTYPE html><html>Sign in</html>',
    'it is a web page .HTML.',
  ),
  'pointer': (POINTER, 'it is a git-lfs pointer, not the file itself; download it'),
  'empty': (b'', 'it has zero bytes; download it again'),
  'text': (b'Not Found', 'it begins otherwise; download it again'),
  'picture': (b'\x89PNG\r\n\x1a\n', 'it is a PNG picture'),
  'cut': (archive(b'x' * 999)[:-40], 'damaged, download it again'),
  'bomb': (archive(bytes(10**6), zipfile.ZIP_DEFLATED), 'a compressed archive'),
}


@pytest.mark.parametrize('case', OTHERS)
def test_what_is_no_pytorch_file_is_told_by_what_it_is(case, tmp_path):
  data, words = OTHERS[case]
  path = tmp_path / 'I640000_E37_gen.pth'
  path.write_bytes(data)
  with pytest.raises(WeightsError, match=words) as error:
    torch_files.read(path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('damage', file_damage.PLACE, ids=lambda d: d.__name__)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_only_regular_files_are_opened(damage, suffix, tmp_path):
  path = tmp_path / f'a{suffix}'
  path.write_bytes(b'')
  damage(path)
  with pytest.raises(WeightsError) as error:
    torch_files.read(path)
  assert '\n' not in str(error.value)


class Tensor:
  """As much of a PyTorch tensor as is asked for."""

  is_meta = is_quantized = is_nested = False
  layout = 'torch.strided'

  def __init__(self, size: int = 2, **changes: object):
    self.size = size
    for name, value in changes.items():
      setattr(self, name, value)

  def is_complex(self) -> bool:
    return False

  def is_floating_point(self) -> bool:
    return True

  def numel(self) -> int:
    return self.size

  def element_size(self) -> int:
    return 4

  def detach(self) -> 'Tensor':
    return self

  float = detach

  def numpy(self) -> np.ndarray:
    return np.ones(self.size, np.float32)


ODD = {
  'a meta tensor': {'is_meta': True},
  'quantized': {'is_quantized': True},
  'sparse': {'layout': 'torch.sparse_coo'},
  'nested': {'is_nested': True},
  'complex': {'is_complex': lambda: True},
  'more than its file': {'size': 10**12},
  'cannot be read: Got unsupported': {
    'numpy': lambda: (_ for _ in ()).throw(TypeError('Got unsupported ScalarType')),
  },
}


@pytest.mark.parametrize('words', ODD)
def test_tensors_that_are_no_plain_floats_are_one_line(words, tmp_path, monkeypatch):
  stored = {'a.weight': Tensor(), 'b\x1b[2J.weight': Tensor(**ODD[words])}
  module = types.SimpleNamespace(load=lambda path, **_: stored, Tensor=Tensor)
  monkeypatch.setitem(sys.modules, 'torch', module)
  path = tmp_path / 'a.pth'
  path.write_bytes(archive(b'x' * 99))
  with pytest.raises(WeightsError, match=words) as error:
    torch_files.read(path)
  assert str(error.value).startswith('b\\x1b[2J.weight ')  # not as the file has it
  del stored['b\x1b[2J.weight']
  assert torch_files.read(path)['a.weight'].tolist() == [1, 1]


SCHEDULES = [
  (2000, 1e-6, 1e-2),
  (1000, 1e-4, 0.02),
  (500, 1.5e-5, 0.05),
  (50, 0.2, 0.1),
]


@pytest.mark.parametrize('dtype', [np.float64, np.float32, np.float16, 'bfloat16'])
@pytest.mark.parametrize('schedule', SCHEDULES, ids=str)
def test_linear_schedules_of_any_precision_are_found_exactly(schedule, dtype):
  """As `_gen.pth` has them after `.half()`: betas of 1e-6 are rounded by 1 %."""
  dtype = ml_dtypes.bfloat16 if dtype == 'bfloat16' else dtype
  count, start, end = schedule
  betas = np.linspace(start, end, count).astype(np.float32).astype(dtype)
  assert torch_to_flax.linear_schedule(betas.astype(np.float32)) == schedule


@pytest.mark.parametrize('dtype', [np.float32, np.float16, ml_dtypes.bfloat16])
def test_other_schedules_are_refused_in_any_precision(dtype):
  bent = np.linspace(1e-2, 0.14, 1000) ** 2
  with pytest.raises(WeightsError, match='do not lie on a line'):
    torch_to_flax.linear_schedule(bent.astype(dtype).astype(np.float32))


def test_headers_of_safetensors_are_checked(tmp_path):
  path = tmp_path / 'a.safetensors'
  safetensors.numpy.save_file({'a': np.ones(2, np.float32)}, path)
  whole = path.read_bytes()
  length = int.from_bytes(whole[:8], 'little')
  header = whole[8 : 8 + length]
  entry = b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
  assert entry in header
  for data, words in (
    (b'', 'its 0 bytes begin with no header'),
    (POINTER, 'begin with no header.*git-lfs pointer'),
    ((2**60).to_bytes(8, 'little') + whole[8:], 'begin with no header'),
    (whole.replace(entry, entry + b',' + entry), None),
    (whole.replace(b'[0,8]', b'[0,9]'), '.'),
    (whole.replace(b'[2]', b'[9]'), '.'),
    (whole.replace(b'"F32"', b'"F99"'), '.'),
    (whole[:-1], '.'),
  ):
    if words is None:  # a name twice, with a right length
      length = len(header) + len(entry) + 1
      data = length.to_bytes(8, 'little') + data[8:]
      words = 'a name twice'
    path.write_bytes(data)
    with (
      pytest.raises(
        ValueError, match=f'not a whole safetensors file.*{words}'
      ) as error,
      safetensors_files.opened(path) as file,
    ):
      file.keys()
    assert '\n' not in str(error.value)
  os.truncate(path, 2**41)
  with (
    pytest.raises(ValueError, match='larger than'),
    safetensors_files.opened(path) as file,
  ):
    file.keys()
