"""Tests that cached headers never show another folder than there is."""

import os
import shutil
import time

import jax
import numpy as np
import pytest
from etils import epath
from PIL import Image

from sr3_jax.data import image_headers, sources
from sr3_jax.images import folder_listing, image_files, pixels
from sr3_jax.images.folder_listing import FileNames
from sr3_jax.runtime import devices
from tests.support import datasets

warnings = datasets.warnings

OLD = 1_600_000_000  # seconds; long before any test


@pytest.fixture
def tree(tmp_path):
  """Make a tree in which sorting whole names differs from sorting folder by folder."""
  root = tmp_path / 'tree'
  for k, place in enumerate(('a', 'a-b', 'a/b', 'a.d', 'z')):
    for j in range(3):
      picture(root / place / f'{j}.png', 8 + k)
  picture(root / 'a.png', 40)
  (root / 'z' / 'torn.png').write_bytes(b'no picture')
  return root


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
  monkeypatch.setattr(image_headers, 'WORTH_CACHING', 1)
  return epath.Path(tmp_path / 'cache')


def picture(path, side, at=OLD):
  """Write a picture with an old time; all files have the same size in bytes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (side, side), (side, 0, 0)).save(path)
  os.truncate(path, 1000)
  os.utime(path, (at, at))


@pytest.fixture
def long_ago(monkeypatch):
  """Let files made by a test count as old, as no test can set their time of change."""
  monkeypatch.setattr(image_headers, '_TICK_NS', -(10**12))


def find(root, cache_folder=None, min_size=1, channels=0):
  return image_headers.find_usable(
    epath.Path(root),
    min_size=min_size,
    channels=channels,
    cache_folder=cache_folder,
  )


def same(one, other):
  return list(one.names) == list(other.names) and one[1:] == other[1:]


@pytest.fixture
def read(monkeypatch):
  """Return a list of the names of all files whose headers are read."""
  names, look = [], image_files.size

  def noted(path, **options):
    names.append(os.path.basename(path))
    return look(path, **options)

  monkeypatch.setattr(image_files, 'size', noted)
  return names


def test_names_are_sorted_as_texts(tree):
  names = list(folder_listing.list_files(epath.Path(tree), ('.png',)).names)
  found = [str(p.relative_to(tree)) for p in tree.rglob('*.png')]
  assert names == sorted(found) and len(names) == 17


def test_more_folders_than_are_listed_at_a_time(tmp_path):
  for i in range(3 * folder_listing._AHEAD + 1):
    (tmp_path / f'{i}' / 'in').mkdir(parents=True)
    (tmp_path / f'{i}' / 'in' / 'x.png').touch()
    (tmp_path / f'{i}.png').touch()
  names = list(folder_listing.list_files(epath.Path(tmp_path), ('.png',)).names)
  assert names == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*.png'))


def test_names_packed_in_a_block():
  texts = ['', 'a', 'grün/ß.png', '日本.png', 'broken\udcff.png', 'z']
  names = FileNames.pack(texts)
  assert list(names) == texts and names[-1] == 'z'
  assert names[1:5:2] == texts[1:5:2] and names[-2:] == texts[-2:]
  with pytest.raises(IndexError):
    names[6]
  wanted = np.array([True, False, True, False, True, False])
  assert list(names.select(wanted)) == texts[::2]
  assert names.equals(FileNames.pack(texts)) and not names.equals(FileNames.pack(['a']))
  # These names have the same letters, divided in another place.
  assert not FileNames.pack(['ab', 'c']).equals(FileNames.pack(['a', 'bc']))
  assert list(FileNames.pack([])) == []


def test_a_second_start_reads_no_header_but_of_what_is_broken(
  tree, cache_folder, read, long_ago
):
  first = find(tree, cache_folder)
  assert len(read) == 17
  read.clear()
  assert same(find(tree, cache_folder), first)
  assert read == ['torn.png']  # a disk may have failed, or the rights were missing
  assert same(find(tree), first)
  # The index holds sizes, so that another `min_size` reads no header.
  read.clear()
  assert same(find(tree, cache_folder, min_size=10), find(tree, min_size=10))
  assert read.count('0.png') == 5  # those of the call that keeps nothing
  assert first.left_out.keys() == {'z/torn.png'}
  picture(tree / 'a' / 'new.png', 30)
  (tree / 'a-b' / '1.png').unlink()
  read.clear()
  assert same(find(tree, cache_folder), find(tree))
  assert sorted(read[:2]) == ['new.png', 'torn.png'] and len(read) == 2 + 17


def _added(tree):
  picture(tree / 'a' / '10.png', 30)


def _removed(tree):
  (tree / 'a-b' / '0.png').unlink()


def _renamed(tree):
  (tree / 'a').rename(tree / 'y')


def _repaired(tree):
  picture(tree / 'z' / 'torn.png', 20)


def _upsampled(tree):
  """Write over a file: neither the list of names nor the time of the folder changes."""
  before = os.stat(tree / 'a').st_mtime_ns
  picture(tree / 'a' / '1.png', 64, OLD + 5)
  assert os.stat(tree / 'a').st_mtime_ns == before


def _upsampled_at_the_same_time(tree):
  """Change a file but not its time, as `cp -p` may; only the time of change tells."""
  before = os.stat(tree / 'a' / '1.png')
  picture(tree / 'a' / '1.png', 64)
  after = os.stat(tree / 'a' / '1.png')
  assert (after.st_size, after.st_mtime) == (before.st_size, before.st_mtime)


def _emptied(tree):
  shutil.rmtree(tree / 'z')
  (tree / 'z').mkdir()


@pytest.mark.parametrize(
  'change',
  [
    _added,
    _removed,
    _renamed,
    _repaired,
    _upsampled,
    _upsampled_at_the_same_time,
    _emptied,
  ],
)
def test_a_changed_folder_is_seen_as_it_is(tree, cache_folder, change, long_ago):
  before = find(tree, cache_folder, min_size=10)
  time.sleep(0.01)  # a tick of the clock
  change(tree)
  after = find(tree, cache_folder, min_size=10)
  assert same(after, find(tree, min_size=10))
  assert not same(after, before)
  assert same(find(tree, cache_folder, min_size=10), after)


def test_a_link_that_leads_elsewhere_is_seen(tree, cache_folder, long_ago):
  link = tree / 'link.png'
  link.symlink_to(tree / 'a' / '0.png')
  assert 'link.png' in find(tree, cache_folder, min_size=20).left_out
  link.unlink()
  link.symlink_to(tree / 'a.png')
  assert list(find(tree, cache_folder, min_size=20).names) == ['a.png', 'link.png']


def test_what_changed_just_now_is_not_trusted(tree, cache_folder, read):
  find(tree, cache_folder, min_size=20)
  read.clear()
  # All files were made a moment ago, so those left out may still be changing.
  find(tree, cache_folder, min_size=20)
  assert len(read) == 16


def test_a_used_file_that_shrank_is_named_when_it_is_read(tree, cache_folder, long_ago):
  options = {'path': str(tree), 'min_size': 8, 'cache_folder': cache_folder}
  sources.make_source('folder', **options)
  (tree / 'a' / '0.png').write_bytes(b'no picture any more')
  source = sources.make_source('folder', **options)
  names = [source.name(i) for i in range(len(source))]
  with pytest.raises(pixels.ImageError, match='not a JPEG'):
    source[names.index('a/0.png')]


def test_a_damaged_index_is_read_anew(tree, cache_folder, warnings):
  truth = find(tree, cache_folder)
  (file,) = cache_folder.iterdir()
  whole = file.read_bytes()
  for data in (b'', whole[:-200], b'PK' + whole, whole[: len(whole) // 2]):
    file.write_bytes(data)
    assert same(find(tree, cache_folder), truth)
    assert 'damaged' in warnings[-1]
    loaded = image_headers.load_index(file, {})
    assert file.read_bytes() == whole or loaded is None


def test_columns_that_do_not_fit_are_refused(tree, cache_folder):
  find(tree, cache_folder)
  (file,) = cache_folder.iterdir()
  with np.load(file) as stored:
    columns = dict(stored)
  limit = image_files.MAX_PIXELS
  settings = {'folder': str(tree), 'channels': 0, 'max_pixels': limit}
  assert image_headers.load_index(file, settings) is not None
  for change in (
    {'height': columns['height'][1:]},
    {'kind': columns['kind'] + 9},
    {'ends': columns['ends'][::-1].copy()},
    {'stamp': columns['stamp'].astype(np.float64)},
    {'block': columns['block'][1:]},
  ):
    with file.open('wb') as opened:
      np.savez(opened, **(columns | change))
    assert image_headers.load_index(file, settings) is None


def test_another_version_or_folder_is_read_anew(tree, cache_folder, monkeypatch, read):
  find(tree, cache_folder)
  read.clear()
  monkeypatch.setitem(image_headers._MADE_BY, 'pillow', '1.0')
  find(tree, cache_folder)
  assert len(read) == 17
  shutil.copytree(tree, tree.parent / 'twin')
  read.clear()
  find(tree.parent / 'twin', cache_folder)
  assert len(read) == 17


def test_an_index_that_cannot_be_saved_is_a_warning(
  tree, tmp_path, monkeypatch, warnings
):
  monkeypatch.setattr(image_headers, 'WORTH_CACHING', 1)
  (tmp_path / 'file').write_text('')
  truth = find(tree)
  assert same(find(tree, epath.Path(tmp_path / 'file')), truth)
  assert len(warnings) == 1 and 'read again' in warnings[0]
  assert not list(tmp_path.rglob('.*.tmp'))


def test_small_folders_leave_nothing_behind(tree, tmp_path):
  find(tree, epath.Path(tmp_path / 'cache'))
  assert not (tmp_path / 'cache').exists()


def test_rasters_keep_their_types(tmp_path, cache_folder, long_ago):
  """The type of the first file decides, even if the cached index says another."""
  root = tmp_path / 'rasters'
  root.mkdir()
  for i, dtype in enumerate((np.uint16, np.uint8, np.uint16)):
    np.save(root / f'{i}.npy', np.zeros((9, 9, 2), dtype))
  for _ in range(2):
    found = find(root, cache_folder, channels=2)
    assert list(found.names) == ['0.npy', '2.npy'] and found.dtype == np.uint16
    assert found.left_out == {'1.npy': 'uint8, others are uint16'}
  (root / '0.npy').unlink()
  found = find(root, cache_folder, channels=2)
  assert list(found.names) == ['1.npy'] and found.dtype == np.uint8
  assert found.left_out == {'2.npy': 'uint16, others are uint8'}


def test_classes_of_a_cached_folder(tree, cache_folder, long_ago):
  (tree / 'a.png').unlink()
  shutil.rmtree(tree / 'a-b')
  shutil.rmtree(tree / 'a.d')

  def make(**given):
    return sources.make_source('classes', path=str(tree), min_size=9, **given)

  for _ in range(2):
    source = make(cache_folder=cache_folder)
    assert source.classes == ('a', 'z')
    labels = {source.name(i): int(source[i]['label']) for i in range(len(source))}
    assert labels == {n: int(n[0] == 'z') for n in labels} and len(labels) == 6
    assert labels == {(s := make()).name(i): s[i]['label'] for i in range(len(labels))}


def test_the_cache_is_beside_compiled_programs(monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  try:
    jax.config.update('jax_compilation_cache_dir', None)
    assert devices.cache_folder('folders') is None
    jax.config.update('jax_compilation_cache_dir', '/somewhere')
    assert os.fspath(devices.cache_folder('folders')) == '/somewhere/folders'
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
