"""Tests of sources, batches and ranges of other channels than three and of 16 bits."""

import ast
import re
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import skimage.transform
from absl import logging
from PIL import Image

from sr3_jax.data import batches as data_batches
from sr3_jax.data import channel_ranges, channels, crops, sources
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images import rasters, resizing
from tests.support import channel_images, runs
from tests.support.channel_images import noise

stains, folder = channel_images.stains, channel_images.folder

# pytest undoes the filter that image_files.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


@pytest.fixture
def warnings(monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: lines.append(text % a))
  return lines


# ---------------------------------------------------------------------------- sources


def test_a_folder_of_rasters(folder, stains, warnings):
  source = sources.make_source('folder', path=str(folder), channels=2, min_size=16)
  assert [source.name(i) for i in range(len(source))] == ['a.tif', 'b/c.npy']
  assert (source.channels, source.dtype) == (2, np.uint16)
  np.testing.assert_array_equal(source[0]['image'], stains[:200, :160])
  np.testing.assert_array_equal(source[1]['image'], stains[200:400, :200])
  assert source.left_out == {
    'b/d.npy': 'float32, others are uint16',
    'e.tif': '3 channel(s), 2 are needed',
    'f.tif': '50 x 9 pixels',
    'g.jpg': '3 channel(s), 2 are needed',
    'h.npy': 'zero bytes',
  }
  assert len(warnings) == 1 and '5 of 7 images left out' in warnings[0]
  with pytest.raises(sources.DataError, match=r'7 of 7.*of 5 channel\(s\)$'):
    sources.make_source('folder', path=str(folder), channels=5)


def test_three_channels_are_pictures_unless_their_range_is_known(folder):
  source = sources.make_source('folder', path=str(folder))
  assert [source.name(i) for i in range(len(source))] == ['g.jpg']
  assert source[0]['image'].dtype == source.dtype == np.uint8
  source = sources.make_source('folder', path=str(folder), calibrated=True)
  assert (len(source), source.dtype) == (1, np.uint16)
  np.testing.assert_array_equal(source[0]['image'], noise(50, 50, 3))


def test_grey(tmp_path):
  photo = Image.fromarray(noise(20, 30, 3, np.uint8))
  photo.save(tmp_path / 'a.png')
  photo.convert('L').save(tmp_path / 'b.tif')
  Image.fromarray(noise(20, 30, 1)[..., 0]).save(tmp_path / 'c.png')
  source = sources.Folder(tmp_path, channels=1)
  assert source.left_out == {'c.png': 'uint16, others are uint8'}
  for i in range(2):
    np.testing.assert_array_equal(source[i]['image'][..., 0], photo.convert('L'))
  grey = sources.make_source('photos', split='eval', channels=1)
  truth = Image.fromarray(skimage.data.chelsea()).convert('L')
  np.testing.assert_array_equal(grey[0]['image'][..., 0], truth)
  assert sources.make_source('photos')[0]['image'].shape[-1] == 3  # cached apart
  with pytest.raises(sources.DataError, match='1 or 3 channels, not 2'):
    sources.make_source('photos', channels=2)


def test_a_folder_of_classes(stains, tmp_path):
  for name, rows in (('x', slice(0, 40)), ('y', slice(40, 90))):
    rasters.write(tmp_path / name / 'a.tif', stains[rows, :60])
  source = sources.make_source('classes', path=str(tmp_path), channels=2)
  assert source.classes == ('x', 'y') and source[1]['label'] == 1
  np.testing.assert_array_equal(source[1]['image'], stains[40:90, :60])


def saved(path, **arrays):
  np.savez(path, **arrays)
  return str(path)


def test_arrays_of_any_channels(tmp_path):
  x, y = np.stack([noise(8, 8, 2, seed=i) for i in range(10)]), np.arange(10) % 3
  path = saved(tmp_path / 'a.npz', x=x, y=y)
  source = sources.make_source('arrays', path=path, channels=2)
  assert (len(source), source.channels, source.dtype) == (9, 2, np.uint16)
  np.testing.assert_array_equal(source[4]['image'], x[4])
  with pytest.raises(sources.DataError, match=r'2 channels, data\.channels is 3'):
    sources.make_source('arrays', path=path)
  path = saved(tmp_path / 'b.npz', x=x.astype(np.int64), y=y)
  with pytest.raises(sources.DataError, match='must be uint8, uint16 or float32'):
    sources.make_source('arrays', path=path, channels=2)
  path = saved(tmp_path / 'c.npz', x=np.where(x > 60000, np.nan, x).astype('f4'), y=y)
  with pytest.raises(sources.DataError, match='not finite'):
    sources.make_source('arrays', path=path, channels=2, calibrated=True)


