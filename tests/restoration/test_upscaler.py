import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import data

from sr3_jax.core.networks.group_norm import GroupNorm
from sr3_jax.core.samplers import make_trajectory, trajectory_options
from sr3_jax.images import resizing
from sr3_jax.restoration import canvas, tiling
from sr3_jax.restoration.canvas_runner import CanvasRunner
from sr3_jax.restoration.upscaler import Upscaler, UpscalerError
from sr3_jax.runtime.errors import NotFiniteError
from tests.support import runs
from tests.support.models import Local, Pointwise, residual


class Normalised(nn.Module):
  """Normalises with statistics of the whole tile, as U-Nets do, and is else `Local`."""

  multiple = 2
  has_attention = False
  predicts = False

  @nn.compact
  def __call__(self, inputs, gamma, label=None, *, deterministic=True):
    h = nn.Conv(8, (3, 3), name='a')(inputs) + gamma[:, None, None, None]
    h = nn.tanh(GroupNorm(name='norm1')(h))
    h = nn.tanh(GroupNorm(name='norm2')(nn.Conv(8, (3, 3), name='b')(h)))
    return nn.Conv(3, (3, 3), name='c')(h)


@pytest.fixture(scope='module')
def local():
  return residual(Local())


@pytest.fixture(scope='module')
def pointwise():
  return residual(Pointwise())


def photo(height, width):
  image = data.astronaut()[: height * 4, : width * 4].astype(np.float32) / 127.5 - 1
  return np.clip(resizing.resize(image, height, width), -1, 1)


# ------------------------------------------------------------------------- tiles


def test_tiled_equals_untiled_where_the_network_sees_that_far(local):
  """Tiles of 16 input pixels overlapping by 2 x 2: 8 of 64 output pixels are ignored
  at each inner edge / 2 = 4 >= the 3 that the network sees."""
  image = photo(30, 45)
  options = {'steps': 4, 'sampler': 'ddpm'}
  whole = Upscaler(local, tile=0, **options).upscale(image).image
  tiled = Upscaler(local, tile=16, tile_pad=2, **options).upscale(image).image
  assert whole.shape == (120, 180, 3)
  # The untiled image ends with zeros where the tiled one ends; both at the same place.
  np.testing.assert_allclose(tiled[:100, :160], whole[:100, :160], atol=2e-5)
  # With less overlap than it sees, not.
  other = Upscaler(local, tile=16, tile_pad=1, **options).upscale(image).image
  assert np.abs(other - whole).max() > 1e-3


@pytest.mark.parametrize('temperature', [None, 0.6])
def test_the_sampler_is_that_of_the_model(pointwise, temperature):
  """One tile, the canvas's noise handed to SR3.restore: the same image."""
  image = photo(16, 16)
  upscaler = Upscaler(
    pointwise, steps=5, sampler='ddpm', temperature=temperature, seed=7
  )
  got = upscaler.upscale(image).image
  model = pointwise.model
  options = trajectory_options(pointwise.config.sampler) | {
    'name': 'ddpm',
    'num_steps': 5,
  }
  options |= {'temperature': temperature or 1.0}
  gammas, coefficients = make_trajectory(model.gammas, **options)

  def noise(index):
    key = jax.random.key(7)
    for number in (0, 0, 0):  # image, sample, pass
      key = jax.random.fold_in(key, number)
    strips = [canvas.noise_strip(key, index, s, 64, 3) for s in range(2)]
    return jnp.concatenate(strips)[None]

  noises = jnp.stack([noise(i) for i in range(6)])
  want = model.restore(
    pointwise.params, jax.random.key(0), image[None], coefficients, gammas, noise=noises
  )[0]
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_image_depends_on_itself_and_its_seed_only(pointwise):
  """Not on its neighbours, the canvases of others, how much is batched."""
  options = {'steps': 3, 'sampler': 'ddpm'}
  images = [photo(5, 9), photo(12, 12), photo(34, 20), photo(40, 33)]
  alone = [Upscaler(pointwise, **options).upscale(i).image for i in images]
  upscaler = Upscaler(pointwise, batch=2, **options)
  upscaler.reserve([(50, 60)])
  together = upscaler.upscale_many(images)
  for one, other in zip(alone, together, strict=True):
    np.testing.assert_allclose(one, other.image, atol=1e-6)
  again = upscaler.upscale(images[1], number=1).image
  assert np.abs(again - alone[1]).max() > 0.1
  seeded = Upscaler(pointwise, seed=1, **options).upscale(images[1]).image
  assert np.abs(seeded - alone[1]).max() > 0.1


