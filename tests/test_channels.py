"""Images of other than three channels and of 16 bits, from folders to numbers."""

import ast
import pathlib
import re
import runpy

import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.transform
import tiny
import tiny_nets
from absl import logging
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax import (
  channels,
  data,
  evaluation,
  hub,
  images,
  metrics,
  parallel,
  rasters,
  scoring,
  sources,
  train,
)
from sr3_jax.restorer import Restorer
from sr3_jax.sr3 import SR3

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

LOW, HIGH = (100.0, 0.0), (60000.0, 4095.0)


def noise(height, width, count, dtype=np.uint16, seed=0):
  draw = np.random.default_rng(seed)
  if np.dtype(dtype).kind == 'f':
    return draw.normal(size=(height, width, count)).astype(dtype)
  return draw.integers(0, np.iinfo(dtype).max, (height, width, count), dtype)


@pytest.fixture(scope='module')
def measured():
  """Two channels of 16 bits, of different ranges; smooth, with some detail."""
  photo = images.read(f'{skimage.data.__path__[0]}/ihc.png').astype(float)
  made = np.stack([photo[..., 2] * 230 + 100, photo[..., 0] * 15], -1)
  return np.round(made).astype(np.uint16)


@pytest.fixture(scope='module')
def folder(measured, tmp_path_factory):
  """Images of two channels among others that don't fit."""
  root = tmp_path_factory.mktemp('tree')
  rasters.write(root / 'a.tif', measured[:200, :160])
  rasters.write(root / 'b' / 'c.npy', measured[200:400, :200])
  rasters.write(root / 'b' / 'd.npy', measured[:100, :200].astype(np.float32))
  rasters.write(root / 'e.tif', noise(50, 50, 3))
  rasters.write(root / 'f.tif', measured[:9, :50])
  Image.fromarray(noise(50, 50, 3, np.uint8)).save(root / 'g.jpg')
  (root / 'h.npy').write_bytes(b'')
  return root


@pytest.fixture
def warnings(monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *a: lines.append(text % a))
  return lines


# ---------------------------------------------------------------------------- sources


def test_a_folder_of_rasters(folder, measured, warnings):
  source = sources.make_source('folder', path=str(folder), channels=2, min_size=16)
  assert [source.name(i) for i in range(len(source))] == ['a.tif', 'b/c.npy']
  assert (source.channels, source.dtype) == (2, np.uint16)
  np.testing.assert_array_equal(source[0]['image'], measured[:200, :160])
  np.testing.assert_array_equal(source[1]['image'], measured[200:400, :200])
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
  source = sources.make_source('folder', path=str(folder), ranged=True)
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


def test_a_folder_of_classes(measured, tmp_path):
  for name, rows in (('x', slice(0, 40)), ('y', slice(40, 90))):
    rasters.write(tmp_path / name / 'a.tif', measured[rows, :60])
  source = sources.make_source('classes', path=str(tmp_path), channels=2)
  assert source.classes == ('x', 'y') and source[1]['label'] == 1
  np.testing.assert_array_equal(source[1]['image'], measured[40:90, :60])


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
    sources.make_source('arrays', path=path, channels=2, ranged=True)


def test_floating_point_needs_a_range(tmp_path):
  rasters.write(tmp_path / 'a.npy', noise(20, 20, 4, np.float32))
  with pytest.raises(sources.DataError, match=r'data\.low.*sr3_jax\.channels') as error:
    sources.make_source('folder', path=str(tmp_path), channels=4)
  assert '\n' not in str(error.value)
  source = sources.make_source('folder', path=str(tmp_path), channels=4, ranged=True)
  assert source.dtype == np.float32


def test_a_file_that_changed_its_type_is_an_error(tmp_path):
  for name in 'ab':
    rasters.write(tmp_path / f'{name}.npy', noise(20, 20, 2))
  source = sources.Folder(tmp_path, channels=2)
  rasters.write(tmp_path / 'b.npy', noise(20, 20, 2, np.uint8))
  with pytest.raises(images.ImageError, match=r'b\.npy: uint8, others are uint16'):
    source[1]


# --------------------------------------------------------------------- crops, batches


def test_batches_are_windows_of_what_is_stored(folder, measured):
  source = sources.Folder(folder, channels=2, min_size=100)
  batches = data.train_batches(source, batch_size=6, image_size=24, crop='random')
  batch = next(batches)
  batches.close()
  assert batch['image'].shape == (6, 24, 24, 2) and batch['image'].dtype == np.uint16
  windows = np.lib.stride_tricks.sliding_window_view(measured, (24, 24), (0, 1))
  for crop in batch['image']:
    found = (windows[..., 0, 0] == crop[0, 0]).all(-1)
    assert any(
      np.array_equal(np.moveaxis(windows[at], 0, -1), crop)
      for at in zip(*np.nonzero(found), strict=True)
    )


