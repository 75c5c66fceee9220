"""From a path to a file in Python: `sr3_jax.load(...).upscale(...).save(...)`."""

import inspect
import io
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

import sr3_jax
from sr3_jax.images import picture_codec
from sr3_jax.images.pixels import ImageError
from sr3_jax.restoration.upscaler import Upscaler, UpscalerError
from sr3_jax.runtime.errors import NotFiniteError
from tests.support import pictures
from tests.support.models import Pointwise, loaded, residual

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


@pytest.fixture(scope='module')
def upscaler():
  return Upscaler(residual(Pointwise()), steps=1)


def test_load_has_the_options_of_an_upscaler():
  def options(function):
    found = [*inspect.signature(function).parameters.values()]
    texts = [inspect.formatannotation(p.annotation).strip("'") for p in found]
    texts = [text.replace('collections.abc.', '') for text in texts]
    pairs = zip(found, texts, strict=True)
    return [(p.name, p.default, text) for p, text in pairs if p.kind == p.KEYWORD_ONLY]

  assert options(sr3_jax.load) == options(Upscaler) and len(options(Upscaler)) > 10


def test_importing_the_package_is_light():
  code = 'import sr3_jax, sys; print({"jax", "numpy", "PIL"} & set(sys.modules))'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout == 'set()\n'


def test_a_path_is_saved_with_what_belongs_to_it(upscaler, tmp_path):
  exif = Image.Exif()
  exif[274], exif[271] = 6, 'Camera'
  small = Image.fromarray(pictures.noise(6, 8, 4))
  small.save(tmp_path / 'a.png', exif=exif, icc_profile=SRGB, dpi=(300, 300))
  result = upscaler.upscale(tmp_path / 'a.png')
  assert result.samples.shape == (1, 32, 24, 3)  # upright
  result.save(tmp_path / 'new' / 'b.png')
  with Image.open(tmp_path / 'new' / 'b.png') as image:
    assert image.mode == 'RGBA' and image.size == (24, 32)
    assert image.info['icc_profile'] == SRGB and image.getexif()[271] == 'Camera'
    assert round(image.info['dpi'][0]) == 300
    np.testing.assert_array_equal(np.asarray(image), result.array)
  assert picture_codec.metadata(tmp_path / 'new' / 'b.png') == result.settings
  again = upscaler.upscale(str(tmp_path / 'a.png'))
  np.testing.assert_array_equal(again.array, result.array)


def test_16_bits_stay_16_bits(upscaler, tmp_path):
  stored = pictures.noise(5, 7, 3, np.uint16)
  tifffile.imwrite(tmp_path / 'a.tif', stored, photometric='rgb')
  for image in (tmp_path / 'a.tif', stored):
    upscaler.upscale(image).save(tmp_path / 'b.tiff')
    assert tifffile.imread(tmp_path / 'b.tiff').dtype == np.uint16
    upscaler.upscale(image).save(tmp_path / 'b.JPG')
    with Image.open(tmp_path / 'b.JPG') as shown:
      assert shown.format == 'JPEG'


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_arrays_pillow_images_and_files_give_the_same(upscaler, tmp_path, channels):
  pixels = pictures.noise(6, 8, channels)
  pixels[..., -1] |= 128 if channels in (2, 4) else 0
  plain = pixels[..., 0] if channels == 1 else pixels
  image = Image.fromarray(plain)
  image.save(tmp_path / 'a.png')
  want = upscaler.upscale(tmp_path / 'a.png')
  mode = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}[channels]
  assert want.pil.mode == image.mode == mode and want.pil.size == (32, 24)
  assert want.array.dtype == np.uint8
  assert want.array.shape == ((24, 32) if channels == 1 else (24, 32, channels))
  for given in (plain, pixels, image, pixels.astype(np.uint16) * 257):
    np.testing.assert_array_equal(upscaler.upscale(given).array, want.array)


def test_a_pillow_image_is_upright_and_not_changed(upscaler):
  image = Image.fromarray(pictures.noise(4, 6))
  exif = Image.Exif()
  exif[274] = 6
  buffer = io.BytesIO()
  image.save(buffer, 'PNG', exif=exif)
  opened = Image.open(buffer)
  result = upscaler.upscale(opened)
  assert result.pil.size == (16, 24) and opened.size == (6, 4)
  turned = np.rot90(np.asarray(image), -1)
  np.testing.assert_array_equal(result.array, upscaler.upscale(turned.copy()).array)


