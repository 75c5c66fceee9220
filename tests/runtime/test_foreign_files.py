"""Tests of opening what others wrote."""

import io
import json
import os
import pathlib
import socket
import tracemalloc
import zipfile

import numpy as np
import pytest

from sr3_jax.images import image_files, picture_codec
from sr3_jax.images.pixels import ImageError
from sr3_jax.runtime import errors, foreign_arrays, foreign_files, memory
from sr3_jax.runtime.errors import UserError
from sr3_jax.runtime.foreign_files import FileError
from tests.support import file_damage


def one_line(error: pytest.ExceptionInfo) -> str:
  """Return the text of an error, which has to be one line."""
  text = str(error.value)
  assert '\n' not in text and len(text) < 600
  return text


def make(path: pathlib.Path, kind: str) -> pathlib.Path:
  """Make something that is no regular file."""
  if kind == 'socket':
    with socket.socket(socket.AF_UNIX) as server:
      server.bind(str(path))
  else:
    path.write_bytes(b'')
    getattr(file_damage, kind)(path)
  return path


NOT_FILES = {
  'pipe': 'a pipe .FIFO., should be a file',
  'socket': 'a socket, should be a file',
  'folder': 'a folder, should be a file',
  'endless': 'a device, should be a file',
  'own_link': 'a link that leads to itself',
  'dangling': 'no such file',
  'delete': 'no such file',
  'parent_link': 'a folder, should be a file',
}
READERS = {
  'text': foreign_files.read_text,
  'json': foreign_files.read_json,
  'npz': foreign_arrays.read_npz,
}


@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('kind', NOT_FILES)
def test_what_is_no_file_is_refused_by_what_it_is(tmp_path, monkeypatch, reader, kind):
  monkeypatch.chdir(tmp_path)  # names of sockets are short
  path = make(pathlib.Path('a'), kind)
  with pytest.raises(FileError, match=f'^a: {NOT_FILES[kind]}') as error:
    READERS[reader](path)
  one_line(error)


@pytest.mark.parametrize('kind', NOT_FILES)
def test_pictures_are_opened_in_the_same_way(tmp_path, monkeypatch, kind):
  monkeypatch.chdir(tmp_path)
  path = make(pathlib.Path('a.png'), kind)
  for read in (image_files.read, image_files.size, picture_codec.read):
    with pytest.raises(ImageError, match=r'^a\.png: ') as error:
      read(path)
    assert one_line(error).count('a.png') == 1
  assert picture_codec.metadata(path) is None


def test_sizes_are_bounded_before_anything_is_read(tmp_path, monkeypatch):
  sparse = tmp_path / 'sparse'
  with sparse.open('wb') as file:
    file.truncate(2**40)
  for read in READERS.values():
    with pytest.raises(FileError, match=r'larger than .* not read'):
      read(sparse)
  with sparse.open('wb') as file:
    file.truncate(2**27)
  monkeypatch.setattr(memory, 'free', lambda: 2**20)
  with pytest.raises(FileError, match=r'0\.1 GB of memory, 0\.0 GB are free'):
    foreign_files.read_bytes(sparse)
  # Files of /proc say that they have no bytes.
  with pytest.raises(FileError, match='larger than'):
    foreign_files.read_bytes('/proc/self/maps', 10)


def test_links_to_files_are_followed(tmp_path):
  (tmp_path / 'a').write_text('{"b": 1}')
  (tmp_path / 'link').symlink_to('a')
  assert foreign_files.read_json(tmp_path / 'link') == {'b': 1}
  assert foreign_files.exists(tmp_path / 'link')
  (tmp_path / 'a').unlink()
  assert foreign_files.exists(tmp_path / 'link')
  assert not foreign_files.exists(tmp_path / 'a')


JSON = {
  '{': 'no JSON: Expecting property name',
  '': 'no JSON',
  '[]': 'holds a list, should hold an object',
  'null': 'holds null',
  '3': "holds '3'",
  '{"a": 1}': '"b" is missing, should be a list',
  '{"a": true, "b": []}': '"a" is \'True\', should be a whole number',
  '{"a": 1, "b": {}}': '"b" is an object, should be a list',
  '[' * 100_000: 'nested too deeply',
  '{"a": ' + '9' * 5000 + '}': 'no JSON',
  '<!DOCTYPE html>': 'it is a web page .HTML.; get it again',
}


@pytest.mark.parametrize('text', JSON, ids=lambda text: text[:20])
def test_json_of_another_shape_is_named_in_one_line(tmp_path, text):
  path = tmp_path / 'a.json'
  path.write_text(text)
  with pytest.raises(FileError, match=JSON[text]) as error:
    foreign_files.read_json(path, {'a': int, 'b': list}, what='what it should be')
  assert one_line(error).startswith(f'{path}: not what it should be')
  path.write_bytes(b'{"a": 1, "b": [], "c": "\xff"}')
  with pytest.raises(FileError, match='not a text in UTF-8'):
    foreign_files.read_json(path)
  path.write_text('{"a": 1, "b": [], "c": null}')
  wanted = {'a': int, 'b': (list, str)}
  assert foreign_files.read_json(path, wanted)['c'] is None


def test_errors_are_of_the_kind_that_is_asked_for(tmp_path):
  class Mine(UserError):
    """An error of one room."""

  with pytest.raises(Mine, match='no such file'):
    foreign_files.read_json(tmp_path / 'none', error=Mine)
  with pytest.raises(Mine, match='a folder'):
    foreign_arrays.read_npz(tmp_path, error=Mine)


