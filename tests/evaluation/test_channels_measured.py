"""Numbers of images of other than three channels and of 16 bits, and a run."""

import pathlib
import runpy

import numpy as np
import pytest
import skimage.color
import skimage.data
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from sr3_jax.config import load_config
from sr3_jax.core.sr3 import SR3
from sr3_jax.data import input_pipeline, sources
from sr3_jax.evaluation import measure as evaluation_measure
from sr3_jax.evaluation import scoring
from sr3_jax.images import pixels as images_pixels
from sr3_jax.images import rasters
from sr3_jax.metrics import feature_nets, image_metrics
from sr3_jax.restoration.restorer import Restorer
from sr3_jax.runtime import devices
from sr3_jax.training import train
from sr3_jax.weights import hub, model_writer
from tests.support import channel_images, feature_networks, runs
from tests.support.channel_images import HIGH, LOW, noise

stains, folder = channel_images.stains, channel_images.folder

# pytest undoes the filter that images.py sets.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')


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
    np.testing.assert_allclose(image_metrics.quantize(image, *edges), truth, atol=2e-7)
  np.testing.assert_array_equal(
    image_metrics.quantize(image),
    image_metrics.quantize(image, np.float32(0), np.float32(255)),
  )


def batch_of(count):
  index = np.arange(count, dtype=np.int32)
  return {'mask': np.ones(count, bool), 'index': index, 'label': index % 4}


def test_numbers_are_those_of_16_bit_files():
  """scikit-image's, of two channels between LOW and HIGH; no luma, no networks."""
  draw = np.random.default_rng(1)
  truth = draw.uniform(-0.9, 0.9, (8, 16, 16, 2)).astype(np.float32)
  output = np.float32(truth + draw.normal(0, 1e-4, truth.shape))
  nets = {
    'inception': feature_networks.inception(),
    'lpips_alex': feature_networks.lpips('x'),
  }
  scorer = scoring.Scorer(nets=nets, classifier=object())
  given = devices.shard((output, truth, batch_of(8)))
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

  truth = images_pixels.to_float(noise(128, 16, 1, np.uint8)).reshape(8, 16, 16, 1)
  nets = {
    'inception': feature_networks.inception(),
    'lpips_alex': feature_networks.lpips('x'),
  }
  scorer = scoring.Scorer(nets=nets, classifier=Seen())
  output, truth, batch = devices.shard((-truth, truth, batch_of(8)))
  values = scorer(output, truth, None, None, batch)
  assert 'psnr' in values and 'psnr_y' not in values and 'top1_error' in values

  def whole(image):
    return np.repeat(devices.gather(image), 3, -1)

  output, truth = whole(output), whole(truth)
  features = feature_networks.features(output)
  np.testing.assert_allclose(values[scoring.FEATURES], features, atol=1e-4)
  distance = feature_networks.distance(output, truth)
  np.testing.assert_allclose(values['lpips_alex'], distance, rtol=1e-4)
  assert not feature_nets.unsuited('lpips_alex', 1) and not feature_nets.unsuited(
    'fid', 3
  )
  assert 'not 2' in feature_nets.unsuited('lpips_alex', 2)


# ------------------------------------------------------------------------- everything


def test_the_example_is_as_its_configuration_says(tmp_path, monkeypatch):
  here = pathlib.Path(__file__).parents[2]
  made = runpy.run_path(here / 'docs' / 'make_stains.py')
  made['main'](tmp_path / 'stains')
  config = load_config('small/stains_16_64')
  monkeypatch.chdir(tmp_path)
  source = sources.Folder(config.data.path, channels=config.data.channels)
  low, high = config.data.low, config.data.high
  assert channel_images.percentile_range(source) == (tuple(low), tuple(high))
  held_out, _ = input_pipeline.held_out(config)
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
  config = runs.get_config()
  config.data.source, config.data.path = 'folder', str(folder)
  config.data.channels, config.data.low, config.data.high = 2, LOW, HIGH
  config.train.num_steps, config.checkpoint.every_steps = 2, 2
  config.eval.every_steps = 0
  config.eval.final_images = 8
  workdir = tmp_path_factory.mktemp('run')
  return config, workdir, train.train(config, workdir)


def test_training_and_evaluation_of_two_channels(run, stains):
  config, _, state = run
  model = SR3.from_config(config)
  batches = input_pipeline.evaluation_data(config, 8)
  host = next(batches)
  shown = {}
  result = evaluation_measure.evaluate(
    model,
    {'sr3': Restorer(model, state.ema, config.seed)},
    [host],
    seed=config.seed,
    on_output=lambda name, image, index: shown.update({name: image}),
  )
  batches.close()
  assert host['image'].dtype == np.uint16
  truth = rasters.to_float(host['image'], LOW, HIGH)
  np.testing.assert_array_equal(shown['truth'], images_pixels.to_picture(truth))
  assert {image.shape for name, image in shown.items() if name != 'input'} == {
    (8, 16, 16, 3)
  }

  # Bicubic, by Pillow, of what the stored values mean.
  def resized(image, side):
    return np.stack(
      [
        np.asarray(
          Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC)
        )
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
  model_writer.save(tmp_path / 'model', state.ema, config, step=2)
  for place in (workdir, tmp_path / 'model'):
    loaded = hub.load(place)
    assert loaded.config.data.channels == loaded.model.channels == 2
    np.testing.assert_array_equal(loaded.model.value_range, (LOW, HIGH))
    pixels = np.uint16([[[[100, 4095]]]])
    np.testing.assert_allclose(loaded.model.to_float(pixels), [[[[-1, 1]]]])
