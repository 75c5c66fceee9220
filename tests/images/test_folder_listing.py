"""Tests that folders are listed whole: each file once, and the rest counted."""

import collections
import os
import socket

import pytest
from etils import epath

from sr3_jax.data import sources
from sr3_jax.images import folder_listing, image_names
from tests.support.upscaling import save

SEEN = folder_listing.SEEN


def listing(root, **options):
  found = folder_listing.list_files(epath.Path(root), ('.png',), **options)
  return list(found.names), dict(found.passed)


def touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()


def test_kinds_are_counted(tmp_path):
  for name in ('a.png', 'b.PNG', 'c.txt', 'd.TXT', 'e', 'f.tar.gz', '.g', 'sub/h.txt'):
    touch(tmp_path / name)
  os.mkfifo(tmp_path / 'pipe.png')
  with socket.socket(socket.AF_UNIX) as one:
    one.bind(str(tmp_path / 's.png'))
  os.symlink('/dev/zero', tmp_path / 'zero.png')
  names, passed = listing(tmp_path)
  assert names == ['a.png', 'b.PNG']
  assert passed == {
    '.txt': 3,
    'without an ending': 1,
    '.gz': 1,
    'hidden': 1,
    'named pipe(s)': 1,
    'socket(s)': 1,
    'device(s)': 1,
  }
  assert listing(tmp_path, nested=False)[1]['.txt'] == 2


def test_each_folder_is_read_once(tmp_path):
  """Links from outside, to each other, up, down and in circles."""
  root, far = tmp_path / 'root', tmp_path / 'far'
  touch(root / 'own' / 'a.png')
  touch(far / 'deep' / 'b.png')
  touch(far / 'c.png')
  os.symlink(far / 'deep', root / 'a_link')  # below the next one
  os.symlink(far, root / 'b_link')
  os.symlink(far, root / 'c_link')
  os.symlink(root, far / 'back')
  os.symlink(root / 'own', far / 'own')
  os.symlink('.', root / 'self')
  os.symlink('..', root / 'up')
  os.symlink(far, far / 'deep' / 'circle')
  os.symlink('own', root / 'z_own')
  names, passed = listing(root)
  # a_link leads into far, and its own circle leads to all of it.
  files = [os.path.realpath(root / name) for name in names]
  assert sorted(files) == sorted(
    map(str, [far / 'c.png', far / 'deep' / 'b.png', root / 'own' / 'a.png'])
  )
  assert set(passed) == {SEEN}
  assert listing(root) == (names, passed)


def test_a_link_to_itself_is_no_folder(tmp_path):
  os.symlink('loop.png', tmp_path / 'loop.png')
  os.symlink('loop', tmp_path / 'loop')
  os.symlink('gone', tmp_path / 'gone.png')
  assert listing(tmp_path) == (['gone.png', 'loop.png'], {'without an ending': 1})


def test_training_reads_linked_classes_and_says_what_it_passes_over(tmp_path, caplog):
  for name in ('cat', 'dog'):
    save(tmp_path / 'far' / name / 'a.png', 16, 16, seed=ord(name[0]))
    (tmp_path / 'root').mkdir(exist_ok=True)
    os.symlink(tmp_path / 'far' / name, tmp_path / 'root' / name)
  touch(tmp_path / 'root' / 'cat' / 'notes.txt')
  os.symlink('loop.png', tmp_path / 'root' / 'cat' / 'loop.png')
  os.mkfifo(tmp_path / 'root' / 'dog' / 'pipe.png')
  source = sources.ClassFolder(tmp_path / 'root')
  assert source.classes == ('cat', 'dog') and len(source) == 2
  assert source.passed == {'.txt': 1, 'named pipe(s)': 1}
  assert list(source.left_out) == ['cat/loop.png']


def test_folders_of_an_evaluation(tmp_path):
  save(tmp_path / 'far' / 'a.png')
  os.mkfifo(tmp_path / 'far' / 'pipe.png')
  os.symlink('far', tmp_path / 'link')
  assert list(image_names.find(tmp_path)) == ['far/a']
  os.symlink(tmp_path / 'far', tmp_path / 'far' / 'again')
  assert list(image_names.find(tmp_path / 'far')) == ['a']
  touch(tmp_path / 'none' / 'a.txt')
  with pytest.raises(image_names.ImageSetError, match=r'passed over: 1 \.txt'):
    image_names.find(tmp_path / 'none')


def test_describe_names_the_most_frequent_kinds():
  counts = collections.Counter({f'.{i}': i for i in range(1, 13)})
  text = folder_listing.describe(counts)
  assert text.startswith('12 .12, 11 .11') and text.endswith('10 of 4 other kinds')
  assert folder_listing.describe({}) == ''