def test_rotated_and_flipped_crops_keep_their_channels():
  image = noise(5, 5, 4)
  cut = data.Cut(5, 'random', flip=True, rotate=True)
  poses = [np.rot90(image, turn)[:, ::step] for turn in range(4) for step in (1, -1)]
  seen = set()
  for seed in range(60):
    crop = cut(image, np.random.default_rng(seed))
    (pose,) = (i for i, other in enumerate(poses) if np.array_equal(other, crop))
    seen.add(pose)
  assert len(seen) == 8


def test_evaluation_fills_up_with_the_same_type(folder):
  source = sources.Folder(folder, channels=2, min_size=100)
  (batch,) = data.eval_batches(source, batch_size=4, image_size=64, crop='center')
  assert batch['image'].dtype == np.uint16 and batch['image'].shape == (4, 64, 64, 2)
  assert batch['mask'].tolist() == [True, True, False, False]
  assert not batch['image'][2:].any()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('count', [1, 2, 4, 5])
def test_resize_area_is_the_mean_of_blocks(count, dtype):
  image = noise(60, 40, count, dtype)
  blocks = skimage.transform.downscale_local_mean(image.astype(float), (5, 4, 1))
  found = images.resize_area(image, (12, 10))
  assert found.dtype == dtype and found.shape == (12, 10, count)
  if dtype == np.float32:
    np.testing.assert_allclose(found, blocks, atol=1e-5)
  elif dtype == np.uint8 and count == 1:  # Pillow's own, rounded twice
    assert np.abs(found - blocks).max() <= 1
  else:
    assert np.abs(found - blocks).max() <= 0.51  # of 65535: rounded once


def test_resize_area_by_any_factor_has_the_same_blocks():
  image = noise(60, 50, 3, np.uint8)
  pictures = images.resize_area(image, (17, 23)).astype(float)
  deep = images.resize_area(image.astype(np.uint16) * 257, (17, 23)) / 257
  assert np.abs(deep - pictures).max() <= 1


def test_show():
  levels = np.linspace(-1, 1, 256, dtype=np.float32)
  one, two = levels.reshape(16, 16, 1), np.stack([levels, levels[::-1]], -1)[None]
  np.testing.assert_array_equal(images.show(one), images.to_uint8(one).repeat(3, -1))
  magenta_green = images.show(two)[0]
  np.testing.assert_array_equal(magenta_green[0], [0, 255, 0])
  np.testing.assert_array_equal(magenta_green[-1], [255, 0, 255])
  many = images.to_float(noise(4, 4, 7, np.uint8))
  np.testing.assert_array_equal(images.show(many), noise(4, 4, 7, np.uint8)[..., :3])
  assert images.show(many[None, :, :, :3]).shape == (1, 4, 4, 3)


# ----------------------------------------------------------------------------- ranges


def test_ranges_are_numpys_percentiles(tmp_path):
  whole = [noise(40, 30, 3, np.float32, seed=i) * (1, 10, 1000) for i in range(4)]
  for i, image in enumerate(whole):
    rasters.write(tmp_path / f'{i}.npy', image.astype(np.float32))
  source = sources.Folder(tmp_path, channels=3, raw=True)
  low, high = channels.ranges(source, 1, 98)
  truth = np.percentile(np.concatenate(whole).reshape(-1, 3), (1, 98), axis=0)
  np.testing.assert_allclose((low, high), truth, rtol=1e-5)
  few = channels.ranges(source, 1, 98, count=2)
  truth = np.percentile(np.concatenate(whole[::2]).reshape(-1, 3), (1, 98), axis=0)
  np.testing.assert_allclose(few, truth, rtol=1e-5)


def test_ranges_of_a_sample_of_pixels(tmp_path, monkeypatch):
  image = np.tile(np.arange(200, dtype=np.uint16), (100, 1))[..., None]  # columns
  rasters.write(tmp_path / 'a.npy', image)
  monkeypatch.setattr(channels, '_SAMPLE', 2000)
  ((low,), (high,)) = channels.ranges(sources.Folder(tmp_path, channels=1), 10, 90)
  assert abs(low - 20) <= 6 and abs(high - 179) <= 6
  assert low == int(low) and high == int(high)  # stored values are whole