def test_noise_is_white_and_new_everywhere():
  """Cells, strips, steps and images have noise of their own."""
  key = jax.random.key(0)
  rows = [canvas.noise_strip(key, i, s, 128, 3) for i in (0, 1) for s in (0, 1)]
  cells = np.stack(rows).reshape(4, 32, 4, 32, 3).transpose(0, 2, 1, 3, 4)
  cells = cells.reshape(16, -1)
  np.testing.assert_allclose(cells.std(), 1, rtol=0.02)
  assert np.abs(np.corrcoef(cells) - np.eye(16)).max() < 0.1
  # A wider canvas has the same noise where both are.
  wide = canvas.noise_strip(key, 0, 0, 256, 3)
  np.testing.assert_array_equal(wide[:, :128], rows[0])


def test_seams_do_not_show():
  """Find gradients at borders as elsewhere, where tiles differ in their statistics."""
  model = residual(Normalised())
  options = {'steps': 6, 'sampler': 'ddim'}
  upscaler = Upscaler(model, tile=8, **options)
  image = upscaler.upscale(photo(32, 32)).image
  whole = Upscaler(model, tile=0, **options).upscale(photo(32, 32)).image
  starts, _ = tiling.cover(128, 32, upscaler.settings()['tile_pad'], 2)
  assert len(starts) > 4
  middles = (starts[:-1] + 32 + starts[1:]) // 2

  # Against the untiled image, whose content differs at these places by chance, too.
  def shows(image):
    return tiling.seam(image, middles, middles)

  assert shows(image) / shows(whole) < 1.02
  # What the measure says of tiles that know nothing of each other.
  parts = np.reshape(photo(32, 32), (4, 8, 4, 8, 3)).swapaxes(1, 2)
  parts = upscaler.upscale_many(list(parts.reshape(16, 8, 8, 3)))
  cut = np.reshape([part.image for part in parts], (4, 4, 32, 32, 3))
  cut = cut.swapaxes(1, 2).reshape(128, 128, 3)
  borders = np.arange(32, 128, 32)
  assert (
    tiling.seam(cut, borders, borders) / tiling.seam(whole, borders, borders) > 1.02
  )


# ----------------------------------------------------------------- any size, any scale


@pytest.mark.parametrize('size', [(1, 1), (3, 17), (40, 1)])
@pytest.mark.parametrize('outscale', [None, 2, 2.5, 6.3])
def test_any_size_and_scale(pointwise, size, outscale):
  image = photo(*size)
  result = Upscaler(pointwise, steps=2).upscale(image, outscale)
  scale = outscale or 4
  want = tuple(max(1, round(side * scale)) for side in size)
  assert result.image.shape == result.bicubic.shape == (*want, 3)
  assert np.all(np.isfinite(result.image)) and np.abs(result.image).max() <= 1
  assert result.settings['outscale'] == scale
  json.dumps(result.settings)


def test_few_programs_for_many_sizes(pointwise):
  """100 images of 100 sizes compile at most 3 times."""
  rng = np.random.default_rng(0)
  sizes = {(int(h), int(w)) for h, w in rng.integers(1, 44, (200, 2))}
  sizes = sorted(sizes)[:100]
  assert len(sizes) == 100
  upscaler = Upscaler(pointwise, steps=1)
  canvas.program.cache_clear()
  upscaler.reserve(sizes)
  with runs.compilations() as names:
    upscaler.upscale_many([np.zeros((*size, 3), np.float32) for size in sizes])
    upscaler.upscale(np.zeros((40, 1, 3), np.float32))  # alone: nothing new
  assert 1 <= len(names) <= 3, names


def test_steps_and_samplers_share_a_program(pointwise):
  image = photo(8, 8)
  Upscaler(pointwise, steps=2).upscale(image)
  with runs.compilations() as names:
    for steps in (1, 'fast', 'best'):
      for sampler in ('ddim', 'ddpm'):
        Upscaler(pointwise, steps=steps, sampler=sampler).upscale(image)
  assert not names