def archive(**arrays: bytes) -> bytes:
  """Return a zip archive of these files."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, data in arrays.items():
      file.writestr(f'{name}.npy', data)
  return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
  """Return a .npy file."""
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def header(shape: tuple, dtype: str = '<f8') -> bytes:
  """Return a .npy file whose header promises more than it has."""
  buffer = io.BytesIO()
  described = {'descr': dtype, 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(buffer, described)
  return buffer.getvalue() + b'\0' * 64


GOOD = npy(np.ones(3))
ARCHIVES = {
  b'': 'zero bytes; wanted are mu, sigma',
  b'PK\x05\x06' + b'\0' * 18: 'lacks mu, sigma; it holds nothing; wanted are mu, sigma',
  GOOD: 'no .npz archive.*it is a single NumPy array',
  archive(a=GOOD, mu=GOOD): 'lacks sigma; it holds a, mu',
  archive(mu=GOOD, sigma=GOOD[:-9]): 'sigma is cut',
  archive(mu=GOOD, sigma=b'no array'): 'the magic string',
  archive(mu=GOOD, sigma=header((2**62, 2**62))): 'sigma is cut',
  archive(mu=GOOD, sigma=header((-1,))): 'sigma',
  archive(mu=GOOD, sigma=header((3,), '|O')): 'sigma holds Python objects',
  archive(mu=GOOD, sigma=npy(np.array([1, np.nan]))): 'sigma holds values that are not',
  archive(mu=GOOD, sigma=GOOD)[:-30]: 'no .npz archive',
  archive(mu=GOOD, sigma=GOOD)[30:]: 'damaged',
}


@pytest.mark.parametrize('data', ARCHIVES, ids=range(len(ARCHIVES)))
def test_archives_of_other_arrays_are_named_in_one_line(tmp_path, data):
  path = tmp_path / 'a.npz'
  path.write_bytes(data)
  with pytest.raises(FileError, match=ARCHIVES[data]) as error:
    foreign_arrays.read_npz(path, ('mu', 'sigma'), what='statistics')
  assert one_line(error).startswith(f'{path}: ')


def test_a_small_archive_that_unpacks_to_much_is_not_read(tmp_path, monkeypatch):
  path = tmp_path / 'bomb.npz'
  path.write_bytes(archive(a=npy(np.zeros(2**21))))
  assert path.stat().st_size < 20_000
  monkeypatch.setattr(memory, 'free', lambda: 2**20)
  with pytest.raises(FileError, match=r'takes 0\.0 GB of memory'):
    foreign_arrays.read_npz(path)


@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_only_what_is_asked_for_is_read(tmp_path):
  path = tmp_path / 'a.npz'
  path.write_bytes(archive(a=GOOD, bad=b'x'))
  (array,) = foreign_arrays.read_npz(path, ('a',), only=('a',)).values()
  assert array.tolist() == [1, 1, 1]
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a.npy', GOOD)
    file.writestr('a.npy', GOOD)
  with pytest.raises(FileError, match='twice'):
    foreign_arrays.read_npz(path)


def test_places_that_cannot_be_reached(monkeypatch):
  monkeypatch.setattr(foreign_files, '_has_gcsfs', lambda: False)
  with pytest.raises(FileError, match=r'^gs://x/y: gs:// needs gcsfs: pip install'):
    foreign_files.place('gs://x/y')
  for text in ('file:///etc', 's3://a/b', 'http://a', 'nothing://'):
    with pytest.raises(FileError, match='give a path of this machine, or a gs:// '):
      foreign_files.place(text)
  with pytest.raises(FileError, match='null character'):
    foreign_files.place('a\0b')
  assert os.fspath(foreign_files.place('a/b')) == 'a/b'
  monkeypatch.setattr(foreign_files, '_has_gcsfs', lambda: True)
  assert os.fspath(foreign_files.place('gs://x/y')) == 'gs://x/y'


def test_what_files_are_instead_is_told_from_their_first_bytes():
  pointer = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n'
  assert 'a git-lfs pointer' in foreign_files.describe(pointer)
  assert 'a web page' in foreign_files.describe(b' \n<!DOCTYPE HTML><p>')
  assert 'zero bytes' in foreign_files.describe(b'')
  assert foreign_files.describe(b'\0\1\2') == ''
  assert 'refused' in foreign_files.describe(json.dumps({'message': 'no'}).encode())


def test_an_open_file_has_its_name(tmp_path):
  """Readers of TIFFs ask for it, and read nothing of a file whose name is a number."""
  path = tmp_path / 'a'
  path.write_bytes(b'x')
  with foreign_files.open_file(path) as file:
    assert file.name == str(path)
    assert file.read() == b'x'


@pytest.mark.parametrize('place', ['link', 'file', 'file/below'])
def test_what_is_no_folder_is_said_and_not_that_it_exists(tmp_path, place):
  (tmp_path / 'link').symlink_to('nowhere')
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError) as error:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
  assert errors.line(error.value).endswith('file, should be a folder') == (
    place == 'file/below'
  )
  assert 'should be a folder' in errors.line(error.value)


@pytest.mark.parametrize('path', ['small', '/proc/self/status'])
def test_reading_a_small_file_takes_no_more_memory_than_it_has(path, tmp_path):
  """Not what the largest file may have: under `ulimit -v` that is an error."""
  (tmp_path / 'small').write_bytes(b'0123456789')
  tracemalloc.start()
  data = foreign_files.read_bytes(tmp_path / path)  # of an absolute path, that path
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert data.startswith(b'Name' if path.startswith('/') else b'0123456789')
  assert peak < 3 * 2**20


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path):
  (tmp_path / 'a').write_bytes(b'x' * 100)
  with open(tmp_path / 'a', 'rb') as file:
    assert foreign_files._read_to_end(file, 30, 1000) == b'x' * 100
  with open(tmp_path / 'a', 'rb') as file:
    assert foreign_files._read_to_end(file, 30, 50) == b'x' * 50