def test_the_command_prints_settings(folder, measured, capsys):
  assert channels.main([str(folder), '--channels=2', '--low=1', '--high=99']) == 0
  text = capsys.readouterr().out
  found = dict(re.findall(r'--config\.data\.(\w+)="?([^" ]+)"?', text))
  assert '--config.data.channels=2 ' in text
  config = tiny.get_config()
  for key in ('low', 'high'):
    setattr(config.data, key, ast.literal_eval(found[key]))
  used = measured[:200, :160], measured[200:400, :200], measured[:9, :50]
  pixels = np.concatenate([part.reshape(-1, 2) for part in used])
  truth = np.percentile(pixels, (1, 99), axis=0)
  np.testing.assert_array_equal(config.data.low, np.floor(truth[0]))
  np.testing.assert_array_equal(config.data.high, np.ceil(truth[1]))
  assert '3 images of 2 channel(s), uint16' in text


def test_the_command_ends_with_one_line(folder, tmp_path, capsys):
  rasters.write(tmp_path / 'a.npy', np.full((9, 9, 2), (3, 4), np.uint16))
  cases = {
    str(tmp_path / 'gone'): 'no folder of images',
    str(tmp_path): 'channel 1 is 3 nearly everywhere',
    f'{folder} --channels=9': r'of 9 channel\(s\)',
    f'{folder} --low=50 --high=50': 'percentiles',
    f'{folder} --images=0': 'at least 1',
  }
  for command, reason in cases.items():
    with pytest.raises(SystemExit) as error:
      channels.main(command.split())
    assert error.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('error: ') and re.search(reason, last)


# -------------------------------------------------------------------------- measuring


def test_outputs_are_rounded_to_what_files_hold():
  image = np.random.default_rng(0).uniform(-1.2, 1.2, (1, 9, 9, 2)).astype(np.float32)
  inside = np.clip(image, -1, 1)
  for dtype, low, high in (
    (np.uint8, (), ()),
    (np.uint16, (), ()),
    (np.uint16, LOW, HIGH),
  ):
    stored = rasters.from_float(inside, dtype, low, high)
    truth = rasters.to_float(stored, low, high)
    edges = (low, high) if low else ((0, 0), (np.iinfo(dtype).max,) * 2)
    edges = [np.float32(edge).reshape(1, 1, 1, 2) for edge in edges]
    np.testing.assert_allclose(metrics.quantize(image, *edges), truth, atol=2e-7)
  np.testing.assert_array_equal(
    metrics.quantize(image), metrics.quantize(image, np.float32(0), np.float32(255))
  )


def batch_of(count):
  index = np.arange(count, dtype=np.int32)
  return {'mask': np.ones(count, bool), 'index': index, 'label': index % 4}


def test_numbers_are_those_of_16_bit_files():
  """scikit-image's, of two channels between LOW and HIGH; no luma, no networks."""
  draw = np.random.default_rng(1)
  truth = draw.uniform(-0.9, 0.9, (8, 16, 16, 2)).astype(np.float32)
  output = np.float32(truth + draw.normal(0, 1e-4, truth.shape))
  nets = {'inception': tiny_nets.inception(), 'lpips_alex': tiny_nets.lpips('x')}
  scorer = scoring.Scorer(nets=nets, classifier=object())
  given = parallel.shard((output, truth, batch_of(8)))
  stored = (LOW, HIGH)
  values = scorer(*given[:2], None, None, given[2], stored)
  assert set(values) == {'index', 'psnr', 'ssim', 'power', 'power_truth'}
  assert set(scorer.of_set(given[1], given[2], stored)) == {'index'}
  rounded = rasters.to_float(rasters.from_float(output, np.uint16, *stored), *stored)
  for i in range(8):
    psnr = peak_signal_noise_ratio(truth[i], rounded[i], data_range=2)
    np.testing.assert_allclose(values['psnr'][i], psnr, atol=0.02)
    ssim = structural_similarity(
      truth[i],
      rounded[i],
      data_range=2,
      channel_axis=-1,
      gaussian_weights=True,
      sigma=1.5,
      use_sample_covariance=False,
    )
    np.testing.assert_allclose(values['ssim'][i], ssim, atol=1e-5)
  # In 8 bits the difference would drown.
  assert values['psnr'].min() > 65
  eight = scorer(*given[:2], None, None, given[2])
  assert eight['psnr'].max() < 60


def test_networks_see_grey_as_equal_colours():
  class Seen:
    def logits(self, shown):
      assert shown.shape == (8, 16, 16, 3)
      assert np.ptp(np.asarray(shown), axis=-1).max() == 0
      return np.eye(8, 4)

  truth = images.to_float(noise(128, 16, 1, np.uint8)).reshape(8, 16, 16, 1)
  nets = {'inception': tiny_nets.inception(), 'lpips_alex': tiny_nets.lpips('x')}
  scorer = scoring.Scorer(nets=nets, classifier=Seen())
  output, truth, batch = parallel.shard((-truth, truth, batch_of(8)))
  values = scorer(output, truth, None, None, batch)
  assert 'psnr' in values and 'psnr_y' not in values and 'top1_error' in values
  whole = lambda image: np.repeat(parallel.gather(image), 3, -1)
  output, truth = whole(output), whole(truth)
  features = tiny_nets.features(output)
  np.testing.assert_allclose(values[scoring.FEATURES], features, atol=1e-4)
  distance = tiny_nets.distance(output, truth)
  np.testing.assert_allclose(values['lpips_alex'], distance, rtol=1e-4)
  assert not scoring.unsuited('lpips_alex', 1) and not scoring.unsuited('fid', 3)
  assert 'not 2' in scoring.unsuited('lpips_alex', 2)


