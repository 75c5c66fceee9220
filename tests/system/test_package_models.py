"""Tests of the models that come with the package."""

import io
import math
import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors
import yaml
from PIL import Image, ImageFilter
from skimage import data, restoration

import sr3_jax
from sr3_jax.config import load_config
from sr3_jax.core import degradations
from sr3_jax.core.degradations import masks
from sr3_jax.images import image_files, pixels, resizing
from sr3_jax.metrics import image_metrics
from sr3_jax.upscale.command import main as upscale
from sr3_jax.upscale.options import make_parser
from sr3_jax.weights import hub

ROOT = pathlib.Path(__file__).parents[2]
MEGABYTE = 1e6
UPSCALERS = ('face-x4', 'face-x8', 'photo-x4')
NAMES = tuple(sorted((*UPSCALERS, 'photo-clean', 'photo-fill')))
# Top, left and side of a face, aligned as the faces of the training data are.
FACE = (10, 128, 190)


def example(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Return a picture that the model has not seen, downsampled and at full size.

  It is the astronaut Eileen Collins (NASA) in 16 x 16 pixels or a cup of coffee in
  48 x 48, downsampled by Pillow.
  """
  scale = hub.load(name).config.task.scale
  if name.startswith('face'):
    top, left, side = FACE
    part = data.astronaut()[top : top + side, left : left + side]
    truth = resizing.resize_area(part, 16 * scale)
  else:
    truth = data.coffee()[80:272, 180:372]
  size = tuple(side // scale for side in truth.shape[1::-1])
  return np.asarray(Image.fromarray(truth).resize(size, Image.BICUBIC)), truth


def test_four_models_come_with_the_package():
  assert hub.shipped() == list(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_model_folder_is_small_and_has_a_complete_card(name):
  folder = pathlib.Path(hub.SHIPPED) / name
  files = {path.name: path for path in folder.iterdir()}
  credits = {'CREDITS.tsv'} if name.startswith('photo') else set()
  own = {'model.safetensors', 'config.json', 'presets.json', 'README.md'}
  assert set(files) == own | credits
  assert sum(path.stat().st_size for path in files.values()) < 12 * MEGABYTE
  with safetensors.safe_open(files['model.safetensors'], 'np') as tensors:
    kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
  assert kinds == {'BF16'}
  _, front, text = files['README.md'].read_text().split('---\n', 2)
  assert yaml.safe_load(front)['license'] not in ('', 'unknown')
  for words in ('## Data and terms', '## Command', '## Known failures'):
    assert words in text
  assert f'; seed {hub.load(name).config.seed}\n' in text
  assert re.search(r'\d\.\d hours of training', text)
  assert 'Not measured' not in text
  assert '/work' not in text + files['config.json'].read_text()


@pytest.mark.parametrize(
  'name, config',
  [
    ('face-x4', 'portraits_16_64'),
    ('face-x8', 'portraits_16_128'),
    ('photo-clean', 'photo_clean'),
    ('photo-fill', 'photo_fill'),
    ('photo-x4', 'photo_refine'),
  ],
)
def test_a_model_has_the_network_task_and_consistency_of_its_configuration(
  name, config
):
  wanted = load_config(f'small/{config}')
  found = hub.load(name).config
  for section in ('task', 'model', 'diffusion'):
    assert found[section].to_dict() == wanted[section].to_dict()
  assert found.sampler.consistency == wanted.sampler.consistency


@pytest.mark.parametrize('name', NAMES)
def test_a_model_has_three_presets(name):
  presets = hub.load(name).presets
  assert set(presets) == {'fast', 'balanced', 'best'}
  assert presets['fast']['num_steps'] <= 20


def psnr(output: np.ndarray, truth: np.ndarray) -> float:
  return float(image_metrics.psnr(output[None], pixels.to_float(truth)[None])[0])


def sharpness(image: np.ndarray) -> float:
  return np.abs(np.diff(image, axis=1)).mean()


@pytest.mark.parametrize('name', UPSCALERS)
def test_a_model_restores_an_unseen_picture(name, compile_cache):
  """The output is sharper than bicubic, agrees with the input and has no grain.

  This seed is far from the bounds. Noise, blur and a colour cast exceed them.
  """
  del compile_cache
  small, truth = example(name)
  result = sr3_jax.load(name, steps='fast', seed=0).upscale(small)
  output, bicubic = result.image, result.bicubic
  assert output.shape == truth.shape
  assert psnr(output, truth) > psnr(bicubic, truth) - 1.5
  low = np.asarray(
    jax.image.resize(output, (*small.shape[:2], 3), 'cubic', antialias=True)
  )
  error = np.square(low - pixels.to_float(small)).mean()
  assert -10 * math.log10(error / 4) > 34
  assert np.abs((low - pixels.to_float(small)).mean((0, 1))).max() < 2 * 2 / 255
  wanted = sharpness(pixels.to_float(truth))
  assert sharpness(bicubic) < sharpness(output) < 1.4 * wanted


def damaged(truth: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
  """Return damaged pictures, made by Pillow and NumPy, and decibels to be gained."""
  file = io.BytesIO()
  Image.fromarray(truth).save(file, 'JPEG', quality=15)
  blurred = Image.fromarray(truth).filter(ImageFilter.GaussianBlur(1.5))
  noisy = truth + np.random.default_rng(0).normal(0, 16, truth.shape)
  return {
    'jpeg': (np.asarray(Image.open(file)), 0.4),
    'blur': (np.asarray(blurred), 1.0),
    'noise': (np.clip(noisy, 0, 255).round().astype(np.uint8), 6.0),
  }


def test_photo_clean_is_nearer_to_the_truth_than_its_input(compile_cache):
  """With seed 0 it gains 0.9, 2.0 and 8.1 dB."""
  del compile_cache
  truth = data.coffee()[80:272, 180:372]
  model = sr3_jax.load('photo-clean', seed=0)
  for kind, (image, gain) in damaged(truth).items():
    before = psnr(pixels.to_float(image), truth)
    assert psnr(model.upscale(image).image, truth) > before + gain, kind


def test_photo_fill_is_nearer_to_the_truth_than_plain_fillings(compile_cache):
  """Strokes as in training, a fifth of the picture, and known pixels stay."""
  del compile_cache
  truth = data.coffee()[80:272, 180:372]
  mask = np.asarray(masks.free_form(jax.random.split(jax.random.key(3), 1), 192, 192))
  hole = mask[0, ..., 0] > 0
  given = np.where(hole[..., None], np.uint8(0), truth)
  output = sr3_jax.load('photo-fill', seed=0).upscale(given, mask=hole).array
  np.testing.assert_array_equal(output[~hole], truth[~hole])
  smooth = degradations.smooth(pixels.to_float(truth)[None], mask)[0]
  biharmonic = restoration.inpaint_biharmonic(
    pixels.to_float(truth), hole, channel_axis=-1
  )

  def error(image):
    return np.mean(np.square(image - pixels.to_float(truth))[hole])

  got = error(pixels.to_float(output))
  assert got < 0.95 * error(smooth) and got < 0.95 * error(np.clip(biharmonic, -1, 1))


def test_the_first_command_of_the_readme(tmp_path, compile_cache, monkeypatch):
  """It has no --model and takes a picture of this repository."""
  del compile_cache
  monkeypatch.chdir(tmp_path)
  example = ROOT / 'docs' / 'example.png'
  assert upscale([str(example), '--output=large', '--compare', '--steps=2']) == 0
  height, width = image_files.size(example)
  made = image_files.read(tmp_path / 'large' / 'example_out.png')
  assert made.shape == (4 * height, 4 * width, 3)
  assert (tmp_path / 'large' / 'example_out_compare.png').exists()


def test_the_default_model_is_photo_x4():
  assert make_parser().get_default('model') == 'photo-x4'
  assert sr3_jax.load(steps=2).settings()['model'].startswith('photo-x4')
