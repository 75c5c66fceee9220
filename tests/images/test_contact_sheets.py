"""Tests of contact sheets and maps of numbers."""

import numpy as np
import pytest
import skimage.color

from sr3_jax.images import contact_sheets
from tests.support.pictures import noise


def test_sheet_shows_every_pixel():
  small, large = noise(8, 8), noise(32, 32)
  sheet = contact_sheets.sheet([[small, large], [large, None]], cell=64, gutter=4)
  # Without titles there is a gutter, then cells of 64 with 4 in between.
  assert sheet.shape == (4 + 2 * 68, 4 + 2 * 68, 3)
  np.testing.assert_array_equal(sheet[4:68, 4:68], small.repeat(8, 0).repeat(8, 1))
  np.testing.assert_array_equal(sheet[4:68, 72:136], large.repeat(2, 0).repeat(2, 1))
  assert (sheet[72:136, 72:136] == 255).all()
  assert (sheet[:, 68:72] == 255).all() and (sheet[68:72] == 255).all()


def test_sheet_fits_oblong_and_large_images():
  wide = np.zeros((20, 40, 3), np.uint8)
  sheet = contact_sheets.sheet([[wide]], cell=40, gutter=2)
  rows, columns = np.nonzero(sheet[..., 0] == 0)
  # The row is as high as its picture, not as the cell.
  assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 21, 2, 41)
  assert sheet.shape == (24, 44, 3)
  tall = contact_sheets.sheet([[wide, wide.swapaxes(0, 1)]], cell=40, gutter=2)
  rows, _ = np.nonzero(tall[:, :42, 0] == 0)
  assert (rows.min(), rows.max()) == (12, 31)
  assert contact_sheets.sheet([[noise(90, 90)]], cell=30, gutter=0).shape == (30, 30, 3)


def test_sheet_titles_and_labels():
  image = np.full((160, 160, 1), 200, np.uint8)
  plain = contact_sheets.sheet([[image] * 2] * 2)
  named = contact_sheets.sheet(
    [[image] * 2] * 2, ['Bicubic', 'A much, much longer title than fits']
  )
  assert named.shape[0] > plain.shape[0] and named.shape[1] == plain.shape[1]
  top = named.shape[0] - 2 * 164
  dark = named[:top, :, 0] < 128
  # Ink above both columns, none in the gutter between: titles stay in their columns.
  assert dark[:, 4:164].any() and dark[:, 168:328].any()
  assert not dark[:, 164:168].any() and not dark[:, :4].any()
  labelled = contact_sheets.sheet([[image]] * 2, row_labels=['first', ''])
  left = labelled.shape[1] - 164
  dark = labelled[:, :left, 0] < 128
  assert dark[:164].any() and not dark[168:].any()
  with pytest.raises(ValueError, match='at least one'):
    contact_sheets.sheet([[None]])


def test_heat_is_even_to_the_eye():
  ramp = np.tile(np.linspace(0, 3, 301), (20, 1))
  picture = contact_sheets.heat_map(ramp, 'levels')
  assert picture.dtype == np.uint8 and picture.shape[1] == 301
  lab = skimage.color.rgb2lab(picture[5:6, ::10])[0]
  assert np.all(np.diff(lab[:, 0]) > 0) and lab[0, 0] < 20 and lab[-1, 0] > 85
  steps = skimage.color.deltaE_ciede2000(lab[1:], lab[:-1])
  assert steps.max() < 2.5 * steps.min()
  # The scale is the same ramp, with a legend below.
  assert (picture[20:] < 60).all(-1).any()
  tiny = contact_sheets.heat_map(np.zeros((1, 1)), 'levels')
  assert tiny.shape[1] >= 200
  np.testing.assert_array_equal(tiny[0, 0], picture[5, 0])