# ------------------------------------------------------------------------- everything


def test_the_example_is_as_its_configuration_says(tmp_path, monkeypatch):
  here = pathlib.Path(__file__).parents[1]
  made = runpy.run_path(here / 'docs' / 'make_stains.py')
  made['main'](tmp_path / 'stains')
  config = runpy.run_path(here / 'configs' / 'stains_16_64.py')['get_config']()
  monkeypatch.chdir(tmp_path)
  source = sources.Folder(config.data.path, channels=config.data.channels)
  assert channels.ranges(source) == (tuple(config.data.low), tuple(config.data.high))
  held_out, _ = evaluation.held_out(config)
  assert (len(source), len(held_out), held_out.dtype) == (4, 4, np.uint16)
  # The two densities as scikit-image has them, in pieces that don't overlap.
  density = skimage.color.rgb2hed(skimage.data.immunohistochemistry())[..., [0, 2]]
  rows = [
    np.concatenate([source[i]['image'] for i in pair], 1) for pair in ([0, 1], [2, 3])
  ]
  rows.append(np.concatenate([held_out[i]['image'] for i in range(4)], 1))
  whole = np.concatenate(rows)
  assert np.abs(whole - np.minimum(density * made['UNITS'], 65535)).max() <= 0.5
  assert SR3.from_config(config).channels == 2


@pytest.fixture(scope='module')
def run(folder, compile_cache, tmp_path_factory):
  """Two steps of training on two channels: (config, workdir, state)."""
  config = tiny.get_config()
  config.data.source, config.data.path = 'folder', str(folder)
  config.data.channels, config.data.low, config.data.high = 2, LOW, HIGH
  config.train.num_steps, config.checkpoint.every_steps = 2, 2
  config.eval.every_steps = 0
  config.eval.final_images = 8
  workdir = tmp_path_factory.mktemp('run')
  return config, workdir, train.train(config, workdir)


def test_training_and_evaluation_of_two_channels(run, measured):
  config, _, state = run
  model = SR3.from_config(config)
  batches = evaluation.evaluation_data(config, 8)
  host = next(batches)
  shown = {}
  result = evaluation.evaluate(
    model,
    {'sr3': Restorer(model, state.ema, config.seed)},
    [host],
    seed=config.seed,
    on_output=lambda name, image, index: shown.update({name: image}),
  )
  batches.close()
  assert host['image'].dtype == np.uint16
  truth = rasters.to_float(host['image'], LOW, HIGH)
  np.testing.assert_array_equal(shown['truth'], images.show(truth))
  assert {image.shape for name, image in shown.items() if name != 'input'} == {
    (8, 16, 16, 3)
  }
  # Bicubic, by Pillow, of what the stored values mean.
  resized = lambda image, side: np.stack(
    [
      np.asarray(Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC))
      for plane in np.moveaxis(image, -1, 0)
    ],
    -1,
  )
  psnr, consistency = [], []
  for image in truth:
    low = resized(image, 4)
    again = np.clip(resized(low, 16), -1, 1)
    psnr.append(peak_signal_noise_ratio(image, again, data_range=2))
    consistency.append(1e5 * np.mean((resized(again, 4) - low) ** 2) / 4)
  row = result.table()['bicubic']
  np.testing.assert_allclose(row['psnr'], np.mean(psnr), atol=1e-3)
  # Rounding to 8 bits before would be seen.
  np.testing.assert_allclose(row['consistency'], np.mean(consistency), rtol=2e-4)
  assert 'psnr_y' not in row


def test_ranges_are_stored_with_the_model(run, tmp_path):
  config, workdir, state = run
  hub.save(tmp_path / 'model', state.ema, config, step=2)
  for place in (workdir, tmp_path / 'model'):
    loaded = hub.load(place)
    assert loaded.config.data.channels == loaded.model.channels == 2
    np.testing.assert_array_equal(loaded.model.value_range, (LOW, HIGH))
    pixels = np.uint16([[[[100, 4095]]]])
    np.testing.assert_allclose(loaded.model.to_float(pixels), [[[[-1, 1]]]])
