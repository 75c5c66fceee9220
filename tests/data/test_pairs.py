"""Tests of pairs: who belongs to whom, and that both are cropped at one place."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from sr3_jax.data import batches, crops, input_pipeline, sources
from sr3_jax.data.pairs import Pairs, key_of
from sr3_jax.data.records import DataError
from sr3_jax.images import image_files, pair_grid, rasters
from sr3_jax.images.pixels import ImageError
from tests.support import pair_folders
from tests.support.datasets import coordinates

RATIOS = (1.0, 2.0, 4.0, 1.5, 0.5, 1 / 3)


class Maps:
  """Pairs of maps of where a pixel is, in pixels of the target: [H, W, 2] of both."""

  classes = ()
  channels = input_channels = 2
  dtype = input_dtype = np.dtype(np.float32)

  def __init__(self, scale: float, sizes=((60, 72),) * 3):
    self.ratio, self.sizes = pair_grid.side_ratio(scale), sizes

  def __len__(self):
    return len(self.sizes)

  def __getitem__(self, index):
    height, width = self.sizes[index]
    sides = (round(height / self.ratio), round(width / self.ratio))
    step = float(self.ratio)
    given = (coordinates(*sides)[..., :2].astype(np.float32) + 0.5) * step - 0.5
    target = coordinates(height, width)[..., :2].astype(np.float32)
    return {'image': target, 'condition': given}

  def name(self, index):
    return f'map {index}'


def corners(crop):
  return crop[[0, 0, -1, -1], [0, -1, 0, -1]]


@pytest.mark.parametrize('scale', RATIOS)
@pytest.mark.parametrize('crop', ['random', 'center'])
def test_both_are_cropped_at_one_place_and_turned_alike(scale, crop):
  source = Maps(scale)
  reduce = (1, 2) if crop == 'random' else (1,)
  cut = crops.Cut(12, crop, flip=True, rotate=True, reduce=reduce, ratio=source.ratio)
  stream = batches.train_batches(source, cut, batch_size=24, seed=3)
  batch = next(stream)
  stream.close()
  images, given = batch['image'], batch['condition']
  side = round(12 / source.ratio)
  assert images.shape == (24, 12, 12, 2) and given.shape == (24, side, side, 2)
  # The means of what two crops show are the place where they are.
  np.testing.assert_allclose(images.mean((1, 2)), given.mean((1, 2)), atol=1e-3)
  # A step to the right is one in the same direction of the map, in both.
  ways = images[:, 0, -1] - images[:, 0, 0], given[:, 0, -1] - given[:, 0, 0]
  np.testing.assert_array_equal(*(np.sign(np.round(way, 3)) for way in ways))
  downs = images[:, -1, 0] - images[:, 0, 0], given[:, -1, 0] - given[:, 0, 0]
  np.testing.assert_array_equal(*(np.sign(np.round(way, 3)) for way in downs))
  assert len({tuple(np.sign(np.round(way, 3))) for way in ways[0]}) == 4


def test_evaluation_has_inputs_too_and_padding_for_both():
  cut = crops.Cut(16, 'center', ratio=pair_grid.side_ratio(4))
  stream = batches.eval_batches(Maps(4), cut, batch_size=4)
  (batch,) = stream
  stream.close()
  assert batch['mask'].tolist() == [True, True, True, False]
  assert batch['condition'].shape == (4, 4, 4, 2)
  assert batch['condition'].dtype == np.float32 and not batch['condition'][3].any()
  again = batches.eval_images(Maps(4), cut, [1, -1])
  np.testing.assert_array_equal(again['condition'][0], batch['condition'][1])


def test_sizes_may_differ_by_less_than_a_coarse_pixel():
  ratio = pair_grid.side_ratio(4)
  assert pair_grid.shared_units((511, 402, 3), (128, 100, 1), ratio) == (127, 100)
  half = pair_grid.side_ratio(0.5)
  assert pair_grid.shared_units((50, 51), (101, 101), half) == (50, 50)
  for target, given in (((508, 400), (128, 100)), ((512, 400), (128, 101))):
    with pytest.raises(ImageError, match=r'task.pair_scale=4 needs'):
      pair_grid.shared_units(target, given, ratio)
  with pytest.raises(ImageError, match=r'task.pair_scale=1.5 would fit'):
    pair_grid.shared_units((30, 45), (20, 30), ratio)


@pytest.mark.parametrize('scale', [0, -1, 65, float('nan'), float('inf'), 1.2345])
def test_scales_that_are_no_ratio_are_refused(scale):
  with pytest.raises(ValueError, match=r'task.pair_scale'):
    pair_grid.side_ratio(scale)


@pytest.mark.parametrize(
  ('scale', 'parts'), [(4, (4, 1)), (0.3333, (1, 3)), (1.5, (3, 2)), (0.25, (1, 4))]
)
def test_scales_are_ratios_of_small_numbers(scale, parts):
  assert pair_grid.side_ratio(scale).as_integer_ratio() == parts


def test_crops_must_be_whole_pixels_of_the_input():
  ratio = pair_grid.side_ratio(1.5)
  assert pair_grid.input_side(24, ratio) == 16
  with pytest.raises(ValueError, match=r'16 pixels are 10\.6667 of the inputs'):
    pair_grid.input_side(16, ratio)


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('a/cell.01.tif', 'a/cell.01'),
    ('cell.ome.tiff', 'cell'),
    ('cell.OME.TIF', 'cell'),
    ('noend', 'noend'),
    (unicodedata.normalize('NFD', 'Zürich.png'), 'Zürich'),
  ],
)
def test_names_without_their_endings_are_compared(name, key):
  assert key_of(name) == key


def write(path, shape=(20, 20, 3), dtype=np.uint8):
  path.parent.mkdir(parents=True, exist_ok=True)
  array = np.full(shape, 7, dtype)
  if shape[2] == 3 and dtype == np.uint8:  # a picture, which says that it is RGB
    Image.fromarray(array).save(path)
  else:
    rasters.write(path, array)


def test_files_are_matched_by_name_and_the_others_named(tmp_path):
  names = ('a.png', 'sub/a.png', 'twice.png', 'alone.png')
  for name in names:
    write(tmp_path / 'out' / name)
  for name in ('a.tif', 'sub/a.tif', 'twice.png', 'twice.tif', 'left.png'):
    write(tmp_path / 'in' / name)
  (tmp_path / 'in' / 'damaged.png').write_bytes(b'no picture')
  config = pair_folders.config(tmp_path)
  config.data.path, config.data.input_path = (str(tmp_path / n) for n in ('out', 'in'))
  source = pair_folders.source(config)
  pairs = [(source.name(i), source.input_name(i)) for i in range(len(source))]
  assert pairs == [('a.png', 'a.tif'), ('sub/a.png', 'sub/a.tif')]
  inputs = tmp_path / 'in'
  assert source.unpaired == {
    'alone.png': 'no input of this name',
    'twice.png': '1 files and 2 input(s) have this name',
    f'{inputs}/left.png': 'no target of this name',
    f'{inputs}/twice.png': '2 files and 1 target(s) have this name',
    f'{inputs}/twice.tif': '2 files and 1 target(s) have this name',
  }
  assert list(source.left_out) == [f'{inputs}/damaged.png']
  record = source[1]
  assert record['image'].shape == record['condition'].shape == (20, 20, 3)


def test_channels_and_types_of_the_two_sides_may_differ(tmp_path):
  pair_folders.write(
    tmp_path, scale=2, input_channels=1, input_dtype=np.uint16, extension='.tif'
  )
  config = pair_folders.config(tmp_path, input_channels=1)
  config.task.pair_scale = 2.0
  stream = input_pipeline.training_data(config)
  batch = next(stream)
  stream.close()
  assert batch['image'].shape == (8, 24, 24, 3) and batch['image'].dtype == np.uint8
  assert batch['condition'].shape == (8, 12, 12, 1)
  assert batch['condition'].dtype == np.uint16
  # `pair_folders.as_input` halves the contrast of the grey.
  grey = batch['image'].reshape(8, 12, 2, 12, 2, 3).mean((2, 4, 5)) / 255
  given = batch['condition'][..., 0] / 65535
  np.testing.assert_allclose(given, grey / 2 + 0.25, atol=0.03)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'input_path': ''}, r'needs --config.data.input_path=PATH'),
    ({'input_path': 'PATH'}, 'are one folder'),
    ({'eval_path': 'PATH'}, 'data.eval_path .* and data.eval_input_path'),
    ({'input_path': 'EMPTY'}, 'no images in this folder'),
    ({'input_path': 'OTHERS'}, r'no file of .*others has the name .* z.png there'),
    ({'input_channels': 2}, 'left out'),
  ],
)
def test_folders_that_are_no_pairs_are_refused(tmp_path, change, message):
  pair_folders.write(tmp_path)
  (tmp_path / 'empty').mkdir()
  write(tmp_path / 'others' / 'z.png')
  places = {
    'PATH': str(tmp_path / 'targets'),
    'EMPTY': str(tmp_path / 'empty'),
    'OTHERS': str(tmp_path / 'others'),
  }
  change = {key: places.get(str(value), value) for key, value in change.items()}
  with pytest.raises(DataError, match=message):
    pair_folders.source(pair_folders.config(tmp_path, **change))


def test_floating_point_inputs_need_their_own_range(tmp_path):
  pair_folders.write(tmp_path, count=1)
  write(tmp_path / 'floats' / 'cell_0.npy', (48, 60, 2), np.float32)
  floats = {'input_path': str(tmp_path / 'floats'), 'input_channels': 2}
  config = pair_folders.config(tmp_path, **floats)
  with pytest.raises(DataError, match=r'data\.input_low and data\.input_high'):
    pair_folders.source(config)
  config.data.input_low, config.data.input_high = (0.0, 0.0), (9.0, 9.0)
  assert pair_folders.source(config).input_dtype == np.float32


def test_a_pair_that_does_not_fit_is_replaced_and_named(tmp_path):
  pair_folders.write(tmp_path)
  image_files.write(tmp_path / 'inputs' / 'cell_2.png', np.zeros((9, 9, 3), np.uint8))
  stream = input_pipeline.training_data(pair_folders.config(tmp_path))
  next(stream)
  stream.close()
  (reason,) = stream.skipped.values()
  assert reason.startswith('cell_2.png: the target has 60 x 48 pixels and its input 9')
  for i in range(4):
    name = f'cell_{i}.png'
    image_files.write(tmp_path / 'inputs' / name, np.zeros((9, 9, 3), np.uint8))
  stream = input_pipeline.training_data(pair_folders.config(tmp_path))
  with pytest.raises(DataError, match=r'cannot be used.* its input 9 x 9'):
    next(stream)


def test_the_fingerprint_changes_with_an_input(tmp_path):
  pair_folders.write(tmp_path)
  config = pair_folders.config(tmp_path)
  source = pair_folders.source(config)
  assert isinstance(source, Pairs)
  before = sources.fingerprint(source)
  write(tmp_path / 'inputs' / 'cell_1.png', (48, 60, 3))
  assert sources.fingerprint(pair_folders.source(config)) != before