def test_hidden_colours_do_not_show(upscaler):
  pixels = np.full((6, 8, 4), 255, np.uint8)
  other = pixels.copy()
  pixels[:, 4:, 3] = other[:, 4:, 3] = 0
  other[:, 4:, :3] = 0
  first, second = upscaler.upscale(pixels), upscaler.upscale(other)
  np.testing.assert_array_equal(first.array, second.array)
  assert first.array[0, -1, 3] == 0 and first.array[0, 0, 3] == 255


def test_transparent_pixels_are_missing_to_models_that_fill_in(tmp_path):
  model = loaded(None, task__name='inpainting', task__scale=1)
  fill = Upscaler(model, steps=1)
  pixels = pictures.noise(8, 8, 4)
  pixels[..., 3] = 255
  pixels[2:5, 2:5, 3] = 0
  Image.fromarray(pixels).save(tmp_path / 'a.png')
  mask = np.zeros((8, 8), np.uint8)
  mask[2:5, 2:5] = 255
  Image.fromarray(mask).save(tmp_path / 'mask.png')
  want = fill.upscale(np.ascontiguousarray(pixels[..., :3]), mask=mask > 0)
  for given in (tmp_path / 'a.png', Image.fromarray(pixels), pixels):
    result = fill.upscale(given)
    assert result.array.shape == (8, 8, 3)
    np.testing.assert_array_equal(result.array, want.array)
  masked = fill.upscale(pixels[..., :3].copy(), mask=tmp_path / 'mask.png')
  np.testing.assert_array_equal(masked.array, want.array)


def test_a_result_shows_itself(upscaler):
  result = upscaler.upscale(pictures.noise(6, 8), num_samples=2)
  assert repr(result) == '<Result: 32 x 24 pixels, RGB, 2 samples of test, ddpm>'
  with Image.open(io.BytesIO(result._repr_png_())) as shown:
    np.testing.assert_array_equal(np.asarray(shown), result.array)
  wide = upscaler.upscale(np.zeros((2, 600), np.uint8))
  with Image.open(io.BytesIO(wide._repr_png_())) as shown:
    assert shown.size[0] == 2048 and shown.mode == 'L'
  assert repr(upscaler).startswith('<Upscaler test: super resolution, 4 times; ddpm, 1')


def test_another_sample_or_the_mean_is_saved(upscaler, tmp_path):
  result = upscaler.upscale(pictures.noise(6, 8), num_samples=2)
  result.save(tmp_path / 'mean.png', result.mean)
  with Image.open(tmp_path / 'mean.png') as image:
    found = np.asarray(image) / 127.5 - 1
  np.testing.assert_allclose(found, np.clip(result.mean, -1, 1), atol=0.005)
  with pytest.raises(ImageError, match='is none of this result'):
    result.save(tmp_path / 'x.png', result.spread)
  with pytest.raises(NotFiniteError):
    result.save(tmp_path / 'x.png', result.mean * np.nan)
  assert not (tmp_path / 'x.png').exists()


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('b.gif', 'saved as .png'),
    ('b', 'saved as .png'),
    ('file/b.png', 'file'),
  ],
)
def test_a_bad_place_is_one_line(upscaler, tmp_path, name, words):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ImageError, match=words) as error:
    upscaler.upscale(pictures.noise(2, 2)).save(tmp_path / name)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('given', 'words'),
  [
    ('nowhere.png', 'nowhere.png: no such file'),
    (Image.new('F', (2, 2)), 'mode F'),
    (np.zeros((4, 4, 5), np.uint8), 'of 1 or 3 channels'),
    (np.zeros((4, 4, 4), np.float32), 'of 1 or 3 channels'),
    (np.full((4, 4, 3), 2.0), r'in \[-1, 1\]'),
    (np.zeros((4, 4, 3), np.int64), 'uint8, uint16 or float'),
    (None, 'an array of shape'),
  ],
)
def test_what_is_no_image_is_one_line(upscaler, given, words):
  with pytest.raises((ImageError, UpscalerError), match=words):
    upscaler.upscale(given)


def test_terms_are_told_once_and_not_on_stdout(capsys):
  import dataclasses

  model = dataclasses.replace(residual(Pointwise()), license='my-research-only')
  assert Upscaler(model, steps=1).license == 'my-research-only'
  shown = capsys.readouterr()
  assert shown.out == '' and shown.err.count('\n') == 1
  assert 'test: terms of use: my-research-only' in shown.err
  told = []
  Upscaler(dataclasses.replace(model, license='mit'), steps=1, on_note=told.append)
  assert told == []
