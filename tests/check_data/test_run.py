"""Tests of --mode=check-data on folders with planted faults, and on other sources."""

import collections
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageOps

from sr3_jax.check_data import findings as check_data_findings
from sr3_jax.check_data import page as check_data_page
from sr3_jax.check_data import run as check_data_run
from sr3_jax.data import batches as data_batches
from sr3_jax.data import crops, sources
from tests.support import runs

FOLDER = pathlib.Path(skimage.data.__file__).parent
SIDE = 128


def _parts(name, count):
  """Return parts of a photograph, no two of the same place."""
  image = Image.open(FOLDER / name).convert('RGB')
  places = [
    (left, top)
    for top in range(0, image.height - SIDE + 1, SIDE)
    for left in range(0, image.width - SIDE + 1, SIDE)
  ]
  boxes = [(x, y, x + SIDE, y + SIDE) for x, y in places[:count]]
  return [image.crop(box) for box in boxes]


def _plant(root):
  """Write training and evaluation images with every fault that can be found."""
  train, held_out = root / 'train', root / 'held_out'
  (train / 'below').mkdir(parents=True)
  held_out.mkdir()
  for i, part in enumerate(_parts('astronaut.png', 8) + _parts('coffee.png', 8)):
    part.save(train / f'photo_{i:02d}.jpg', quality=92)
  for i, part in enumerate(_parts('chelsea.png', 6)):
    part.save(held_out / f'cat_{i}.png')

  def one(number):
    return Image.open(train / f'photo_{number:02d}.jpg')

  one(3).resize((80, 80)).save(held_out / 'leak_small.jpg', quality=50)
  ImageOps.mirror(one(4)).save(held_out / 'leak_mirrored.png')
  shutil.copy(train / 'photo_05.jpg', held_out / 'leak_same.jpg')
  one(6).save(train / 'below' / 'copy.webp', quality=60)
  whole = (train / 'photo_07.jpg').read_bytes()
  (train / 'truncated.jpg').write_bytes(whole[: len(whole) * 2 // 3])
  (train / 'empty.jpg').write_bytes(b'')
  one(8).resize((20, 20)).save(train / 'small.png')
  for level in (250, 255):
    Image.new('RGB', (SIDE, SIDE), (level, level, level)).save(train / f'{level}.png')
  exif = Image.Exif()
  exif[0x0112] = 6
  _parts('ihc.png', 3)[2].convert('CMYK').save(train / 'cmyk.jpg')
  _parts('ihc.png', 4)[3].save(train / 'turned.jpg', exif=exif)


def _config(**settings):
  config = runs.get_config()
  config.data.image_size = 32
  config.data.reduce = (1,)
  config.data.update(settings)
  return config


Output = collections.namedtuple('Output', 'report page printed folder')


def _run(config, workdir, capsys=None):
  check_data_run.check_data_run(config, workdir)
  folder = workdir / 'check'
  report = json.loads((folder / 'check.json').read_text())
  printed = capsys.readouterr().out if capsys else ''
  return Output(report, (folder / 'report.html').read_text(), printed, folder)


@pytest.fixture(scope='module')
def planted(tmp_path_factory):
  root = tmp_path_factory.mktemp('planted')
  _plant(root)
  paths = {'path': str(root / 'train'), 'eval_path': str(root / 'held_out')}
  config = _config(source='folder', **paths)
  return _run(config, root / 'run')


def test_leaks_are_found_and_come_first(planted):
  found = {entry['image']: entry for entry in planted.report['leaks']}
  assert {name: entry['of'] for name, entry in found.items()} == {
    'leak_small.jpg': 'photo_03.jpg',
    'leak_mirrored.png': 'photo_04.jpg',
    'leak_same.jpg': 'photo_05.jpg',
  }
  assert [name for name, entry in found.items() if entry['mirrored']] == [
    'leak_mirrored.png'
  ]
  assert [name for name, entry in found.items() if entry['identical']] == [
    'leak_same.jpg'
  ]
  first = planted.report['findings'][0]
  assert first['level'] == 'serious'
  assert first['title'].startswith('3 of 9 (33.3 %) evaluation images')
  assert 'leak_mirrored.png' in first['text']


def test_what_cannot_be_used_is_named_with_its_reason(planted):
  training = planted.report['sets']['training']
  assert training['images'] == 24 and training['usable'] == 21
  assert training['broken'].keys() == {'truncated.jpg', 'empty.jpg'}
  assert training['broken']['empty.jpg'] == 'zero bytes'
  assert 'truncated' in training['broken']['truncated.jpg']
  assert training['too_small'] == ['small.png']
  assert training['traits'] == {'turned (EXIF)': ['turned.jpg']}
  assert training['kinds']['JPEG, CMYK'] == 1
  assert training['jpeg_quality'] == 92
  evaluation = planted.report['sets']['evaluation']
  assert (evaluation['images'], evaluation['usable']) == (9, 9)
  assert evaluation['sides']['0'] == 80 and evaluation['sides']['100'] == 128


def test_copies_within_a_set(planted):
  training = planted.report['sets']['training']
  assert [(c['image'], c['of']) for c in training['copies']] == [
    ('photo_06.jpg', str(pathlib.Path('below') / 'copy.webp'))
  ]
  # The numbers are those of the whole set, in which unusable images lie between.
  assert {'empty.jpg', 'small.png'}.isdisjoint(c['of'] for c in training['copies'])
  # Blank images are alike without being copies.
  assert sorted(training['plain']) == ['250.png', '255.png']
  assert planted.report['sets']['evaluation']['copies'] == []


def test_findings_come_worst_first(planted):
  levels = [finding['level'] for finding in planted.report['findings']]
  assert levels == sorted(levels, key=check_data_findings.LEVELS.index)
  titles = ' '.join(finding['title'] for finding in planted.report['findings'])
  for part in ('2 of 24', 'too small', 'near copies', 'almost no pattern'):
    assert part in titles, part


def test_the_page_needs_nothing_else(planted):
  page = planted.page
  assert page.startswith('<!DOCTYPE html>') and page.rstrip().endswith('</html>')
  assert not re.search(r'(?:src|href)="(?!data:|#)', page)
  for section in ('findings', 'leaks', 'copies-training', 'crops', 'sizes', 'method'):
    assert f'id="{section}"' in page and f'href="#{section}"' in page
  # Three leaks, a copy, and sixteen examples with their inputs, two pictures each.
  assert page.count('<img src="data:image/webp') == 2 * (3 + 1 + 16)
  assert 'truncated.jpg' in page
  assert sorted(f.name for f in planted.folder.iterdir()) == [
    'check.json',
    'report.html',
  ]


def test_examples_are_those_of_training(tmp_path, monkeypatch):
  for i, part in enumerate(_parts('astronaut.png', 3)):
    part.save(tmp_path / f'{i}.png')
  Image.new('RGB', (20, 20)).save(tmp_path / '0_small.png')  # training leaves it out
  config = _config(source='folder', path=str(tmp_path), flip=True, rotate=True)
  batches = data_batches.train_batches(
    sources.make_source('folder', path=str(tmp_path), min_size=32),
    crops.Cut(32, 'random', flip=True, rotate=True),
    batch_size=16,
    seed=config.seed,
  )
  expected = next(batches)['image']
  batches.close()
  shown = []
  monkeypatch.setattr(
    check_data_page, 'sheets_section', lambda *given: shown.append(given)
  )
  monkeypatch.setattr(check_data_page, 'render', lambda *given: '')
  check_data_run.check_data_run(config, tmp_path / 'run')
  *_, columns, rows = shown[-1]
  assert columns == ['input', 'crop']
  np.testing.assert_array_equal([crop for _, (_, crop) in rows], expected)
  # The inputs are the crops as the task of the configuration downsamples them.
  downsampled = [
    np.asarray(Image.fromarray(crop).resize((8, 8), Image.Resampling.BICUBIC))
    for crop in expected
  ]
  inputs = np.array([low for _, (low, _) in rows])
  np.testing.assert_allclose(inputs, downsampled, atol=1)


def test_classes_and_labels(tmp_path, capsys):
  parts = _parts('astronaut.png', 12)
  for name, count in (('boat', 11), ('car', 1)):
    (tmp_path / 'a' / name).mkdir(parents=True)
    for i in range(count):
      parts.pop().save(tmp_path / 'a' / name / f'{i}.png')
  (tmp_path / 'b' / 'car').mkdir(parents=True)
  _parts('chelsea.png', 1)[0].save(tmp_path / 'b' / 'car' / '0.png')
  paths = {'path': str(tmp_path / 'a'), 'eval_path': str(tmp_path / 'b')}
  config = _config(source='classes', **paths)
  config.model.num_classes = 1
  config.task.name = 'generation'
  found = _run(config, tmp_path / 'run', capsys)
  assert found.report['sets']['training']['labels'] == {'boat': 11, 'car': 1}
  serious = [f['title'] for f in found.report['findings'] if f['level'] == 'serious']
  assert serious == [
    'model.num_classes=1, and the data has 2 classes',
    'The two sets have different classes',
  ]
  assert 'boat' in found.printed and found.printed.startswith('serious: ')
  assert 'look:    Classes differ in size: car has 1 images, boat 11' in found.printed
  assert 'id="classes"' in found.page
  assert '<img' in found.page and 'input, example' not in found.page


def test_arrays_and_an_evaluation_set_that_is_the_training_set(tmp_path, capsys):
  parts = np.stack([np.asarray(part) for part in _parts('astronaut.png', 10)])
  parts[7] = parts[2]
  labels = np.arange(10) % 2
  np.savez(
    tmp_path / 'a.npz', x_train=parts, y_train=labels, x_test=parts, y_test=labels
  )
  config = _config(source='arrays', path=str(tmp_path / 'a.npz'), eval_split='train')
  found = _run(config, tmp_path / 'run', capsys)
  assert found.printed.startswith(
    'serious: The evaluation images are the training images'
  )
  assert list(found.report['sets']) == ['training']
  training = found.report['sets']['training']
  assert training['kinds'] == {'3 x uint8': 10}
  assert training['labels'] == {'0': 5, '1': 5}
  assert [(c['image'], c['of'], c['identical']) for c in training['copies']] == [
    ('a.npz:train[7]', 'a.npz:train[2]', True)
  ]


def test_scikit_images_photographs_are_clean(tmp_path, capsys):
  found = _run(_config(source='photos'), tmp_path / 'run', capsys)
  assert found.report['leaks'] == []
  assert 'note:    No evaluation image is a near copy of a training image' in (
    found.printed
  )
  assert not [f for f in found.report['findings'] if f['level'] == 'serious']
  settings = {entry['setting']: entry['value'] for entry in found.report['advice']}
  assert settings['--config'] == 'small/photo_x4'
  assert settings['data.crop'] == 'random'
  assert settings['train.learning_rate'] == '1e-3'


def test_a_set_of_which_nothing_is_of_use_still_has_a_report(tmp_path, capsys):
  (tmp_path / 'small').mkdir()
  Image.new('RGB', (9, 9), 'red').save(tmp_path / 'small' / 'a.png')
  config = _config(source='folder', path=str(tmp_path / 'small'))
  found = _run(config, tmp_path / 'run', capsys)
  assert 'serious: No image of the training set can be used' in found.printed
  assert 'id="crops"' not in found.page


def test_mistakes_are_data_errors(tmp_path):
  for settings, message in (
    ({'source': 'folder', 'path': str(tmp_path / 'gone')}, 'no such folder'),
    ({'source': 'folder', 'path': ''}, 'needs --config.data.path=PATH'),
  ):
    with pytest.raises(sources.DataError, match=message):
      check_data_run.check_data_run(_config(**settings), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
