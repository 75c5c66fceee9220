"""Folders that belong together: who is matched, who is left out and why."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from sr3_jax.evaluation import image_folders
from sr3_jax.evaluation.image_folders import ImageSetError


def save(path, shape=(16, 20), value=0):
  """A picture of noise [H, W, 3], which is returned."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(value).integers(0, 256, (*shape, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return pixels


def test_names_match_across_extensions_and_subfolders(tmp_path):
  for i, name in enumerate(('a', 'b.c', 'sub/a', 'sub/deep/z')):
    save(tmp_path / 'truth' / f'{name}.png', value=i)
    save(tmp_path / 'mine' / f'{name}.JPG', value=i)
    save(tmp_path / 'theirs' / f'{name}.webp', value=i)
    save(tmp_path / 'small' / f'{name}.bmp', (4, 5), value=i)
  save(tmp_path / 'truth' / '.hidden.png')
  save(tmp_path / 'truth' / '.cache' / 'a.png')
  (tmp_path / 'mine' / 'notes.txt').write_text('no image')
  outputs = {'mine': tmp_path / 'mine', 'theirs': tmp_path / 'theirs'}
  items, left_out = image_folders.match(tmp_path / 'truth', outputs, tmp_path / 'small')
  assert left_out == {}
  assert [item.name for item in items] == ['a', 'b.c', 'sub/a', 'sub/deep/z']
  for item in items:
    assert (item.size, item.input_size) == ((16, 20), (4, 5))
    below = {k: os.fspath(p.relative_to(tmp_path)) for k, p in item.files.items()}
    assert below == {
      'truth': f'truth/{item.name}.png',
      'input': f'small/{item.name}.bmp',
      'mine': f'mine/{item.name}.JPG',
      'theirs': f'theirs/{item.name}.webp',
    }
  items, _ = image_folders.match(tmp_path / 'truth', outputs)
  assert items[0].input_size is None and 'input' not in items[0].files


def test_photographs_of_files(tmp_path):
  items = [image_folders.Item(n, {}, (8, 8), None) for n in ('a b', 'c', 'sub/d')]
  path = tmp_path / 'of.txt'
  path.write_text('sub/d x.png\n\na b x.png\nc y\nother z\n')
  assert image_folders.photographs(path, items).tolist() == [0, 1, 0]
  path.write_text('a b x\nc y\n')
  with pytest.raises(ImageSetError, match='no photograph for sub/d '):
    image_folders.photographs(path, items)
  path.write_text('a b x\na b y\n')
  with pytest.raises(ImageSetError, match=':2: a second photograph for a b'):
    image_folders.photographs(path, items)


def test_what_does_not_fit_is_left_out_with_its_reason(tmp_path):
  truth, mine = tmp_path / 'truth', tmp_path / 'mine'
  for name in ('good', 'alone', 'broken', 'smaller'):
    save(truth / f'{name}.png')
  save(mine / 'good.png')
  save(mine / 'smaller.png', (16, 19))
  save(mine / 'foreign.png')
  (mine / 'broken.png').write_bytes(b'no picture')
  items, left_out = image_folders.match(truth, {'mine': mine})
  assert [item.name for item in items] == ['good']
  assert set(left_out) == {'alone', 'broken', 'foreign', 'smaller'}
  assert left_out['alone'] == f'not in {mine}'
  assert left_out['foreign'] == f'not in {truth}'
  assert str(mine / 'broken.png') in left_out['broken']
  assert left_out['smaller'] == 'sizes differ: truth 20 x 16, mine 19 x 16'


def test_nothing_usable_is_one_line(tmp_path):
  truth = tmp_path / 'truth'
  save(truth / 'a.png')
  save(tmp_path / 'mine' / 'b.png')
  (tmp_path / 'empty').mkdir()
  save(tmp_path / 'twice' / 'a.jpg')
  save(tmp_path / 'twice' / 'a.png')
  mistakes = {
    'mine': f'{truth}: no image fits those of the other folders; a: not in ',
    'empty': f'{tmp_path / "empty"}: no image files',
    'nowhere': f'{tmp_path / "nowhere"}: no such folder',
    'truth/a.png': f'{truth / "a.png"}: is a file',
    'twice': f'{tmp_path / "twice" / "a.png"}: a.jpg has the same name',
  }
  for name, message in mistakes.items():
    with pytest.raises(ImageSetError) as error:
      image_folders.match(truth, {'mine': tmp_path / name})
    assert str(error.value).startswith(message) and '\n' not in str(error.value)