def test_kinds_of_images(pointwise):
  """uint8, uint16, float, grey and PIL of the same picture give the same."""
  upscaler = Upscaler(pointwise, steps=2)
  pixels = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3) * 2
  want = upscaler.upscale(pixels).image
  kinds = [pixels.astype(np.uint16) * 257, pixels / 127.5 - 1, Image.fromarray(pixels)]
  for image in kinds:
    np.testing.assert_allclose(upscaler.upscale(image).image, want, atol=1e-5)
  palette = Image.fromarray(pixels).quantize(64)
  of_palette = upscaler.upscale(palette.convert('RGB')).image
  np.testing.assert_array_equal(upscaler.upscale(palette).image, of_palette)
  grey = upscaler.upscale(pixels[..., 0]).image
  assert grey.shape == (20, 24, 1)
  three = upscaler.upscale(np.repeat(pixels[..., :1], 3, axis=-1)).image
  np.testing.assert_allclose(grey[..., 0], three.mean(-1), atol=1e-5)


def test_samples_and_spread(pointwise):
  result = Upscaler(pointwise, steps=3, sampler='ddpm').upscale(
    photo(6, 6), num_samples=4
  )
  assert result.samples.shape == (4, 24, 24, 3)
  np.testing.assert_allclose(result.mean, np.mean(result.samples, 0), atol=1e-6)
  np.testing.assert_allclose(
    result.spread, np.std(result.samples, 0).mean(-1), atol=1e-6
  )
  assert result.spread.mean() > 0.01
  one = Upscaler(pointwise, steps=3, sampler='ddpm').upscale(photo(6, 6))
  np.testing.assert_allclose(one.image, result.image, atol=1e-6)


# ------------------------------------------------------------------------ consistency


def test_consistency(local):
  """At every step and at the end: the downsampled output is the input."""
  image = resizing.resize(photo(40, 40), 20, 30)
  for outscale in (3, 6):
    free, tied = (
      Upscaler(local, steps=3, sampler='ddpm', consistency=c, tile=10, tile_pad=2)
      .upscale(image, outscale)
      .image
      for c in (False, True)
    )
    # The truth: Pillow's reduction of the 8-bit file.
    errors = []
    for output in (free, tied):
      output = np.round((output + 1) * 127.5) / 127.5 - 1
      errors.append(resizing.resize(output, 20, 30) - image)
    assert 1e5 * np.mean((errors[1] / 2) ** 2) < 1 < 1e5 * np.mean((errors[0] / 2) ** 2)
    assert np.abs(errors[1].mean((0, 1))).max() < 0.1 / 127.5


def test_consistency_as_the_model_has_it(pointwise):
  consistent = dataclasses.replace(pointwise.model, consistency=True)
  loaded = dataclasses.replace(pointwise, model=consistent)

  def of(loaded, **o):
    return Upscaler(loaded, steps=2, **o).settings()['consistency']

  assert of(loaded) and not of(pointwise)
  assert of(pointwise, consistency=True) and not of(loaded, consistency=False)


def test_the_correction_acts_at_every_step(pointwise, monkeypatch):
  """Not only at the end: without that, the result is consistent but for clipping."""
  image = 0.2 * photo(12, 12)
  monkeypatch.setattr(resizing, 'make_consistent', lambda output, small: output)
  upscaler = Upscaler(pointwise, steps=3, sampler='ddpm', consistency=True)
  low = resizing.resize(upscaler.upscale(image).image, 12, 12)
  assert np.mean((low - image) ** 2) < 1e-3
  upscaler = Upscaler(pointwise, steps=3, sampler='ddpm')
  low = resizing.resize(upscaler.upscale(image).image, 12, 12)
  assert np.mean((low - image) ** 2) > 1e-2


# ------------------------------------------------------------------- memory, progress


def test_progress_adds_up_to_the_work(pointwise):
  upscaler = Upscaler(pointwise, steps=5)
  for size, outscale, samples in [((8, 8), None, 1), ((70, 40), 6, 2)]:
    done = []
    upscaler.upscale(photo(*size), outscale, num_samples=samples, on_steps=done.append)
    assert sum(done) == upscaler.work(*size, outscale, samples)


