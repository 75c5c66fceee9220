"""Tests of all tasks by the command sr3-upscale and by the class Upscaler."""

import dataclasses
import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from sr3_jax.core.samplers import make_trajectory, trajectory_options
from sr3_jax.images import image_files, picture_codec, sixteen_bit
from sr3_jax.images.pixels import to_uint8
from sr3_jax.restoration import canvas
from sr3_jax.restoration.inputs import UpscalerError
from sr3_jax.restoration.upscaler import Upscaler
from sr3_jax.upscale.command import main as upscale
from sr3_jax.weights import hub
from tests.support import models

pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

MODELS = {
  'inpainting': {},
  'uncropping': {},
  'colorization': {},
  'jpeg': {},
  'mixture': {'task__mixture': ('inpainting', 'colorization', 'jpeg')},
  'cascade': {'task__scale': 2},
  'generation': {},
  'raster': {
    'task__name': 'inpainting',
    'data__channels': 5,
    'data__low': (100.0, 0.0, 0.0, 0.0, 0.0),
    'data__high': (4095.0,) * 5,
  },
  'classes': {
    'task__name': 'super_resolution',
    'model__num_classes': 4,
    'model__label_dropout': 0.1,
  },
}


@functools.cache
def model(name):
  settings = {'task__name': name, 'diffusion__prediction': 'v'} | MODELS[name]
  network = models.Pointwise(
    settings.get('data__channels', 3), settings.get('model__num_classes', 0)
  )
  loaded = models.loaded(network, **settings)
  if name in ('uncropping', 'mixture'):  # they share the compiled program
    loaded = dataclasses.replace(loaded, model=model('inpainting').model)
  return loaded


def photo(height, width):
  return data.astronaut()[100 : 100 + height, 150 : 150 + width]


