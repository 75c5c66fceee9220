"""Models of pairs, from two folders to a report, a card and the upscale command."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image

from sr3_jax.cascade import cascade
from sr3_jax.images import rasters, resizing
from sr3_jax.images.pixels import to_uint8
from sr3_jax.plan import programs
from sr3_jax.restoration.inputs import UpscalerError
from sr3_jax.restoration.sample import sample_run
from sr3_jax.restoration.upscaler import Upscaler
from sr3_jax.training.run import train_run
from sr3_jax.upscale import command as upscale_command
from sr3_jax.upscale.command import main as upscale
from sr3_jax.weights import hub, model_writer
from tests.support import models, pair_folders


def model(scale=1.0, channels=3, **changes):
  settings = {
    'task__name': 'pairs',
    'data__source': 'pairs',
    'task__pair_scale': scale,
    'data__image_size': 24,
    'data__channels': channels,
    'diffusion__prediction': 'y0',
  }
  return models.loaded(models.Pointwise(channels), **settings | changes)


class Copies(models.Pointwise):
  """A network that returns the first channel of its condition, and its negative."""

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    zero = self.param('zero', nn.initializers.zeros, (1, 1, 1, 1))
    first = inputs[..., :1] + zero
    return jnp.concatenate([first, -first, first][: self.channels], -1)


def copying(scale=1.0, channels=3, **changes):
  loaded = model(scale, channels, **changes)
  network = dataclasses.replace(loaded.model, network=Copies(channels))
  params = {'zero': np.zeros((1, 1, 1, 1), np.float32)}
  return dataclasses.replace(loaded, model=network, params=params)


# --------------------------------------------------------------- what arrays come out


@pytest.mark.parametrize('scale', [0.5, 1.5, 1.0, 2.0])
def test_inputs_of_any_size_are_put_on_the_grid_of_the_output(scale):
  loaded = copying(scale, data__input_channels=1)
  image = pair_folders.scene(33, 40, seed=1)[..., None].astype(np.float32) * 1.6 - 0.8
  upscaler = Upscaler(loaded, steps=2, sampler='ddim')
  result = upscaler.upscale(image)
  size = round(33 * scale), round(40 * scale)
  assert result.image.shape == (*size, 3) == (*upscaler.output_size(33, 40), 3)
  want = resizing.resize(image, *size)
  inside = slice(4, -4)  # borders are mirrored, or repeated
  np.testing.assert_allclose(
    result.image[inside, inside], (want * [1, -1, 1])[inside, inside], atol=0.02
  )
  assert result.settings['outscale'] == scale and result.settings['task'] == 'pairs'


def test_grey_inputs_of_colour_models_give_colour():
  result = Upscaler(copying(), steps=1).upscale(np.full((8, 8), 200, np.uint8))
  assert result.image.shape == (8, 8, 3)
  np.testing.assert_allclose(result.image[0, 0, 1], -result.image[0, 0, 0], atol=1e-5)


def test_what_pairs_do_not_allow_is_refused():
  loaded = model(2.0)
  with pytest.raises(UpscalerError, match='no consistency: this model is for pairs'):
    Upscaler(loaded, consistency=True)
  upscaler = Upscaler(loaded, steps=1)
  with pytest.raises(UpscalerError, match=r'outscale 4: .* pairs of 2 times the sides'):
    upscaler.upscale(np.zeros((8, 8, 3), np.uint8), 4)
  with pytest.raises(UpscalerError, match='not an image of 2 channels'):
    other = Upscaler(model(data__input_channels=2), steps=1)
    other.upscale(np.zeros((8, 8, 3), np.uint8))
  with pytest.raises(cascade.CascadeError, match="this one is of the task 'pairs'"):
    cascade._check_task(loaded, 1)


# ---------------------------------------------------------------- what files come out


@pytest.fixture
def run_command(monkeypatch, tmp_path):
  """Return a function that upscales tmp_path/FILE with a model."""

  def run(loaded, file, *more):
    upscaler = Upscaler(loaded, steps=1, sampler='ddim')
    monkeypatch.setattr(upscale_command, 'load', lambda args: upscaler)
    out = tmp_path / 'out'
    code = upscale(
      [str(tmp_path / file), '--model=m', f'--output={out}', '--cache=', *more]
    )
    return code, sorted(path.name for path in out.iterdir())

  return run


def test_grey_of_16_bits_becomes_a_picture_in_colour(run_command, tmp_path):
  grey = (np.arange(64).reshape(8, 8, 1) * 1000).astype(np.uint16)
  rasters.write(tmp_path / 'a.tif', grey)
  code, names = run_command(copying(data__input_channels=1), 'a.tif')
  assert (code, names) == (0, ['a_out.tif'])
  found = tifffile.imread(tmp_path / 'out' / 'a_out.tif')
  assert found.shape == (8, 8, 3) and found.dtype == np.uint16
  np.testing.assert_allclose(found[..., 0], grey[..., 0], atol=40)
  np.testing.assert_allclose(found[..., 1], 65535 - grey[..., 0].astype(int), atol=40)


def test_calibrated_outputs_are_floating_point_in_their_own_unit(run_command, tmp_path):
  loaded = copying(
    data__input_channels=1, channels=1, data__low=(-1000.0,), data__high=(1000.0,)
  )
  grey = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
  Image.fromarray(grey).save(tmp_path / 'a.png')
  code, names = run_command(loaded, 'a.png')
  assert (code, names) == (0, ['a_out.tif'])
  found = tifffile.imread(tmp_path / 'out' / 'a_out.tif')
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, (grey / 127.5 - 1) * 1000, atol=2)
  code, names = run_command(loaded, 'a.png', '--ext=png')
  assert code == 1 and names == ['a_out.tif']


def test_calibrated_inputs_give_pictures(run_command, tmp_path):
  loaded = copying(
    2.0, data__input_channels=2, data__input_low=(0.0, 0.0), data__input_high=(1.0, 5.0)
  )
  values = np.random.default_rng(0).random((8, 8, 2), np.float32)
  rasters.write(tmp_path / 'a.tif', values)
  code, names = run_command(loaded, 'a.tif', '--compare')
  assert (code, names) == (0, ['a_out.tif', 'a_out_compare.png'])
  found = tifffile.imread(tmp_path / 'out' / 'a_out.tif')
  assert found.shape == (16, 16, 3) and found.dtype == np.uint16


# ------------------------------------------------------------------------- whole runs


def test_a_run_from_two_folders_to_a_model_folder(tmp_path, capsys):
  """Inputs have one channel of 16 bits and two thirds of the sides."""
  kind = {'input_channels': 1, 'input_dtype': np.uint16, 'extension': '.tif'}
  pair_folders.write(tmp_path, scale=1.5, **kind)
  config = pair_folders.config(tmp_path, input_channels=1)
  config.task.pair_scale = 1.5
  config.eval.save_images = True
  run = tmp_path / 'run'
  train_run(config, run)
  sample_run(config, run)
  report = json.loads((run / 'report' / 'report.json').read_text())
  left_out = {name for entry in report['left_out'] for name in entry['metrics']}
  assert {'consistency', 'colour_drift', 'inputs as a baseline'} <= left_out
  assert set(report['table']) == {'sr3'}
  assert {'psnr', 'ssim'} <= set(report['table']['sr3'])
  assert not {'consistency', 'colour_drift'} & set(report['table']['sr3'])
  assert report['protocol']['task'] == 'pairs, 16 to 24'
  assert 'targets, inputs inputs' in report['protocol']['images']
  assert Image.open(run / 'report' / 'images' / 'input' / '00000.png').size == (24, 24)
  assert (run / 'samples.png').exists()
  model_writer.export(run, tmp_path / 'model')
  card = (tmp_path / 'model' / 'README.md').read_text()
  for words in (
    'images like their targets, of 1.5 times the sides',
    'trained from 16 to 24 pixels a side',
    'channels: 1 of inputs, 3 of outputs',
    'pairs (targets), inputs inputs',
    'consistency and colour drift are left out',
  ):
    assert words in card, words
  assert str(tmp_path) not in card
  assert str(tmp_path) not in (tmp_path / 'model' / 'config.json').read_text()
  again = hub.load(tmp_path / 'model')
  assert again.model.input_channels == 1 and again.config.task.pair_scale == 1.5


def test_plans_count_inputs(tmp_path):
  config = pair_folders.config(tmp_path, input_channels=1)
  config.task.pair_scale = 0.5
  batch = programs.image_batch(config, 8)
  assert batch['condition'].shape == (8, 48, 48, 1)
  found = models.loaded(
    None,
    task__name='pairs',
    data__source='pairs',
    task__pair_scale=0.5,
    data__image_size=24,
  )
  lowered = functools.partial(programs.lower_sampling, config, found.model, 2)
  assert lowered(tuple(jax.devices()[:1])).as_text()


def test_the_picture_of_an_input_is_what_the_model_is_given(tmp_path):
  """`pair_folders` halves the contrast: so do the inputs of the report."""
  pair_folders.write(tmp_path, channels=1, input_channels=1)
  source = pair_folders.source(
    pair_folders.config(tmp_path, channels=1, input_channels=1)
  )
  record = source[0]
  want = to_uint8((record['image'] / 127.5 - 1) / 2)
  np.testing.assert_allclose(record['condition'], want, atol=2)