def test_floating_point_needs_a_range(tmp_path):
  rasters.write(tmp_path / 'a.npy', noise(20, 20, 4, np.float32))
  with pytest.raises(sources.DataError, match=r'data\.low.*sr3-channels') as error:
    sources.make_source('folder', path=str(tmp_path), channels=4)
  assert '\n' not in str(error.value)
  source = sources.make_source(
    'folder', path=str(tmp_path), channels=4, calibrated=True
  )
  assert source.dtype == np.float32


def test_a_file_that_changed_its_type_is_an_error(tmp_path):
  for name in 'ab':
    rasters.write(tmp_path / f'{name}.npy', noise(20, 20, 2))
  source = sources.Folder(tmp_path, channels=2)
  rasters.write(tmp_path / 'b.npy', noise(20, 20, 2, np.uint8))
  with pytest.raises(
    images_pixels.ImageError, match=r'b\.npy: uint8, others are uint16'
  ):
    source[1]


# --------------------------------------------------------------------- crops, batches


def test_batches_are_windows_of_what_is_stored(folder, stains):
  source = sources.Folder(folder, channels=2, min_size=100)
  batches = data_batches.train_batches(source, crops.Cut(24, 'random'), batch_size=6)
  batch = next(batches)
  batches.close()
  assert batch['image'].shape == (6, 24, 24, 2) and batch['image'].dtype == np.uint16
  windows = np.lib.stride_tricks.sliding_window_view(stains, (24, 24), (0, 1))
  for crop in batch['image']:
    found = (windows[..., 0, 0] == crop[0, 0]).all(-1)
    assert any(
      np.array_equal(np.moveaxis(windows[at], 0, -1), crop)
      for at in zip(*np.nonzero(found), strict=True)
    )


def test_rotated_and_flipped_crops_keep_their_channels():
  image = noise(5, 5, 4)
  cut = crops.Cut(5, 'random', flip=True, rotate=True)
  poses = [np.rot90(image, turn)[:, ::step] for turn in range(4) for step in (1, -1)]
  seen = set()
  for seed in range(60):
    crop = cut(image, np.random.default_rng(seed))
    (pose,) = (i for i, other in enumerate(poses) if np.array_equal(other, crop))
    seen.add(pose)
  assert len(seen) == 8


def test_evaluation_fills_up_with_the_same_type(folder):
  source = sources.Folder(folder, channels=2, min_size=100)
  (batch,) = data_batches.eval_batches(source, crops.Cut(64, 'center'), batch_size=4)
  assert batch['image'].dtype == np.uint16 and batch['image'].shape == (4, 64, 64, 2)
  assert batch['mask'].tolist() == [True, True, False, False]
  assert not batch['image'][2:].any()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('count', [1, 2, 4, 5])
def test_resize_area_is_the_mean_of_blocks(count, dtype):
  image = noise(60, 40, count, dtype)
  blocks = skimage.transform.downscale_local_mean(image.astype(float), (5, 4, 1))
  found = resizing.resize_area(image, (12, 10))
  assert found.dtype == dtype and found.shape == (12, 10, count)
  if dtype == np.float32:
    np.testing.assert_allclose(found, blocks, atol=1e-5)
  elif dtype == np.uint8 and count == 1:  # Pillow's own, rounded twice
    assert np.abs(found - blocks).max() <= 1
  else:
    assert np.abs(found - blocks).max() <= 0.51  # of 65535: rounded once


def test_resize_area_by_any_factor_has_the_same_blocks():
  image = noise(60, 50, 3, np.uint8)
  pictures = resizing.resize_area(image, (17, 23)).astype(float)
  sixteen = resizing.resize_area(image.astype(np.uint16) * 257, (17, 23)) / 257
  assert np.abs(sixteen - pictures).max() <= 1