def hole(height, width):
  """Return a mask of two rectangles, one of them at the border."""
  mask = np.zeros((height, width), bool)
  mask[2 : height // 2, 3 : width // 2] = True
  mask[-2:] = True
  return mask


# ------------------------------------------------------------------------ the sampler


def test_inpainting_equals_restore_of_the_model_with_the_same_noise():
  """The picture is one tile, with the canvas's noise; known pixels don't change."""
  loaded = model('inpainting')
  image, mask = photo(64, 64), hole(64, 64)
  upscaler = Upscaler(loaded, steps=4, sampler='ddpm', seed=3)
  got = upscaler.upscale(image, mask=mask).image
  options = trajectory_options(loaded.config.sampler) | {'name': 'ddpm', 'num_steps': 4}
  gammas, coefficients = make_trajectory(loaded.model.gammas, **options)
  key = jax.random.key(3)
  for number in (0, 0, 0):  # image, sample, pass
    key = jax.random.fold_in(key, number)

  def noise(number):
    strips = [canvas.noise_strip(key, number, s, 64, 3) for s in range(2)]
    return jnp.concatenate(strips)[None]

  noises = jnp.stack([noise(number) for number in range(5)])
  given = image.astype(np.float32) / 127.5 - 1
  condition = np.dstack([np.where(mask[..., None], 0, given), mask])[None]
  want = loaded.model.restore(
    loaded.params, jax.random.key(0), condition, coefficients, gammas, noise=noises
  )[0]
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(to_uint8(got)[~mask], image[~mask])
  assert np.abs(got[mask] - given[mask]).max() > 0.1


def test_inpainting_in_tiles_equals_inpainting_without_tiles():
  """Tiles of 32 pixels overlap by 16; the network sees 3 pixels around each."""
  loaded = models.loaded(
    models.Local(), task__name='inpainting', diffusion__prediction='v'
  )
  image, mask = photo(60, 90), hole(60, 90)
  options = {'steps': 3, 'sampler': 'ddpm'}
  whole = Upscaler(loaded, tile=0, **options).upscale(image, mask=mask).image
  tiled = Upscaler(loaded, tile=32, tile_pad=8, **options).upscale(image, mask=mask)
  assert whole.shape == (60, 90, 3)
  # Near the right and lower ends, the image is padded in another way.
  np.testing.assert_allclose(tiled.image[:48, :80], whole[:48, :80], atol=2e-5)
  given = (image / 127.5 - 1).astype(np.float32)
  for result in (whole, tiled.image):
    np.testing.assert_array_equal(result[~mask], given[~mask])


def test_guidance_extrapolates_from_the_sample_without_a_class():
  """Guidance 2 equals the sample without a class plus twice the effect of the class."""
  loaded = model('classes')
  image = photo(8, 8)

  def sample(guidance, label):
    upscaler = Upscaler(loaded, steps=1, sampler='ddpm', guidance=guidance)
    return upscaler.upscale(image, label=label).image

  with_class, without, twice = sample(None, 2), sample(None, None), sample(2.0, 2)
  inside = np.abs([with_class, without, twice]).max(0) < 1
  expected = without + 2 * (with_class - without)
  np.testing.assert_allclose(twice[inside], expected[inside], atol=1e-5)
  assert inside.mean() > 0.2 and np.abs(with_class - without).max() > 0.1
  np.testing.assert_array_equal(sample(1.0, 2), with_class)
  settings = Upscaler(loaded, guidance=2.0).settings()
  assert settings['guidance'] == 2 and settings['task'] == 'super resolution'
  with pytest.raises(UpscalerError, match='guidance needs a class'):
    sample(2.0, None)


def test_a_cascade_stage_upscales_by_any_factor_and_corrupts_its_input():
  """Samples don't depend on their number."""
  loaded, image = model('cascade'), photo(9, 12)
  plain = Upscaler(loaded, steps=2)
  result = plain.upscale(image)
  assert result.image.shape == result.bicubic.shape == (18, 24, 3)
  assert plain.upscale(image, 3).image.shape == (27, 36, 3)
  corrupting = Upscaler(loaded, steps=2, blur=0.5, noise=0.2)
  other = corrupting.upscale(image, num_samples=2)
  assert np.abs(other.image - result.image).max() > 0.01
  assert (other.settings['blur'], other.settings['noise']) == (0.5, 0.2)
  np.testing.assert_array_equal(other.image, corrupting.upscale(image).image)
  assert np.abs(other.samples[0] - other.samples[1]).max() > 0.01


# ----------------------------------------------------------------------- the command


@pytest.fixture
def command(tmp_path, monkeypatch, compile_cache):
  """Return the command, which runs in an empty folder; --model is a key of MODELS."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(hub, 'load', model)
  options = ['--output=out', '--steps=2', f'--cache={compile_cache}']
  return lambda name, *args: upscale([f'--model={name}', *options, *args])


def save(path, pixels, **options):
  pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)


def last_line(capsys):
  return capsys.readouterr().out.strip().splitlines()[-1]


def test_inpainting_a_folder_with_masks_keeps_known_pixels_and_resumes(command, capsys):
  sizes = {'a': (20, 24), 'sub/b': (12, 9), 'c': (16, 16)}
  for name, size in sizes.items():
    save(f'in/{name}.{"jpg" if name == "a" else "png"}', photo(*size), quality=90)
    save(f'in/masks/{name}.png', hole(*size).astype(np.uint8) * 255)
  pixels_16_bit = np.asarray(photo(14, 10)).astype(np.uint16) * 257 + 5
  pathlib.Path('in/d.png').write_bytes(sixteen_bit.encode_png(pixels_16_bit, {}))
  save('in/masks/d.png', np.dstack([hole(14, 10).astype(np.uint8) * 140] * 3))
  options = ('in', '--mask=in/masks', '--compare')
  assert command('inpainting', *options) == 0
  done = '4 done, 0 skipped, 0 failed; passed over: 4 own output(s) or mask(s)'
  assert last_line(capsys) == done
  for name, size in sizes.items():
    mask = hole(*size)
    before = image_files.read(f'in/{name}.{"jpg" if name == "a" else "png"}')
    after = image_files.read(f'out/{name}_out.png')
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).mean() > 0.5
  mask = hole(14, 10)
  after = sixteen_bit.read_png(pathlib.Path('out/d_out.png').read_bytes())
  assert after.dtype == np.uint16
  np.testing.assert_array_equal(after[~mask], pixels_16_bit[~mask])
  assert (after[mask] != pixels_16_bit[mask]).mean() > 0.5
  found = picture_codec.metadata(pathlib.Path('out/sub/b_out.png'))
  assert found['task'] == 'inpainting' and found['mask']['name'] == 'b.png'

  assert command('inpainting', *options) == 0
  skipped = '0 done, 4 skipped, 0 failed; passed over: 4 own output(s) or mask(s)'
  assert last_line(capsys) == skipped
  save('in/masks/c.png', hole(16, 16).T.astype(np.uint8) * 255)
  os.remove('out/sub/b_out.png')
  assert command('inpainting', *options) == 0
  assert last_line(capsys) == (
    '2 done, 2 skipped, 0 failed; passed over: 4 own output(s) or mask(s)'
  )


def test_missing_and_unfit_masks_are_reported_before_any_work(
  command, capsys, monkeypatch
):
  for name in 'abcd':
    save(f'in/{name}.png', photo(8, 8))
  save('masks/a.png', hole(8, 9).astype(np.uint8) * 255)
  save('masks/b.png', hole(8, 8).astype(np.uint8) * 255)
  save('masks/b.bmp', hole(8, 8).astype(np.uint8) * 255)
  pathlib.Path('masks/d.png').write_text('no picture')
  monkeypatch.setattr(canvas, 'program', None)  # the test fails if it computes anything
  assert command('inpainting', 'in', '--mask=masks') == 1
  lines = sorted(
    line for line in capsys.readouterr().err.splitlines() if line.startswith('failed:')
  )
  assert len(lines) == 4
  assert 'a.png: the mask masks/a.png has 9 x 8 pixels, the picture 8 x 8' in lines[0]
  assert 'masks has b.bmp and b.png: which is the mask?' in lines[1]
  assert 'in/c.png: no mask masks/c.png' in lines[2]
  assert 'masks/d.png: a text, not a JPEG' in lines[3]
  assert command('inpainting', 'in') == 1
  error = capsys.readouterr().err
  assert 'in/a.png: nothing says what is missing' in error and '--expand' in error


def test_transparent_pixels_are_inpainted(command, capsys):
  rgba = np.dstack([photo(12, 12), (255 * ~hole(12, 12)).astype(np.uint8)])
  save('a.png', rgba)
  assert command('inpainting', 'a.png') == 0
  with Image.open('out/a_out.png') as image:
    assert image.mode == 'RGB'
    after = np.asarray(image)
  known = ~hole(12, 12)
  np.testing.assert_array_equal(after[known], rgba[known][:, :3])
  # A mask takes precedence. Then transparency is kept, and added pixels are opaque.
  save('mask.png', np.full((12, 12), 0, np.uint8))
  options = ('--mask=mask.png', '--expand=0,3,0,0', '--overwrite')
  assert command('inpainting', 'a.png', *options) == 0
  with Image.open('out/a_out.png') as image:
    after = np.asarray(image)
  np.testing.assert_array_equal(after[:, :12][known], rgba[known])
  np.testing.assert_array_equal(after[:, :12, 3], rgba[..., 3])  # hidden: any colour
  assert after.shape == (12, 15, 4) and (after[:, 12:, 3] == 255).all()
  save('opaque.png', np.dstack([photo(12, 12), np.full((12, 12), 255, np.uint8)]))
  assert command('inpainting', 'opaque.png') == 1
  assert 'no pixel of it is transparent' in capsys.readouterr().err


def test_uncropping_adds_pixels_at_the_sides(command, capsys):
  save('a.jpg', photo(16, 20))
  before = image_files.read('a.jpg')
  options = ('--expand=25%,2,0,5', '--compare', '--num_samples=2', '--spread')
  assert command('uncropping', 'a.jpg', *options) == 0
  for name in ('1', '2', 'mean'):
    after = image_files.read(f'out/a_out_{name}.png')
    assert after.shape == (20, 27, 3)
    np.testing.assert_array_equal(after[4:, 5:-2], before)
  spread = np.load('out/a_out_spread.npy')
  assert not spread[4:, 5:-2].any() and spread[:4].any()
  found = picture_codec.metadata(pathlib.Path('out/a_out_1.png'))
  assert found['expand'] == ['25%', 2, 0, 5]
  assert command('uncropping', 'a.jpg', *options) == 0
  assert last_line(capsys) == '0 done, 1 skipped, 0 failed'
  assert command('uncropping', 'a.jpg', '--expand=1', *options[1:]) == 0
  assert last_line(capsys) == '1 done, 0 skipped, 0 failed'


def test_colorization_takes_grey_and_coloured_pictures(command, capsys, caplog):
  save('in/grey.png', photo(9, 9)[..., 0])
  save('in/one.png', photo(10, 9))
  save('in/two.png', photo(11, 9))
  assert command('colorization', 'in', '--compare') == 0
  for name in ('grey', 'one', 'two'):
    with Image.open(f'out/{name}_out.png') as image:
      assert image.mode == 'RGB'
  assert caplog.text.count('made grey first') == 1
  assert '3 pictures, up to 9 x 11 pixels, colorization; test' in caplog.text


def test_a_model_of_a_mixture_works_with_and_without_a_mask(command, caplog):
  save('a.png', photo(10, 10))
  save('mask.png', hole(10, 10).astype(np.uint8) * 255)
  assert command('mixture', 'a.png') == 0
  whole = image_files.read('out/a_out.png')
  assert (whole != photo(10, 10)).mean() > 0.9
  assert command('mixture', 'a.png', '--mask=mask.png', '--suffix=filled') == 0
  known = ~hole(10, 10)
  filled = image_files.read('out/a_filled.png')
  np.testing.assert_array_equal(filled[known], photo(10, 10)[known])
  assert 'a mixture of inpainting, colorization, jpeg' in caplog.text


@pytest.mark.parametrize('extension', ['npy', 'tif'])
def test_inpainting_of_raster_files_with_five_channels(command, capsys, extension):
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 5000, (9, 12, 5), dtype=np.uint16)
  path = f'in/a.{extension}'
  os.makedirs('in')
  if extension == 'npy':
    np.save(path, stored)
  else:
    tifffile.imwrite(path, stored, photometric='minisblack', planarconfig='contig')
  save('mask.png', hole(9, 12).astype(np.uint8) * 255)
  options = ('in', '--mask=mask.png', '--compare')
  assert command('raster', *options) == 0
  out = f'out/a_out.{extension}'
  after = np.load(out) if extension == 'npy' else tifffile.imread(out)
  assert after.dtype == np.uint16
  known = ~hole(9, 12)
  np.testing.assert_array_equal(after[known], stored[known])
  assert (after[~known] != stored[~known]).mean() > 0.9
  made = after[~known]  # within the range of the channels, unlike some known values
  assert made[..., 0].min() >= 100 and made.max() <= 4095
  capsys.readouterr()
  assert command('raster', *options) == 0
  assert last_line(capsys) == '0 done, 1 skipped, 0 failed'
  with pytest.raises(SystemExit):  # outputs are not taken as inputs
    command('raster', 'out', '--mask=mask.png')
  assert 'no image files in this folder' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('name', 'arguments', 'message'),
  [
    ('generation', [], 'this model is for generation'),
    ('jpeg', ['--outscale=2'], 'outscale 2: this model is for jpeg'),
    ('jpeg', ['--mask=a.png'], 'no masks: this model is for jpeg'),
    ('jpeg', ['--mask=alpha'], 'no masks: this model is for jpeg'),
    ('inpainting', ['--expand=x'], 'expand=x: one number of pixels'),
    ('colorization', ['--consistency'], 'no consistency: this model is for'),
    ('uncropping', ['--blur=1'], 'no blur: this model is for uncropping'),
    ('classes', ['--guidance=2'], 'guidance needs a class'),
  ],
)
def test_options_that_do_not_fit_the_task_are_errors_of_one_line(
  command, capsys, monkeypatch, name, arguments, message
):
  save('a.png', photo(4, 4))
  monkeypatch.setattr(canvas, 'program', None)  # the test fails if it computes anything
  with pytest.raises(SystemExit) as stop:
    command(name, 'a.png', *arguments)
  assert stop.value.code == 2
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith('error: ') and message in error
