"""Tests of what is found in pairs: shift, brightness, sizes, partners."""

import json
import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from sr3_jax.check_data import pair_check, pair_findings
from sr3_jax.check_data.run import check_data_run
from sr3_jax.images import image_files, resizing
from tests.support import pair_folders


def moved(plane, down, right):
  return scipy.ndimage.shift(plane, (down, right), order=3, mode='nearest')


def resized(plane, side):
  return resizing.resize(plane[..., None].astype(np.float32), side, side)[..., 0]


@pytest.fixture(scope='module')
def photo():
  return skimage.data.camera().astype(np.float32) / 255


def compare(target, given, ratio=1):
  return pair_check.compare(
    target.astype(np.float32), given.astype(np.float32), Fraction(ratio)
  )


@pytest.mark.parametrize('noise', [0.0, 0.1, 0.4])
def test_shifts_are_found_in_noise(photo, noise):
  drawn = np.random.default_rng(0).normal(0, noise, photo.shape)
  found = compare(photo, moved(photo, 3, -5) + drawn)
  assert (found.down, found.right) == pytest.approx((3, -5), abs=0.15)
  assert found.gain == pytest.approx(1, abs=0.02)
  assert found.offset == pytest.approx(0, abs=4)
  assert compare(photo, photo + drawn).distance <= 0.15


def test_shifts_are_in_pixels_of_the_target_at_any_scale(photo):
  low = resized(moved(photo, 4, -8), 128)
  found = compare(photo, low, 4)
  assert (found.down, found.right) == pytest.approx((4, -8), abs=0.3)
  found = compare(resized(photo, 256), moved(photo, 6, 2), Fraction(1, 2))
  assert (found.down, found.right) == pytest.approx((3, 1), abs=0.15)
  found = compare(resized(photo, 768), moved(photo, 2, 0), Fraction(3, 2))
  assert (found.down, found.right) == pytest.approx((3, 0), abs=0.3)


def test_brightness_is_a_line_and_may_be_inverted(photo):
  found = compare(photo, 0.5 * photo + 0.1)
  assert (found.gain, found.offset) == pytest.approx((0.5, 25.5), abs=0.01)
  found = compare(photo, 1 - moved(photo, 2, 2))
  assert (found.gain, found.offset) == pytest.approx((-1, 255), abs=0.5)
  assert (found.down, found.right) == (2, 2)


def test_nothing_is_said_of_images_with_nothing_in_common(photo):
  other = np.random.default_rng(0).random(photo.shape)
  for given in (other, np.full_like(photo, 0.5)):
    found = compare(photo, given)
    assert math.isnan(found.down) and math.isnan(found.gain)
    assert 'too little in common' in pair_check.described(found)


def shift_inputs(root, down, right):
  for path in (root / 'inputs').iterdir():
    image = image_files.read(path)
    image_files.write(path, np.roll(image, (down, right), (0, 1)))


def checked(root, **data):
  config = pair_folders.config(root, **data)
  check_data_run(config, root / 'work')
  return json.loads((root / 'work' / 'check' / 'check.json').read_text())


def test_check_data_tells_what_is_wrong_with_pairs(tmp_path, capsys):
  for part in ('train', 'held'):
    pair_folders.write(tmp_path / part, size=(64, 72))
  train, held = tmp_path / 'train', tmp_path / 'held'
  shift_inputs(train, 4, -3)
  (train / 'targets' / 'cell_1.png').rename(train / 'targets' / 'other.png')
  image_files.write(train / 'inputs' / 'cell_3.png', np.zeros((32, 36, 3), np.uint8))
  data = {
    'eval_path': str(held / 'targets'),
    'eval_input_path': str(held / 'inputs'),
  }
  report = checked(train, **data)
  text = capsys.readouterr().out
  found = report['pairs']['training']
  assert set(found['unpaired']) == {
    'other.png',
    f'{train}/inputs/cell_1.png',
  }
  assert list(found['misfit']) == ['cell_3.png']
  assert 'task.pair_scale=2 would fit' in found['misfit']['cell_3.png']
  shifts = [(one['down'], one['right']) for one in found['compared'].values()]
  np.testing.assert_allclose(shifts, [(4, -3)] * 2, atol=0.2)
  gains = [one['gain'] for one in found['compared'].values()]
  np.testing.assert_allclose(gains, 0.5, atol=0.05)
  assert 'Inputs of 2 of 2 compared pairs of the training set do not lie' in text
  assert 'Medians: 4.0 down, 3.0 left' in text and 'all about alike' in text
  assert '2 files of the training set have no partner' in text
  assert '1 of 3 pairs of the training set' in text
  assert 'Inputs of the pairs of the evaluation set lie on their targets' in text
  # The held-out targets are those of training, one of which has lost its input.
  assert '3 of 4 (75.0 %) evaluation images are in the training set' in text
  page = (train / 'work' / 'check' / 'report.html').read_text()
  assert 'Pairs of the training set' in page and 'Overlay' in page
  assert 'input 4.0 px down, 3.0 px left' in page


def test_a_wrong_scale_is_named_with_the_right_one(tmp_path):
  pair_folders.write(tmp_path, scale=4)
  config = pair_folders.config(tmp_path)
  source = pair_folders.source(config)
  check = pair_check.check_pairs(config, 'training', source)
  assert len(check.misfit) == 4 and check.fits == {'4': 4}
  found = list(pair_findings.find_in_pairs(check))
  assert [one.level for one in found] == ['serious', 'serious']
  assert 'task.pair_scale=4 would fit 4 of them' in found[1].text


def test_pairs_without_pixels_in_common_are_a_note(tmp_path):
  pair_folders.write(tmp_path)
  shutil.rmtree(tmp_path / 'inputs')
  rng = np.random.default_rng(0)
  for i in range(4):
    noise = rng.integers(0, 256, (48, 60, 3), dtype=np.uint8)
    image_files.write(tmp_path / 'inputs' / f'cell_{i}.png', noise)
  config = pair_folders.config(tmp_path)
  check = pair_check.check_pairs(config, 'training', pair_folders.source(config))
  (found,) = pair_findings.find_in_pairs(check)
  assert found.level == 'note' and 'cannot be told' in found.title