def test_memory_is_bounded_by_the_canvas(pointwise):
  upscaler = Upscaler(pointwise, steps=2)
  needed = upscaler.memory(256, 256)
  assert needed.fits and needed.peak < needed.limit
  small = upscaler._runner.memory([(256, 256)], None)
  large = upscaler._runner.memory([(512, 512)], None)
  # x, y, two predictions and a sum, in float32, and some copies that XLA makes.
  pixels = 3 * 4 * 1024**2
  assert 3 * pixels < small < 9 * pixels
  assert large < 4.5 * small


def test_out_of_memory_halves_and_goes_on(pointwise, monkeypatch):
  notes, real, refused = [], canvas.program, []

  def program(model, batch, shared):
    def limited(params, canvases, work, *rest):
      tile = work.tiles.rows.shape[-1]
      if tile > 32 or batch > 1:
        refused.append((tile, batch))
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')
      return real(model, batch, shared)(params, canvases, work, *rest)

    return limited

  monkeypatch.setattr(canvas, 'program', program)
  upscaler = Upscaler(
    pointwise, steps=2, tile=32, tile_pad=2, batch=2, on_note=notes.append
  )
  asked = upscaler.settings()
  result = upscaler.upscale(photo(40, 40))
  assert refused[0][1] == 2 and len(refused) == 3
  assert len(notes) == 3 and all('out of memory' in note for note in notes)
  assert result.image.shape == (160, 160, 3)
  assert result.settings['tiles_used'] == [32] and asked['tiles'] == [128]
  assert upscaler.settings() == asked  # a second run finds its files finished


@pytest.mark.parametrize('weight', [3e38, np.inf, np.nan])
@pytest.mark.parametrize('tile', [0, 32])
def test_an_output_that_is_not_finite_is_an_error(pointwise, weight, tile):
  """Clipping would make white of infinity, and files black of NaN."""
  params = jax.tree.map(lambda p: np.full_like(p, weight), pointwise.params)
  upscaler = Upscaler(
    dataclasses.replace(pointwise, params=params), steps=2, tile=tile, tile_pad=2
  )
  with pytest.raises(NotFiniteError, match='the model test is not finite'):
    upscaler.upscale(photo(40, 8))
  (result,) = upscaler.upscale_many([photo(40, 8)], allow_broken=True)
  assert np.isnan(result.image).all()


def test_progress_from_python_is_shown_if_asked_for(pointwise, capsys):
  steps = []
  Upscaler(pointwise, steps=2).upscale(photo(8, 8))
  assert capsys.readouterr() == ('', '')
  upscaler = Upscaler(pointwise, steps=2, progress=True)
  upscaler.upscale(photo(8, 8), on_steps=steps.append)
  out, lines = capsys.readouterr()
  assert out == ''
  assert 'step 2/2  100.0%' in lines and sum(steps) == upscaler.work(8, 8)


def test_memory_is_what_ran_out_only_if_the_status_says_so(pointwise, monkeypatch):
  def broken(*args):
    raise jax.errors.JaxRuntimeError('INTERNAL: memory of the kernel is misaligned')

  monkeypatch.setattr(canvas, 'program', lambda *args: broken)
  upscaler = Upscaler(pointwise, steps=2, on_note=lambda note: None)
  with pytest.raises(jax.errors.JaxRuntimeError, match='misaligned'):
    upscaler.upscale(photo(8, 8))


def test_out_of_memory_for_good(pointwise, monkeypatch):
  def full(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')

  monkeypatch.setattr(canvas, 'program', lambda *args: full)
  upscaler = Upscaler(pointwise, steps=2, on_note=lambda note: None)
  with pytest.raises(UpscalerError, match='out of memory'):
    upscaler.upscale(photo(8, 8))


def test_every_run_has_noise_of_its_own(pointwise, monkeypatch):
  """Samples, images and the second run of a large scale don't repeat a noise."""
  seeds = []

  def run(self, layout, items, guidance, on_steps):
    seeds.extend(item.seed for item in items)
    return [np.repeat(np.repeat(item.condition, 4, 0), 4, 1) for item in items]

  monkeypatch.setattr(CanvasRunner, '_run', run)
  images = [photo(4, 4)] * 2
  Upscaler(pointwise, seed=3).upscale_many(images, 8, num_samples=3, numbers=[0, 5])
  assert len(set(seeds)) == len(seeds) == 2 * 2 * 3
  assert {seed[0] for seed in seeds} == {3} and {seed[1] for seed in seeds} == {0, 5}