def test_batches_are_of_one_size_and_padded(tmp_path, caplog):
  """Three sizes (one differs in the input only), one image that breaks halfway."""
  truth, small = tmp_path / 'truth', tmp_path / 'small'
  pixels = {}
  for i in range(11):
    shape = (16, 20) if i % 3 else (24, 24)
    pixels[f'{i:02d}'] = save(truth / f'{i:02d}.png', shape, i)
    save(small / f'{i:02d}.png', (8, 10) if i == 4 else (shape[0] // 4, 5), i)
  items, left_out = image_folders.match(truth, {'mine': truth}, small)
  assert not left_out and len(items) == 11
  data = (truth / '07.png').read_bytes()
  (truth / '07.png').write_bytes(data[: len(data) // 2])
  with caplog.at_level(logging.WARNING, 'absl'):
    batches = list(image_folders.batches(items, 4))
  assert '07.png' in caplog.text
  assert [number for number, _ in batches] == list(range(len(batches)))
  assert sorted(batch['mask'].sum() for _, batch in batches) == [1, 2, 3, 4]
  seen = []
  for _, batch in batches:
    real = batch['mask']
    assert batch['truth'].dtype == np.uint8 and len(batch['truth']) == 4
    assert batch['truth'].shape == batch['mine'].shape
    assert np.all(batch['index'][~real] == -1) and not batch['truth'][~real].any()
    for row in np.flatnonzero(real):
      place = batch['index'][row]
      seen.append(int(place))
      np.testing.assert_array_equal(batch['truth'][row], pixels[items[place].name])
      assert batch['input'][row].shape[:2] == items[place].input_size
  assert sorted(seen) == [i for i in range(11) if i != 7]


def test_a_batch_of_broken_images_is_all_padding(tmp_path):
  save(tmp_path / 'a.png')
  items, _ = image_folders.match(tmp_path, {'mine': tmp_path})
  data = (tmp_path / 'a.png').read_bytes()
  (tmp_path / 'a.png').write_bytes(data[:100])
  ((_, batch),) = image_folders.batches(items, 4)
  assert not batch['mask'].any() and np.all(batch['index'] == -1)


def test_an_image_that_lies_about_its_size_is_padding(tmp_path):
  """EXIF behind the pixels of a PNG: seen only when all of it is read."""
  for name in ('a', 'b'):
    save(tmp_path / f'{name}.png')
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.open(tmp_path / 'a.png').save(tmp_path / 'a.png', exif=exif)
  data = (tmp_path / 'a.png').read_bytes()
  at = data.index(b'eXIf') - 4
  size = 12 + int.from_bytes(data[at : at + 4])
  chunk, end = data[at : at + size], data.index(b'IEND') - 4
  (tmp_path / 'a.png').write_bytes(
    data[:at] + data[at + size : end] + chunk + data[end:]
  )
  items, _ = image_folders.match(tmp_path, {'mine': tmp_path})
  ((_, batch),) = image_folders.batches(items, 4)
  assert batch['index'].tolist() == [-1, 1, -1, -1]


def test_the_fingerprint_changes_with_any_file(tmp_path):
  for name in ('truth/a', 'truth/b', 'mine/a', 'mine/b'):
    save(tmp_path / f'{name}.png')

  def find(name='mine'):
    return image_folders.match(tmp_path / 'truth', {name: tmp_path / 'mine'})[0]

  first = image_folders.fingerprint(find())
  assert first == image_folders.fingerprint(find()) and len(first) == 16
  found = {
    first,
    image_folders.fingerprint(find('other')),
    image_folders.fingerprint([]),
  }
  found.add(image_folders.fingerprint(find()[:1]))
  os.utime(tmp_path / 'mine' / 'a.png', ns=(1, 1))
  found.add(image_folders.fingerprint(find()))
  save(tmp_path / 'mine' / 'a.png', value=3)
  os.utime(tmp_path / 'mine' / 'a.png', ns=(1, 1))
  with (tmp_path / 'mine' / 'a.png').open('ab') as file:
    file.write(b'0')
  os.utime(tmp_path / 'mine' / 'a.png', ns=(1, 1))
  found.add(image_folders.fingerprint(find()))
  assert len(found) == 6


def test_what_metrics_leave_out_is_named():
  """Each by its own rule; the border counts for SSIM, and the commonest size wins."""
  sizes = {
    'a': (32, 32),
    'b': (32, 32),
    'c': (16, 16),
    'tiny': (8, 8),
    'wide': (32, 40),
  }
  items = [image_folders.Item(n, {}, size, None) for n, size in sizes.items()]
  networks = {'lpips_alex': 31, 'lpips_vgg': 16}
  found = {
    tuple(entry['metrics']): entry['why']
    for entry in image_folders.unmeasured(items, 3, networks)
  }
  assert found == {
    ('ssim', 'ssim_y'): '2 of 5 images are left out, shorter than the window of 11 '
    'pixels: c, tiny.',
    (
      'detail',
      'spectrum_db',
    ): '3 of 5 images are left out, not 32 x 32: c, tiny, wide.',
    ('lpips_alex',): '2 of 5 images are left out, smaller than 31 x 31: c, tiny.',
    ('lpips_vgg',): '1 of 5 images are left out, smaller than 16 x 16: tiny.',
  }
  assert not image_folders.unmeasured(items[:2], 3, networks)
  left, reasons = image_folders.without_border(items, 4)
  assert [item.name for item in left] == ['a', 'b', 'c', 'wide']
  assert reasons == {'tiny': '--border=4 leaves nothing of it'}
  with pytest.raises(ImageSetError, match='--border=20 leaves nothing of images of 8'):
    image_folders.without_border(items, 20)