def test_any_channels_as_pictures():
  levels = np.linspace(-1, 1, 256, dtype=np.float32)
  one, two = levels.reshape(16, 16, 1), np.stack([levels, levels[::-1]], -1)[None]
  np.testing.assert_array_equal(
    images_pixels.to_picture(one), images_pixels.to_uint8(one).repeat(3, -1)
  )
  magenta_green = images_pixels.to_picture(two)[0]
  np.testing.assert_array_equal(magenta_green[0], [0, 255, 0])
  np.testing.assert_array_equal(magenta_green[-1], [255, 0, 255])
  many = images_pixels.to_float(noise(4, 4, 7, np.uint8))
  np.testing.assert_array_equal(
    images_pixels.to_picture(many), noise(4, 4, 7, np.uint8)[..., :3]
  )
  assert images_pixels.to_picture(many[None, :, :, :3]).shape == (1, 4, 4, 3)


# ----------------------------------------------------------------------------- ranges


def test_ranges_are_numpys_percentiles(tmp_path):
  whole = [noise(40, 30, 3, np.float32, seed=i) * (1, 10, 1000) for i in range(4)]
  for i, image in enumerate(whole):
    rasters.write(tmp_path / f'{i}.npy', image.astype(np.float32))
  source = sources.Folder(tmp_path, channels=3, as_rasters=True)
  low, high = channel_images.percentile_range(source, 1, 98)
  truth = np.percentile(np.concatenate(whole).reshape(-1, 3), (1, 98), axis=0)
  np.testing.assert_allclose((low, high), truth, rtol=1e-5)
  few = channel_images.percentile_range(source, 1, 98, count=2)
  truth = np.percentile(np.concatenate(whole[::2]).reshape(-1, 3), (1, 98), axis=0)
  np.testing.assert_allclose(few, truth, rtol=1e-5)


def test_ranges_of_a_sample_of_pixels(tmp_path, monkeypatch):
  image = np.tile(np.arange(200, dtype=np.uint16), (100, 1))[..., None]  # columns
  rasters.write(tmp_path / 'a.npy', image)
  monkeypatch.setattr(channel_ranges, '_SAMPLE', 2000)
  source = sources.Folder(tmp_path, channels=1)
  ((low,), (high,)) = channel_images.percentile_range(source, 10, 90)
  assert abs(low - 20) <= 6 and abs(high - 179) <= 6
  assert low == int(low) and high == int(high)  # stored values are whole


def test_the_command_prints_settings(folder, stains, capsys):
  assert channels.main([str(folder), '--channels=2', '--low=1', '--high=99']) == 0
  text = capsys.readouterr().out
  found = dict(re.findall(r'--config\.data\.(\w+)="?([^" ]+)"?', text))
  assert '--config.data.channels=2 ' in text
  config = runs.get_config()
  for key in ('low', 'high'):
    setattr(config.data, key, ast.literal_eval(found[key]))
  used = stains[:200, :160], stains[200:400, :200], stains[:9, :50]
  pixels = np.concatenate([part.reshape(-1, 2) for part in used])
  truth = np.percentile(pixels, (1, 99), axis=0)
  np.testing.assert_array_equal(config.data.low, np.floor(truth[0]))
  np.testing.assert_array_equal(config.data.high, np.ceil(truth[1]))
  assert '3 images of 2 channel(s), uint16' in text


def test_the_command_ends_with_one_line(folder, tmp_path, capsys):
  rasters.write(tmp_path / 'a.npy', np.full((9, 9, 2), (3, 4), np.uint16))
  cases = {
    str(tmp_path / 'gone'): 'no such folder',
    str(tmp_path): 'channel 1 is 3 nearly everywhere',
    f'{folder} --channels=9': r'of 9 channel\(s\)',
    f'{folder} --low=50 --high=50': 'percentiles',
    f'{folder} --images=0': '--images: 0 must be a whole number from 1',
  }
  for command, reason in cases.items():
    with pytest.raises(SystemExit) as error:
      channels.main(command.split())
    assert error.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ') and re.search(reason, last)


def test_help_is_there_at_once():
  """The help needs neither NumPy nor JAX, and ends with 0."""
  script = (
    'import sys\n'
    'from sr3_jax.data import channels\n'
    'try: channels.main(["--help"])\n'
    'except SystemExit as end: assert end.code == 0\n'
    'assert not {"numpy", "jax", "PIL"} & set(sys.modules)\n'
  )
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert '--channels' in done.stdout
